"""vLLM's tests of the MLA writers, the gathers and the indexer cache."""

from __future__ import annotations

import torch
from torch import Tensor

import kvops  # noqa: F401  (registers the names)
from vllm_grids.grid import DTYPES, FP8_CLOSE, KINDS, TOKENS, blocks_on, distinct, from_fp8, grid

ops = torch.ops._C_cache_ops

BLOCK_SIZE, ROPE = 16, 64
HALVES = (torch.bfloat16, torch.float16)


@grid(cpu_every=1, latent=(256, 512), dtype=DTYPES, kind=KINDS)
def test_concat_and_cache_mla(device: str, latent: int, dtype: torch.dtype, kind: str) -> None:
    blocks, width = 8, latent + ROPE
    slots = distinct(TOKENS, blocks * BLOCK_SIZE, device)
    kv_c = torch.randn(TOKENS, latent, dtype=dtype, device=device)
    k_pe = torch.randn(TOKENS, ROPE, dtype=dtype, device=device)
    stored = torch.uint8 if kind == "fp8" else dtype
    cache = torch.zeros(blocks, BLOCK_SIZE, width, dtype=stored, device=device)
    scale = torch.tensor(0.1, device=device)
    ops.concat_and_cache_mla(kv_c, k_pe, cache, slots, kind, scale)
    expected = torch.zeros(blocks * BLOCK_SIZE, width, dtype=dtype, device=device)
    expected[slots] = torch.cat([kv_c, k_pe], dim=1)
    if kind == "auto":
        assert torch.equal(cache.view(-1, width), expected)
    else:
        numbers = from_fp8(cache, 0.1).view(-1, width)
        torch.testing.assert_close(numbers, expected.half(), **FP8_CLOSE)


@grid(cpu_every=1, tokens=(TOKENS,))
def test_concat_and_cache_ds_mla(device: str, tokens: int) -> None:
    blocks = 8
    slots = distinct(tokens, blocks * BLOCK_SIZE, device)
    kv_c = torch.randn(tokens, 512, dtype=torch.bfloat16, device=device)
    k_pe = torch.randn(tokens, ROPE, dtype=torch.bfloat16, device=device)
    cache = torch.zeros(blocks, BLOCK_SIZE, 656, dtype=torch.uint8, device=device)
    scale = torch.ones(1, device=device)
    ops.concat_and_cache_mla(kv_c, k_pe, cache, slots, "fp8_ds_mla", scale)
    entries = cache.view(-1, 656)[slots]
    tiles = kv_c.float().view(tokens, 4, 128)
    scales = entries[:, 512:528].contiguous().view(torch.float32)
    torch.testing.assert_close(scales, tiles.abs().amax(dim=2) / 448, **FP8_CLOSE)
    numbers = from_fp8(entries[:, :512].contiguous(), 1.0, torch.float32).view_as(tiles)
    torch.testing.assert_close(numbers * scales[:, :, None], tiles, **FP8_CLOSE)
    assert torch.equal(entries[:, 528:].contiguous().view(torch.bfloat16), k_pe)


def pages(lengths: Tensor, block_size: int, blocks: int, device: str) -> Tensor:
    """A block table with random blocks, those of different requests distinct."""
    needed = -(-lengths // block_size)
    table = torch.zeros(len(lengths), int(needed.max()), dtype=torch.int32)
    order = torch.randperm(blocks, dtype=torch.int32)
    for row, ids in zip(table, order.split([*needed.tolist(), blocks - int(needed.sum())])[:-1],
                        strict=True):  # fmt: skip
        row[: len(ids)] = ids
    return table.to(device)


def positions(lengths: Tensor, table: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Block and offset of every token, request after request."""
    blocks, offsets = [], []
    for length, row in zip(lengths.tolist(), table, strict=True):
        position = torch.arange(length, device=table.device)
        blocks.append(row[position // block_size].long())
        offsets.append(position % block_size)
    return torch.cat(blocks), torch.cat(offsets)


def starts_of(lengths: Tensor, device: str) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int().to(device)


@grid(cpu_every=1, kind=KINDS)
def test_gather_and_maybe_dequant_cache_mla(device: str, kind: str) -> None:
    lengths = torch.full([8], 512)
    blocks, width = 1024, 512 + ROPE
    cache = torch.randn(blocks, BLOCK_SIZE, width, device=device)
    if kind == "fp8":
        quantised = torch.empty_like(cache, dtype=torch.uint8)
        ops.convert_fp8(quantised, cache, 0.1, "fp8")
        cache = quantised
    table = pages(lengths, BLOCK_SIZE, blocks, device)
    total = int(lengths.sum())
    dst = torch.zeros(total, width, device=device)
    requests = torch.arange(8, dtype=torch.int32).repeat_interleave(lengths).to(device)
    num_tokens = torch.tensor(total, device=device)  # 0-D, as vLLM passes it
    ops.gather_and_maybe_dequant_cache(
        cache, dst, table, starts_of(lengths, device), requests, num_tokens, kind,
        torch.tensor(0.1, device=device), None,
    )  # fmt: skip
    expected = cache[positions(lengths, table, BLOCK_SIZE)]
    if kind == "fp8":
        expected = from_fp8(expected, 0.1, torch.float32)
    torch.testing.assert_close(dst, expected)


@grid(cpu_every=1, seed=tuple(range(8)))
def test_cp_gather_cache_mla(device: str, seed: int) -> None:
    lengths = torch.randint(0, 513, [8], generator=torch.Generator().manual_seed(seed))
    lengths[seed] = 0
    cache = torch.randn(1024, BLOCK_SIZE, 512 + ROPE, device=device)
    table = pages(lengths, BLOCK_SIZE, 1024, device)
    dst = torch.zeros(int(lengths.sum()), 512 + ROPE, device=device)
    ops.cp_gather_cache(cache, dst, table, starts_of(lengths, device), 8, None)
    assert torch.equal(dst, cache[positions(lengths, table, BLOCK_SIZE)])


@grid(cpu_every=3, lengths=((1,), (64,), (100, 64, 200), (1, 63, 64, 65, 1000), (131072,)))
def test_cp_gather_and_upconvert(device: str, lengths: tuple[int, ...]) -> None:
    block_size, sizes = 64, torch.tensor(lengths)
    blocks = int((-(-sizes // block_size)).sum()) + 3
    tokens = blocks * block_size
    cache = torch.zeros(blocks, block_size, 656, dtype=torch.uint8, device=device)
    kv_c = torch.randn(tokens, 512, dtype=torch.bfloat16, device=device)
    k_pe = torch.randn(tokens, ROPE, dtype=torch.bfloat16, device=device)
    slots = torch.arange(tokens, device=device)
    ops.concat_and_cache_mla(kv_c, k_pe, cache, slots, "fp8_ds_mla", torch.ones(1, device=device))
    table = pages(sizes, block_size, blocks, device)
    dst = torch.zeros(int(sizes.sum()), 576, dtype=torch.bfloat16, device=device)
    starts = starts_of(sizes, device)[:-1]
    lens = sizes.int().to(device)
    ops.cp_gather_and_upconvert_fp8_kv_cache(cache, dst, table, lens, starts, len(lengths))
    entries = cache[positions(sizes, table, block_size)]
    scales = entries[:, 512:528].contiguous().view(torch.float32)
    nope = from_fp8(entries[:, :512].contiguous(), 1.0, torch.float32).view(-1, 4, 128)
    expected = (nope * scales[:, :, None]).view(-1, 512)
    torch.testing.assert_close(dst[:, :512].float(), expected, atol=1e-3, rtol=1e-2)
    assert torch.equal(dst[:, 512:], entries[:, 528:].contiguous().view(torch.bfloat16))


def rotated(x: Tensor, cos: Tensor, sin: Tensor, is_neox: bool) -> Tensor:
    first, second = x.chunk(2, dim=-1) if is_neox else (x[..., ::2], x[..., 1::2])
    left, right = first * cos - second * sin, second * cos + first * sin
    if is_neox:
        return torch.cat([left, right], dim=-1)
    return torch.stack([left, right], dim=-1).flatten(-2)


@grid(
    cpu_every=7,
    rot=(64, 128),
    dtype=(*HALVES, torch.float32),
    block_size=(16, 1024, 16384),
    is_neox=(True, False),
    kind=KINDS,
)
def test_concat_and_cache_mla_rope_fused(
    device: str, rot: int, dtype: torch.dtype, block_size: int, is_neox: bool, kind: str
) -> None:
    block_size = min(block_size, 1024) if device == "cpu" else block_size
    blocks, heads, width = 4, 128, 512 + rot
    where = torch.randint(0, 4096, [TOKENS], device=device)
    q_pe = torch.randn(TOKENS, heads, rot, dtype=dtype, device=device)
    k_pe = torch.randn(TOKENS, rot, dtype=dtype, device=device)
    kv_c = torch.randn(TOKENS, 512, dtype=dtype, device=device)
    angles = torch.rand(4096, rot // 2, device=device) * 6.3
    cos_sin = torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)
    slots = distinct(TOKENS, blocks * block_size, device)
    stored = torch.uint8 if kind == "fp8" else dtype
    cache = torch.zeros(blocks, block_size, width, dtype=stored, device=device)
    cos, sin = cos_sin[where].chunk(2, dim=1)
    expected_q = rotated(q_pe, cos[:, None], sin[:, None], is_neox)
    expected_k = rotated(k_pe, cos, sin, is_neox)
    ops.concat_and_cache_mla_rope_fused(
        where, q_pe, k_pe, kv_c, cos_sin, is_neox, slots, cache, kind,
        torch.tensor(0.1, device=device),
    )  # fmt: skip
    torch.testing.assert_close(q_pe, expected_q)
    torch.testing.assert_close(k_pe, expected_k)
    entries, expected = cache.view(-1, width)[slots], torch.cat([kv_c, expected_k], dim=1)
    if kind == "auto":
        torch.testing.assert_close(entries, expected)
    else:
        numbers = from_fp8(entries.contiguous(), 0.1, torch.float32)
        torch.testing.assert_close(numbers, expected.float(), **FP8_CLOSE)


@grid(
    cpu_every=5,
    tokens=(1, 4, 42, 256, 1024),
    heads=(1, 16, 64, 128),
    dtype=HALVES,
    is_strided=(False, True),
)
def test_concat_mla_q(
    device: str, tokens: int, heads: int, dtype: torch.dtype, is_strided: bool
) -> None:
    nope = torch.randn(heads, tokens, 512, dtype=dtype, device=device).transpose(0, 1)
    rope = torch.randn(tokens, heads, 192, dtype=dtype, device=device)[..., 128:]
    if not is_strided:
        nope, rope = nope.contiguous(), rope.contiguous()
    out = torch.empty(tokens, heads, 576, dtype=dtype, device=device)
    ops.concat_mla_q(nope, rope, out)
    assert torch.equal(out, torch.cat([nope, rope], dim=-1))


@grid(cpu_every=1, scale_format=("ue8m0", "fp8"), tokens=(1, 42, 1000))
def test_indexer_cache(device: str, scale_format: str, tokens: int) -> None:
    """Quantised into the cache and gathered again, both byte for byte."""
    block_size, blocks = 64, blocks_on(device, 1024)
    k = torch.randn(tokens, 128, dtype=torch.bfloat16, device=device)
    lengths = torch.tensor([tokens])
    table = pages(lengths, block_size, blocks, device)
    block, offset = positions(lengths, table, block_size)
    cache = torch.zeros(blocks, block_size, 132, dtype=torch.uint8, device=device)
    ops.indexer_k_quant_and_cache(k, cache, block * block_size + offset, 128, scale_format)
    amax = k.float().abs().amax(dim=1).clamp(min=1e-4)
    scales = amax / torch.full_like(amax, 448)  # on CUDA, `/ 448` is a product
    if scale_format == "ue8m0":
        scales = torch.exp2(torch.ceil(torch.log2(scales)))
    values = torch.empty(tokens, 128, dtype=torch.uint8, device=device)
    ops.convert_fp8(values, k.float() / scales[:, None], 1.0, "fp8")
    pages_of_values = cache.view(blocks, -1)[:, : block_size * 128].unflatten(1, (block_size, 128))
    assert torch.equal(pages_of_values[block, offset], values)
    dst_k = torch.zeros(tokens, 128, dtype=torch.uint8, device=device)
    dst_scale = torch.zeros(tokens, 4, dtype=torch.uint8, device=device)
    starts = starts_of(lengths, device)
    ops.cp_gather_indexer_k_quant_cache(cache, dst_k, dst_scale, table, starts)
    assert torch.equal(dst_k, values)
    assert torch.equal(dst_scale.view(torch.float32)[:, 0], scales)
