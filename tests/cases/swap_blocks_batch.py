"""Cases of swap_blocks_batch: copies of any size between places of two pools, or of one.

Copies that depend on each other are defined on the host only, so their pools are there always.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor

from gather.edits import change, every_second
from gather.paged import poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample

_POOL_BYTES = 4096


def _sample(
    sample_id: str,
    copies: Sequence[tuple[int, int, int]],
    *,
    any_order: bool | None = None,
    on_host: Container[str] = (),
    one_pool: bool = False,
) -> Sample:
    """`copies`: (offset in the source pool, offset in the target pool, bytes).

    `on_host`: which of "source" and "target" is on the host even if the device is another one.
    """

    def make(device: torch.device, generator: torch.Generator) -> Args:
        target = poisoned([_POOL_BYTES], torch.uint8)
        source = random_bits([_POOL_BYTES], torch.uint8, generator)
        source = source if "source" in on_host else source.to(device)
        target = target if "target" in on_host else target.to(device)
        if one_pool:
            target = source
        offsets = torch.tensor(copies, dtype=torch.int64).view(-1, 3)
        args: Args = {
            "src_ptrs": offsets[:, 0] + source.data_ptr(),
            "dst_ptrs": offsets[:, 1] + target.data_ptr(),
            "sizes": offsets[:, 2].contiguous(),
        }
        if any_order is not None:
            args["is_src_access_order_any"] = any_order
        return {**args, "_source": source, "_target": target}

    return Sample(sample_id, make)


def _with_first(value: int) -> Callable[[Tensor], Tensor]:
    def edit(table: Tensor) -> Tensor:
        return torch.cat([torch.tensor([value]), table[1:]])

    return edit


_BOTH = ("source", "target")
_COPIES = [(0, 100, 256), (512, 4000, 96), (7, 3, 1), (1000, 500, 64)]

CASE = OpCase(
    name="swap_blocks_batch",
    samples=(
        _sample("within", _COPIES),
        _sample("any-order", _COPIES, any_order=True, on_host=("source",)),
        _sample("stream-order", _COPIES, any_order=False, on_host=("target",)),
        _sample("sizes-of-zero", [(0, 0, 0), (4096, 5, 0), (9, 10, 11), (0, 4096, 0)]),
        _sample("neighbours", [(64 * i, 64 * i + 8, 64) for i in range(20)]),
        _sample("later-entry-wins", [(0, 0, 64), (128, 32, 64), (256, 16, 32)], on_host=_BOTH),
        _sample(
            "chain", [(0, 64, 64), (64, 128, 64), (128, 192, 64)], one_pool=True, on_host=_BOTH
        ),
        _sample(
            "overlaps-itself",
            [(0, 10, 100), (210, 200, 100), (5, 5, 9)],
            one_pool=True,
            on_host=_BOTH,
        ),
        _sample("within-one", [(0, 64, 64), (1000, 200, 7), (512, 512, 64)], one_pool=True),
        _sample("one-byte", [(4095, 4095, 1)]),
        _sample("none", []),
    ),
    refusals=(
        Refusal(
            "negative size",
            change("sizes", _with_first(-1)),
            r"sizes\[0\] must not be negative, got -1",
        ),
        Refusal(
            "sizes that overflow",
            change("sizes", lambda t: torch.full_like(t, 2**62)),
            r"sizes must sum up to less than 2\^63 bytes",
        ),
        Refusal(
            "fewer targets",
            change("dst_ptrs", lambda t: t[1:]),
            r"dst_ptrs must have shape \[4\], got \[3\]",
        ),
        Refusal(
            "more sizes",
            change("sizes", lambda t: t.repeat(2)),
            r"sizes must have shape \[4\], got \[8\]",
        ),
        Refusal("rank", change("src_ptrs", lambda t: t[None]), "src_ptrs must have 1 dimensions"),
        Refusal(
            "stride of sources", change("src_ptrs", every_second), "src_ptrs must have stride 1"
        ),
        Refusal(
            "stride of targets", change("dst_ptrs", every_second), "dst_ptrs must have stride 1"
        ),
        Refusal("stride of sizes", change("sizes", every_second), "sizes must have stride 1"),
        Refusal("int32 sizes", change("sizes", torch.Tensor.int), "sizes must have dtype int64"),
        Refusal(
            "uint64 addresses",
            change("src_ptrs", lambda t: t.view(torch.uint64)),
            "src_ptrs must have dtype int64, got uint64",
        ),
    ),
    outputs=("_target",),
    addresses={"src_ptrs": "_source", "dst_ptrs": "_target"},
)
