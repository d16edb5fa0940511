"""Whatever the tables say, gathers do what the reference does, and nothing else changes.

All tables are hostile at once. Rows are wide enough for several threads to share the work.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from gather.paged import poisoned, random_bits
from kvops import reference

ROWS, REQUESTS, MAX_BLOCKS, BLOCKS, BLOCK_SIZE = 37, 5, 3, 7, 4
_INT32 = torch.iinfo(torch.int32)
_EXTREMES = [_INT32.min, _INT32.min + 1, -(2**20), 2**20, _INT32.max - 1, _INT32.max]


def table(*shape: int, limit: int) -> st.SearchStrategy[Tensor]:
    """int32 tensors whose values are mostly near [0, limit], some as extreme as can be."""
    size = torch.Size(shape).numel()
    near = st.integers(-3, limit + 3)
    values = st.lists(
        st.one_of(near, near, st.sampled_from(_EXTREMES)), min_size=size, max_size=size
    )
    return values.map(lambda numbers: torch.tensor(numbers, dtype=torch.int32).view(shape))


block_tables = table(REQUESTS, MAX_BLOCKS, limit=BLOCKS)
row_starts = table(REQUESTS + 1, limit=ROWS)
# Mostly ascending, so that most rows belong to a request.
cu_seq_lens = st.one_of(row_starts, row_starts.map(lambda starts: starts.sort().values))
seq_starts = st.none() | table(REQUESTS, limit=MAX_BLOCKS * BLOCK_SIZE)


def check(name: str, dst_shape: list[int], dtype: torch.dtype, *args: object) -> None:
    """Call the operator and the reference with equal bytes; `args` has a function for dst."""
    results = []
    for module in (kvops, reference):
        guarded = poisoned([ROWS + 2, *dst_shape], dtype)
        getattr(module, name)(*(arg(guarded[1:-1]) if callable(arg) else arg for arg in args))
        results.append(guarded.view(torch.uint8))
    assert torch.equal(*results)


def dst(rows: Tensor) -> Tensor:
    return rows


@given(block_tables, cu_seq_lens, seq_starts, st.integers(0, REQUESTS))
def test_cp_gather_cache(blocks: Tensor, rows: Tensor, starts: Tensor | None, batch: int) -> None:
    cache = random_bits([BLOCKS, BLOCK_SIZE, 1500], torch.float32, torch.Generator())
    check("cp_gather_cache", [1500], torch.float32, cache, dst, blocks, rows, batch, starts)


@pytest.mark.parametrize("kind", ["auto", "fp8"])
@given(
    block_tables,
    cu_seq_lens,
    table(ROWS, limit=REQUESTS),
    seq_starts,
    st.integers(0, ROWS),
    st.booleans(),
)
def test_gather_and_maybe_dequant_cache(
    kind: str,
    blocks: Tensor,
    rows: Tensor,
    token_to_seq: Tensor,
    starts: Tensor | None,
    num_tokens: int,
    in_order: bool,
) -> None:
    requests = token_to_seq.sort().values if in_order else token_to_seq
    stored = torch.float32 if kind == "auto" else torch.uint8
    cache = random_bits([BLOCKS, BLOCK_SIZE, 1500], stored, torch.Generator())
    rest = (blocks, rows, requests, num_tokens, kind, torch.tensor([0.3]), starts)
    check("gather_and_maybe_dequant_cache", [1500], torch.float32, cache, dst, *rest)


@given(block_tables, cu_seq_lens, st.integers(0, REQUESTS))
def test_cp_gather_and_upconvert_fp8_kv_cache(blocks: Tensor, rows: Tensor, batch: int) -> None:
    cache = random_bits([BLOCKS, BLOCK_SIZE, 656], torch.uint8, torch.Generator())
    rest = (blocks, torch.zeros(REQUESTS, dtype=torch.int32), rows, batch)
    check("cp_gather_and_upconvert_fp8_kv_cache", [576], torch.bfloat16, cache, dst, *rest)


@given(block_tables, cu_seq_lens)
def test_cp_gather_indexer_k_quant_cache(blocks: Tensor, rows: Tensor) -> None:
    cache = random_bits([BLOCKS, BLOCK_SIZE, 2112], torch.uint8, torch.Generator())
    check(
        "cp_gather_indexer_k_quant_cache",
        [2112],
        torch.uint8,
        cache,
        lambda out: out[:, :2048],
        lambda out: out[:, 2048:],
        blocks,
        rows,
    )
