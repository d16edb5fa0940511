"""Cases of transfer_kv_per_layer_direct_pf_lf: pages of all layers to one layer."""

from __future__ import annotations

from gather.edits import change
from registry import Refusal
from transfer.inputs import direct_case, rows, tokens_in_pages

CASE = direct_case(
    "transfer_kv_per_layer_direct_pf_lf",
    {"src_indices": tokens_in_pages("src_ptrs"), "dst_indices": rows("dst_ptrs")},
    [
        Refusal(
            "layer too high",
            change("layer_id", lambda n: 3),
            r"layer_id must leave room for 1 layer\(s\) among the 3 of src_ptrs\[0\], .* from 3 on",
        ),
        Refusal("negative layer", change("layer_id", lambda n: -1), "layer_id must leave room"),
        Refusal(
            "another page size",
            change("page_size", lambda n: 8),
            r"src_ptrs\[0\] must have shape \[pages, layers, 8 \(page_size\), ...\], got",
        ),
        Refusal(
            "three pools",
            lambda args: args.update({"src_ptrs[2]": args["src_ptrs[0]"]}),
            r"src_ptrs must have 1 tensor \(MLA\) or 2 \(K and V\), got 3",
        ),
        Refusal(
            "K without V",
            lambda args: args.pop("dst_ptrs[1]"),
            "dst_ptrs must have as many layers of K as of V, got 1 tensors",
        ),
    ],
)
