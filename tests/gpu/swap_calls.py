"""Swaps that need more than one launch, or a pool that is source and target: small and plain."""

from __future__ import annotations

import torch
from torch import Tensor

import kvops


def _bytes(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, [size], dtype=torch.uint8, generator=generator)


def _on(memory: Tensor, where: str) -> Tensor:
    if where != "pinned":
        return memory.to(where)
    return memory.pin_memory() if torch.cuda.is_available() else memory.clone()


def chain(device: str) -> None:
    """Every row reads what the one before has written: the kernel that keeps their order."""
    pool = _bytes(300 * 48, 0)
    rows = torch.stack([torch.arange(299), torch.arange(1, 300)], dim=1)
    on_device = pool.to(device)
    kvops.swap_blocks(pool, pool, 48, rows)
    kvops.swap_blocks(on_device, on_device, 48, rows)
    assert torch.equal(on_device.cpu(), pool)


def several_tables(device: str, ends: tuple[str, str], count: int, size: int, shift: int) -> None:
    """More copies than a table of either copy kernel holds."""
    slot = size + 32
    src, dst = (_on(_bytes(count * slot, seed), end) for seed, end in enumerate(ends))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    starts = slot * torch.arange(count)
    targets = slot * order + shift
    expected = dst.cpu().clone()
    for start, target in zip(starts.tolist(), targets.tolist(), strict=True):
        expected[target : target + size] = src[start : start + size].cpu()
    with kvops.swap.use_path("kernel"):
        kvops.swap_blocks_batch(
            src.data_ptr() + starts, dst.data_ptr() + targets, torch.full([count], size)
        )
    if device != "cpu":
        torch.cuda.synchronize()
    assert torch.equal(dst.cpu(), expected)


def all_swaps(device: str) -> int:
    """Raises if any is wrong; how many calls."""
    chain(device)
    calls = 1
    for ends in ((device, device), ("pinned", device), (device, "pinned")):
        for count, size, shift in ((1100, 64, 0), (1100, 528, 0), (400, 37, 3), (400, 132, 4)):
            several_tables(device, ends, count, size, shift)
            calls += 1
    return calls
