"""What only version 2 can show: its statistics, what it leaves alone, equality with version 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kvops
from attention.calls import attend, reference_out, same_bytes
from attention.inputs import BlockSparse, Problem, compare
from devices import DEVICES
from registry import Args

V2_ONLY = ("exp_sums", "max_logits", "tmp_out")
LENGTHS = (0, 1, 511, 512, 513, 1023, 1024, 1025, 2100)

on_every_device = pytest.mark.parametrize("device", DEVICES)


def make(problem: Problem, device: str, spare_partitions: int = 2) -> Args:
    generator = torch.Generator().manual_seed(0)
    return problem.make_v2(device, generator, spare_partitions=spare_partitions)


def v1_args(args: Args) -> Args:
    return {name: value for name, value in args.items() if name not in V2_ONLY}


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(Problem(LENGTHS, dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(Problem(LENGTHS, kv_cache_dtype="fp8"), id="fp8"),
        pytest.param(Problem(LENGTHS, alibi=True, block_size=24), id="alibi"),
        pytest.param(Problem(LENGTHS, sparse=BlockSparse(0, 1, 3, 64, 1)), id="sparse"),
    ],
)
@on_every_device
def test_equals_version_1(problem: Problem, device: str) -> None:
    args = make(problem, device)
    kvops.paged_attention_v2(**args)
    expected = attend(v1_args(args | {"out": args["out"].clone()}))
    if device == "cpu":
        assert same_bytes(args["out"], expected)
    else:  # version 2 may round partial results to the query's dtype
        compare("out", args["out"].cpu(), expected.cpu(), args)


def log_sum_exp(args: Args) -> Tensor:
    """float64 [num_seqs, num_heads], from what version 2 wrote."""
    partitions = -(-args["seq_lens"].cpu() // 512)
    index = torch.arange(args["exp_sums"].size(2))
    is_written = (index < partitions[:, None])[:, None]
    logs = args["exp_sums"].cpu().double().log() + args["max_logits"].cpu().double()
    return torch.where(is_written, logs, -torch.inf).logsumexp(-1)


def exact_log_sum_exp(args: Args) -> Tensor:
    """The same in float64 from the arguments, for caches of the query's dtype."""
    query, keys = args["query"].cpu().double(), args["key_cache"].cpu().double()
    heads_per_kv = query.size(1) // args["num_kv_heads"]
    rows = []
    for seq, length in enumerate(args["seq_lens"].tolist()):
        position = torch.arange(length)
        blocks = args["block_tables"].cpu()[seq, position // args["block_size"]].long()
        tokens = keys[blocks, :, :, position % args["block_size"]].flatten(2)
        tokens = tokens.repeat_interleave(heads_per_kv, dim=1)
        logits = args["scale"] * torch.einsum("hd,thd->ht", query[seq], tokens)
        if args["alibi_slopes"] is not None:
            logits += args["alibi_slopes"].cpu().double()[:, None] * (position - length + 1)
        rows.append(logits.logsumexp(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@on_every_device
def test_statistics_give_the_log_sum_exp(dtype: torch.dtype, alibi: bool, device: str) -> None:
    args = make(Problem(LENGTHS, dtype=dtype, alibi=alibi, head_size=64), device)
    kvops.paged_attention_v2(**args)
    torch.testing.assert_close(log_sum_exp(args), exact_log_sum_exp(args), atol=2e-6, rtol=1e-6)


@on_every_device
def test_entries_past_a_sequence_keep_their_bytes(device: str) -> None:
    args = make(Problem(LENGTHS), device)
    before = {name: args[name].clone() for name in V2_ONLY}
    kvops.paged_attention_v2(**args)
    for seq, length in enumerate(LENGTHS):
        used = -(-length // 512)
        for name in V2_ONLY:
            rest = [tensor[seq, :, used:] for tensor in (args[name], before[name])]
            assert same_bytes(*rest), (name, length)
        assert args["exp_sums"][seq, :, :used].isfinite().all()


@on_every_device
def test_room_for_more_partitions_does_not_matter(device: str) -> None:
    results = []
    for spare_partitions in (0, 1, 9):
        args = make(Problem((1100, 300)), device, spare_partitions)
        kvops.paged_attention_v2(**args)
        results.append(torch.cat([args[n].flatten(2)[..., :3].cpu() for n in ("out", *V2_ONLY)]))
        expected = reference_out(v1_args(args), torch.float32)
        compare("out", args["out"].cpu(), expected, args)
    assert same_bytes(results[0][:6], results[1][:6]) and same_bytes(results[0][:6], results[2][:6])
