"""Cases of transfer_kv_all_layer_direct_lf_pf: all layers to pages of all layers."""

from __future__ import annotations

from gather.edits import change
from registry import Refusal
from transfer.inputs import direct_case, rows, tokens_in_pages, without_list

CASE = direct_case(
    "transfer_kv_all_layer_direct_lf_pf",
    {"src_indices": rows("src_ptrs"), "dst_indices": tokens_in_pages("dst_ptrs")},
    [
        Refusal(
            "more layers than the pool has",
            change("dst_ptrs[1]", lambda t: t[:, :2]),
            r"src_ptrs must leave room for 3 layer\(s\) among the 2 of dst_ptrs\[1\]",
        ),
        Refusal(
            "another page size",
            change("page_size", lambda n: 8),
            r"dst_ptrs\[0\] must have shape \[pages, layers, 8 \(page_size\), ...\], got",
        ),
        Refusal(
            "overlapping pages",
            change("dst_ptrs[0]", lambda t: t[:1].expand(t.shape)),
            r"dst_ptrs\[0\] must not overlap itself .* in dimension 0\), got stride 0",
        ),
        Refusal(
            "overlapping layers",
            change("dst_ptrs[0]", lambda t: t[:, :1].expand(t.shape)),
            r"dst_ptrs\[0\] must not overlap itself .* in dimension 1\), got stride 0",
        ),
        Refusal(
            "no pool",
            without_list("dst_ptrs"),
            r"dst_ptrs must have 1 tensor \(MLA\) or 2 \(K and V\), got 0",
        ),
    ],
)
