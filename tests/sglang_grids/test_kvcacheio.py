"""The grids of SGLang's published tests of kvcacheio, rebuilt on `torch.ops.sgl_kernel`.

All of it on a GPU, with host pools in pinned memory; a part of it on the CPU, with smaller pools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor

from devices import DEVICES
from vllm_grids.grid import grid

LAYERS = 4
DTYPES = (torch.bfloat16, torch.float16)
LIMITS = (2, 32)  # SGLang's defaults


def ops():
    return torch.ops.sgl_kernel


def pages_of(count: int, pool: int, page: int) -> tuple[Tensor, Tensor]:
    """Tokens of distinct pages, for the source and for the target."""
    order = torch.randperm(pool // page)
    chosen = order[:count], order[count : 2 * count]
    source, target = ((p[:, None] * page + torch.arange(page)).flatten() for p in chosen)
    return source, target


def host(tensor: Tensor, device: str) -> Tensor:
    return tensor.pin_memory() if device == "cuda" else tensor


def table(layers: Iterable[Tensor], device: str) -> Tensor:
    return torch.tensor([t.data_ptr() for t in layers], dtype=torch.uint64).to(device)


def pool_tokens(device: str, tokens: int, needed: int) -> int:
    return tokens if device == "cuda" else 2 * needed


def assert_equal(actual: Sequence[Tensor], expected: Sequence[Tensor], device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    for left, right in zip(actual, expected, strict=True):
        assert torch.equal(left.cpu(), right.cpu())


@grid(
    cpu_every=5,
    dtype=DTYPES,
    items=(1, 128, 1024),
    page=(1, 16, 64),
    mla=(False, True),
    all_layers=(False, True),
)
def test_layer_first(
    device: str, dtype: torch.dtype, items: int, page: int, mla: bool, all_layers: bool
) -> None:
    """Host to device, by the kernel form and by the direct form."""
    width, count = 256, max(1, items // page)
    tokens = pool_tokens(device, 10240, count * page)
    source, target = pages_of(count, tokens, page)
    parts, layers = 1 if mla else 2, LAYERS if all_layers else 1
    src = host(torch.randn(parts, LAYERS, tokens, width).to(dtype), device)
    by_kernel, direct, expected = (
        torch.zeros(src.shape, dtype=dtype, device=device) for _ in range(3)
    )
    expected[:, :layers, target.to(device)] = src[:, :layers, source].to(device)
    indices = source.to(device), target.to(device)
    item_size = width * dtype.itemsize
    if all_layers:
        operator = ops().transfer_kv_all_layer_mla if mla else ops().transfer_kv_all_layer
        tables = [table(pool[p], device) for p in range(parts) for pool in (src, by_kernel)]
        operator(*tables, *indices, item_size, LAYERS, *LIMITS)
    else:
        operator = ops().transfer_kv_per_layer_mla if mla else ops().transfer_kv_per_layer
        pools = [pool[p, 0] for p in range(parts) for pool in (src, by_kernel)]
        operator(*pools, *indices, item_size, *LIMITS)
    ops().transfer_kv_direct(
        *(list(pool[:, :layers].flatten(0, 1)) for pool in (src, direct)),
        *(source, target.to(device), page),
    )
    assert_equal([by_kernel, direct], [expected, expected], device)


@grid(
    cpu_every=7,
    dtype=DTYPES,
    items=(128, 1024, 8192),
    page=(16, 64, 128),
    mla=(False, True),
    to_pages=(False, True),
)
def test_page_first_direct(
    device: str, dtype: torch.dtype, items: int, page: int, mla: bool, to_pages: bool
) -> None:
    width, count = 256, items // page
    tokens = pool_tokens(device, 20480, count * page)
    source, target = pages_of(count, tokens, page)
    parts, layer = 1 if mla else 2, 0
    paged = [parts, tokens // page, LAYERS, page, width]
    by_layers = [parts, LAYERS, tokens, width]
    src = torch.randn(by_layers if to_pages else paged).to(dtype)
    dst = torch.zeros(paged if to_pages else by_layers, dtype=dtype)
    expected = dst.clone()
    for s, d in zip(source[::page].tolist(), target[::page].tolist(), strict=True):
        if to_pages:
            expected[:, d // page] = src[:, :, s : s + page]
        else:
            expected[:, layer, d : d + page] = src[:, s // page, layer]
    if to_pages:
        src, dst = src.to(device), host(dst, device)
        layers = list(src.flatten(0, 1))
        ops().transfer_kv_all_layer_direct_lf_pf(layers, list(dst), source, target, page)
    else:
        src, dst = host(src, device), dst.to(device)
        layers = list(dst[:, layer])
        ops().transfer_kv_per_layer_direct_pf_lf(list(src), layers, source, target, layer, page)
    assert_equal([dst], [expected], device)


@grid(
    cpu_every=5,
    dtype=DTYPES,
    items=(256, 1024),
    page=(16, 64, 128),
    heads=(8, 16),
    to_pages=(False, True),
)
def test_page_head(
    device: str, dtype: torch.dtype, items: int, page: int, heads: int, to_pages: bool
) -> None:
    width, count, layer = 1024, items // page, 0
    tokens = pool_tokens(device, 4096, count * page)
    source, target = pages_of(count, tokens, page)
    indices = source.to(device), target.to(device)
    by_heads = [2, tokens // page, heads, page, LAYERS, width // heads]
    by_layers = [2, LAYERS, tokens, heads, width // heads]
    src = torch.randn(by_layers if to_pages else by_heads).to(dtype)
    dst = torch.zeros(by_heads if to_pages else by_layers, dtype=dtype)
    expected = dst.clone()
    sizes = width * dtype.itemsize, width * LAYERS * dtype.itemsize
    if to_pages:
        moved = src[:, :, source].permute(0, 2, 3, 1, 4)  # [part, item, head, layer, head_dim]
        expected[:, target // page, :, target % page] = moved.transpose(0, 1)
        src, dst = src.to(device), host(dst, device)
        tensors = [t for k in range(2) for t in (table(src[k], device), dst[k])]
        ops().transfer_kv_all_layer_lf_ph(*tensors, *indices, *sizes, LAYERS, page, heads, *LIMITS)
    else:
        moved = src[:, source // page, :, source % page, layer]  # [item, part, head, head_dim]
        expected[:, layer, target] = moved.transpose(0, 1)
        src, dst = host(src, device), dst.to(device)
        tensors = [t for k in range(2) for t in (src[k], dst[k, layer])]
        ops().transfer_kv_per_layer_ph_lf(*tensors, *indices, layer, *sizes, page, heads, *LIMITS)
    assert_equal([dst], [expected], device)


@grid(cpu_every=1, to_host=(False, True))
def test_embedding_ranges(device: str, to_host: bool) -> None:
    fragmented, dense, lengths, width = [1, 11, 23], [2, 6, 10], [4, 4, 2], 37
    starts = (dense, fragmented) if to_host else (fragmented, dense)
    rows = (16, 28) if to_host else (28, 16)
    src = torch.arange(rows[0] * width).view(rows[0], width).bfloat16()
    dst = torch.full([rows[1], width], -1, dtype=torch.bfloat16)
    expected = dst.clone()
    for s, d, n in zip(*starts, lengths, strict=True):
        expected[d : d + n] = src[s : s + n]
    src, dst = (
        (src.to(device), host(dst, device)) if to_host else (host(src, device), dst.to(device))
    )
    ops().transfer_embedding_ranges_direct(src, dst, *starts, lengths)
    assert_equal([dst], [expected], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("quota", [1, 2, 8, 32, 132])
def test_block_quota_does_not_change_results(quota: int, device: str) -> None:
    src, dst = torch.randn(24, 64, device=device), torch.zeros(24, 64, device=device)
    order = torch.arange(24, device=device)
    ops().transfer_kv_per_layer_mla(src, dst, order, order.flip(0), 256, quota, 32)
    assert torch.equal(dst, src.flip(0))
