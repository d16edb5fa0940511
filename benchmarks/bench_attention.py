"""Paged decode on CPU beside torch's SDPA and einsum, which get the K/V already gathered."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn.functional import scaled_dot_product_attention

import kvops
from harness import Row
from paging import shuffled_block_table

BLOCK_SIZE = 16


def rows() -> Iterator[Row]:
    """Long, short and many sequences; fp32, bf16, fp16; fp8 caches (no peer reads those)."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield _row(dtype, [2048] * 8, heads=32, kv_heads=8, target=(0.5, 1.5))
    for lengths in ([128] * 64, [32768]):
        yield _row(torch.bfloat16, lengths, heads=32, kv_heads=8, target=(0.5, 1.5))
    yield _row(torch.bfloat16, [2048] * 8, heads=32, kv_heads=32, target=(0.5, None))
    yield _row(torch.bfloat16, [2048] * 8, heads=32, kv_heads=8, cache="fp8")
    yield _row(torch.bfloat16, [2048] * 8, heads=32, kv_heads=8, version=1, target=(0.5, 1.5))


def _row(
    dtype: torch.dtype,
    lengths: list[int],
    heads: int,
    kv_heads: int,
    head_size: int = 128,
    cache: str = "auto",
    version: int = 2,
    target: tuple[float | None, float | None] = (None, None),
) -> Row:
    generator = torch.Generator().manual_seed(0)
    table, pages = shuffled_block_table(lengths, BLOCK_SIZE, generator)
    sequences, longest = len(lengths), max(lengths)
    query = torch.randn(sequences, heads, head_size, generator=generator).to(dtype)
    keys = torch.randn(sequences, longest, kv_heads, head_size, generator=generator).to(dtype)
    values = torch.randn(sequences, longest, kv_heads, head_size, generator=generator).to(dtype)
    cache_dtype = dtype if cache == "auto" else torch.uint8
    x = 16 // cache_dtype.itemsize
    key_cache = torch.zeros(pages, kv_heads, head_size // x, BLOCK_SIZE, x, dtype=cache_dtype)
    value_cache = torch.zeros(pages, kv_heads, head_size, BLOCK_SIZE, dtype=cache_dtype)
    one = torch.ones(1)
    slots = (table[:, :, None].long() * BLOCK_SIZE + torch.arange(BLOCK_SIZE)).reshape(
        sequences, -1
    )[:, :longest]
    kvops.reshape_and_cache(
        *(keys.flatten(0, 1), values.flatten(0, 1), key_cache, value_cache),
        *(slots.reshape(-1).contiguous(), cache, one, one),
    )
    out = torch.empty_like(query)
    partitions = -(-longest // 512)
    scratch = (
        torch.empty(sequences, heads, partitions),
        torch.empty(sequences, heads, partitions),
        torch.empty(sequences, heads, partitions, head_size, dtype=dtype),
    )
    seq_lens = torch.tensor(lengths, dtype=torch.int32)
    scale = 1 / math.sqrt(head_size)
    tail = (query, key_cache, value_cache, kv_heads, scale, table, seq_lens, BLOCK_SIZE, longest)
    tail = (*tail, None, cache, one, one)
    name = f"v{version} {sequences} x {longest}, {heads}/{kv_heads} x {head_size}, "
    name += str(dtype).removeprefix("torch.") + (f", {cache} cache" if cache != "auto" else "")
    return Row(
        name=name,
        bytes=2 * sum(lengths) * kv_heads * head_size * cache_dtype.itemsize,
        run=(lambda: kvops.paged_attention_v1(out, *tail))
        if version == 1
        else (lambda: kvops.paged_attention_v2(out, *scratch, *tail)),
        peers=_peers(query, keys, values, scale) if cache == "auto" else {},
        yardstick="read",
        target_fraction=target[0],
        target_speedup=target[1],
    )


def _peers(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> dict:
    """Dense decode: no page table, no gather, K/V laid out as each of them likes best."""
    sequences, heads, head_size = query.shape
    kv_heads = keys.shape[2]
    dense_k = keys.transpose(1, 2).contiguous()
    dense_v = values.transpose(1, 2).contiguous()
    grouped = query.reshape(sequences, kv_heads, heads // kv_heads, head_size)

    def sdpa() -> torch.Tensor:
        return scaled_dot_product_attention(
            query[:, :, None], dense_k, dense_v, scale=scale, enable_gqa=heads != kv_heads
        )

    def einsum() -> torch.Tensor:
        logits = torch.einsum("bkgd,bktd->bkgt", grouped, dense_k).float() * scale
        weights = logits.softmax(-1).to(query.dtype)
        return torch.einsum("bkgt,bktd->bkgd", weights, dense_v)

    return {"SDPA": sdpa, "einsum": einsum}
