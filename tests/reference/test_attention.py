"""Hand-computed examples of the attention operators of the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kvops import reference

ONE = torch.ones(1)
LN2 = math.log(2.0)
FLT_MAX = torch.finfo(torch.float32).max
INF, NAN = float("inf"), float("nan")


def attend(
    logits: Tensor, values: Tensor, *, version: int = 1, **overrides: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Attention of one sequence with given logits and scalar values, in float64.

    Blocks hold 4 tokens and head size is 8: the logit is the first element of the key, the value
    all elements. ``logits`` and ``values`` are [num_heads, num_tokens], a KV head for every head.

    Returns:
        out [num_heads], of which every element of the head is the same, and v2's scratch.
    """
    num_heads, num_tokens = logits.shape
    num_blocks = -(-num_tokens // 4)
    keys = torch.full([num_heads, num_blocks * 4, 8], NAN, dtype=torch.float64)
    keys[:, :num_tokens] = 0
    keys[:, :num_tokens, 0] = logits
    cached_values = torch.full_like(keys, NAN)
    cached_values[:, :num_tokens] = values[:, :, None]
    blocked = [t.reshape(num_heads, num_blocks, 4, 8) for t in (keys, cached_values)]
    query = torch.zeros(1, num_heads, 8, dtype=torch.float64)
    query[:, :, 0] = 1
    partitions = -(-num_tokens // 512)
    out = torch.full([1, num_heads, 8], NAN, dtype=torch.float64)
    scratch = {
        "exp_sums": torch.full([1, num_heads, partitions + 1], NAN, dtype=torch.float64),
        "max_logits": torch.full([1, num_heads, partitions + 1], NAN, dtype=torch.float64),
        "tmp_out": torch.full([1, num_heads, partitions + 1, 8], NAN, dtype=torch.float64),
    }
    arguments = {
        "query": query,
        "key_cache": blocked[0].permute(1, 0, 3, 2).unsqueeze(-1),  # x = 1
        "value_cache": blocked[1].permute(1, 0, 3, 2),
        "num_kv_heads": num_heads,
        "scale": 1.0,
        "block_tables": torch.arange(num_blocks, dtype=torch.int32)[None],
        "seq_lens": torch.tensor([num_tokens], dtype=torch.int32),
        "block_size": 4,
        "max_seq_len": num_tokens,
        "alibi_slopes": None,
        "kv_cache_dtype": "auto",
        "k_scale": ONE,
        "v_scale": ONE,
        "tp_rank": 0,
        "blocksparse_local_blocks": 0,
        "blocksparse_vert_stride": 0,
        "blocksparse_block_size": 64,
        "blocksparse_head_sliding_step": 0,
    }
    assert arguments.keys() >= overrides.keys()
    arguments |= overrides
    if version == 1:
        reference.paged_attention_v1(out, **arguments, dtype=torch.float64)
    else:
        reference.paged_attention_v2(out, **scratch, **arguments, dtype=torch.float64)
    assert torch.equal(out[0], out[0, :, :1].expand_as(out[0])) or out.isnan().all()
    return out[0, :, 0], {name: tensor[0] for name, tensor in scratch.items()}


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def close(actual: Tensor, *expected: float) -> None:
    """Equal but for the 1e-6 of the denominator."""
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=actual.dtype), rtol=1.001e-6, atol=0
    )


@pytest.mark.parametrize("version", [1, 2])
class TestPagedAttention:
    def test_weights_are_exponentials(self, version: int) -> None:
        logits = torch.tensor([[0.0, LN2, LN2], [5.0, 5.0, 5.0]], dtype=torch.float64)
        values = torch.tensor([[5.0, 10.0, 0.0], [1.0, 2.0, 6.0]])
        close(attend(logits, values, version=version)[0], 5.0, 3.0)

    def test_denominator_has_an_epsilon(self, version: int) -> None:
        out, _ = attend(zeros(1, 2), torch.tensor([[1.0, 3.0]]), version=version)
        assert out.tolist() == pytest.approx([4.0 / (2.0 + 1e-6)], rel=1e-14)

    def test_empty_sequence_gives_zeros(self, version: int) -> None:
        lens = torch.tensor([0], dtype=torch.int32)
        out, scratch = attend(zeros(1, 4), torch.ones(1, 4), version=version, seq_lens=lens)
        assert out.tolist() == [0.0]
        assert all(tensor.isnan().all() for tensor in scratch.values())

    def test_length_is_clamped(self, version: int) -> None:
        values = torch.tensor([[1.0, 3.0, 100.0]])
        for longest, length, mean in [(2, 3, 2.0), (2, 2**31 - 1, 2.0), (9, -7, 0.0)]:
            lens = torch.tensor([length], dtype=torch.int32)
            out, _ = attend(
                zeros(1, 3), values, version=version, seq_lens=lens, max_seq_len=longest
            )
            close(out, mean)
        # The block table ends the sequence too: 4 tokens, although max_seq_len allows 9.
        out, _ = attend(
            zeros(1, 6),
            torch.arange(6.0)[None],
            version=version,
            seq_lens=torch.tensor([9], dtype=torch.int32),
            max_seq_len=9,
            block_tables=torch.tensor([[0]], dtype=torch.int32),
        )
        close(out, 1.5)

    @pytest.mark.parametrize("bad_block", [-1, 3, 2147480000])
    def test_bad_blocks_are_masked(self, version: int, bad_block: int) -> None:
        table = torch.tensor([[0, bad_block, 2]], dtype=torch.int32)
        out, _ = attend(zeros(1, 12), torch.arange(12.0)[None], version=version, block_tables=table)
        close(out, (0 + 1 + 2 + 3 + 8 + 9 + 10 + 11) / 8)
        nothing = torch.full([1, 3], bad_block, dtype=torch.int32)
        out, _ = attend(zeros(1, 12), torch.ones(1, 12), version=version, block_tables=nothing)
        assert out.tolist() == [0.0]

    def test_alibi_counts_back_from_the_last_token(self, version: int) -> None:
        slopes = torch.tensor([LN2, 0.0])
        out, scratch = attend(
            zeros(2, 2), torch.tensor([[0.0, 3.0]] * 2), version=version, alibi_slopes=slopes
        )
        torch.testing.assert_close(
            out, torch.tensor([2.0, 1.5], dtype=out.dtype), rtol=2e-6, atol=0
        )
        if version == 2:
            assert scratch["max_logits"][:, 0].tolist() == [0.0, 0.0]  # of the last token

    def test_query_heads_share_kv_heads(self, version: int) -> None:
        query = torch.zeros(1, 4, 8, dtype=torch.float64)
        out = torch.full([1, 4, 8], NAN, dtype=torch.float64)
        keys = torch.zeros(1, 2, 8, 4, 1, dtype=torch.float64)
        values = torch.tensor([1.0, 2.0], dtype=torch.float64)[None, :, None, None]
        scratch = [zeros(1, 4, 1), zeros(1, 4, 1), zeros(1, 4, 1, 8)] if version == 2 else []
        operator = reference.REFERENCE[f"paged_attention_v{version}"]
        operator(
            out, *scratch, query, keys, values.expand(1, 2, 8, 4), 2, 1.0,
            torch.tensor([[0]], dtype=torch.int32), torch.tensor([4], dtype=torch.int32), 4, 4,
            None, "auto", ONE, ONE, 0, 0, 0, 64, 0, dtype=torch.float64,
        )  # fmt: skip
        close(out[0, :, 0], 1.0, 1.0, 2.0, 2.0)

    @pytest.mark.parametrize(
        ("tp_rank", "step", "vertical_blocks"),
        [
            # Head h of H = 2 attends to blocks with (block + shift) % 4 == 0.
            (0, 0, [[3, 7], [3, 7]]),  # shift 1
            (0, 1, [[3, 7], [2, 6]]),  # shift h + 1
            (1, 1, [[1, 5], [0, 4, 8]]),  # shift 2 + h + 1
            (1, -1, [[1, 5], [0, 4, 8]]),  # by KV head, of which there are as many here
        ],
    )
    def test_block_sparsity(
        self, version: int, tp_rank: int, step: int, vertical_blocks: list[list[int]]
    ) -> None:
        """Ten blocks of 4 tokens, the last one local; the value of a token is its block's bit."""
        values = (2.0 ** (torch.arange(40) // 4)).expand(2, 40)
        out, _ = attend(
            zeros(2, 40),
            values,
            version=version,
            tp_rank=tp_rank,
            blocksparse_local_blocks=1,
            blocksparse_vert_stride=4,
            blocksparse_block_size=4,
            blocksparse_head_sliding_step=step,
        )
        seen = [{*blocks, 9} for blocks in vertical_blocks]
        close(out, *(sum(2.0**block for block in blocks) / len(blocks) for blocks in seen))

    def test_everything_block_masked_gives_zeros(self, version: int) -> None:
        out, scratch = attend(
            zeros(1, 4),
            torch.ones(1, 4),
            version=version,
            blocksparse_vert_stride=2,
            blocksparse_block_size=4,
        )
        assert out.tolist() == [0.0]
        if version == 2:
            assert scratch["max_logits"][0, 0] == -FLT_MAX
            assert scratch["exp_sums"][0, 0] == 4

    def test_nan_logit_gives_nan(self, version: int) -> None:
        logits = torch.tensor([[0.0, NAN]], dtype=torch.float64)
        assert attend(logits, torch.ones(1, 2), version=version)[0].isnan().all()


def test_v2_partitions() -> None:
    logits = torch.full([1, 600], 3.0, dtype=torch.float64)
    logits[0, 512:] = 1.0
    values = torch.arange(600.0)[None]
    out, scratch = attend(logits, values, version=2)
    assert scratch["max_logits"][0, :2].tolist() == [3.0, 1.0]
    assert scratch["exp_sums"][0, :2].tolist() == [512.0, 88.0]
    means = (511 / 2, (512 + 599) / 2)
    close(scratch["tmp_out"][0, :2, 0], *means)
    weight = 88 * math.exp(-2)
    torch.testing.assert_close(
        out.item(), (512 * means[0] + weight * means[1]) / (512 + weight), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(out, attend(logits, values)[0], rtol=1e-6, atol=0)
    assert all(tensor[0, 2].isnan().all() for tensor in scratch.values())


@pytest.mark.parametrize(
    ("query_dtype", "loaded"),
    [(torch.float32, "float16"), (torch.float16, "float16"), (torch.bfloat16, "bfloat16")],
)
def test_fp8_values_are_rounded_to_the_query_dtype(query_dtype: torch.dtype, loaded: str) -> None:
    """15 (0x57) * 0.07 is 1.05, which the two round apart; float32 queries take float16 too."""
    scale = torch.tensor([0.07])
    out = torch.zeros(1, 1, 8, dtype=torch.float64)
    reference.paged_attention_v1(
        out,
        torch.zeros(1, 1, 8, dtype=query_dtype),
        torch.zeros(1, 1, 1, 1, 8, dtype=torch.uint8),
        torch.full([1, 1, 8, 1], 0x57, dtype=torch.uint8),
        1, 1.0, torch.tensor([[0]], dtype=torch.int32), torch.tensor([1], dtype=torch.int32), 1, 1,
        None, "fp8", scale, scale, 0, 0, 0, 64, 0, dtype=torch.float64,
    )  # fmt: skip
    rounded = (15 * scale).to(getattr(torch, loaded)).double().item()
    assert out.flatten().tolist() == pytest.approx([rounded / (1 + 1e-6)] * 8, rel=1e-14)


class TestMergeAttnStates:
    def merge(
        self, prefix_lse: float, suffix_lse: float, prefix: float = 1.0, suffix: float = 3.0
    ) -> tuple[float, float]:
        output, lse = torch.full([1, 1, 8], NAN), torch.full([1, 1], NAN)
        reference.merge_attn_states(
            output,
            lse,
            torch.full([1, 1, 8], prefix),
            torch.tensor([[prefix_lse]]),
            torch.full([1, 1, 8], suffix),
            torch.tensor([[suffix_lse]]),
            None,
        )
        return output[0, 0, 0].item(), lse.item()

    @pytest.mark.parametrize(
        ("prefix_lse", "suffix_lse", "output", "lse"),
        [
            (5.0, 5.0, 2.0, 5 + LN2),
            (0.0, LN2, 7 / 3, math.log(3)),
            (2.0, -INF, 1.0, 2.0),
            (2.0, INF, 1.0, 2.0),
            (-INF, 2.0, 3.0, 2.0),
            (-INF, -INF, 1.0, -INF),
            (INF, -INF, 1.0, -INF),
            (NAN, 1.0, NAN, NAN),
            (1.0, NAN, NAN, NAN),
            (NAN, -INF, NAN, NAN),
        ],
    )
    def test_weights(self, prefix_lse: float, suffix_lse: float, output: float, lse: float) -> None:
        assert self.merge(prefix_lse, suffix_lse) == pytest.approx(
            (output, lse), rel=1e-6, nan_ok=True
        )

    def test_tokens_without_prefix_are_copied(self) -> None:
        output, lse = torch.full([2, 1, 8], NAN), torch.full([1, 2], NAN)
        prefix, suffix = torch.full([2, 1, 8], 1.0), torch.full([2, 1, 8], 3.0)
        lses = torch.tensor([[0.0, INF]])
        reference.merge_attn_states(output, lse, prefix, lses, suffix, lses, 1)
        assert output[:, 0, 0].tolist() == [2.0, 3.0]
        assert lse.tolist() == [[pytest.approx(LN2), INF]]

    def test_fp8_output(self) -> None:
        output = torch.zeros(2, 1, 8, dtype=torch.float8_e4m3fn)
        prefix, suffix = torch.full([2, 1, 8], 1.0), torch.full([2, 1, 8], 3.0)
        suffix[1] = 1e6
        reference.merge_attn_states(
            output, None, prefix, torch.zeros(1, 2), suffix, torch.zeros(1, 2), 1, 2 * ONE
        )
        assert output.view(torch.uint8)[:, 0, 0].tolist() == [0x38, 0x7E]

    @pytest.mark.parametrize("tokens", [-1, 2])
    def test_refuses_bad_token_count(self, tokens: int) -> None:
        one, lse = torch.ones(1, 1, 8), torch.ones(1, 1)
        with pytest.raises(RuntimeError, match="prefill_tokens_with_context"):
            reference.merge_attn_states(one.clone(), None, one, lse, one, lse, tokens)
