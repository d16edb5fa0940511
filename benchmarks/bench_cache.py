"""Cache writers on CPU beside index_put_ into the same layouts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import kvops
from harness import Row
from paging import shuffled_slots

HEADS, HEAD_SIZE, BLOCK_SIZE = 8, 128, 16


def rows() -> Iterator[Row]:
    """8192 tokens as prefill writes them; 256 as decode does; fp8 caches quantise."""
    for kind in ("auto", "fp8"):
        yield _split_pages(8192, kind)
        yield _whole_rows(8192, kind, "NHD")
        yield _whole_rows(8192, kind, "HND")
    yield _split_pages(256, "auto")
    yield _whole_rows(256, "auto", "NHD")
    yield _convert_fp8()


def _key_value(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (tokens, HEADS, HEAD_SIZE)
    return tuple(torch.randn(shape, generator=generator).bfloat16() for _ in range(2))


def _moved_bytes(tokens: int, cache_bytes: int) -> int:
    return 2 * tokens * HEADS * HEAD_SIZE * (2 + cache_bytes)


def _slots(tokens: int) -> torch.Tensor:
    if tokens >= 4096:
        return shuffled_slots(tokens, BLOCK_SIZE, torch.Generator().manual_seed(1))
    # Decode: one token a page, pages in any order.
    return torch.randperm(tokens) * BLOCK_SIZE + torch.randint(BLOCK_SIZE, (tokens,))


def _pages(tokens: int) -> int:
    return tokens // BLOCK_SIZE if tokens >= 4096 else tokens


def _target(tokens: int, kind: str) -> dict[str, float | None]:
    fraction = (0.6 if kind == "auto" else 0.35) if tokens >= 4096 else None
    return {"target_fraction": fraction, "target_speedup": 1.0}


def _quantised(data: torch.Tensor, kind: str, scale: torch.Tensor) -> torch.Tensor:
    if kind == "auto":
        return data
    return (data.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)


def _split_pages(tokens: int, kind: str) -> Row:
    key, value = _key_value(tokens)
    slots, pages, one = _slots(tokens), _pages(tokens), torch.ones(1)
    dtype = torch.bfloat16 if kind == "auto" else torch.uint8
    x = 16 // dtype.itemsize
    key_cache = torch.zeros(pages, HEADS, HEAD_SIZE // x, BLOCK_SIZE, x, dtype=dtype)
    value_cache = torch.zeros(pages, HEADS, HEAD_SIZE, BLOCK_SIZE, dtype=dtype)
    block, offset = slots // BLOCK_SIZE, slots % BLOCK_SIZE

    def index_put() -> None:
        keys = _quantised(key, kind, one).view(tokens, HEADS, HEAD_SIZE // x, x)
        key_cache.permute(0, 3, 1, 2, 4).index_put_((block, offset), keys)
        value_cache.permute(0, 3, 1, 2).index_put_((block, offset), _quantised(value, kind, one))

    return Row(
        name=f"reshape_and_cache, {tokens} tokens, {kind}",
        bytes=_moved_bytes(tokens, dtype.itemsize),
        run=lambda: kvops.reshape_and_cache(
            key, value, key_cache, value_cache, slots, kind, one, one
        ),
        peers={"index_put_": index_put},
        **_target(tokens, kind),
    )


def _whole_rows(tokens: int, kind: str, layout: str) -> Row:
    key, value = _key_value(tokens)
    slots, pages, one = _slots(tokens), _pages(tokens), torch.ones(1)
    dtype = torch.bfloat16 if kind == "auto" else torch.uint8
    if layout == "NHD":
        both = torch.zeros(pages, 2, BLOCK_SIZE, HEADS, HEAD_SIZE, dtype=dtype)
    else:
        both = torch.zeros(pages, 2, HEADS, BLOCK_SIZE, HEAD_SIZE, dtype=dtype).transpose(2, 3)
    key_cache, value_cache = both[:, 0], both[:, 1]
    block, offset = slots // BLOCK_SIZE, slots % BLOCK_SIZE

    def index_put() -> None:
        key_cache.index_put_((block, offset), _quantised(key, kind, one))
        value_cache.index_put_((block, offset), _quantised(value, kind, one))

    return Row(
        name=f"reshape_and_cache_flash {layout}, {tokens} tokens, {kind}",
        bytes=_moved_bytes(tokens, dtype.itemsize),
        run=lambda: kvops.reshape_and_cache_flash(
            key, value, key_cache, value_cache, slots, kind, one, one
        ),
        peers={"index_put_": index_put},
        **_target(tokens, kind),
    )


def _convert_fp8() -> Row:
    source = torch.randn(8192, HEADS * HEAD_SIZE).bfloat16()
    target = torch.zeros(source.shape, dtype=torch.uint8)
    one = torch.ones(1)
    return Row(
        name="convert_fp8, 8192 x 1024 bfloat16",
        bytes=source.nbytes + target.nbytes,
        run=lambda: kvops.convert_fp8(target, source, 1.0, "fp8"),
        peers={"to(float8)": lambda: target.copy_(_quantised(source, "fp8", one))},
        target_fraction=0.35,
        target_speedup=1.0,
    )
