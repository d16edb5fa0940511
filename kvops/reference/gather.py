"""Gathers: tokens of paged MLA caches into one dense tensor, request after request.

All take block tables: row b of ``block_table`` lists the physical blocks of request b. A row of
``dst`` whose request, position or block is out of range keeps its bytes, as does a row that belongs
to no request.

Source: vLLM 0.23 ``_C_cache_ops`` (``cache_kernels.cu``). Differences: bad indices are skipped, and
any row width is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .indexing import locate
from .mla import (
    DS_MLA_ENTRY_BYTES,
    DS_MLA_NOPE_ELEMS,
    DS_MLA_ROPE_BYTE,
    TILE_ELEMS,
)
from .numerics import E4M3, bits, fp8_format, load_fp8


def gather_and_maybe_dequant_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
    token_to_seq: Tensor,
    num_tokens: int,
    kv_cache_dtype: str,
    scale: Tensor,
    seq_starts: Tensor | None,
) -> None:
    """Gathers cache entries into rows of ``dst``, dequantising FP8 entries.

    Row r is position ``r - cu_seq_lens[b] + seq_starts[b]`` of request ``b = token_to_seq[r]``.

    Args:
        src_cache: [num_blocks, block_size, width] of ``dst``'s dtype ("auto"), else one byte per
            element. Block and entry strides free, in elements.
        dst: float32, float16 or bfloat16 [>= num_tokens, width]; row stride free. Mutated.
        block_table: int32 [>= num_requests, max_blocks]; row stride free.
        cu_seq_lens: int32 [num_requests + 1], first row of each request and the end of the last.
        token_to_seq: int32 [>= num_tokens], request of each row.
        num_tokens: rows to gather.
        kv_cache_dtype: "auto" (bit copy), "fp8" / "fp8_e4m3", "fp8_e5m2".
        scale: float32, one element; loaded values are multiplied by it. Ignored for "auto".
        seq_starts: int32 [num_requests], first position to gather per request, in tokens; None: 0.
    """
    fmt = fp8_format(kv_cache_dtype)
    num_requests = min(block_table.size(0), cu_seq_lens.size(0) - 1)
    for row in range(int(num_tokens)):
        request = int(token_to_seq[row])
        if not 0 <= request < num_requests:
            continue
        first_row, end_row = cu_seq_lens[request : request + 2].tolist()
        if not first_row <= row < end_row:
            continue
        position = row - first_row + _seq_start(seq_starts, request)
        place = locate(block_table, request, position, *src_cache.shape[:2])
        if place is None:
            continue
        entry = src_cache[place]
        if fmt is not None:
            entry = load_fp8(entry, scale, fmt, dst.dtype)
        bits(dst)[row] = bits(entry)


def cp_gather_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
    batch_size: int,
    seq_starts: Tensor | None,
) -> None:
    """Gathers cache entries of any shape into rows of ``dst``, bit for bit.

    Rows ``cu_seq_lens[b] .. cu_seq_lens[b + 1] - 1`` are positions ``seq_starts[b]``,
    ``seq_starts[b] + 1``, ... of request b.

    Args:
        src_cache: any dtype [num_blocks, block_size, *entry]; block and entry strides free.
        dst: ``src_cache``'s dtype [num_rows, *entry], or the entry flattened; row stride free.
            Mutated.
        block_table: int32 [>= batch_size, max_blocks]; row stride free.
        cu_seq_lens: int32 [>= batch_size + 1].
        batch_size: number of requests.
        seq_starts: int32 [batch_size], first position to gather per request, in tokens; None: 0.
    """
    for request, row, position in _spans(cu_seq_lens[: batch_size + 1], dst.size(0)):
        position += _seq_start(seq_starts, request)
        place = locate(block_table, request, position, *src_cache.shape[:2])
        if place is not None:
            bits(dst)[row] = bits(src_cache)[place].reshape(dst.shape[1:])


def cp_gather_and_upconvert_fp8_kv_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    workspace_starts: Tensor,
    batch_size: int,
) -> None:
    """Gathers fp8_ds_mla entries (see :func:`.mla.concat_and_cache_mla`) as bfloat16 rows.

    ``dst[r, :512] = bf16(e4m3(byte) * tile scale)``, ``dst[r, 512:]`` = the rope bits. Request of
    row r is the last b with ``workspace_starts[b] <= r``; the last request runs to the end of
    ``dst``. Rows before ``workspace_starts[0]`` keep their bytes.

    Args:
        src_cache: 1-byte dtype [num_blocks, block_size, 656]; block and entry strides free.
        dst: bfloat16 [num_rows, 576]; row stride free. Mutated.
        block_table: int32 [>= batch_size, max_blocks]; row stride free.
        seq_lens: int32 [batch_size]; not used.
        workspace_starts: int32 [>= batch_size], ascending: first row of each request.
        batch_size: number of requests.
    """
    del seq_lens
    boundaries = torch.cat(
        [workspace_starts[:batch_size], workspace_starts.new_tensor([dst.size(0)])]
    )
    for request, row, position in _spans(boundaries, dst.size(0)):
        place = locate(block_table, request, position, *src_cache.shape[:2])
        if place is not None:
            bits(dst)[row] = bits(_upconvert_ds_mla(bits(src_cache)[place]))


def _upconvert_ds_mla(entry: Tensor) -> Tensor:
    """bfloat16 [576] from the 656 bytes of an fp8_ds_mla entry."""
    # A clone is aligned for the views as fp32 and bfloat16, a slice of the cache need not be.
    scales = entry[DS_MLA_NOPE_ELEMS:DS_MLA_ROPE_BYTE].clone().view(torch.float32)
    rope = entry[DS_MLA_ROPE_BYTE:DS_MLA_ENTRY_BYTES].clone().view(torch.bfloat16)
    per_element_scales = scales.repeat_interleave(TILE_ELEMS)
    nope = load_fp8(entry[:DS_MLA_NOPE_ELEMS], per_element_scales, E4M3, torch.bfloat16)
    return torch.cat([bits(nope), bits(rope)]).view(torch.bfloat16)


def cp_gather_indexer_k_quant_cache(
    kv_cache: Tensor,
    dst_k: Tensor,
    dst_scale: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
) -> None:
    """Gathers FP8 rows and scales of the indexer cache, bit for bit.

    The layout of a block is that of :func:`.mla.indexer_k_quant_and_cache`. Rows
    ``cu_seq_lens[b] .. cu_seq_lens[b + 1] - 1`` are positions 0, 1, ... of request b.

    Args:
        kv_cache: uint8 [num_blocks, block_size, head_dim + 4 * head_dim / 128], blocks dense.
        dst_k: 1-byte dtype [num_rows, head_dim]; row stride free. Mutated.
        dst_scale: 1-byte dtype [num_rows, 4 * head_dim / 128]: fp32 scales as bytes. Mutated.
        block_table: int32 [num_requests, max_blocks].
        cu_seq_lens: int32 [num_requests + 1].
    """
    num_blocks, block_size = kv_cache.shape[:2]
    row_bytes, scales_bytes = dst_k.size(1), dst_scale.size(1)
    for request, row, position in _spans(cu_seq_lens, dst_k.size(0)):
        place = locate(block_table, request, position, num_blocks, block_size)
        if place is None:
            continue
        block, offset = place
        block_bytes = bits(kv_cache)[block].view(-1)
        first_scale_byte = block_size * row_bytes + offset * scales_bytes
        bits(dst_k)[row] = block_bytes[offset * row_bytes :][:row_bytes]
        bits(dst_scale)[row] = block_bytes[first_scale_byte:][:scales_bytes]


def _spans(boundaries: Tensor, num_rows: int) -> Iterator[tuple[int, int, int]]:
    """Yields ``(request, row, row - first row of the request)`` for rows within ``[0, num_rows)``.

    Request b has rows ``boundaries[b] .. boundaries[b + 1] - 1``.
    """
    starts = boundaries.tolist()
    for request, (first_row, end_row) in enumerate(pairwise(starts)):
        for row in range(max(first_row, 0), min(end_row, num_rows)):
            yield request, row, row - first_row


def _seq_start(seq_starts: Tensor | None, request: int) -> int:
    return 0 if seq_starts is None else int(seq_starts[request])
