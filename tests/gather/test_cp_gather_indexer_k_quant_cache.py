"""What cp_gather_indexer_k_quant_cache alone can show: written entries, padded outputs."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import kvops
from gather.paged import make_requests, poisoned, random_bits
from kvops import reference


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**32))
def test_what_a_writer_wrote(tokens: int, block_size: int, seed: int) -> None:
    """Values times scales are the keys that the reference's writer got, within fp8's rounding."""
    generator = torch.Generator().manual_seed(seed)
    requests = make_requests([tokens], block_size, generator)
    k = torch.randn(tokens, 128, generator=generator).bfloat16()
    positions = torch.arange(tokens)
    blocks = requests.block_table[0, positions // block_size].long()
    slots = blocks * block_size + positions % block_size
    cache = torch.zeros(requests.num_blocks, block_size, 132, dtype=torch.uint8)
    reference.indexer_k_quant_and_cache(k, cache, slots, 128, "")
    dst_k = poisoned([tokens, 128], torch.float8_e4m3fn)
    dst_scale = poisoned([tokens, 4], torch.uint8)
    kvops.cp_gather_indexer_k_quant_cache(
        cache.view(torch.float8_e4m3fn),
        dst_k,
        dst_scale,
        requests.block_table,
        requests.cu_seq_lens,
    )
    scales = dst_scale.view(torch.float32)
    error = (dst_k.float() * scales - k.float()).abs()
    assert (error <= torch.maximum(k.float().abs() / 16, scales * 2**-10) * 1.01).all()


def test_padded_outputs_get_the_same_rows() -> None:
    """vLLM finds the rows of dst_scale by the stride of dst_k; here each has its own."""
    generator = torch.Generator().manual_seed(0)
    requests = make_requests([70, 33], 16, generator)
    cache = random_bits([requests.num_blocks, 16, 264], torch.uint8, generator)
    dense = poisoned([103, 256], torch.uint8), poisoned([103, 8], torch.uint8)
    padded = poisoned([103, 320], torch.uint8)[:, :256], poisoned([103, 20], torch.uint8)[:, :8]
    for dst_k, dst_scale in (dense, padded):
        kvops.cp_gather_indexer_k_quant_cache(
            cache, dst_k, dst_scale, requests.block_table, requests.cu_seq_lens
        )
    assert torch.equal(padded[0], dense[0]) and torch.equal(padded[1], dense[1])


def test_offsets_beyond_31_bits() -> None:
    """Blocks 2^30 bytes apart, rows as well: only the touched pages of the buffers exist."""
    step = 2**30 + 64
    cache = torch.empty(4 * step, dtype=torch.uint8).as_strided([4, 2, 132], [step, 132, 1])
    dst_k = torch.empty(4 * step, dtype=torch.uint8).as_strided([4, 128], [step, 1])
    dst_scale = torch.empty(4 * step, dtype=torch.uint8).as_strided([4, 4], [step, 1])
    dense = random_bits([4, 2, 132], torch.uint8, torch.Generator().manual_seed(0))
    cache.copy_(dense)
    table = torch.tensor([[3, 1]], dtype=torch.int32)
    rows = torch.tensor([0, 4], dtype=torch.int32)
    expected = poisoned([4, 128], torch.uint8), poisoned([4, 4], torch.uint8)
    kvops.cp_gather_indexer_k_quant_cache(cache, dst_k, dst_scale, table, rows)
    reference.cp_gather_indexer_k_quant_cache(dense, *expected, table, rows)
    assert torch.equal(dst_k, expected[0]) and torch.equal(dst_scale, expected[1])
