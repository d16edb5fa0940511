"""Gathers: entries of paged caches into dense rows, request after request.

Row b of a block table lists the physical blocks of request b in logical order. Values of index
tensors are not trusted: a row of `dst` whose request, position or block is out of range keeps its
bytes, and so does a row that belongs to no request. `kvops.checked()` raises instead.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_and_maybe_dequant_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
    token_to_seq: Tensor,
    num_tokens: int,
    kv_cache_dtype: str,
    scale: Tensor,
    seq_starts: Tensor | None = None,
) -> None:
    """Gather cache entries into rows of `dst`, dequantising fp8 entries.

    Row r is position `r - cu_seq_lens[b] + seq_starts[b]` of request `b = token_to_seq[r]`.

    Args:
        src_cache: [num_blocks, block_size, width] of `dst`'s dtype ("auto"), else uint8 or the
            float8 dtype of the kind; entries dense, strides of blocks and entries free.
        dst: [>= num_tokens, width], float32, float16 or bfloat16; rows dense, not overlapping, row
            stride free. Written; no memory shared with `src_cache`.
        block_table: int32 [>= num_requests, max_blocks], physical block ids; row stride free.
            Entries that no row needs may hold anything.
        cu_seq_lens: int32 [num_requests + 1], ascending: the first row of each request and the
            end of the last.
        token_to_seq: int32 [>= num_tokens], the request of each row.
        num_tokens: number of rows to fill, at most `dst.size(0)`.
        kv_cache_dtype: "auto", "float16" or "bfloat16" (copy bits), "fp8" or "fp8_e4m3",
            "fp8_e5m2".
        scale: float32, one element; loaded fp8 values are multiplied by it. Not looked at by
            "auto".
        seq_starts: int32 [>= num_requests], the first position to gather of each request, in
            tokens; None: 0.

    Raises:
        RuntimeError: shapes, dtypes, strides or devices are not as above, a table is too short,
            `num_tokens` is negative or more than the rows of `dst`. `dst` is untouched then.

    Note:
        fp8: the byte's value times the scale in float32, rounded to nearest even; NaN becomes the
        canonical one. The result does not depend on the number of threads.

    Source:
        vLLM 0.23 `_C_cache_ops::gather_and_maybe_dequant_cache`, which takes widths of 320 and 576
        only and trusts every index.
    """
    torch.ops.kvops.gather_and_maybe_dequant_cache.default(
        src_cache,
        dst,
        block_table,
        cu_seq_lens,
        token_to_seq,
        num_tokens,
        kv_cache_dtype,
        scale,
        seq_starts,
    )


def cp_gather_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
    batch_size: int,
    seq_starts: Tensor | None = None,
) -> None:
    """Gather cache entries of any shape and dtype into rows of `dst`, bit for bit.

    Rows `cu_seq_lens[b]` to `cu_seq_lens[b + 1] - 1` are the positions `seq_starts[b]`,
    `seq_starts[b] + 1`, ... of request b.

    Args:
        src_cache: [num_blocks, block_size, *entry], any dtype of 1, 2, 4 or 8 bytes; entries
            dense, strides of blocks and entries free.
        dst: [num_rows, *entry] or with flattened entries, `src_cache`'s dtype; rows dense, not
            overlapping, row stride free. Written; no memory shared with `src_cache`.
        block_table: int32 [>= batch_size, max_blocks], physical block ids; row stride free.
            Entries that no row needs may hold anything.
        cu_seq_lens: int32 [>= batch_size + 1], ascending: the first row of each request and the
            end of the last.
        batch_size: number of requests.
        seq_starts: int32 [>= batch_size], the first position to gather of each request, in tokens,
            not necessarily a multiple of the block size; None: 0.

    Raises:
        RuntimeError: shapes, dtypes, strides or devices are not as above, or `batch_size` is not
            in [0, requests of the tables]. `dst` is untouched then.

    Example:
        >>> import kvops, torch
        >>> cache = torch.arange(12.0).view(3, 2, 2)  # 3 blocks of 2 tokens
        >>> table = torch.tensor([[2, 0], [1, -1]], dtype=torch.int32)
        >>> dst = torch.zeros(4, 2)
        >>> kvops.cp_gather_cache(cache, dst, table, torch.tensor([0, 3, 4], dtype=torch.int32), 2)
        >>> dst.tolist()
        [[8.0, 9.0], [10.0, 11.0], [0.0, 1.0], [4.0, 5.0]]

    Source:
        vLLM 0.23 `_C_cache_ops::cp_gather_cache`, which takes elements of 1, 2 or 4 bytes and
        trusts every index.
    """
    torch.ops.kvops.cp_gather_cache.default(
        src_cache, dst, block_table, cu_seq_lens, batch_size, seq_starts
    )


def cp_gather_and_upconvert_fp8_kv_cache(
    src_cache: Tensor,
    dst: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    workspace_starts: Tensor,
    batch_size: int,
) -> None:
    """Gather fp8_ds_mla entries (see `concat_and_cache_mla`) as bfloat16 rows.

    `dst[r, :512]` are the e4m3 values times their tile's scale, `dst[r, 512:]` the rope bits. The
    request of row r is the last b with `workspace_starts[b] <= r`, its position
    `r - workspace_starts[b]`; the last request runs to the end of `dst`, and rows before
    `workspace_starts[0]` keep their bytes.

    Args:
        src_cache: [num_blocks, block_size, 656], uint8, float8_e4m3fn or float8_e5m2 (bytes in any
            case); entries dense, strides of blocks and entries free, of any alignment.
        dst: bfloat16 [num_rows, 576]; rows dense, not overlapping, row stride free. Written; no
            memory shared with `src_cache`.
        block_table: int32 [>= batch_size, max_blocks], physical block ids; row stride free.
            Entries that no row needs may hold anything.
        seq_lens: int32 [>= batch_size]; its values are not used.
        workspace_starts: int32 [>= batch_size], ascending: the first row of each request.
        batch_size: number of requests.

    Raises:
        RuntimeError: shapes, dtypes, strides or devices are not as above, or `batch_size` is not
            in [0, requests of the tables]. `dst` is untouched then.

    Note:
        Products are formed in float32 and rounded to nearest even; NaN becomes the canonical one.

    Source:
        vLLM 0.23 `_C_cache_ops::cp_gather_and_upconvert_fp8_kv_cache`. Later releases of vLLM take
        other arguments under this name.
    """
    torch.ops.kvops.cp_gather_and_upconvert_fp8_kv_cache.default(
        src_cache, dst, block_table, seq_lens, workspace_starts, batch_size
    )


def cp_gather_indexer_k_quant_cache(
    kv_cache: Tensor,
    dst_k: Tensor,
    dst_scale: Tensor,
    block_table: Tensor,
    cu_seq_lens: Tensor,
) -> None:
    """Gather fp8 rows and their scales from the indexer cache, bit for bit.

    A block of the cache holds the values of all of its tokens, then all of their scales (see
    `indexer_k_quant_and_cache`). Rows `cu_seq_lens[b]` to `cu_seq_lens[b + 1] - 1` are the
    positions 0, 1, ... of request b.

    Args:
        kv_cache: [num_blocks, block_size, head_dim + scale_bytes], uint8 or float8_e4m3fn; blocks
            dense, block stride free.
        dst_k: [num_rows, head_dim], uint8 or float8_e4m3fn; rows dense, not overlapping, row
            stride free. Written.
        dst_scale: [num_rows, scale_bytes], uint8 or float8_e4m3fn: float32 scales as bytes, one
            for an equal part of the head each (`scale_bytes` is 4 * head_dim / 128 for caches that
            `indexer_k_quant_and_cache` wrote); rows dense, not overlapping, row stride free.
            Written.
        block_table: int32 [>= num_requests, max_blocks], physical block ids; row stride free.
            Entries that no row needs may hold anything.
        cu_seq_lens: int32 [num_requests + 1], ascending: the first row of each request and the
            end of the last, which may be less than `num_rows`.

    Raises:
        RuntimeError: shapes, dtypes, strides or devices are not as above. Both outputs are
            untouched then.

    Source:
        vLLM 0.23 `_C_cache_ops::cp_gather_indexer_k_quant_cache`, which finds the scales' rows by
        `dst_k`'s stride, so that a padded `dst_k` misplaces them.
    """
    torch.ops.kvops.cp_gather_indexer_k_quant_cache.default(
        kv_cache, dst_k, dst_scale, block_table, cu_seq_lens
    )
