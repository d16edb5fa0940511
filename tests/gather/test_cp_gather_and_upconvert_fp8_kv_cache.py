"""What cp_gather_and_upconvert_fp8_kv_cache alone can show: written entries come back."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import kvops
from gather.paged import make_requests, poisoned, random_bits
from kvops import reference

NONE = torch.zeros(1)


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**32))
def test_what_a_writer_wrote(tokens: int, block_size: int, seed: int) -> None:
    """Entries of the reference's writer: rope bits equal, values within fp8's rounding."""
    generator = torch.Generator().manual_seed(seed)
    requests = make_requests([tokens], block_size, generator)
    kv_c = torch.randn(tokens, 512, generator=generator).bfloat16()
    k_pe = torch.randn(tokens, 64, generator=generator).bfloat16()
    positions = torch.arange(tokens)
    blocks = requests.block_table[0, positions // block_size].long()
    slots = blocks * block_size + positions % block_size
    cache = torch.zeros(requests.num_blocks, block_size, 656, dtype=torch.uint8)
    reference.concat_and_cache_mla(kv_c, k_pe, cache, slots, "fp8_ds_mla", NONE)
    dst = poisoned([tokens, 576], torch.bfloat16)
    starts = torch.zeros(1, dtype=torch.int32)
    kvops.cp_gather_and_upconvert_fp8_kv_cache(cache, dst, requests.block_table, starts, starts, 1)
    assert torch.equal(dst[:, 512:], k_pe)
    # Half a unit of e4m3's 3 mantissa bits, or of its subnormals, then half a unit of bfloat16.
    values = kv_c.float().view(tokens, 4, 128)
    scales = values.abs().amax(-1, keepdim=True) / 448
    allowed = torch.maximum(values.abs() / 16, scales * 2**-10) * 1.01 + values.abs() / 256
    error = (dst[:, :512].float().view(tokens, 4, 128) - values).abs()
    assert (error <= allowed).all()


def test_rows_before_the_first_request_keep_their_bytes() -> None:
    generator = torch.Generator().manual_seed(0)
    cache = random_bits([1, 8, 656], torch.uint8, generator)
    table = torch.zeros(1, 1, dtype=torch.int32)
    dst, all_rows = poisoned([8, 576], torch.bfloat16), poisoned([5, 576], torch.bfloat16)
    for out, start in ((dst, 3), (all_rows, 0)):
        starts = torch.tensor([start], dtype=torch.int32)
        kvops.cp_gather_and_upconvert_fp8_kv_cache(cache, out, table, starts, starts, 1)
    before = poisoned([3, 576], torch.bfloat16)
    assert torch.equal(dst[:3].view(torch.uint8), before.view(torch.uint8))
    assert torch.equal(dst[3:].view(torch.uint8), all_rows.view(torch.uint8))


def test_offsets_beyond_31_bits() -> None:
    """Blocks 2^30 bytes and rows 2^30 elements apart: only the touched pages exist."""
    step = 2**30 + 64
    cache = torch.empty(4 * step, dtype=torch.uint8).as_strided([4, 2, 656], [step, 656, 1])
    dst = torch.empty(4 * step, dtype=torch.bfloat16).as_strided([4, 576], [step, 1])
    dense = random_bits([4, 2, 656], torch.uint8, torch.Generator().manual_seed(0))
    cache.copy_(dense)
    table = torch.tensor([[3, 1]], dtype=torch.int32)
    starts = torch.zeros(1, dtype=torch.int32)
    expected = poisoned([4, 576], torch.bfloat16)
    kvops.cp_gather_and_upconvert_fp8_kv_cache(cache, dst, table, starts, starts, 1)
    reference.cp_gather_and_upconvert_fp8_kv_cache(dense, expected, table, starts, starts, 1)
    assert torch.equal(dst.contiguous().view(torch.uint8), expected.view(torch.uint8))
