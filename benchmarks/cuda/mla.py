"""MLA writers (random slots, as in the recorded baselines, or whole pages in random order, as in
a prompt) and merge_attn_states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import kvops
from harness import DEVICE, Row

LATENT, ROPE = 512, 64
PAGE = 64
BF16 = torch.bfloat16


def rows() -> Iterator[Row]:
    for tokens, target in ((8192, 0.85), (65536, 0.92), (256, 0.85)):
        for kind in ("auto", "fp8", "fp8_ds_mla", "fp8_ds_mla_pow2"):
            yield _concat_and_cache_mla(tokens, kind, target)
    for kind in ("auto", "fp8", "fp8_ds_mla"):
        yield _concat_and_cache_mla(65536, kind, 0.92, in_pages=True)
    yield _rope_fused(8192, 128)
    yield _rope_fused(256, 128)
    yield _concat_mla_q(4096, 128)
    yield _indexer(8192, 0.90)
    yield _indexer(65536, 0.90)
    yield _indexer(256, 0.85)
    yield _indexer(65536, 0.90, in_pages=True)
    yield _merge(8192, 32, 128)


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE, dtype=BF16)


def _random_slots(tokens: int) -> torch.Tensor:
    return torch.randperm(tokens, device=DEVICE)


def _slots_in_pages(tokens: int) -> torch.Tensor:
    pages = torch.randperm(tokens // PAGE, device=DEVICE)
    return (pages[:, None] * PAGE + torch.arange(PAGE, device=DEVICE)).flatten()


def _entry_bytes(kind: str) -> int:
    return {"auto": 2 * (LATENT + ROPE), "fp8": LATENT + ROPE}.get(kind, 656)


def _mla_cache(tokens: int, kind: str) -> torch.Tensor:
    entry = torch.zeros(tokens // PAGE, PAGE, _entry_bytes(kind), device=DEVICE, dtype=torch.uint8)
    return entry.view(BF16) if kind == "auto" else entry


def _concat_and_cache_mla(tokens: int, kind: str, target: float, in_pages: bool = False) -> Row:
    def make() -> Callable[[], None]:
        kv_c, k_pe = _randn(tokens, LATENT), _randn(tokens, ROPE)
        cache = _mla_cache(tokens, kind)
        slots = _slots_in_pages(tokens) if in_pages else _random_slots(tokens)
        one = torch.ones(1, device=DEVICE)
        return lambda: kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, kind, one)

    moved = tokens * (2 * (LATENT + ROPE) + _entry_bytes(kind) + 8)
    has_recorded = kind == "auto" and not in_pages
    recorded = {8192: 0.28, 65536: 0.18}.get(tokens) if has_recorded else None
    name = f"concat_and_cache_mla, {tokens} tokens, {kind}{', in pages' if in_pages else ''}"
    return Row(name, moved, make, target, recorded)


def _rope_fused(tokens: int, heads: int) -> Row:
    def make() -> Callable[[], None]:
        q_pe, k_pe = _randn(tokens, heads, ROPE), _randn(tokens, ROPE)
        kv_c, cos_sin = _randn(tokens, LATENT), _randn(tokens, ROPE)
        positions = torch.randperm(tokens, device=DEVICE)
        cache, slots = _mla_cache(tokens, "auto"), _random_slots(tokens)
        one = torch.ones(1, device=DEVICE)
        return lambda: kvops.concat_and_cache_mla_rope_fused(
            positions, q_pe, k_pe, kv_c, cos_sin, True, slots, cache, "auto", one
        )

    elements = 2 * heads * ROPE + 2 * ROPE + 2 * LATENT + ROPE + ROPE
    name = f"concat_and_cache_mla_rope_fused, {tokens} tokens, {heads} heads"
    return Row(name, tokens * (2 * elements + 16), make, 0.90 if tokens > 256 else 0.85)


def _concat_mla_q(tokens: int, heads: int) -> Row:
    def make() -> Callable[[], None]:
        nope, rope = _randn(heads, tokens, LATENT).transpose(0, 1), _randn(tokens, heads, ROPE)
        out = _randn(tokens, heads, LATENT + ROPE)
        return lambda: kvops.concat_mla_q(nope, rope, out)

    moved = 2 * 2 * tokens * heads * (LATENT + ROPE)
    return Row(f"concat_mla_q, {tokens} x {heads} heads", moved, make, 0.97, 0.90)


def _indexer(tokens: int, target: float, in_pages: bool = False) -> Row:
    def make() -> Callable[[], None]:
        k = _randn(tokens, 128)
        cache = torch.zeros(tokens // PAGE, PAGE, 132, device=DEVICE, dtype=torch.uint8)
        slots = _slots_in_pages(tokens) if in_pages else _random_slots(tokens)
        return lambda: kvops.indexer_k_quant_and_cache(k, cache, slots, 128, "ue8m0")

    moved = tokens * (256 + 132 + 8)
    name = f"indexer_k_quant_and_cache, {tokens} x 128{', in pages' if in_pages else ''}"
    return Row(name, moved, make, target, None if in_pages else 0.45)


def _merge(tokens: int, heads: int, size: int) -> Row:
    def make() -> Callable[[], None]:
        out, prefix, suffix = (_randn(tokens, heads, size) for _ in range(3))
        lse, prefix_lse, suffix_lse = (torch.randn(heads, tokens, device=DEVICE) for _ in range(3))
        return lambda: kvops.merge_attn_states(out, lse, prefix, prefix_lse, suffix, suffix_lse)

    moved = 3 * tokens * heads * (2 * size + 4)
    return Row(f"merge_attn_states, {tokens} x {heads} x {size}", moved, make, 0.93)
