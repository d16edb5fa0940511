"""Writers of MLA (multi-head latent attention) caches: latent + rope entries, and the indexer.

An MLA cache has one entry per token, shared by all heads: the latent (``kv_c``, ``kv_lora_rank``
elements) followed by the rotary part of the key (``k_pe``, ``pe_dim`` elements).

Source: vLLM 0.23 ``_C_cache_ops`` (``cache_kernels.cu``, ``cache_kernels_fused.cu``,
``concat_mla_q.cuh``). Differences: bad slots and positions are skipped, any row width is accepted,
and dtypes for which vLLM writes garbage are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .indexing import written_slots
from .numerics import (
    E4M3,
    FLT_MIN,
    bits,
    canonical_nan,
    convert_for_cache,
    divide,
    encode_fp8,
    fma_fp32,
    fp8_format,
)

# Elements that share one scale, in the fp8_ds_mla entry and in the indexer cache.
TILE_ELEMS = 128

DS_MLA_NOPE_ELEMS = 512
DS_MLA_ROPE_ELEMS = 64
DS_MLA_ROPE_BYTE = 528
DS_MLA_ENTRY_BYTES = 656

_E4M3_MAX = 448.0
_INDEXER_MIN_AMAX = 1e-4
_DS_MLA_MIN_POW2_ARGUMENT = 1e-4


def concat_and_cache_mla(
    kv_c: Tensor,
    k_pe: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    kv_cache_dtype: str,
    scale: Tensor,
    skip_scale: bool = False,
) -> None:
    """Writes ``[kv_c | k_pe]`` of every token into its cache entry.

    With "fp8_ds_mla" (DeepSeek-V3.2 sparse MLA) an entry is 656 bytes:

    ========  ======================================================================
    bytes     content
    ========  ======================================================================
    0..511    ``kv_c`` as E4M3 of ``x / s``, s the scale of the element's tile
    512..527  4 fp32 tile scales; tile j is elements 128 j .. 128 j + 127 and
              ``s = max(amax / 448, FLT_MIN)``, amax its largest magnitude, NaN ignored
    528..655  ``k_pe``, 64 bfloat16, bit for bit
    ========  ======================================================================

    "fp8_ds_mla_pow2" is the same entry with ``s = 2 ** ceil(log2(max(amax / 448, 1e-4)))`` (see
    :func:`round_up_to_power_of_two`), and zeros in bytes 528..655 if ``pe_dim`` is 0.

    Args:
        kv_c: float32, float16 or bfloat16 [>= num_tokens, kv_lora_rank]; bfloat16
            [>= num_tokens, 512] for "fp8_ds_mla". Token stride free, in elements.
        k_pe: ``kv_c``'s dtype [>= num_tokens, pe_dim].
        kv_cache: [num_blocks, block_size, kv_lora_rank + pe_dim] of ``kv_c``'s dtype ("auto") or of
            a 1-byte dtype; 1-byte [num_blocks, block_size, 656] for "fp8_ds_mla". Block and entry
            strides free, in elements. Mutated.
        slot_mapping: int64 [num_tokens]; negative or too large slots are skipped.
        kv_cache_dtype: "auto", "fp8" / "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla" or "fp8_ds_mla_pow2".
        scale: float32, one element; stored values are divided by it. Ignored for "auto",
            "fp8_ds_mla" and "fp8_ds_mla_pow2".
        skip_scale: take 1 for the scale.

    Raises:
        RuntimeError: "fp8_ds_mla" with inputs other than bfloat16.
    """
    num_tokens = slot_mapping.size(0)
    kv_c, k_pe = kv_c[:num_tokens], k_pe[:num_tokens]
    if kv_cache_dtype in ("fp8_ds_mla", "fp8_ds_mla_pow2"):
        entries = _ds_mla_entries(kv_c, k_pe, kv_cache_dtype == "fp8_ds_mla_pow2")
    else:
        scale = torch.ones(1) if skip_scale else scale
        fmt = fp8_format(kv_cache_dtype)
        entries = torch.cat(
            [convert_for_cache(kv_c, scale, fmt), convert_for_cache(k_pe, scale, fmt)], dim=-1
        )
    num_blocks, block_size = kv_cache.shape[:2]
    for token, block, offset in written_slots(slot_mapping, num_blocks, block_size):
        bits(kv_cache)[block, offset] = entries[token]


def _ds_mla_entries(kv_c: Tensor, k_pe: Tensor, power_of_two_scales: bool) -> Tensor:
    """uint8 [num_rows, 656]: the fp8_ds_mla entry of every row."""
    if kv_c.dtype != torch.bfloat16 or k_pe.dtype != torch.bfloat16:
        raise RuntimeError(
            "concat_and_cache_mla: kv_c and k_pe must be bfloat16 for fp8_ds_mla, "
            f"got {kv_c.dtype} and {k_pe.dtype}"
        )
    tiles = kv_c.float().reshape(kv_c.size(0), DS_MLA_NOPE_ELEMS // TILE_ELEMS, TILE_ELEMS)
    scales = divide(_amax(tiles), torch.tensor(_E4M3_MAX))
    if power_of_two_scales:
        scales = round_up_to_power_of_two(scales.clamp(min=_DS_MLA_MIN_POW2_ARGUMENT))
    else:
        scales = scales.clamp(min=FLT_MIN)
    nope = encode_fp8(divide(tiles, scales.unsqueeze(-1)), E4M3)
    if k_pe.size(1) == 0:
        k_pe = k_pe.new_zeros(len(k_pe), DS_MLA_ROPE_ELEMS)
    return torch.cat(
        [nope.flatten(1), scales.view(torch.uint8), k_pe.contiguous().view(torch.uint8)], dim=1
    )


def _amax(tiles: Tensor) -> Tensor:
    """Largest magnitude along the last dim, NaN ignored; 0 where there is nothing else."""
    magnitudes = tiles.abs()
    return torch.where(magnitudes.isnan(), 0.0, magnitudes).amax(dim=-1)


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
    """Rotates ``q_pe`` and ``k_pe`` in place, then writes ``[kv_c | rotated k_pe]`` to the cache.

    A token whose slot or position is out of range is left alone altogether: ``q_pe``, ``k_pe`` and
    the cache keep their bytes.

    The rotation of a pair (x, y) by (cos, sin), ``rn`` rounding to the tensors' dtype:

    * float16, bfloat16: ``x' = rn(rn(x cos) - rn(y sin))``, ``y' = rn(rn(y cos) + rn(x sin))``;
    * float32: ``x' = fma(x, cos, -rn(y sin))``, ``y' = fma(x, sin, rn(y cos))``.

    Args:
        positions: int64 [>= num_tokens], rows of ``cos_sin_cache``.
        q_pe: float32, float16 or bfloat16 [num_tokens, num_heads, rot_dim]. Mutated.
        k_pe: ``q_pe``'s dtype [num_tokens, rot_dim]. Mutated.
        kv_c: ``q_pe``'s dtype [num_tokens, kv_lora_rank].
        cos_sin_cache: ``q_pe``'s dtype [max_position, rot_dim]: cosines, then sines.
        is_neox: pairs are elements (i, i + rot_dim / 2) if true, (2 i, 2 i + 1) if not.
        slot_mapping: int64 [num_tokens].
        kv_cache: [num_blocks, block_size, kv_lora_rank + rot_dim], ``q_pe``'s dtype for "auto",
            else one byte per element. Mutated.
        kv_cache_dtype: "auto", "fp8" / "fp8_e4m3", "fp8_e5m2".
        kv_cache_scale: float32, one element; stored values are divided by it. Ignored for "auto".
    """
    fmt = fp8_format(kv_cache_dtype)
    num_blocks, block_size = kv_cache.shape[:2]
    for token, block, offset in written_slots(slot_mapping, num_blocks, block_size):
        position = int(positions[token])
        if not 0 <= position < cos_sin_cache.size(0):
            continue
        cos, sin = cos_sin_cache[position].chunk(2)
        q_pe[token] = _rotate(q_pe[token], cos, sin, is_neox)
        k_pe[token] = _rotate(k_pe[token], cos, sin, is_neox)
        entry = torch.cat([kv_c[token], k_pe[token]])
        bits(kv_cache)[block, offset] = convert_for_cache(entry, kv_cache_scale, fmt)


def _rotate(rows: Tensor, cos: Tensor, sin: Tensor, is_neox: bool) -> Tensor:
    """``rows`` [..., rot_dim] rotated; ``cos`` and ``sin`` are [rot_dim / 2]."""
    half = rows.size(-1) // 2
    x, y = (rows[..., :half], rows[..., half:]) if is_neox else (rows[..., ::2], rows[..., 1::2])
    if rows.dtype == torch.float32:
        new_x = fma_fp32(x, cos, -(y * sin))
        new_y = fma_fp32(x, sin, y * cos)
    else:
        new_x = x * cos - y * sin
        new_y = y * cos + x * sin
    rotated = torch.cat([new_x, new_y], -1) if is_neox else torch.stack([new_x, new_y], -1)
    return canonical_nan(rotated.reshape(rows.shape))


def concat_mla_q(ql_nope: Tensor, q_pe: Tensor, q_out: Tensor) -> None:
    """``q_out = cat([ql_nope, q_pe], dim=-1)``, bit for bit.

    Args:
        ql_nope: any dtype [num_tokens, num_heads, nope_dim]; token and head strides free.
        q_pe: ``ql_nope``'s dtype [num_tokens, num_heads, rope_dim].
        q_out: ``ql_nope``'s dtype [num_tokens, num_heads, nope_dim + rope_dim]. Mutated.
    """
    nope_dim = ql_nope.size(-1)
    bits(q_out)[..., :nope_dim] = bits(ql_nope)
    bits(q_out)[..., nope_dim:] = bits(q_pe)


def indexer_k_quant_and_cache(
    k: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    quant_block_size: int,
    kv_cache_dtype: str,
) -> None:
    """Quantises the keys of the sparse-attention indexer into its cache.

    Inside a block all FP8 rows come first, then all scales, so the last two dims of ``kv_cache`` do
    not describe the bytes. Within the bytes of a block, with D = ``head_dim``:

    * element d of the token at ``offset``: byte ``offset * D + d``, E4M3 of ``x / s``;
    * its scale s of elements 128 g .. 128 g + 127: fp32 at byte
      ``block_size * D + (offset * D / 128 + g) * 4``.

    ``s = max(amax, 1e-4) / 448`` in fp32, rounded up to a power of two by
    ``2 ** ceil(log2(s))`` for "ue8m0" (log2 rounded to fp32; see :func:`round_up_to_power_of_two`).

    Args:
        k: bfloat16 [num_tokens, head_dim], ``head_dim`` a multiple of 128.
        kv_cache: uint8 [num_blocks, block_size, head_dim + 4 * head_dim / 128], blocks dense, block
            stride free. Mutated.
        slot_mapping: int64 [>= num_tokens]; negative or too large slots are skipped.
        quant_block_size: 128.
        kv_cache_dtype: the scale format in fact: "ue8m0", or anything else for plain fp32.

    Raises:
        RuntimeError: ``k`` is not bfloat16, or ``quant_block_size`` is not 128.
    """
    if k.dtype != torch.bfloat16:
        raise RuntimeError(f"indexer_k_quant_and_cache: k must be bfloat16, got {k.dtype}")
    if quant_block_size != TILE_ELEMS:
        raise RuntimeError(
            f"indexer_k_quant_and_cache: quant_block_size must be 128, got {quant_block_size}"
        )
    num_tokens, head_dim = k.shape
    num_blocks, block_size = kv_cache.shape[:2]
    tiles = k.float().reshape(num_tokens, head_dim // TILE_ELEMS, TILE_ELEMS)
    scales = divide(_amax(tiles).clamp(min=_INDEXER_MIN_AMAX), torch.tensor(_E4M3_MAX))
    if kv_cache_dtype == "ue8m0":
        scales = round_up_to_power_of_two(scales)
    rows = encode_fp8(divide(tiles, scales.unsqueeze(-1)), E4M3).flatten(1)
    scale_bytes = scales.view(torch.uint8)

    row_bytes, scales_bytes = rows.size(1), scale_bytes.size(1)
    for token, block, offset in written_slots(slot_mapping[:num_tokens], num_blocks, block_size):
        block_bytes = bits(kv_cache)[block].view(-1)
        block_bytes[offset * row_bytes :][:row_bytes] = rows[token]
        block_bytes[block_size * row_bytes + offset * scales_bytes :][:scales_bytes] = scale_bytes[
            token
        ]


def round_up_to_power_of_two(values: Tensor) -> Tensor:
    """``2 ** ceil(log2(v))`` with log2 correctly rounded to fp32, for positive float32 values.

    This is not "the smallest power of two that is not less than v": an ulp or two above 2^k, for
    k <= -5, log2 rounds to exactly k, and the result is 2^k. vLLM's log2f does the same.
    """
    exponents = torch.log2(values.double()).float().ceil()
    return torch.exp2(exponents.double()).float()
