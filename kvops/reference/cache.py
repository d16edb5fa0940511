"""Writers into the paged K/V cache, and the FP8 conversion helper.

Source: vLLM 0.23 ``_C_cache_ops`` (``cache_kernels.cu``). Differences: slots beyond the cache are
skipped, and every (head, x-chunk) unit is written where vLLM stops after 512.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .indexing import written_slots
from .numerics import (
    E4M3,
    HIGH_PRECISION_DTYPES,
    bits,
    convert_for_cache,
    decode_fp8,
    divide,
    encode_e2m1,
    encode_fp8,
    fp8_format,
    load_fp8,
    store_fp8,
)

# Elements that share a scale in nvfp4.
NVFP4_GROUP_ELEMS = 16


def reshape_and_cache(
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
    kv_cache_dtype: str,
    k_scale: Tensor,
    v_scale: Tensor,
    interleaved_v: bool = False,
) -> None:
    """Writes tokens into the cache layout that ``paged_attention_v1`` and ``_v2`` read.

    ``key_cache[block, h, d // x, offset, d % x] = key[t, h, d]`` and
    ``value_cache[block, h, d, offset] = value[t, h, d]``, converted to the cache's format.

    Args:
        key: float32, float16 or bfloat16 [>= num_tokens, num_heads, head_size]; rows past
            ``slot_mapping`` are padding and ignored. Token stride free, in elements.
        value: like ``key``.
        key_cache: [num_blocks, num_heads, head_size // x, block_size, x], contiguous; ``key``'s
            dtype for "auto", else one byte per element. Conventionally x is 16 bytes of elements.
            ``head_size`` is a multiple of x. Mutated.
        value_cache: [num_blocks, num_heads, head_size, block_size], contiguous. Mutated.
        slot_mapping: int64 [num_tokens]; negative or too large slots are skipped.
        kv_cache_dtype: "auto" (bit copy), "fp8" / "fp8_e4m3", "fp8_e5m2".
        k_scale: float32, one element; ``key`` is divided by it. Ignored for "auto".
        v_scale: the same for ``value``.
        interleaved_v: the bytes of a head in ``value_cache`` are not [head_size, block_size] but
            [block_size / x, head_size, x].
    """
    fmt = fp8_format(kv_cache_dtype)
    num_blocks, num_heads, num_chunks, block_size, x = key_cache.shape
    keys = convert_for_cache(key, k_scale, fmt)
    values = convert_for_cache(value, v_scale, fmt)
    for token, block, offset in written_slots(slot_mapping, num_blocks, block_size):
        bits(key_cache)[block, :, :, offset] = keys[token].reshape(num_heads, num_chunks, x)
        if interleaved_v:
            page = bits(value_cache)[block].view(num_heads, block_size // x, num_chunks * x, x)
            page[:, offset // x, :, offset % x] = values[token]
        else:
            bits(value_cache)[block, :, :, offset] = values[token]


def reshape_and_cache_flash(
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
    kv_cache_dtype: str,
    k_scale: Tensor,
    v_scale: Tensor,
) -> None:
    """Writes tokens into the cache layout of FlashAttention: whole heads side by side.

    ``key_cache[block, offset, h] = key[t, h]``, ``value_cache`` likewise.

    Args:
        key: float32, float16 or bfloat16 [>= num_tokens, num_heads, head_size].
        value: like ``key``.
        key_cache: logical shape [num_blocks, block_size, num_heads, head_size], any strides with
            dense heads: contiguous is NHD, a permuted view of
            [num_blocks, num_heads, block_size, head_size] is HND. Mutated.
        value_cache: like ``key_cache``, with strides of its own. Mutated.
        slot_mapping: int64 [num_tokens]; negative or too large slots are skipped.
        kv_cache_dtype: as for :func:`reshape_and_cache`, or "nvfp4" or "nvfp4_linear", for which
            see :func:`_write_nvfp4`.
        k_scale: float32, one element, or one per head; ``key`` is divided by it.
        v_scale: the same for ``value``.
    """
    if kv_cache_dtype in ("nvfp4", "nvfp4_linear"):
        _write_nvfp4(key, key_cache, slot_mapping, k_scale, scales_in_tiles=False)
        in_tiles = kv_cache_dtype == "nvfp4"
        _write_nvfp4(value, value_cache, slot_mapping, v_scale, scales_in_tiles=in_tiles)
        return
    fmt = fp8_format(kv_cache_dtype)
    num_blocks, block_size = key_cache.shape[:2]
    keys = convert_for_cache(key, k_scale.reshape(-1, 1), fmt)
    values = convert_for_cache(value, v_scale.reshape(-1, 1), fmt)
    for token, block, offset in written_slots(slot_mapping, num_blocks, block_size):
        bits(key_cache)[block, offset] = keys[token]
        bits(value_cache)[block, offset] = values[token]


def _write_nvfp4(
    rows: Tensor, cache: Tensor, slot_mapping: Tensor, scale: Tensor, *, scales_in_tiles: bool
) -> None:
    """Writes keys or values as 4-bit numbers, with a scale for each 16 elements of a head.

    A page of the cache is one run of bytes: first the data of all tokens and heads, then all their
    scales; its shape only says how many. Both parts are in the order of the page's strides:
    [tokens, heads, ...] (NHD) or [heads, tokens, ...] (HND).

    Args:
        rows: float32, float16 or bfloat16 [>= num_tokens, num_heads, head_size], ``head_size`` a
            multiple of 16.
        cache: uint8 [num_blocks, block_size, num_heads, head_size / 2 + head_size / 16]. Mutated.
        slot_mapping: int64 [num_tokens].
        scale: float32, one element.
        scales_in_tiles: the scale of group g of the token at offset t is stored where that of
            group ``(g % (G / 4)) * 4 + t % 4`` of offset ``t // 4 * 4 + g // (G / 4)`` would be,
            G groups in a head; block size and G are multiples of 4.
    """
    num_blocks, block_size, num_heads, _ = cache.shape
    codes, scales = quantize_nvfp4(rows, scale)
    data = codes[..., 0::2] | codes[..., 1::2] << 4
    page_bytes = cache[0].numel() if num_blocks else 0
    pages = cache.as_strided([num_blocks, page_bytes], [cache.stride(0), 1])
    is_hnd = cache.stride(2) > cache.stride(1)
    # Tokens and heads, in the order of memory.
    outer = [num_heads, block_size] if is_hnd else [block_size, num_heads]
    data_bytes = block_size * num_heads * data.size(-1)
    groups = scales.size(-1)
    for token, block, offset in written_slots(slot_mapping, num_blocks, block_size):
        page_data = pages[block, :data_bytes].view(*outer, -1)
        page_scales = pages[block, data_bytes:].view(*outer, groups)
        if is_hnd:
            page_data, page_scales = page_data.transpose(0, 1), page_scales.transpose(0, 1)
        page_data[offset] = data[token]
        for group in range(groups):
            to_offset, to_group = offset, group
            if scales_in_tiles:
                to_offset = offset // 4 * 4 + group // (groups // 4)
                to_group = group % (groups // 4) * 4 + offset % 4
            page_scales[to_offset, :, to_group] = scales[token, :, group]


def quantize_nvfp4(rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The codes and group scales of ``rows``, one fp32 operation at a time, each rounded once.

    For a group of 16 elements, ``amax`` its largest magnitude, NaN ignored::

        factor      = 1 / scale
        group_scale = e4m3(factor * (amax * fl(1 / 6)))
        multiplier  = 1 / (group_scale * (1 / factor)), 0 where group_scale is 0
        code        = e2m1(x * multiplier)

    This is vLLM's expression with true divisions for its approximate reciprocals.

    Returns:
        uint8 [..., head_size] codes and uint8 [..., head_size / 16] bytes of E4M3.
    """
    groups = rows.float().unflatten(-1, (-1, NVFP4_GROUP_ELEMS))
    magnitudes = groups.abs()
    amax = torch.where(magnitudes.isnan(), 0.0, magnitudes).amax(-1)
    one = torch.ones_like(amax)
    factor = divide(one, scale)
    scales = encode_fp8(factor * (amax * divide(one, torch.tensor(6.0))), E4M3)
    values = decode_fp8(scales, E4M3)
    multiplier = divide(one, values * divide(one, factor))
    multiplier = torch.where(values == 0, 0.0, multiplier)
    return encode_e2m1(groups * multiplier.unsqueeze(-1)).flatten(-2), scales


def convert_fp8(dst_cache: Tensor, src_cache: Tensor, scale: float, kv_cache_dtype: str) -> None:
    """Quantises a tensor to FP8 or dequantises it; the dtypes say which.

    Args:
        dst_cache: same shape and layout as ``src_cache``. Mutated. One byte per element to
            quantise; float32, float16 or bfloat16 to dequantise.
        src_cache: float32, float16 or bfloat16 to quantise, else one byte per element.
        scale: rounded to fp32. Quantising divides by it, dequantising multiplies.
        kv_cache_dtype: "fp8" or "fp8_e4m3".

    Raises:
        RuntimeError: any other ``kv_cache_dtype``, or neither tensor is float32, float16 or
            bfloat16.
    """
    if kv_cache_dtype not in ("fp8", "fp8_e4m3"):
        raise RuntimeError(f"Unsupported data type: {kv_cache_dtype}")
    fmt = fp8_format(kv_cache_dtype)
    scale_fp32 = torch.tensor(scale, dtype=torch.float32)
    if src_cache.dtype in HIGH_PRECISION_DTYPES:
        bits(dst_cache).copy_(store_fp8(src_cache, scale_fp32, fmt))
    elif dst_cache.dtype in HIGH_PRECISION_DTYPES:
        bits(dst_cache).copy_(bits(load_fp8(src_cache, scale_fp32, fmt, dst_cache.dtype)))
    else:
        raise RuntimeError(
            "convert_fp8: src_cache or dst_cache must be float32, float16 or bfloat16, "
            f"got {src_cache.dtype} and {dst_cache.dtype}"
        )
