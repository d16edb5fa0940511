"""Cases of transfer_embedding_ranges_direct: ranges of rows of any width and dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change, every_second
from gather.paged import poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample
from transfer.inputs import every_second_token, pinned

_RANGES = [(1, 0, 4), (11, 4, 4), (23, 9, 2), (5, 12, 0)]


def sample(
    sample_id: str,
    ranges: Sequence[tuple[int, int, int]],
    *,
    dtype: torch.dtype = torch.bfloat16,
    row: Sequence[int] = (37,),
    rows: tuple[int, int] = (28, 16),
    spaced: bool = False,
    on_host: str = "",
) -> Sample:
    """`ranges`: (first row of src, first row of dst, rows)."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        src = random_bits([rows[0], *row], dtype, generator)
        dst = poisoned([rows[1], *row], dtype)
        if spaced:
            src, dst = every_second_token(src), every_second_token(dst)
        return {
            "src": pinned(src, device) if on_host == "src" else src.to(device),
            "dst": pinned(dst, device) if on_host == "dst" else dst.to(device),
            "src_starts": [start for start, _, _ in ranges],
            "dst_starts": [start for _, start, _ in ranges],
            "lengths": [length for _, _, length in ranges],
        }

    return Sample(sample_id, make)


CASE = OpCase(
    name="transfer_embedding_ranges_direct",
    samples=(
        sample("bfloat16", _RANGES),
        sample("uint8-spaced", _RANGES, dtype=torch.uint8, spaced=True),
        sample("float32-from-host", _RANGES, dtype=torch.float32, row=(2, 8), on_host="src"),
        sample("float32-to-host", _RANGES, dtype=torch.float32, row=(2, 8), on_host="dst"),
        sample("neighbours", [(0, 3, 2), (2, 5, 3), (5, 8, 1)]),
        sample("all-rows", [(0, 0, 16)], rows=(16, 16)),
        sample("no-range", []),
    ),
    refusals=(
        Refusal(
            "range past the end of src",
            change("src_starts", lambda s: [1, 25, *s[2:]]),
            r"src_starts\[1\] must leave room for 4 row\(s\) among the 28 of src, got 25",
        ),
        Refusal(
            "range past the end of dst",
            change("dst_starts", lambda s: [13, *s[1:]]),
            r"dst_starts\[0\] must leave room for 4 row\(s\) among the 16 of dst, got 13",
        ),
        Refusal(
            "negative start",
            change("src_starts", lambda s: [-1, *s[1:]]),
            r"src_starts\[0\] must leave room for 4 row\(s\) .*, got -1",
        ),
        Refusal(
            "negative length",
            change("lengths", lambda n: [*n[:3], -1]),
            r"lengths\[3\] must not be negative, got -1",
        ),
        Refusal(
            "length that overflows",
            change("lengths", lambda n: [2**63 - 1, *n[1:]]),
            r"src_starts\[0\] must leave room for",
        ),
        Refusal(
            "fewer lengths",
            change("lengths", lambda n: n[:3]),
            "lengths must have 4 elements like src_starts, got 3",
        ),
        Refusal(
            "fewer targets",
            change("dst_starts", lambda s: s[:3]),
            "dst_starts must have 4 elements like src_starts, got 3",
        ),
        Refusal("dtype", change("dst", torch.Tensor.half), "dst must have dtype bfloat16 like src"),
        Refusal(
            "width",
            change("dst", lambda t: t[:, 1:]),
            "dst must have items of 37 elements like src",
        ),
        Refusal("gaps in src", change("src", every_second), "src must have stride 1"),
        Refusal("gaps in dst", change("dst", every_second), "dst must have stride 1"),
        Refusal(
            "overlapping rows",
            change("dst", lambda t: t[:1].expand(t.shape)),
            "dst must not overlap itself",
        ),
    ),
    outputs=("dst",),
)
