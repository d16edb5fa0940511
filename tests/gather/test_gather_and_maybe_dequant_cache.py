"""What gather_and_maybe_dequant_cache alone can show: scales, requests of tokens, wide offsets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from gather.paged import make_requests, paged, poisoned, random_bits
from kvops import reference

ONE = torch.ones(1)


def call(cache: Tensor, dst: Tensor, requests, kind: str, scale: Tensor, num_tokens: int) -> None:
    kvops.gather_and_maybe_dequant_cache(
        *(cache, dst, requests.block_table, requests.cu_seq_lens, requests.token_to_seq),
        *(num_tokens, kind, scale, None),
    )


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.integers(1, 33),
    st.integers(1, 70),
    st.integers(0, 2**32),
)
def test_what_a_writer_wrote(lengths: list[int], block_size: int, width: int, seed: int) -> None:
    """The reference writes tokens into slots in any order; the gather returns them in order."""
    generator = torch.Generator().manual_seed(seed)
    requests = make_requests(lengths, block_size, generator)
    tokens = torch.randn(requests.num_rows, width + 2, generator=generator)
    cache = torch.zeros(requests.num_blocks, block_size, width + 2)
    positions = [position for length in lengths for position in range(length)]
    slots = torch.tensor(
        [
            int(requests.block_table[request, position // block_size]) * block_size
            + position % block_size
            for request, position in zip(requests.token_to_seq.tolist(), positions, strict=True)
        ],
        dtype=torch.int64,
    )
    order = torch.randperm(requests.num_rows, generator=generator)
    written = tokens[order]
    reference.concat_and_cache_mla(
        written[:, :width], written[:, width:], cache, slots[order], "auto", ONE
    )
    dst = poisoned([requests.num_rows, width + 2], torch.float32)
    call(cache, dst, requests, "auto", ONE, requests.num_rows)
    assert torch.equal(dst, tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("exponent", [-3, 0, 5])
def test_scale_scales(dtype: torch.dtype, exponent: int) -> None:
    """A power of two as scale multiplies the result, as long as nothing over- or underflows."""
    generator = torch.Generator().manual_seed(0)
    requests = make_requests([20, 9], 4, generator)
    cache = torch.randint(0x20, 0x58, (requests.num_blocks, 4, 100), generator=generator)
    plain, scaled = (poisoned([29, 100], dtype) for _ in range(2))
    for dst, scale in ((plain, 1.0), (scaled, 2.0**exponent)):
        call(cache.to(torch.uint8), dst, requests, "fp8", torch.tensor([scale]), 29)
    assert torch.equal(scaled, plain * 2.0**exponent)


def test_pages_do_not_show_in_dequantised_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = [random_bits([n, 77], torch.uint8, generator) for n in (50, 0, 31)]
    results = []
    for block_size in (1, 7, 16, 64):
        requests = make_requests([50, 0, 31], block_size, generator)
        dst = poisoned([81, 77], torch.bfloat16)
        scale = torch.tensor([0.7])
        call(paged(tokens, requests, block_size), dst, requests, "fp8_e5m2", scale, 81)
        results.append(dst.view(torch.uint8))
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_auto_does_not_look_at_the_scale() -> None:
    requests = make_requests([5], 4, torch.Generator())
    cache = torch.randn(requests.num_blocks, 4, 8)
    scales = [torch.empty(0), torch.empty(3, dtype=torch.int64), torch.tensor(2.0).double()]
    results = []
    for scale in scales:
        dst = poisoned([5, 8], torch.float32)
        call(cache, dst, requests, "auto", scale, 5)
        results.append(dst)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("shape", [[], [1], [1, 1]])
def test_shape_of_the_scale(shape: list[int]) -> None:
    requests = make_requests([1], 1, torch.Generator())
    cache = torch.full([requests.num_blocks, 1, 2], 0x38, dtype=torch.uint8)  # 1.0
    dst = poisoned([1, 2], torch.float16)
    call(cache, dst, requests, "fp8", torch.full(shape, 0.5), 1)
    assert dst.tolist() == [[0.5, 0.5]]


def test_num_tokens_may_be_a_tensor() -> None:
    requests = make_requests([3], 2, torch.Generator())
    cache, dst = torch.ones(requests.num_blocks, 2, 4), torch.zeros(3, 4)
    call(cache, dst, requests, "auto", ONE, torch.tensor(2))
    assert dst.sum(1).tolist() == [4, 4, 0]


@pytest.mark.parametrize("kind", ["auto", "fp8"])
def test_offsets_beyond_31_bits(kind: str) -> None:
    """Blocks and rows 2^30 elements apart: only the touched pages of the buffers exist."""
    step = 2**30 + 64
    stored = torch.float16 if kind == "auto" else torch.uint8
    cache = torch.empty(3 * step + 64, dtype=stored).as_strided([4, 2, 32], [step, 32, 1])
    dst = torch.empty(3 * step + 64, dtype=torch.float16).as_strided([4, 32], [step, 1])
    for block in range(4):
        cache[block] = block + 1
    requests = make_requests([4], 1, torch.Generator())
    table = torch.tensor([[3, 1]], dtype=torch.int32)
    kvops.gather_and_maybe_dequant_cache(
        *(cache, dst, table, requests.cu_seq_lens, requests.token_to_seq, 4, kind),
        *(torch.full([1], 2.0**9), None),
    )
    # The bytes 4 and 2 are the subnormals 4 * 2^-9 and 2 * 2^-9.
    assert dst[:, 7].tolist() == [4, 4, 2, 2]
