"""What swap_blocks alone can show: order, round trips, refusals before the first copy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from kvops import reference

BLOCKS, BLOCK_BYTES = 24, 70_001  # enough bytes for several threads, and no aligned block


def pool(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (BLOCKS, BLOCK_BYTES), dtype=torch.uint8, generator=generator)


pairs = st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, BLOCKS - 1)), max_size=40)


@given(pairs, st.booleans())
def test_pairs_take_effect_in_order(pairs: list[tuple[int, int]], within_one: bool) -> None:
    """Within one pool, later pairs read what earlier ones wrote, and targets repeat."""
    mapping = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    results = []
    for module in (kvops, reference):
        src = pool(0)
        dst = src if within_one else pool(1)
        module.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        results.append(dst)
    assert torch.equal(*results)


def test_a_long_chain_carries_one_block_through() -> None:
    """Every target is written once, but read by the next pair: no two threads may share this."""
    blocks = pool(0)
    kvops.swap_blocks(blocks, blocks, BLOCK_BYTES, torch.tensor([[i, i + 1] for i in range(23)]))
    assert torch.equal(blocks, pool(0)[:1].expand(BLOCKS, -1))


@given(st.permutations(range(BLOCKS)), st.permutations(range(BLOCKS)))
def test_out_and_in_again_is_identity(order: list[int], places: list[int]) -> None:
    device, host, back = pool(0), pool(1), pool(2)
    out = torch.tensor([order, places]).T
    kvops.swap_blocks(device, host, BLOCK_BYTES, out)
    kvops.swap_blocks(host, back, BLOCK_BYTES, out.flip(1))
    assert torch.equal(back, device)
    assert torch.equal(host[places], device[order])


@given(st.permutations(range(BLOCKS)))
def test_order_of_independent_pairs_does_not_matter(order: list[int]) -> None:
    mapping = torch.arange(BLOCKS)[:, None].expand(-1, 2)
    first, second = pool(1), pool(2)
    kvops.swap_blocks(pool(0), first, BLOCK_BYTES, mapping)
    kvops.swap_blocks(pool(0), second, BLOCK_BYTES, mapping[order])
    assert torch.equal(first, second)


def test_pools_that_overlap() -> None:
    """Views of one buffer that are shifted against each other by part of a block."""
    results = []
    for module in (kvops, reference):
        buffer = pool(0).view(-1)
        src, dst = buffer[: 20 * BLOCK_BYTES], buffer[333 : 333 + 20 * BLOCK_BYTES]
        mapping = torch.tensor([[0, 0], [1, 1], [5, 4], [3, 3], [18, 19]])
        module.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        results.append(buffer)
    assert torch.equal(*results)


def test_dtypes_and_shapes_need_not_agree() -> None:
    src, dst = torch.randn(6, 10), torch.zeros(3, 2, 40, dtype=torch.uint8)
    kvops.swap_blocks(src, dst, 40, torch.tensor([[5, 0], [0, 5]]))
    assert torch.equal(dst.view(6, 40)[[0, 5]].view(torch.float32), src[[5, 0]])


def test_permuted_pools_swap_memory_order() -> None:
    """A block is a stretch of memory: for an HND pool, [heads, tokens, dim] of one page."""
    src = torch.randn(4, 2, 8, 16).transpose(1, 2)
    dst = torch.zeros(4, 2, 8, 16).transpose(1, 2)
    kvops.swap_blocks(src, dst, src[0].nbytes, torch.tensor([[1, 3], [2, 0]]))
    assert torch.equal(dst[[3, 0]], src[[1, 2]]) and not dst[[1, 2]].any()


@pytest.mark.parametrize("bad", [[-1, 0], [0, -1], [BLOCKS, 0], [0, BLOCKS], [2**62, 0]])
def test_every_row_is_checked_before_the_first_copy(bad: list[int]) -> None:
    dst = pool(1)
    column = 0 if bad[1] == 0 else 1
    message = rf"block_mapping\[2, {column}\] must be in \[0, {BLOCKS}\), .* got {bad[column]}$"
    with pytest.raises(RuntimeError, match=message):
        kvops.swap_blocks(pool(0), dst, BLOCK_BYTES, torch.tensor([[0, 1], [1, 2], bad]))
    assert torch.equal(dst, pool(1))


def test_a_rest_of_the_pool_is_no_block() -> None:
    src, dst = torch.ones(100, dtype=torch.uint8), torch.zeros(100, dtype=torch.uint8)
    kvops.swap_blocks(src, dst, 33, torch.tensor([[2, 0]]))
    assert dst.sum() == 33
    with pytest.raises(RuntimeError, match=r"block_mapping\[0, 0\] must be in \[0, 3\)"):
        kvops.swap_blocks(src, dst, 33, torch.tensor([[3, 0]]))


def test_offsets_beyond_32_bits() -> None:
    """Pools of 6 GiB, of which only the touched blocks exist."""
    src, dst = torch.empty(2, 6 << 30, dtype=torch.uint8).unbind()
    block_bytes = 1 << 20
    src[-block_bytes:] = 7
    kvops.swap_blocks(src, dst, block_bytes, torch.tensor([[6143, 6142], [6143, 0]]))
    for block in (6142, 0):
        assert (dst[block * block_bytes : (block + 1) * block_bytes] == 7).all()
