"""Arguments of the cache writers: awkward values, slots in runs and alone, views of pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from registry import Args

WRITER_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_POISON_BYTE = 0x7F


def poisoned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor in which a byte that nobody writes can be told."""
    count = torch.Size(shape).numel()
    storage = torch.full([count * dtype.itemsize], _POISON_BYTE, dtype=torch.uint8)
    return storage.view(dtype).view(list(shape))


def awkward(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Numbers of all magnitudes that FP8 tells apart, and one in eight any bits at all."""
    powers = torch.randint(-12, 11, list(shape), generator=generator)
    values = (torch.randn(shape, generator=generator) * 2.0**powers).to(dtype)
    size = [*shape, dtype.itemsize]
    bits = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    any_bits = bits.view(dtype).squeeze(-1)
    chosen = torch.randint(0, 8, list(shape), generator=generator) == 0
    return torch.where(chosen, any_bits, values)


def mostly_tame(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Rows of numbers of one magnitude each, with an awkward one here and there.

    For formats whose numbers share a scale, where a huge one leaves nothing of the others.
    """
    powers = torch.randint(-12, 11, [*shape[:-1], 1], generator=generator)
    values = torch.randn(list(shape), generator=generator) * 2.0**powers
    chosen = torch.randint(0, 100, list(shape), generator=generator) == 0
    return torch.where(chosen, awkward(shape, dtype, generator), values.to(dtype))


def slots_in_runs(
    tokens: int, num_blocks: int, block_size: int, generator: torch.Generator
) -> Tensor:
    """int64 [tokens]: a request that fills shuffled pages, beginning in the middle of one."""
    pages = torch.randperm(num_blocks, generator=generator)
    first = (num_blocks * block_size - tokens) // 2
    position = first + torch.arange(tokens)
    return pages[position // block_size] * block_size + position % block_size


def scattered_slots(
    tokens: int, num_blocks: int, block_size: int, generator: torch.Generator
) -> Tensor:
    """int64 [tokens]: distinct slots anywhere; every fifth token is padding."""
    slots = torch.randperm(num_blocks * block_size, generator=generator)[:tokens]
    slots[4::5] = -1
    return slots


def cache_dtype(kind: str, dtype: torch.dtype) -> torch.dtype:
    """What a cache of such elements has by convention."""
    return torch.uint8 if kind.startswith(("fp8", "nvfp4")) else dtype


def entry_elems(kind: str, head_size: int) -> int:
    """How many elements a cache has for one head of a token."""
    return head_size // 16 * 9 if kind.startswith("nvfp4") else head_size


def heads_of(
    rows: int, heads: int, sizes: tuple[int, int], values: Callable[..., Tensor], fused: bool
) -> tuple[Tensor, Tensor]:
    """key and value; `fused`: parts of the same rows, which hold more than that."""
    if not fused:
        return values([rows, heads, sizes[0]]), values([rows, heads, sizes[1]])
    parts = values([rows, heads + 1, sum(sizes) + 3])[:, 1:]
    return parts[..., : sizes[0]], parts[..., sizes[0] : sum(sizes)]


def padded_pages(
    num_blocks: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[num_blocks, *shape] in larger pages, whose other bytes belong to somebody else."""
    count = torch.Size(shape).numel()
    pages = poisoned([num_blocks, 16 + count + 48], dtype).to(device)
    return pages[:, 16 : 16 + count].unflatten(1, list(shape))


def change(**edits: Callable[[Any], Any]) -> Callable[[Args], None]:
    """Replace each named argument by an edit of it."""

    def run(args: Args) -> None:
        for name, edit in edits.items():
            args[name] = edit(args[name])

    return run


def every_second(tensor: Tensor) -> Tensor:
    """The same values with stride 2 in the last dimension."""
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def innermost(tensor: Tensor, dim: int) -> Tensor:
    """The same values, laid out so that those of `dim` are neighbours."""
    return tensor.movedim(dim, -1).contiguous().movedim(-1, dim)


def freed(tensor: Tensor) -> Tensor:
    """A tensor whose storage is gone."""
    copy = tensor.clone()
    copy.untyped_storage().resize_(0)
    return copy
