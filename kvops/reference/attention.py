"""Paged attention for decoding, and the merging of attention over two parts of a context.

All functions take ``dtype``, the precision of the computation: float32 by default, float64 to
measure the rounding error of an implementation (with outputs of float64 nothing is rounded).
Values loaded from an FP8 cache are part of the input and rounded the same way for both.

Source: vLLM 0.23 ``_C`` (``paged_attention_v1.cu``, ``paged_attention_v2.cu``,
``attention_kernels.cuh``, ``merge_attn_states.cu``). Differences: bad lengths and blocks are
clamped and masked; each tensor's own strides are used; the kernels round probabilities to the
query's dtype, the reference does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .numerics import (
    E4M3,
    FLT_MAX,
    bits,
    divide,
    encode_fp8,
    fma_fp32,
    fp8_format,
    load_fp8,
)

PARTITION_TOKENS = 512

# Added to the sum of exponentials before dividing by it. At least one token has exponential 1, so
# it biases a result by less than 1e-6; with no token at all it makes the result 0.
_DENOMINATOR_EPSILON = 1e-6


@dataclass(frozen=True)
class _PagedInputs:
    """The arguments that both paged attention operators share; see :func:`paged_attention_v1`."""

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    num_kv_heads: int
    scale: float
    block_tables: Tensor
    seq_lens: Tensor
    block_size: int
    max_seq_len: int
    alibi_slopes: Tensor | None
    kv_cache_dtype: str
    k_scale: Tensor
    v_scale: Tensor
    tp_rank: int
    blocksparse_local_blocks: int
    blocksparse_vert_stride: int
    blocksparse_block_size: int
    blocksparse_head_sliding_step: int
    dtype: torch.dtype

    def sequences(self) -> Iterator[_Sequence]:
        """The sequences of the batch, in order."""
        for index in range(self.query.size(0)):
            yield self._sequence(index)

    def _sequence(self, index: int) -> _Sequence:
        table = self.block_tables[index].long()
        longest = min(self.max_seq_len, len(table) * self.block_size)
        seq_len = max(0, min(int(self.seq_lens[index]), longest))

        positions = torch.arange(seq_len)
        blocks = table[positions // self.block_size]
        is_valid = (blocks >= 0) & (blocks < self.key_cache.size(0))
        positions, blocks = positions[is_valid], blocks[is_valid]
        offsets = positions % self.block_size

        keys = self._load(self.key_cache[blocks, :, :, offsets].flatten(2), self.k_scale)
        values = self._load(self.value_cache[blocks, :, :, offsets], self.v_scale)
        query = self.query[index].to(self.dtype)
        logits = self.scale * torch.einsum("hd,thd->ht", query, keys)
        if self.alibi_slopes is not None:
            distance = positions - seq_len + 1
            logits = logits + self.alibi_slopes.to(self.dtype)[:, None] * distance
        attended = self._attended(positions, seq_len)
        return _Sequence(
            seq_len=seq_len,
            positions=positions,
            logits=torch.where(attended, logits, -FLT_MAX),
            values=torch.where(attended[:, :, None], values.transpose(0, 1), 0.0),
        )

    def _attended(self, positions: Tensor, seq_len: int) -> Tensor:
        """bool [num_heads, num_positions]: whether block sparsity lets a head see a position.

        The pattern is made of pattern blocks of ``blocksparse_block_size`` tokens: the newest
        ``blocksparse_local_blocks`` are seen, and every ``blocksparse_vert_stride``-th one. The
        latter are shifted from head to head by ``blocksparse_head_sliding_step``, or from KV head
        to KV head by its negative; ``tp_rank`` counts the heads of all ranks as one row.
        """
        num_heads, num_kv_heads = self.query.size(1), self.num_kv_heads
        heads = torch.arange(num_heads)
        if self.blocksparse_vert_stride <= 1:
            return torch.ones(num_heads, len(positions), dtype=torch.bool)
        if self.blocksparse_head_sliding_step >= 0:
            global_head = self.tp_rank * num_heads + heads
            shift = global_head * self.blocksparse_head_sliding_step + 1
        else:
            global_kv_head = self.tp_rank * num_kv_heads + heads // (num_heads // num_kv_heads)
            shift = global_kv_head * -self.blocksparse_head_sliding_step + 1
        # A cache block belongs as a whole to the pattern block of its first token.
        cache_block_start = positions // self.block_size * self.block_size
        pattern_block = cache_block_start // self.blocksparse_block_size
        newest_pattern_block = (seq_len - 1) // self.blocksparse_block_size
        is_local = pattern_block > newest_pattern_block - self.blocksparse_local_blocks
        is_vertical = (pattern_block + shift[:, None]) % self.blocksparse_vert_stride == 0
        return is_local | is_vertical

    def _load(self, tokens: Tensor, scale: Tensor) -> Tensor:
        """[num_tokens, num_kv_heads, head_size] of a cache to [num_tokens, num_heads, head_size].

        FP8 is rounded to the query's dtype, for float32 queries to float16.
        """
        fmt = fp8_format(self.kv_cache_dtype)
        if fmt is not None:
            is_fp32 = self.query.dtype == torch.float32
            tokens = load_fp8(tokens, scale, fmt, torch.float16 if is_fp32 else self.query.dtype)
        queries_per_kv = self.query.size(1) // self.num_kv_heads
        return tokens.to(self.dtype).repeat_interleave(queries_per_kv, dim=1)


@dataclass(frozen=True)
class _Sequence:
    """The tokens of one sequence that have a valid block, loaded from the cache."""

    seq_len: int  # clamped; counts tokens of bad blocks too
    positions: Tensor  # int64 [num_tokens], ascending
    logits: Tensor  # [num_heads, num_tokens]; -FLT_MAX where block sparsity masks
    values: Tensor  # [num_heads, num_tokens, head_size]; 0 where block sparsity masks

    def attend(self, first: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax attention over the positions ``[first, end)`` alone.

        Returns:
            max logit [num_heads], sum of exp(logit - max logit) [num_heads] and the weighted mean
            of the values [num_heads, head_size]; -FLT_MAX, 0 and 0 if there is no token.
        """
        chosen = (self.positions >= first) & (self.positions < end)
        logits, values = self.logits[:, chosen], self.values[:, chosen]
        # NaN is not a maximum: it reaches the result through the sum. The extra column makes
        # -FLT_MAX the maximum of nothing.
        comparable = torch.where(logits.isnan(), -FLT_MAX, logits)
        nothing = logits.new_full([logits.size(0), 1], -FLT_MAX)
        max_logit = torch.cat([nothing, comparable], dim=1).amax(dim=1)
        exponentials = torch.exp(logits - max_logit[:, None])
        exp_sum = exponentials.sum(dim=1)
        weights = exponentials / (exp_sum + _DENOMINATOR_EPSILON)[:, None]
        return max_logit, exp_sum, torch.einsum("ht,htd->hd", weights, values)


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
    tp_rank: int,
    blocksparse_local_blocks: int,
    blocksparse_vert_stride: int,
    blocksparse_block_size: int,
    blocksparse_head_sliding_step: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Attention of one query token per sequence over that sequence's K/V in the paged cache.

    For sequence s and head h, over its tokens t < L with L the sequence length::

        l_t = scale * <q, k_t> + alibi_slope[h] * (t - L + 1)
        out = sum_t exp(l_t - max l) * v_t / (sum_t exp(l_t - max l) + 1e-6)

    L is clamped to [0, min(max_seq_len, max_blocks * block_size)]; tokens of a block outside the
    cache are left out; a sequence without tokens gives zeros. Query head h reads KV head
    ``h // (num_heads // num_kv_heads)``.

    Block sparsity (``_PagedInputs._attended``) is active for ``blocksparse_vert_stride > 1``. A
    masked token has logit -FLT_MAX and contributes no value, so a sequence of masked tokens gives
    zeros.

    Args:
        out: ``query``'s dtype [num_seqs, num_heads, head_size]. Mutated.
        query: float32, float16 or bfloat16 [num_seqs, num_heads, head_size].
        key_cache: [num_blocks, num_kv_heads, head_size // x, block_size, x], of ``query``'s dtype
            ("auto") or one byte per element.
        value_cache: [num_blocks, num_kv_heads, head_size, block_size].
        num_kv_heads: divides num_heads.
        scale: softmax scale.
        block_tables: int32 [num_seqs, max_blocks]; entries past the sequence are ignored.
        seq_lens: int32 [num_seqs], tokens.
        block_size: tokens per block.
        max_seq_len: tokens; bounds every sequence.
        alibi_slopes: float32 [num_heads], or None.
        kv_cache_dtype: "auto", "fp8" / "fp8_e4m3", "fp8_e5m2".
        k_scale: float32, one element; loaded keys are multiplied by it. Ignored for "auto".
        v_scale: the same for values.
        tp_rank: rank of this part of the heads.
        blocksparse_local_blocks: newest pattern blocks that are always attended to.
        blocksparse_vert_stride: every how many pattern blocks one is attended to.
        blocksparse_block_size: tokens per pattern block.
        blocksparse_head_sliding_step: shift of the pattern from head to head.
        dtype: precision of the computation, not of the operator's schema.
    """
    inputs = _PagedInputs(
        query, key_cache, value_cache, num_kv_heads, scale, block_tables, seq_lens, block_size,
        max_seq_len, alibi_slopes, kv_cache_dtype, k_scale, v_scale, tp_rank,
        blocksparse_local_blocks, blocksparse_vert_stride, blocksparse_block_size,
        blocksparse_head_sliding_step, dtype,
    )  # fmt: skip
    for index, sequence in enumerate(inputs.sequences()):
        _, _, out[index] = sequence.attend(0, sequence.seq_len)


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
    tp_rank: int,
    blocksparse_local_blocks: int,
    blocksparse_vert_stride: int,
    blocksparse_block_size: int,
    blocksparse_head_sliding_step: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """:func:`paged_attention_v1` in two steps: partitions of 512 tokens, then their reduction.

    Partition p of a sequence is attention over tokens 512 p .. 512 p + 511 alone, with maximum
    ``max_logits``, sum ``exp_sums`` (without the 1e-6) and result ``tmp_out``, rounded to its
    dtype. The result is their mean with weights
    ``w_p = exp_sums[p] * exp(max_logits[p] - max over partitions)``::

        out = sum_p tmp_out[p] * w_p / (sum_p w_p + 1e-6)

    and ``tmp_out[0]`` itself where there is one partition. Entries of the scratch tensors for
    partitions past the end of a sequence keep their bytes.

    Args:
        out: as for v1.
        exp_sums: float32 [num_seqs, num_heads, >= max_partitions], max_partitions =
            ceil(max_seq_len / 512). Mutated.
        max_logits: float32, shape of ``exp_sums``. Mutated.
        tmp_out: ``query``'s dtype [num_seqs, num_heads, >= max_partitions, head_size]. Mutated.

    The other arguments are those of v1.
    """
    inputs = _PagedInputs(
        query, key_cache, value_cache, num_kv_heads, scale, block_tables, seq_lens, block_size,
        max_seq_len, alibi_slopes, kv_cache_dtype, k_scale, v_scale, tp_rank,
        blocksparse_local_blocks, blocksparse_vert_stride, blocksparse_block_size,
        blocksparse_head_sliding_step, dtype,
    )  # fmt: skip
    for index, sequence in enumerate(inputs.sequences()):
        partition_maxima, partition_sums = [], []
        for partition, first in enumerate(range(0, sequence.seq_len, PARTITION_TOKENS)):
            max_logit, exp_sum, result = sequence.attend(first, first + PARTITION_TOKENS)
            max_logits[index, :, partition] = max_logit
            exp_sums[index, :, partition] = exp_sum
            tmp_out[index, :, partition] = result
            partition_maxima.append(max_logit)
            partition_sums.append(exp_sum)
        out[index] = _reduce_partitions(
            partition_maxima, partition_sums, tmp_out[index, :, : len(partition_sums)].to(dtype)
        )


def _reduce_partitions(maxima: list[Tensor], sums: list[Tensor], partials: Tensor) -> Tensor:
    """[num_heads, head_size] from the partitions of one sequence.

    Args:
        maxima: per partition, [num_heads].
        sums: per partition, [num_heads].
        partials: [num_heads, num_partitions, head_size].
    """
    if len(sums) <= 1:
        return partials.sum(dim=1)
    max_logits, exp_sums = torch.stack(maxima, dim=1), torch.stack(sums, dim=1)
    weights = exp_sums * torch.exp(max_logits - max_logits.amax(dim=1, keepdim=True))
    weights = weights / (weights.sum(dim=1, keepdim=True) + _DENOMINATOR_EPSILON)
    return torch.einsum("hp,hpd->hd", weights, partials)


def merge_attn_states(
    output: Tensor,
    output_lse: Tensor | None,
    prefix_output: Tensor,
    prefix_lse: Tensor,
    suffix_output: Tensor,
    suffix_lse: Tensor,
    prefill_tokens_with_context: int | None,
    output_scale: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Attention over a whole context from attention over its two parts.

    With p, s the log-sum-exp (base e) of prefix and suffix for a (token, head), M their maximum::

        a = exp(p - M), b = exp(s - M)
        output = fma(prefix, a / (a + b), suffix * (b / (a + b)))
        lse = log(a + b) + M

    An infinite lse of either sign means "no token": weight 0. If both are infinite the output is
    ``prefix_output`` and the lse -inf. A NaN in either lse makes both results NaN.

    Args:
        output: [num_tokens, num_heads, head_size] of ``prefix_output``'s dtype, or of
            float8_e4m3fn (or uint8) with ``output_scale``. Mutated.
        output_lse: float32 [num_heads, num_tokens], or None. Mutated.
        prefix_output: float32, float16 or bfloat16 [num_tokens, num_heads, head_size]; strides of
            every tensor free.
        prefix_lse: float32 [num_heads, num_tokens].
        suffix_output: like ``prefix_output``.
        suffix_lse: like ``prefix_lse``.
        prefill_tokens_with_context: tokens from this one on have no prefix and take output and lse
            of the suffix as they are; None: all have one.
        output_scale: float32, one element: the output is E4M3 of ``value * (1 / output_scale)``,
            saturated, for the tokens without a prefix too.
        dtype: precision of the computation, not of the operator's schema.

    Raises:
        RuntimeError: ``prefill_tokens_with_context`` is negative or more than num_tokens.
    """
    num_tokens = output.size(0)
    merged = num_tokens if prefill_tokens_with_context is None else prefill_tokens_with_context
    if not 0 <= merged <= num_tokens:
        raise RuntimeError(
            f"merge_attn_states: prefill_tokens_with_context must be in [0, {num_tokens}], "
            f"got {merged}"
        )
    prefix_weight, suffix_weight, merged_lse = _merge_weights(
        prefix_lse[:, :merged].T.to(dtype), suffix_lse[:, :merged].T.to(dtype)
    )
    prefix, suffix = prefix_output[:merged].to(dtype), suffix_output[:merged].to(dtype)
    weighted_suffix = suffix * suffix_weight.unsqueeze(-1)
    if dtype == torch.float32:
        result = fma_fp32(prefix, prefix_weight.unsqueeze(-1), weighted_suffix)
    else:
        result = prefix * prefix_weight.unsqueeze(-1) + weighted_suffix
    has_no_token = (merged_lse == -torch.inf).unsqueeze(-1)
    result = torch.cat([torch.where(has_no_token, prefix, result), suffix_output[merged:]])

    if output_scale is None:
        output.copy_(result)
    else:
        inverse = divide(torch.ones(()), output_scale.reshape(()))
        bits(output).copy_(encode_fp8(result.float() * inverse, E4M3))
    if output_lse is not None:
        output_lse.copy_(torch.cat([merged_lse.T, suffix_lse[:, merged:]], dim=1))


def _merge_weights(prefix_lse: Tensor, suffix_lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of prefix and suffix, and the lse of both, each of the shape of the arguments."""
    prefix_lse = torch.where(prefix_lse.isinf(), -torch.inf, prefix_lse)
    suffix_lse = torch.where(suffix_lse.isinf(), -torch.inf, suffix_lse)
    largest = torch.maximum(prefix_lse, suffix_lse)
    prefix_sum, suffix_sum = torch.exp(prefix_lse - largest), torch.exp(suffix_lse - largest)
    total = prefix_sum + suffix_sum
    lse = torch.where(largest == -torch.inf, largest, torch.log(total) + largest)
    return prefix_sum / total, suffix_sum / total, lse
