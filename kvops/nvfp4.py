"""Reading pages that `reshape_and_cache_flash` wrote as "nvfp4" or "nvfp4_linear", in PyTorch.

A page holds the 4-bit data of all its tokens and heads, then all their scales; keys and values
have one half of a page each. docs/layouts.md draws them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Elements that share a scale.
GROUP_ELEMS = 16

# What the 4-bit codes stand for; bit 3 is the sign.
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class Nvfp4Views(NamedTuple):
    """The parts of nvfp4 pages, as views: [num_blocks, block_size, num_heads, ...].

    Data is uint8, [..., head_size / 2], the even element of two in the low half of a byte. Scales
    are float8_e4m3fn, [..., head_size / 16], in the order of memory: "nvfp4" has those of values in
    tiles.
    """

    key_data: Tensor
    key_scales: Tensor
    value_data: Tensor
    value_scales: Tensor


def nvfp4_split_views(key_cache: Tensor, value_cache: Tensor) -> Nvfp4Views:
    """The four views of nvfp4 pages: data and scales of keys and of values.

    Args:
        key_cache: uint8 [num_blocks, block_size, num_heads, head_size / 2 + head_size / 16], as for
            `reshape_and_cache_flash`: pages without gaps, heads or tokens first.
        value_cache: the same, with a head size and strides of its own.

    Returns:
        Views of the same memory: see `Nvfp4Views`.

    Raises:
        RuntimeError: a cache is not as above.

    Example:
        >>> import kvops, torch
        >>> pages = torch.zeros(8, 2, 16, 4, 72, dtype=torch.uint8)  # head size 128
        >>> views = kvops.nvfp4_split_views(pages[:, 0], pages[:, 1])
        >>> [list(view.shape) for view in views[:2]]
        [[8, 16, 4, 64], [8, 16, 4, 8]]
    """
    return Nvfp4Views(*_split("key_cache", key_cache), *_split("value_cache", value_cache))


def dequantize_nvfp4_cache(
    key_cache: Tensor,
    value_cache: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    kv_cache_dtype: str = "nvfp4",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Read whole nvfp4 caches back: for tests, and for moving to another format.

    Args:
        key_cache: uint8 [num_blocks, block_size, num_heads, head_size / 2 + head_size / 16], as for
            `reshape_and_cache_flash`.
        value_cache: the same, with a head size and strides of its own.
        k_scale: float32, one element: what the keys were written with.
        v_scale: the same for values.
        kv_cache_dtype: "nvfp4" or "nvfp4_linear".
        dtype: of the result.

    Returns:
        Keys and values, each [num_blocks, block_size, num_heads, head_size]: the code's number
        times (group scale times `k_scale` or `v_scale`), in float32, rounded to `dtype`. What was
        never written is read like the rest.

    Raises:
        RuntimeError: a cache or a scale is not as above, or `kv_cache_dtype` is another string.
    """
    if kv_cache_dtype not in ("nvfp4", "nvfp4_linear"):
        raise RuntimeError(
            "kvops::dequantize_nvfp4_cache: kv_cache_dtype must be one of nvfp4, nvfp4_linear; "
            f"got {kv_cache_dtype!r}"
        )
    for name, scale in (("k_scale", k_scale), ("v_scale", v_scale)):
        if scale.dtype != torch.float32 or scale.numel() != 1:
            raise RuntimeError(
                f"kvops::dequantize_nvfp4_cache: {name} must be one float32 element, got "
                f"{scale.dtype} {list(scale.shape)}"
            )
    views = nvfp4_split_views(key_cache, value_cache)
    value_scales = views.value_scales
    if kv_cache_dtype == "nvfp4":
        value_scales = _out_of_tiles(value_scales)
    keys = _dequantize(views.key_data, views.key_scales, k_scale, dtype)
    return keys, _dequantize(views.value_data, value_scales, v_scale, dtype)


def _split(name: str, cache: Tensor) -> tuple[Tensor, Tensor]:
    """Data and scales of one of the caches."""
    if cache.dim() != 4 or cache.dtype != torch.uint8 or cache.size(3) % 9 != 0:
        raise RuntimeError(
            f"kvops::nvfp4_split_views: {name} must be uint8 [num_blocks, block_size, num_heads, "
            f"head_size / 2 + head_size / 16], got {cache.dtype} {list(cache.shape)}"
        )
    num_blocks, block_size, num_heads, entry = cache.shape
    groups = entry // 9
    places = block_size * num_heads
    if cache[:1].is_contiguous():
        strides = [num_heads, 1]
    elif cache[:1].transpose(1, 2).is_contiguous():
        strides = [1, block_size]
    else:
        raise RuntimeError(
            f"kvops::nvfp4_split_views: {name} must have pages without gaps, got strides "
            f"{list(cache.stride())} for shape {list(cache.shape)}"
        )

    def part(start: int, width: int) -> Tensor:
        sizes = [num_blocks, block_size, num_heads, width]
        inner = [stride * width for stride in strides]
        return cache.as_strided(sizes, [cache.stride(0), *inner, 1], cache.storage_offset() + start)

    data_width = groups * GROUP_ELEMS // 2
    return part(0, data_width), part(places * data_width, groups).view(torch.float8_e4m3fn)


def _out_of_tiles(scales: Tensor) -> Tensor:
    """Scales of values in the order of tokens and groups, where "nvfp4" has 4 x 4 tiles of them.

    Within 4 tokens, a row of memory holds a quarter of the groups of all 4, token by token.
    """
    num_blocks, block_size, num_heads, groups = scales.shape
    if block_size % 4 != 0 or groups % 4 != 0:
        raise RuntimeError(
            "kvops::dequantize_nvfp4_cache: value_cache must have a block size that is a multiple "
            f"of 4 and a head size that is a multiple of 64, got {block_size}, {groups * 16}"
        )
    in_bytes = scales.view(torch.uint8)
    # [blocks, tokens / 4, quarter of the groups, heads, group in the quarter, token of 4]
    tiles = in_bytes.reshape(num_blocks, block_size // 4, 4, num_heads, groups // 4, 4)
    ordered = tiles.permute(0, 1, 5, 3, 2, 4).reshape(scales.shape)
    return ordered.view(torch.float8_e4m3fn)


def _dequantize(data: Tensor, scales: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    numbers = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], device=data.device)
    codes = torch.stack([data & 0xF, data >> 4], dim=-1).flatten(-2)
    factors = scales.float() * scale.reshape(())
    groups = numbers[codes.long()].unflatten(-1, (-1, GROUP_ELEMS)) * factors.unsqueeze(-1)
    return groups.flatten(-2).to(dtype)
