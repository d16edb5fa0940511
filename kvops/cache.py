"""Writers of keys and values into paged caches, and the conversion to and from FP8.

A slot is `block * block_size + offset`. Slots are not trusted: a token whose slot is out of range
is skipped, and `kvops.checked()` raises instead. -1 marks a token that goes nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Write tokens into the cache layout that `paged_attention_v1` and `_v2` read.

    Token t with slot `block * block_size + offset` goes to
    `key_cache[block, h, d // x, offset, d % x] = key[t, h, d]` and
    `value_cache[block, h, d, offset] = value[t, h, d]`; nothing else is written.

    Args:
        key: [>= num_tokens, num_heads, head_size], float16, bfloat16 or float32; last dimension
            dense, strides of tokens and heads free. Rows past `num_tokens` are padding.
        value: shape and dtype like `key`, with strides of its own.
        key_cache: [num_blocks, num_heads, head_size // x, block_size, x], written; by convention x
            is 16 bytes of elements, but any x goes. The dtype of `key` ("auto"), else uint8 or the
            float8 dtype of the kind. The last three dimensions dense, strides of blocks and heads
            free. What x leaves over of a head is dropped.
        value_cache: [num_blocks, num_heads, head_size // x * x, block_size], written; dtype
            likewise. The last two dimensions dense, strides of blocks and heads free.
        slot_mapping: int64 [num_tokens], contiguous.
        kv_cache_dtype: "auto", "float16" or "bfloat16" (copy bits); "fp8", "fp8_e4m3" or
            "fp8_ds_mla" (E4M3); "fp8_e5m2".
        k_scale: float32, one element, of any rank; keys are divided by it. Not looked at by
            "auto".
        v_scale: the same for values.
        interleaved_v: the bytes of a head in `value_cache` are [block_size // x, head_size, x], as
            AITER's kernels read them, under the same shape: `value[t, h, d]` goes to place
            `offset // x * head_size * x + d * x + offset % x` of head h. The block size is a
            multiple of x then. Nothing of kvops reads this layout.

    Raises:
        RuntimeError: ranks, shapes, dtypes, strides or devices are not as above, `slot_mapping` is
            longer than `key` or `value`, or `kv_cache_dtype` is another string. The caches are
            untouched then.

    Note:
        FP8 bytes are those of the float32 quotient, rounded to nearest even; infinities and what
        is too large become the largest finite number, NaN becomes 0x7F. Of two tokens with the
        same slot either may win, element by element. Results do not depend on the number of
        threads otherwise.

    Source:
        vLLM 0.23 `_C_cache_ops::reshape_and_cache`, which writes the first 512 (head, x-chunk)
        pairs of a token only, takes contiguous caches and trusts every slot. `interleaved_v` is
        vLLM 0.33's.
    """
    torch.ops.kvops.reshape_and_cache.default(
        *(key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale),
        interleaved_v,
    )


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
    """Write tokens into the cache layout of FlashAttention, whole heads side by side.

    Token t with slot `block * block_size + offset` goes to `key_cache[block, offset] = key[t]` and
    `value_cache[block, offset] = value[t]`; nothing else is written.

    Args:
        key: [>= num_tokens, num_heads, head_size], float16, bfloat16 or float32; last dimension
            dense, strides of tokens and heads free. Rows past `num_tokens` are padding.
        value: [>= num_tokens, num_heads, value_head_size], dtype of `key`, strides of its own.
        key_cache: [num_blocks, block_size, num_heads, head_size], written; the dtype of `key`
            ("auto"), else uint8 or the float8 dtype of the kind. Last dimension dense, other
            strides free: contiguous is NHD, a permuted [num_blocks, num_heads, block_size,
            head_size] is HND, and K and V may share pages.
        value_cache: [num_blocks, block_size, num_heads, value_head_size], written; likewise, with
            strides of its own.
        slot_mapping: int64 [num_tokens], contiguous.
        kv_cache_dtype: as for `reshape_and_cache`; "nvfp4", "nvfp4_linear": see the note.
        k_scale: float32, one element or one per head; keys are divided by it. The values are not
            looked at by "auto", the shape always is.
        v_scale: the same for values, in the shape of `k_scale` (of any rank for nvfp4).

    Raises:
        RuntimeError: ranks, shapes, dtypes, strides or devices are not as above, `slot_mapping` is
            longer than `key` or `value`, or `kv_cache_dtype` is another string. The caches are
            untouched then.

    Note:
        FP8 bytes and equal slots: as for `reshape_and_cache`.

        "nvfp4" stores 4-bit elements (e2m1, two in a byte, the even one low), and for each 16 of a
        head an e4m3 scale. Head sizes are multiples of 16, scales have one element, and caches are
        uint8 [num_blocks, block_size, num_heads, head_size / 2 + head_size / 16], whose pages have
        no gaps: NHD or HND as the strides say. The shape only says how many bytes a page has; in
        it come all data first, then all scales. Every operation is a float32 one, rounded once:

            factor      = 1 / k_scale
            group_scale = e4m3(factor * (amax * fl(1 / 6)))
            multiplier  = 1 / (group_scale * (1 / factor)), 0 where group_scale is 0
            code        = e2m1(x * multiplier)

        amax is the largest magnitude of the 16, NaN left out; both formats round to nearest even
        and saturate, and NaN becomes 6. The group scales of keys lie in order; those of values in
        4 x 4 tiles, as attention kernels for SM100 read them (block sizes are multiples of 4 then,
        and head sizes of 64), or in order too for "nvfp4_linear". `nvfp4_split_views` gives views
        of the parts, `dequantize_nvfp4_cache` reads them.

    Source:
        vLLM 0.23 `_C_cache_ops::reshape_and_cache_flash`, which addresses the value cache with
        strides of the key cache and trusts every slot. Its nvfp4 needs SM100, and has approximate
        reciprocals where the expression above divides: a code may be another where x is nearly
        halfway between two.
    """
    torch.ops.kvops.reshape_and_cache_flash.default(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale
    )


def convert_fp8(
    dst_cache: Tensor, src_cache: Tensor, scale: float = 1.0, kv_cache_dtype: str = "fp8"
) -> None:
    """Quantise a tensor to E4M3, or dequantise one; the dtypes say which.

    Args:
        dst_cache: any shape and strides, written: uint8 or float8_e4m3fn to quantise; float16,
            bfloat16 or float32 to dequantise. No memory shared with `src_cache`.
        src_cache: the same shape, strides of its own: float16, bfloat16 or float32 to quantise,
            else uint8 or float8_e4m3fn.
        scale: rounded to float32. Quantising divides by it, dequantising multiplies.
        kv_cache_dtype: "fp8" or "fp8_e4m3".

    Raises:
        RuntimeError: shapes or devices differ, the dtypes are not one of each sort, the layouts
            differ in more than 8 dimensions, or `kv_cache_dtype` is another string. `dst_cache` is
            untouched then.

    Note:
        Quantised bytes: as for `reshape_and_cache`. Dequantised: the byte's value times the scale
        in float32, rounded to nearest even; NaN becomes the canonical one (0x7FFF, 0x7FFFFFFF).

    Source:
        vLLM 0.23 `_C_cache_ops::convert_fp8`, which takes tensors of equal dense layout only, and
        does nothing where neither dtype is floating-point.
    """
    torch.ops.kvops.convert_fp8.default(dst_cache, src_cache, scale, kv_cache_dtype)
