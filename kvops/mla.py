"""Multi-head latent attention: writers of the compressed cache and of the indexer cache."""

from __future__ import annotations

import torch
from torch import Tensor


def concat_and_cache_mla(
    kv_c: Tensor,
    k_pe: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    kv_cache_dtype: str,
    scale: Tensor,
    skip_scale: bool = False,
) -> None:
    """Write one MLA cache entry `[kv_c | k_pe]` per token.

    Args:
        kv_c: [rows >= tokens, R], float16, bfloat16 or float32; the latent. Last dimension dense,
            row stride free. Rows beyond the last token are not read.
        k_pe: [rows >= tokens, P], `kv_c`'s dtype and likewise; the rotary part of the key.
        kv_cache: [blocks, block_size, R + P], written; `kv_c`'s dtype for "auto", uint8 or the
            float8 dtype for "fp8" kinds. Last dimension dense, block and entry strides free.
        slot_mapping: int64 [tokens], contiguous; `block * block_size + offset` of each token. A
            slot that is negative (-1 is padding) or too large is skipped: nothing is written.
        kv_cache_dtype: "auto" (also "float16", "bfloat16"): bit for bit. "fp8", "fp8_e4m3" or
            "fp8_e5m2": float8 of `x / scale`, rounded to nearest even, saturating, NaN as 0x7F.
            "fp8_ds_mla", "fp8_ds_mla_pow2": see the note.
        scale: float32, one element; read only for "fp8" kinds, any tensor otherwise.
        skip_scale: the scale is 1; `scale` is not looked at.

    Raises:
        RuntimeError: ranks, widths, dtypes, devices or strides are not as above, there are fewer
            rows than tokens, or `kv_cache_dtype` is none of the above. In checked mode also for a
            slot outside of [-1, blocks * block_size). Nothing is written before.

    Note:
        "fp8_ds_mla" is the 656-byte entry of DeepSeek-V3.2's sparse attention, for bfloat16 with
        R = 512 and P = 64 and a `kv_cache` of [blocks, block_size, 656] one-byte elements: 512
        e4m3 bytes of `x / s`, 4 float32 scales s (one per 128 elements, largest magnitude / 448,
        at least 2^-126), 64 bfloat16 of `k_pe` as they are. vLLM takes float16 there and
        writes garbage; here it is refused.

        "fp8_ds_mla_pow2" is what newer vLLMs write for "fp8_ds_mla": the same entry with scales
        `2 ** ceil(log2(max(amax / 448, 1e-4)))`, which readers may cut to bfloat16 or to an
        exponent without loss. P may be 0: zeros are stored then. Every reader of one variant reads
        the other.

        Of two tokens with the same slot, either may win.

    Example:
        >>> import kvops, torch
        >>> kv_cache = torch.zeros(4, 16, 576, dtype=torch.bfloat16)
        >>> kv_c, k_pe = torch.ones(2, 512).bfloat16(), torch.ones(2, 64).bfloat16()
        >>> slots = torch.tensor([17, -1])
        >>> kvops.concat_and_cache_mla(kv_c, k_pe, kv_cache, slots, "auto", torch.ones(1))
        >>> kv_cache.sum(-1).nonzero().tolist()
        [[1, 1]]

    Source:
        vLLM 0.23 `_C_cache_ops::concat_and_cache_mla`; `skip_scale` and the bytes of
        "fp8_ds_mla_pow2" are vLLM 0.33's.
    """
    torch.ops.kvops.concat_and_cache_mla.default(
        kv_c, k_pe, kv_cache, slot_mapping, kv_cache_dtype, scale, skip_scale
    )


def concat_and_cache_mla_rope_fused(
    positions: Tensor,
    q_pe: Tensor,
    k_pe: Tensor,
    kv_c: Tensor,
    cos_sin_cache: Tensor,
    is_neox: bool,
    slot_mapping: Tensor,
    kv_cache: Tensor,
    kv_cache_dtype: str,
    kv_cache_scale: Tensor,
) -> None:
    """Rotate `q_pe` and `k_pe` in place, then write the MLA entries `[kv_c | k_pe]`.

    Args:
        positions: int64 [>= tokens], contiguous; rows of `cos_sin_cache`.
        q_pe: [tokens, heads, P], float16, bfloat16 or float32, P even; rotated in place. Last
            dimension dense, the others of any stride.
        k_pe: [tokens, P], `q_pe`'s dtype; rotated in place. Last dimension dense.
        kv_c: [tokens, R], `q_pe`'s dtype. Last dimension dense, row stride free.
        cos_sin_cache: [max_position, P], `q_pe`'s dtype; P / 2 cosines, then P / 2 sines. Last
            dimension dense.
        is_neox: rotate pairs of elements (i, i + P / 2); otherwise (2 i, 2 i + 1), as GPT-J.
        slot_mapping: int64 [tokens], contiguous; as in `concat_and_cache_mla`.
        kv_cache: [blocks, block_size, R + P], written; as in `concat_and_cache_mla`.
        kv_cache_dtype: "auto" and "fp8" kinds as in `concat_and_cache_mla`. "fp8_ds_mla" is no
            layout here: it means "fp8", as in vLLM.
        kv_cache_scale: float32, one element; read only for "fp8" kinds, any tensor otherwise.

    Raises:
        RuntimeError: ranks, widths, numbers of tokens, dtypes, devices or strides are not as
            above, or `kv_cache_dtype` is none of the above. In checked mode also for a slot
            outside of [-1, blocks * block_size) or a position outside of [0, max_position), of
            padding tokens too. Nothing is written before.

    Note:
        A token whose slot or position is out of range (padding has slot -1) is left alone
        altogether: neither rotated nor written.

        With (x, y) a pair: `x' = x cos - y sin`, `y' = y cos + x sin`. float16 and bfloat16 round
        after every operation; float32 computes `fma(x, cos, -(y sin))` and
        `fma(x, sin, y cos)`. Any NaN becomes the positive one with all bits set.

    Source:
        vLLM 0.23 `_C_cache_ops::concat_and_cache_mla_rope_fused`.
    """
    torch.ops.kvops.concat_and_cache_mla_rope_fused.default(
        positions,
        q_pe,
        k_pe,
        kv_c,
        cos_sin_cache,
        is_neox,
        slot_mapping,
        kv_cache,
        kv_cache_dtype,
        kv_cache_scale,
    )


def concat_mla_q(ql_nope: Tensor, q_pe: Tensor, q_out: Tensor) -> None:
    """Concatenate the two parts of an MLA query along the last dimension, bit for bit.

    Args:
        ql_nope: [tokens, heads, N], float16, bfloat16 or float32; last dimension dense, the
            others of any stride.
        q_pe: [tokens, heads, P], dtype and strides likewise.
        q_out: [tokens, heads, N + P], written; dtype and strides likewise.

    Raises:
        RuntimeError: ranks, shapes, dtypes or devices do not agree, or a last dimension is not
            dense.

    Note:
        vLLM takes N = 512 and P = 64 only; here any widths go.

    Source:
        vLLM 0.23 `_C_cache_ops::concat_mla_q`.
    """
    torch.ops.kvops.concat_mla_q.default(ql_nope, q_pe, q_out)


def indexer_k_quant_and_cache(
    k: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    quant_block_size: int,
    kv_cache_dtype: str,
) -> None:
    """Quantise the keys of the sparse-attention indexer into its cache.

    Args:
        k: bfloat16 [tokens, D], D a multiple of 128. Last dimension dense, row stride free.
        kv_cache: uint8 or float8_e4m3fn [blocks, block_size, C], C >= D + 4 * D / 128, written.
            Blocks dense, block stride free. The last two dimensions do not describe the bytes:
            each block holds first `block_size` rows of D e4m3 bytes, then `block_size` rows of
            D / 128 float32 scales.
        slot_mapping: int64 [>= tokens], contiguous; `block * block_size + offset` of each token.
            A slot that is negative (-1 is padding) or too large is skipped.
        quant_block_size: elements that share a scale: 128.
        kv_cache_dtype: the format of the scales, in fact. "ue8m0" rounds them up to a power of
            two (still stored as float32); any other string leaves them as they are.

    Raises:
        RuntimeError: ranks, widths, dtypes, devices or strides are not as above, there are fewer
            slots than tokens, or `quant_block_size` is not 128. In checked mode also for a slot
            outside of [-1, blocks * block_size). Nothing is written before.

    Note:
        The scale of a tile is `s = max(amax, 1e-4) / 448`, amax its largest magnitude with NaN
        left out, or `2 ** ceil(log2(s))`; the bytes are e4m3 of `x / s`, rounded to nearest even,
        NaN as 0x7F. vLLM takes float16 and float32 as well, and writes garbage; here they are
        refused.

    Source:
        vLLM 0.23 `_C_cache_ops::indexer_k_quant_and_cache`.
    """
    torch.ops.kvops.indexer_k_quant_and_cache.default(
        k, kv_cache, slot_mapping, quant_block_size, kv_cache_dtype
    )
