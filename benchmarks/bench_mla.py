"""MLA and indexer writers on CPU beside index_put_."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import kvops
from harness import Row

TOKENS, RANK, ROPE, BLOCK_SIZE = 8192, 512, 64, 64


def rows() -> Iterator[Row]:
    """8192 tokens into random slots, as each cache kind stores them."""
    yield _concat_and_cache("auto", torch.bfloat16, RANK + ROPE, 0.6)
    yield _concat_and_cache("fp8", torch.uint8, RANK + ROPE, 0.35)
    yield _concat_and_cache("fp8_ds_mla", torch.uint8, 656, 0.35)
    yield _rope_fused()
    yield _concat_mla_q()
    yield _indexer()


def _random_slots() -> torch.Tensor:
    return torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))


def _concat_and_cache(kind: str, dtype: torch.dtype, width: int, target: float) -> Row:
    kv_c, k_pe = torch.randn(TOKENS, RANK).bfloat16(), torch.randn(TOKENS, ROPE).bfloat16()
    cache = torch.zeros(TOKENS // BLOCK_SIZE, BLOCK_SIZE, width, dtype=dtype)
    slots, one = _random_slots(), torch.ones(1)
    rows_of_cache = cache.view(TOKENS, width)

    def index_put() -> None:
        data = torch.cat([kv_c, k_pe], dim=-1)
        if kind != "auto":
            data = (data.float() / one).clamp(-448, 448).to(torch.float8_e4m3fn).view(dtype)
        rows_of_cache[:, : RANK + ROPE].index_put_((slots,), data)

    return Row(
        name=f"concat_and_cache_mla, {TOKENS} tokens, {kind}",
        bytes=kv_c.nbytes + k_pe.nbytes + cache.nbytes,
        run=lambda: kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, kind, one),
        # No single PyTorch call lays out fp8_ds_mla entries; the peer writes plain fp8 there.
        peers={"index_put_": index_put},
        target_fraction=target,
        target_speedup=1.0,
    )


def _rope_fused() -> Row:
    heads = 16
    q_pe = torch.randn(TOKENS, heads, ROPE).bfloat16()
    k_pe, kv_c = torch.randn(TOKENS, ROPE).bfloat16(), torch.randn(TOKENS, RANK).bfloat16()
    table = torch.rand(4096, ROPE).bfloat16()
    positions = torch.randint(4096, (TOKENS,))
    cache = torch.zeros(TOKENS // BLOCK_SIZE, BLOCK_SIZE, RANK + ROPE, dtype=torch.bfloat16)
    slots, one = _random_slots(), torch.ones(1)
    return Row(
        name=f"concat_and_cache_mla_rope_fused, {TOKENS} tokens, {heads} heads",
        bytes=2 * q_pe.nbytes + 2 * k_pe.nbytes + kv_c.nbytes + cache.nbytes,
        run=lambda: kvops.concat_and_cache_mla_rope_fused(
            positions, q_pe, k_pe, kv_c, table, True, slots, cache, "auto", one
        ),
        target_fraction=0.35,
    )


def _concat_mla_q() -> Row:
    tokens, heads = 512, 128
    nope = torch.randn(tokens, heads, RANK).bfloat16()
    rope = torch.randn(tokens, heads, ROPE).bfloat16()
    out = torch.empty(tokens, heads, RANK + ROPE).bfloat16()
    return Row(
        name=f"concat_mla_q, {tokens} x {heads} heads",
        bytes=2 * out.nbytes,
        run=lambda: kvops.concat_mla_q(nope, rope, out),
        peers={"cat": lambda: torch.cat([nope, rope], dim=-1, out=out)},
        target_fraction=0.6,
        target_speedup=1.0,
    )


def _indexer() -> Row:
    tokens, head_size = 65536, 128
    k = torch.randn(tokens, head_size).bfloat16()
    cache = torch.zeros(tokens // BLOCK_SIZE, BLOCK_SIZE, head_size + 4, dtype=torch.uint8)
    slots = torch.randperm(tokens, generator=torch.Generator().manual_seed(0))
    return Row(
        name=f"indexer_k_quant_and_cache, {tokens} tokens",
        bytes=k.nbytes + cache.nbytes,
        run=lambda: kvops.indexer_k_quant_and_cache(k, cache, slots, 128, "ue8m0"),
        target_fraction=0.35,
    )
