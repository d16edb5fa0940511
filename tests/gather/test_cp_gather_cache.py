"""What cp_gather_cache alone can show: layouts do not show, requests may overlap, wide offsets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from gather.paged import make_requests, paged, poisoned, random_bits
from kvops import reference

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=5)
seeds = st.integers(0, 2**32)


def gathered(tokens: list[Tensor], block_size: int, seed: int) -> Tensor:
    """The tokens after a way through pages that lie anywhere."""
    generator = torch.Generator().manual_seed(seed)
    requests = make_requests([len(t) for t in tokens], block_size, generator)
    dst = poisoned([requests.num_rows, *tokens[0].shape[1:]], tokens[0].dtype)
    kvops.cp_gather_cache(
        paged(tokens, requests, block_size),
        dst,
        requests.block_table,
        requests.cu_seq_lens,
        len(tokens),
        None,
    )
    return dst


@given(lengths, st.integers(1, 33), seeds)
def test_pages_do_not_show(lengths: list[int], block_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = [random_bits([length, 24], torch.int16, generator) for length in lengths]
    assert torch.equal(gathered(tokens, block_size, seed), torch.cat(tokens))


@given(st.integers(0, 60), st.integers(1, 20), seeds)
def test_start_and_rest_make_the_whole(cut: int, block_size: int, seed: int) -> None:
    """Positions 0 .. cut - 1 and cut .. 59, gathered apart, are all positions."""
    generator = torch.Generator().manual_seed(seed)
    requests = make_requests([60], block_size, generator)
    tokens = random_bits([60, 5], torch.float32, generator)
    cache = paged([tokens], requests, block_size)
    parts = []
    for start, length in ((0, cut), (cut, 60 - cut)):
        part = poisoned([length, 5], torch.float32)
        rows, starts = torch.tensor([[0, length], [start, 0]], dtype=torch.int32)
        kvops.cp_gather_cache(cache, part, requests.block_table, rows, 1, starts)
        parts.append(part)
    assert torch.equal(torch.cat(parts).view(torch.uint8), tokens.view(torch.uint8))


@pytest.mark.parametrize("threads", [1, 2])
def test_later_of_overlapping_requests_wins(threads: int) -> None:
    """Rows 20 .. 79 are claimed twice. Block 9 does not exist: its rows stay with request 0."""
    cache = torch.arange(8 * 16 * 1000.0).view(8, 16, 1000)
    table = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [5, 9, 6, 7, 5]], dtype=torch.int32)
    rows = torch.tensor([0, 80, 20, 100], dtype=torch.int32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual, expected = torch.zeros(2, 100, 1000)
        kvops.cp_gather_cache(cache, actual, table, rows, 3, None)
    finally:
        torch.set_num_threads(before)
    reference.cp_gather_cache(cache, expected, table, rows, 3, None)
    assert torch.equal(actual, expected)


def test_many_requests_and_long_tables() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 40, (700,), generator=generator).tolist()
    tokens = [random_bits([length, 3], torch.int32, generator) for length in lengths]
    assert torch.equal(gathered(tokens, 3, seed=1), torch.cat(tokens))


def test_offsets_beyond_31_bits() -> None:
    """Blocks and rows 2^30 elements apart: only the touched pages of the buffers exist."""
    step = 2**30 + 64
    src = torch.empty(3 * step + 1024, dtype=torch.int16).as_strided([4, 2, 512], [step, 512, 1])
    dst = torch.empty(3 * step + 1024, dtype=torch.int16).as_strided([4, 512], [step, 1])
    values = torch.randint(-(2**15), 2**15, (4, 2, 512), dtype=torch.int16)
    src.copy_(values)
    table = torch.tensor([[3, 0], [2, 1]], dtype=torch.int32)
    rows, starts = torch.tensor([[0, 2, 4], [1, 1, 0]], dtype=torch.int32)
    kvops.cp_gather_cache(src, dst, table, rows, 2, starts[:2])
    expected = values[[3, 0, 2, 1], [1, 0, 1, 0]]
    assert torch.equal(dst, expected)


def test_refused_overlap_writes_nothing() -> None:
    buffer = poisoned([64], torch.float32)
    overlapping = buffer.as_strided([4, 16], [8, 1])
    cache, table = torch.zeros(1, 16, 16), torch.zeros(1, 1, dtype=torch.int32)
    rows = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"stride 16 or more in dimension 0\), got stride 8"):
        kvops.cp_gather_cache(cache, overlapping, table, rows, 1, None)
    assert torch.equal(buffer.view(torch.uint8), poisoned([64], torch.float32).view(torch.uint8))
