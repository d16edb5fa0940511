"""Cases of swap_blocks: two pools, one pool, chains of copies, mappings of any strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gather.edits import change
from gather.paged import poisoned, random_bits
from registry import Args, OpCase, Refusal, Sample


def _sample(
    sample_id: str,
    pairs: Sequence[tuple[int, int]],
    *,
    dtype: torch.dtype = torch.bfloat16,
    blocks: tuple[int, int] = (6, 9),
    block: Sequence[int] = (2, 16, 8),
    permuted: bool = False,
    transposed_mapping: bool = False,
    spare_bytes: int = 0,
    on_host: str = "",
) -> Sample:
    """`on_host`: "src" or "dst" is on the host even if the device is another one."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        src = random_bits([blocks[0], *block], dtype, generator)
        src = src.to("cpu" if on_host == "src" else device)
        dst = poisoned([blocks[1], *block], dtype)
        dst = dst.to("cpu" if on_host == "dst" else device)
        mapping = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
        return {
            "src": src.transpose(1, 2) if permuted else src,
            "dst": dst.transpose(1, 2) if permuted else dst,
            "block_size_in_bytes": torch.Size(block).numel() * dtype.itemsize - spare_bytes,
            "block_mapping": mapping.T.contiguous().T if transposed_mapping else mapping,
        }

    return Sample(sample_id, make)


def _within_one(sample_id: str, pairs: Sequence[tuple[int, int]]) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        pool = random_bits([8, 40], torch.uint8, generator).to(device)
        mapping = torch.tensor(pairs, dtype=torch.int64)
        return {"src": pool, "dst": pool, "block_size_in_bytes": 40, "block_mapping": mapping}

    return Sample(sample_id, make)


def _shifted(sample_id: str, shift_bytes: int, pairs: Sequence[tuple[int, int]]) -> Sample:
    """Pools that are views of one buffer, apart by part of a block: blocks overlap themselves."""

    def make(device: torch.device, generator: torch.Generator) -> Args:
        buffer = random_bits([3000], torch.uint8, generator).to(device)
        start = max(0, -shift_bytes)
        return {
            "src": buffer[start : start + 2500],
            "dst": buffer[start + shift_bytes : start + shift_bytes + 2500],
            "block_size_in_bytes": 500,
            "block_mapping": torch.tensor(pairs, dtype=torch.int64),
        }

    return Sample(sample_id, make)


def _mapping(*pairs: tuple[int, int]):
    return change("block_mapping", lambda _: torch.tensor(pairs))


CASE = OpCase(
    name="swap_blocks",
    samples=(
        _sample("bfloat16", [(0, 8), (5, 0), (2, 3)]),
        _sample("float32-permuted", [(1, 1), (4, 2)], dtype=torch.float32, permuted=True),
        _sample("last-pair-wins", [(0, 4), (1, 4), (0, 5), (1, 4)]),
        _sample("uint8-odd", [(2, 0), (0, 2)], dtype=torch.uint8, blocks=(3, 3), block=(37,)),
        # 6 x 255 bytes hold 6 blocks of 254 bytes and a rest.
        _sample(
            "blocks-across-rows", [(5, 0), (3, 5)], dtype=torch.uint8, block=(255,), spare_bytes=1
        ),
        _sample("transposed-mapping", [(0, 8), (5, 0), (2, 3)], transposed_mapping=True),
        _within_one("chain", [(0, 1), (1, 2), (2, 3), (7, 0)]),
        _within_one("exchange-by-a-spare", [(0, 7), (4, 0), (7, 4), (3, 3)]),
        _shifted("shifted-up", 16, [(0, 0), (3, 3), (1, 2)]),
        _shifted("shifted-down", -33, [(0, 0), (3, 3), (2, 1)]),
        _sample("from-host", [(0, 8), (5, 0), (2, 3)], on_host="src"),
        _sample("to-host", [(0, 8), (5, 0), (2, 3)], on_host="dst"),
        _sample("last-pair-wins-on-host", [(0, 4), (1, 4), (0, 5), (1, 4)], on_host="dst"),
        _sample("neighbours", [(1, 2), (2, 3), (3, 4), (5, 5)]),
        _sample("no-pair", []),
        _sample("no-block", [], blocks=(0, 0)),
    ),
    refusals=(
        Refusal(
            "src id too large",
            _mapping((0, 0), (6, 0)),
            r"block_mapping\[1, 0\] must be in \[0, 6\), the blocks of src, got 6",
        ),
        Refusal(
            "dst id too large",
            _mapping((0, 0), (0, 9)),
            r"block_mapping\[1, 1\] must be in \[0, 9\), the blocks of dst, got 9",
        ),
        Refusal("negative id", _mapping((-1, 0)), r"block_mapping\[0, 0\] must be in .*, got -1"),
        Refusal(
            "id that overflows",
            _mapping((0, 2**62 + 1)),
            r"block_mapping\[0, 1\] must be in \[0, 9\)",
        ),
        Refusal(
            "block larger than the pool",
            change("block_size_in_bytes", lambda n: 7 * n),
            r"block_mapping\[0, 0\] must be in \[0, 0\)",
        ),
        Refusal(
            "no block size",
            change("block_size_in_bytes", lambda n: 0),
            "block_size_in_bytes must be positive, got 0",
        ),
        Refusal(
            "negative block size",
            change("block_size_in_bytes", lambda n: -n),
            "block_size_in_bytes must be positive, got -512",
        ),
        Refusal(
            "three columns",
            _mapping((0, 0, 0)),
            r"block_mapping must have shape \[\*, 2\], got \[1, 3\]",
        ),
        Refusal(
            "mapping dtype",
            change("block_mapping", torch.Tensor.int),
            "block_mapping must have dtype int64",
        ),
        Refusal(
            "src with gaps",
            change("src", lambda t: torch.stack([t, t], dim=1)[:, 0]),
            r"src must fill its memory without gaps .* got shape \[6, 2, 16, 8\]",
        ),
        Refusal(
            "dst with overlaps",
            change("dst", lambda t: t[:1].expand(t.shape)),
            "dst must fill its memory without gaps",
        ),
    ),
    outputs=("dst",),
)
