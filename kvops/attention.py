"""Paged attention for decoding, and the merging of attention over two parts of a context."""

from __future__ import annotations

import torch
from torch import Tensor


def paged_attention_v1(
    out: Tensor,
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    num_kv_heads: int,
    scale: float,
    block_tables: Tensor,
    seq_lens: Tensor,
    block_size: int,
    max_seq_len: int,
    alibi_slopes: Tensor | None,
    kv_cache_dtype: str,
    k_scale: Tensor,
    v_scale: Tensor,
    tp_rank: int = 0,
    blocksparse_local_blocks: int = 0,
    blocksparse_vert_stride: int = 0,
    blocksparse_block_size: int = 64,
    blocksparse_head_sliding_step: int = 0,
) -> None:
    """Attention of one query token per sequence over that sequence's pages of the K/V cache.

    Query head h reads KV head `h // (num_heads // num_kv_heads)`. For the tokens t < L of a
    sequence: `l_t = scale * <q, k_t> + alibi_slopes[h] * (t - L + 1)`,
    `out = sum_t exp(l_t - max l) * v_t / (sum_t exp(l_t - max l) + 1e-6)`.

    Args:
        out: [num_seqs, num_heads, head_size], dtype of `query`, written; last dimension dense,
            the others of any stride.
        query: [num_seqs, num_heads, head_size], float16, bfloat16 or float32; head_size is a
            multiple of 8 from 8 to 256; strides as for `out`.
        key_cache: [num_blocks, num_kv_heads, head_size / x, block_size, x] with x = 16 bytes of
            elements (8 elements are accepted too for fp8, for head sizes such as 120); the last
            three dimensions dense, the others of any stride. Of `query`'s dtype for "auto", else
            uint8 or the float8 dtype of that name.
        value_cache: [num_blocks, num_kv_heads, head_size, block_size], dtype of `key_cache`; the
            last two dimensions dense, the others of any stride.
        num_kv_heads: KV heads of the caches; divides num_heads.
        scale: softmax scale.
        block_tables: int32 [num_seqs, max_blocks], rows of any stride; physical block ids. Entries
            past the sequence are ignored, any value.
        seq_lens: int32 [num_seqs], tokens.
        block_size: tokens of a block, a multiple of 8 from 8 to 256.
        max_seq_len: tokens; longer sequences are cut to it.
        alibi_slopes: float32 [num_heads], or None.
        kv_cache_dtype: "auto" (also "float16", "bfloat16"): the cache has `query`'s dtype;
            "fp8" or "fp8_e4m3"; "fp8_e5m2".
        k_scale, v_scale: float32, one element; what keys and values of an fp8 cache are multiplied
            by. Ignored, and of any kind, for "auto".
        tp_rank: which part of all heads these are, for the block-sparse pattern.
        blocksparse_local_blocks: how many of the newest pattern blocks every head sees.
        blocksparse_vert_stride: every how many pattern blocks one is seen; block sparsity is off
            up to 1.
        blocksparse_block_size: tokens of a pattern block.
        blocksparse_head_sliding_step: shift of the pattern from head to head; negative: from KV
            head to KV head, the other way.

    Raises:
        RuntimeError: ranks, shapes, strides, dtypes or devices are not as above; `num_kv_heads`
            or `block_size` is not that of the caches; `max_seq_len` is negative; block-sparse
            parameters are not int32 or a pattern block has no token. In checked mode also: a
            sequence length is not in [0, min(max_seq_len, max_blocks * block_size)], or a block id
            within a sequence is not in [0, num_blocks).

    Note:
        Outside of checked mode lengths are clamped to that range and tokens of a bad block are
        left out. A sequence without tokens gives zeros. Tokens past the end of a sequence, and
        what block sparsity hides, may be NaN in the cache; a NaN among the others reaches the
        result. On CPU everything is computed in fp32 (fp8 values are not rounded to `query`'s
        dtype, k_scale and v_scale multiply logits and result), and the result of a sequence
        depends neither on the other sequences nor on the number of threads.

    Example:
        >>> import kvops, torch
        >>> key_cache, value_cache = torch.zeros(2, 1, 2, 8, 4), torch.ones(2, 1, 8, 8)
        >>> query, out, one = torch.ones(1, 4, 8), torch.empty(1, 4, 8), torch.ones(1)
        >>> tables, lengths = torch.tensor([[1]]).int(), torch.tensor([5]).int()
        >>> kvops.paged_attention_v1(
        ...     out, query, key_cache, value_cache, 1, 1.0, tables, lengths, 8, 8, None, "auto",
        ...     one, one)
        >>> out[0, 0, :2]
        tensor([1.0000, 1.0000])

    Source:
        vLLM 0.23 `_C::paged_attention_v1`, whose head sizes, block sizes, lengths and strides are
        more limited.
    """
    torch.ops.kvops.paged_attention_v1.default(
        out, query, key_cache, value_cache, num_kv_heads, scale, block_tables, seq_lens,
        block_size, max_seq_len, alibi_slopes, kv_cache_dtype, k_scale, v_scale, tp_rank,
        blocksparse_local_blocks, blocksparse_vert_stride, blocksparse_block_size,
        blocksparse_head_sliding_step,
    )  # fmt: skip


def paged_attention_v2(
    out: Tensor,
    exp_sums: Tensor,
    max_logits: Tensor,
    tmp_out: Tensor,
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    num_kv_heads: int,
    scale: float,
    block_tables: Tensor,
    seq_lens: Tensor,
    block_size: int,
    max_seq_len: int,
    alibi_slopes: Tensor | None,
    kv_cache_dtype: str,
    k_scale: Tensor,
    v_scale: Tensor,
    tp_rank: int = 0,
    blocksparse_local_blocks: int = 0,
    blocksparse_vert_stride: int = 0,
    blocksparse_block_size: int = 64,
    blocksparse_head_sliding_step: int = 0,
) -> None:
    """`paged_attention_v1` that also gives the softmax statistics of each 512 tokens.

    Partition p of a sequence is its tokens 512 p to 512 p + 511. The log-sum-exp (base e) of all
    logits of a head is `max_p + log(sum_p exp_sums[p] * exp(max_logits[p] - max_p))`.

    Args:
        out: as for `paged_attention_v1`.
        exp_sums: float32 [num_seqs, num_heads, P], contiguous, P >= ceil(max_seq_len / 512),
            written: sums of exp(logit - max_logits). On CPU those of each partition; on CUDA
            the first one has those of all partitions, the others have 0.
        max_logits: float32, shape of `exp_sums`, contiguous, written: what the sums are relative
            to. On CPU the largest logit of each partition; on CUDA about the largest of all (at
            most 2.8 below), and -inf where the sum is 0.
        tmp_out: [num_seqs, num_heads, P, head_size], dtype of `query`, contiguous; room for
            partial results. What it holds afterwards is not specified; on CPU it is not touched.
        query, key_cache, value_cache, num_kv_heads, scale: as for `paged_attention_v1`.
        block_tables, seq_lens, block_size, max_seq_len, alibi_slopes: likewise.
        kv_cache_dtype, k_scale, v_scale, tp_rank: likewise.
        blocksparse_local_blocks, blocksparse_vert_stride, blocksparse_block_size: likewise.
        blocksparse_head_sliding_step: likewise.

    Raises:
        RuntimeError: as `paged_attention_v1`; also if the three tensors are not as above.

    Note:
        Entries of partitions past the end of a sequence keep their bytes. On CPU `out` is bit for
        bit that of `paged_attention_v1`.

    Source:
        vLLM 0.23 `_C::paged_attention_v2`, where P must be exactly ceil(max_seq_len / 512).
    """
    torch.ops.kvops.paged_attention_v2.default(
        out, exp_sums, max_logits, tmp_out, query, key_cache, value_cache, num_kv_heads, scale,
        block_tables, seq_lens, block_size, max_seq_len, alibi_slopes, kv_cache_dtype, k_scale,
        v_scale, tp_rank, blocksparse_local_blocks, blocksparse_vert_stride,
        blocksparse_block_size, blocksparse_head_sliding_step,
    )  # fmt: skip


def merge_attn_states(
    output: Tensor,
    output_lse: Tensor | None,
    prefix_output: Tensor,
    prefix_lse: Tensor,
    suffix_output: Tensor,
    suffix_lse: Tensor,
    prefill_tokens_with_context: int | None = None,
    output_scale: Tensor | None = None,
) -> None:
    """Attention over a whole context from attention over its two parts.

    With p and s the log-sum-exp (base e) of prefix and suffix for a (token, head) and M the larger:
    `a = exp(p - M)`, `b = exp(s - M)`,
    `output = prefix * (a / (a + b)) + suffix * (b / (a + b))`, `lse = log(a + b) + M`.

    Args:
        output: [num_tokens, num_heads, head_size], dtype of `prefix_output`, or float8_e4m3fn (or
            uint8) with `output_scale`; written. It may be `prefix_output` or `suffix_output`.
            Last dimension dense, the others of any stride.
        output_lse: float32 [num_heads, num_tokens], any strides, written; or None. It may be
            `prefix_lse` or `suffix_lse`.
        prefix_output: [num_tokens, num_heads, head_size], float16, bfloat16 or float32; strides
            as for `output`. Only tokens that have a prefix need to be there.
        prefix_lse: float32 [num_heads, num_tokens], any strides; likewise.
        suffix_output: [num_tokens, num_heads, head_size], dtype and strides as `prefix_output`.
        suffix_lse: float32 [num_heads, num_tokens], any strides.
        prefill_tokens_with_context: tokens from this one on have no prefix: output and lse are
            those of the suffix. None: all tokens have one.
        output_scale: float32, one element: the output is e4m3 of `value * (1 / output_scale)`,
            rounded to nearest even and saturated to +-448.

    Raises:
        RuntimeError: ranks, shapes, dtypes or devices do not agree, a last dimension is not dense,
            or `prefill_tokens_with_context` is not in [0, num_tokens].

    Note:
        An infinite lse of either sign means "no token": its part has weight 0. Where both are
        infinite the output is `prefix_output` and the lse -inf. NaN in either lse makes both NaN.
        Computed in fp32, the suffix's product rounded and the prefix's fused with the addition.

    Source:
        vLLM 0.23 `_C::merge_attn_states`, which takes fewer strides and head sizes.
    """
    torch.ops.kvops.merge_attn_states.default(
        output,
        output_lse,
        prefix_output,
        prefix_lse,
        suffix_output,
        suffix_lse,
        prefill_tokens_with_context,
        output_scale,
    )
