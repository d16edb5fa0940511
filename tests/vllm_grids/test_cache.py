"""vLLM's tests of the K/V cache writers, of convert_fp8 and of swap_blocks."""

from __future__ import annotations

import torch
from torch import Tensor

import kvops  # noqa: F401  (registers the names)
from vllm_grids.grid import (
    DTYPES,
    FP8_CLOSE,
    HEADS,
    KINDS,
    TOKENS,
    as_fp8,
    blocks_on,
    distinct,
    from_fp8,
    grid,
    random_cache,
    scale_of,
    uniform,
)

ops = torch.ops._C_cache_ops

HEAD_SIZES, BLOCK_SIZES, BLOCKS = (64, 80, 256), (8, 16, 32), (1024, 10000)


def tokens_of(tokens: int, heads: int, head_size: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(tokens, heads, head_size, dtype=dtype, device=device)


def check(cache: Tensor, before: Tensor, expected: Tensor, kind: str, scale: float) -> None:
    """`expected` holds numbers; where `before` was not written, bytes must be as they were."""
    if kind == "auto":
        assert torch.equal(cache, expected)
        return
    torch.testing.assert_close(from_fp8(cache, scale), expected.half(), **FP8_CLOSE)


@grid(
    cpu_every=7,
    head_size=HEAD_SIZES,
    block_size=BLOCK_SIZES,
    blocks=BLOCKS,
    dtype=DTYPES,
    kind=KINDS,
)
def test_reshape_and_cache(
    device: str, head_size: int, block_size: int, blocks: int, dtype: torch.dtype, kind: str
) -> None:
    blocks = blocks_on(device, blocks)
    key, value = tokens_of(2 * TOKENS, HEADS, head_size, dtype, device).chunk(2)
    x = 16 // (1 if kind == "fp8" else dtype.itemsize)
    shared = {"head_size": head_size, "dtype": dtype, "kind": kind, "device": device}
    key_cache = random_cache(blocks, HEADS, head_size // x, block_size, x, **shared)
    value_cache = random_cache(blocks, HEADS, head_size, block_size, **shared)
    scales = scale_of(key), scale_of(value)
    slots = distinct(TOKENS, blocks * block_size, device)
    block, offset = slots // block_size, slots % block_size
    expected = []
    for cache, scale in zip((key_cache, value_cache), scales, strict=True):
        expected.append(cache.clone() if kind == "auto" else from_fp8(cache, float(scale)).float())
    expected[0][block, :, :, offset] = key.view(TOKENS, HEADS, -1, x).to(expected[0].dtype)
    expected[1][block, :, :, offset] = value.to(expected[1].dtype)
    before = key_cache.clone(), value_cache.clone()
    ops.reshape_and_cache(key, value, key_cache, value_cache, slots, kind, *scales)
    for i, cache in enumerate((key_cache, value_cache)):
        check(cache, before[i], expected[i], kind, float(scales[i]))
        cache[block, :, :, offset] = before[i][block, :, :, offset]
        assert torch.equal(cache, before[i])


def flash_caches(
    blocks: int, block_size: int, heads: int, head_size: int, dtype: torch.dtype, kind: str,
    layout: str, device: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    inner = [block_size, heads] if layout == "NHD" else [heads, block_size]
    cache = random_cache(
        *[blocks, 2, *inner, head_size], head_size=head_size, dtype=dtype, kind=kind, device=device
    )
    cache = cache if layout == "NHD" else cache.transpose(2, 3)
    return cache[:, 0], cache[:, 1]


def run_flash(
    device: str, tokens: int, heads: int, head_size: int, block_size: int, blocks: int,
    dtype: torch.dtype, kind: str, layout: str, scale_kind: str,
) -> None:  # fmt: skip
    key, value = tokens_of(2 * tokens, heads, head_size, dtype, device).chunk(2)
    caches = flash_caches(blocks, block_size, heads, head_size, dtype, kind, layout, device)
    slots = distinct(tokens, blocks * block_size, device)
    block, offset = slots // block_size, slots % block_size
    scales = [scale_of(key), scale_of(value)]
    if scale_kind == "attn_head":
        scales = [t.abs().amax(dim=(0, 2)).float() / 64 for t in (key, value)]
    before = [cache.clone() for cache in caches]
    ops.reshape_and_cache_flash(key, value, *caches, slots, kind, *scales)
    for cache, old, new, scale in zip(caches, before, (key, value), scales, strict=True):
        written = cache[block, offset]
        if kind == "auto":
            assert torch.equal(written, new)
        else:
            numbers = from_fp8(written.contiguous(), 1.0, torch.float32) * scale.view(-1, 1)
            torch.testing.assert_close(numbers, new.float(), **FP8_CLOSE)
        cache[block, offset] = old[block, offset]
        assert torch.equal(cache, old)


@grid(
    cpu_every=19,
    head_size=HEAD_SIZES,
    block_size=BLOCK_SIZES,
    blocks=BLOCKS,
    dtype=DTYPES,
    kind=KINDS,
    layout=("NHD", "HND"),
    scale_kind=("tensor", "attn_head"),
)
def test_reshape_and_cache_flash(
    device: str, head_size: int, block_size: int, blocks: int, dtype: torch.dtype, kind: str,
    layout: str, scale_kind: str,
) -> None:  # fmt: skip
    run_flash(
        device, TOKENS // 2, HEADS, head_size, block_size, blocks_on(device, blocks // 2), dtype,
        kind, layout, scale_kind,
    )  # fmt: skip


@grid(cpu_every=1, dtype=DTYPES, kind=KINDS, layout=("NHD", "HND"))
def test_reshape_and_cache_flash_unaligned_rows(
    device: str, dtype: torch.dtype, kind: str, layout: str
) -> None:
    run_flash(device, TOKENS // 2, 13, 46, 16, 64, dtype, kind, layout, "tensor")


@grid(cpu_every=7, head_size=HEAD_SIZES, block_size=BLOCK_SIZES, blocks=BLOCKS, dtype=DTYPES)
def test_fp8_e4m3_conversion(
    device: str, head_size: int, block_size: int, blocks: int, dtype: torch.dtype
) -> None:
    shape = blocks_on(device, blocks), HEADS, head_size, block_size
    numbers = uniform(*shape, bound=224.0, dtype=dtype, device=device)
    torch.testing.assert_close(from_fp8(as_fp8(numbers), dtype=dtype), numbers, **FP8_CLOSE)


def check_swap(src: Tensor, dst: Tensor, mapping: Tensor) -> None:
    """Blocks of the first dimension; every other block stays as it was."""
    expected = dst.clone()
    expected[mapping[:, 1].to(dst.device)] = src[mapping[:, 0].to(src.device)].to(dst.device)
    ops.swap_blocks(src, dst, src.element_size() * src.stride(0), mapping)
    if src.is_cuda or dst.is_cuda:
        torch.cuda.synchronize()
    assert torch.equal(dst, expected)


def swap_mapping(copies: int, blocks: int, within_one: bool) -> Tensor:
    """Within one tensor, sources and targets have no block in common."""
    if within_one:
        return torch.randperm(blocks)[: 2 * copies].view(2, copies).T
    return torch.stack([torch.randperm(blocks)[:copies], torch.randperm(blocks)[:copies]], dim=1)


@grid(
    cpu_every=17,
    direction=("from-host", "to-host", "within"),
    head_size=HEAD_SIZES,
    block_size=BLOCK_SIZES,
    blocks=BLOCKS,
    dtype=DTYPES,
    kind=KINDS,
)
def test_swap_blocks(
    device: str, direction: str, head_size: int, block_size: int, blocks: int,
    dtype: torch.dtype, kind: str,
) -> None:  # fmt: skip
    blocks = blocks_on(device, blocks)
    copies = min(256, blocks // 2)
    where = {"from-host": ("cpu", device), "to-host": (device, "cpu"), "within": (device, device)}
    # A pool of gigabytes takes long to fill on the host.
    blocks = blocks if direction == "within" else min(blocks, 1024)
    src, dst = (
        random_cache(
            *[blocks, HEADS, head_size, block_size],
            head_size=head_size, dtype=dtype, kind=kind, device=device,
        ).to(place)
        for place in where[direction]
    )  # fmt: skip
    check_swap(src, dst, swap_mapping(copies, blocks, within_one=False))
    if direction == "within":
        check_swap(src, src, swap_mapping(copies, blocks, within_one=True))


@grid(
    cpu_every=1,
    direction=("from-host", "to-host", "within"),
    latent=(256, 512),
    dtype=DTYPES,
)
def test_swap_blocks_mla(device: str, direction: str, latent: int, dtype: torch.dtype) -> None:
    where = {"from-host": ("cpu", device), "to-host": (device, "cpu"), "within": (device, device)}
    src, dst = (
        torch.randn(8, 16, latent + 64, dtype=dtype, device=place) for place in where[direction]
    )
    check_swap(src, dst, swap_mapping(4, 8, within_one=False))


@grid(
    cpu_every=1,
    block_bytes=(8, 4096, 8192),
    direction=("from-host", "to-host", "within"),
    on_default_stream=(True, False),
)
def test_swap_blocks_batch(
    device: str, block_bytes: int, direction: str, on_default_stream: bool
) -> None:
    where = {"from-host": ("cpu", device), "to-host": (device, "cpu"), "within": (device, device)}
    blocks = 300
    src, dst = (
        torch.randint(256, [blocks, block_bytes], dtype=torch.uint8).to(place)
        for place in where[direction]
    )
    order, places = torch.randperm(blocks), torch.randperm(blocks)
    expected = dst.cpu()
    expected[places] = src.cpu()[order]
    tables = src.data_ptr() + order * block_bytes, dst.data_ptr() + places * block_bytes
    stream = None
    if device == "cuda":
        torch.cuda.synchronize()
        stream = torch.cuda.default_stream() if on_default_stream else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ops.swap_blocks_batch(*tables, torch.full([blocks], block_bytes))
    if stream is not None:
        stream.synchronize()
    assert torch.equal(dst.cpu(), expected)
