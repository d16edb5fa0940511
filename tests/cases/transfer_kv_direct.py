"""Cases of transfer_kv_direct: layers of K and V, or of an MLA cache, with indices anywhere."""

from __future__ import annotations

from gather.edits import change
from registry import Refusal
from transfer.inputs import direct_case, rows

CASE = direct_case(
    "transfer_kv_direct",
    {"src_indices": rows("src_layers"), "dst_indices": rows("dst_layers")},
    [
        Refusal(
            "fewer targets than sources",
            lambda args: args.pop("dst_layers[5]"),
            "dst_layers must have 6 tensors like src_layers, got 5",
        ),
        Refusal(
            "width of a layer",
            change("dst_layers[1]", lambda t: t[:, :1]),
            r"dst_layers\[1\] must have items of 16 elements like src_layers\[1\], got shape",
        ),
        Refusal(
            "overlapping items",
            change("dst_layers[2]", lambda t: t[:1].expand(t.shape)),
            r"dst_layers\[2\] must not overlap itself .*, got stride 0",
        ),
        Refusal(
            "no dimension",
            change("src_layers[0]", lambda t: t[0, 0, 0]),
            r"src_layers\[0\] must have at least 1 dimension",
        ),
    ],
)
