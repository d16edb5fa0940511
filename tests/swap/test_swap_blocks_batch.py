"""What swap_blocks_batch alone can show: order, sizes of any kind, addresses that cannot be."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from kvops import reference

POOL_BYTES = 3 << 20  # enough for several threads to share one call


def pool(seed: int, size_bytes: int = POOL_BYTES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size_bytes,), dtype=torch.uint8, generator=generator)


def tables(src: Tensor, dst: Tensor, copies: list[tuple[int, int, int]]) -> list[Tensor]:
    """Address tables of copies (source offset, target offset, size)."""
    offsets = torch.tensor(copies, dtype=torch.int64).view(-1, 3)
    starts = src.data_ptr() + offsets[:, 0], dst.data_ptr() + offsets[:, 1]
    return [*starts, offsets[:, 2].contiguous()]


@st.composite
def copies(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Any ranges, mostly small ones and some as large as the pool."""
    found = []
    for _ in range(draw(st.integers(0, 12))):
        size = draw(st.integers(0, 300) | st.integers(0, POOL_BYTES))
        last = POOL_BYTES - size
        found.append((draw(st.integers(0, last)), draw(st.integers(0, last)), size))
    return found


@given(copies(), st.booleans())
def test_entries_take_effect_in_order(copies: list[tuple[int, int, int]], within_one: bool) -> None:
    """Overlaps of any kind: as memmove, one entry after the other."""
    results = []
    for module in (kvops, reference):
        src = pool(0)
        dst = src if within_one else pool(1)
        module.swap_blocks_batch(*tables(src, dst, copies))
        results.append(dst)
    assert torch.equal(*results)


def test_a_long_chain_carries_one_range_through() -> None:
    """Every target is written once, but read by the next entry: no two threads may share this."""
    memory, size = pool(0, 40 * 80_000), 80_000
    chain = [(i * size, (i + 1) * size, size) for i in range(39)]
    kvops.swap_blocks_batch(*tables(memory, memory, chain))
    assert torch.equal(memory.view(40, size), pool(0, 40 * 80_000)[:size].expand(40, -1))


@pytest.mark.parametrize("shift", [-100, -1, 1, 100])
def test_a_large_copy_onto_itself(shift: int) -> None:
    memory, size = pool(0), POOL_BYTES - 200
    kvops.swap_blocks_batch(*tables(memory, memory, [(100, 100 + shift, size)]))
    expected = pool(0)
    expected[100 + shift : 100 + shift + size] = pool(0)[100 : 100 + size]
    assert torch.equal(memory, expected)


@given(st.lists(st.integers(0, 400_000), min_size=8, max_size=40), st.randoms())
def test_sizes_that_differ(sizes: list[int], random: Random) -> None:
    """Disjoint copies of any sizes, in any order: threads share them by bytes."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    total = ends[-1] + 1
    rows = [(end - size, total - end, size) for end, size in zip(ends, sizes, strict=True)]
    random.shuffle(rows)
    src, dst, expected = pool(0, total), pool(1, total), pool(1, total)
    for start, target, size in rows:
        expected[target : target + size] = src[start : start + size]
    kvops.swap_blocks_batch(*tables(src, dst, rows))
    assert torch.equal(dst, expected)


def test_out_and_in_again_is_identity() -> None:
    """8192 scattered blocks of 4 KiB, out with one call and in with another."""
    blocks, block_bytes = 8192, 4096
    order, places = torch.randperm(blocks), torch.randperm(blocks)
    size = torch.full([blocks], block_bytes)
    device, host, back = (pool(seed, blocks * block_bytes) for seed in range(3))
    kvops.swap_blocks_batch(
        device.data_ptr() + order * block_bytes, host.data_ptr() + places * block_bytes, size
    )
    kvops.swap_blocks_batch(
        host.data_ptr() + places * block_bytes, back.data_ptr() + order * block_bytes, size, True
    )
    assert torch.equal(back, device)
    assert torch.equal(host.view(blocks, -1)[places], device.view(blocks, -1)[order])


def test_tables_may_go_right_after_the_call() -> None:
    src, dst = pool(0), pool(1)
    kvops.swap_blocks_batch(*tables(src, dst, [(0, 0, POOL_BYTES)]))
    assert torch.equal(dst, src)


@pytest.mark.parametrize(
    ("table", "index", "value", "message"),
    [
        (0, 1, 0, r"src_ptrs\[1\] must not be null when sizes\[1\] is positive, got 0 for 5 bytes"),
        (1, 2, 0, r"dst_ptrs\[2\] must not be null when sizes\[2\] is positive, got 0 for 6 bytes"),
        (2, 2, -1, r"sizes\[2\] must not be negative, got -1"),
        (2, 0, -(2**63), r"sizes\[0\] must not be negative, got -9223372036854775808"),
        (0, 2, -6, r"src_ptrs\[2\] must leave room for sizes\[2\] bytes in the address space"),
        (1, 0, -1, r"dst_ptrs\[0\] must leave room for sizes\[0\] bytes in the address space"),
    ],
)
def test_every_entry_is_checked_before_the_first_copy(
    table: int, index: int, value: int, message: str
) -> None:
    src, dst = pool(0, 100), pool(1, 100)
    changed = tables(src, dst, [(0, 0, 4), (10, 10, 5), (20, 20, 6)])
    changed[table][index] = value
    with pytest.raises(RuntimeError, match=f"^kvops::swap_blocks_batch: {message}"):
        kvops.swap_blocks_batch(*changed)
    assert torch.equal(dst, pool(1, 100))


def test_addresses_of_nothing_may_be_anything() -> None:
    anything = torch.tensor([0, -1, -(2**63), 2**63 - 1])
    kvops.swap_blocks_batch(anything, anything.flip(0), torch.zeros(4, dtype=torch.int64))
