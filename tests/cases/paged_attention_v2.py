"""Cases of paged_attention_v2: those of version 1, and its scratch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.inputs import PARTITION_TOKENS, Problem, compare
from cases.paged_attention_v1 import HOSTILE, PROBLEMS, REFUSALS, replace_by
from registry import Args, OpCase, Refusal, Sample, assert_same_bytes


def sample(name: str, problem: Problem, spare_partitions: int = 0) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        return problem.make_v2(device, generator, spare_partitions=spare_partitions)

    return Sample(name, make)


class CompareWithSums:
    """Compares `out` as version 1 does, and what the partitions' sums and maxima combine to.

    That is the row's sum relative to the expected maximum: how its mass is spread over partitions,
    and what the sums are relative to, is free. Entries past a sequence keep their bytes. A call is
    compared output by output, in the order of `outputs`.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def __call__(self, name: str, actual: Tensor, expected: Tensor, args: Args) -> None:
        if name == "out":
            compare(name, actual, expected, args)
        elif name == "exp_sums":
            self._sums = actual
        else:
            assert self._sums is not None
            is_used = _is_used(actual, args)
            pairs = [(self._sums, args["exp_sums"]), (actual, expected)]
            for left, right in pairs:
                assert_same_bytes(name, left[~is_used], right[~is_used], args)
            largest = _largest(expected, is_used)
            sums = _combined(self._sums, actual, is_used, largest)
            compare("exp_sums", sums, _combined(args["exp_sums"], expected, is_used, largest), args)


def _is_used(sums: Tensor, args: Args) -> Tensor:
    """bool, shape of `sums`: which partitions have tokens."""
    longest = min(args["max_seq_len"], args["block_tables"].size(1) * args["block_size"])
    partitions = -(-args["seq_lens"].cpu().long().clamp(0, longest) // PARTITION_TOKENS)
    index = torch.arange(sums.size(2))
    return (index < partitions[:, None, None]).expand(sums.shape)


def _largest(maxima: Tensor, is_used: Tensor) -> Tensor:
    """Of a row's partitions, [num_seqs, num_heads]; 0 where a row has none."""
    nothing = maxima.new_full([*maxima.shape[:2], 1], -torch.inf)
    largest = torch.cat([torch.where(is_used, maxima, -torch.inf), nothing], dim=2).amax(dim=2)
    return torch.where(largest == -torch.inf, 0.0, largest)


def _combined(sums: Tensor, maxima: Tensor, is_used: Tensor, largest: Tensor) -> Tensor:
    """Sum of exp(logit - largest) of whole rows, [num_seqs, num_heads]."""
    weights = (maxima.double() - largest[:, :, None].double()).exp()
    # A partition that is empty has any maximum.
    terms = torch.where(is_used & (sums != 0), sums * weights, 0.0)
    return terms.sum(dim=2)


CASE = OpCase(
    name="paged_attention_v2",
    samples=(
        *(sample(name, problem) for name, problem in PROBLEMS.items()),
        sample("more-scratch-than-needed", PROBLEMS["several-partitions"], 2),
    ),
    refusals=(
        *REFUSALS,
        Refusal(
            "sums rank", replace_by("exp_sums", lambda t: t[0]), "exp_sums must have 3 dimensions"
        ),
        Refusal(
            "too few partitions",
            lambda args: args.update(
                {name: args[name][:, :, :2] for name in ("exp_sums", "max_logits", "tmp_out")}
            ),
            "exp_sums must have room for 3 partitions of 512 tokens",
            sample="several-partitions",
        ),
        Refusal("sums shape", replace_by("exp_sums", lambda t: t[:1]), "exp_sums must have shape"),
        Refusal(
            "maxima shape",
            replace_by("max_logits", lambda t: t.repeat(1, 1, 2)),
            "max_logits must have shape",
        ),
        Refusal(
            "sums dtype", replace_by("exp_sums", torch.Tensor.half), "exp_sums must have dtype"
        ),
        Refusal(
            "maxima dtype", replace_by("max_logits", torch.Tensor.double), "max_logits must have dt"
        ),
        Refusal(
            "sums stride",
            replace_by("exp_sums", lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)),
            "exp_sums must have stride",
        ),
        Refusal("tmp_out shape", replace_by("tmp_out", lambda t: t[:, 1:]), "tmp_out must have sh"),
        Refusal("tmp_out dtype", replace_by("tmp_out", torch.Tensor.half), "tmp_out must have dty"),
        Refusal(
            "tmp_out stride",
            replace_by("tmp_out", lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)),
            "tmp_out must have stride",
        ),
    ),
    outputs=("out", "exp_sums", "max_logits"),
    scratch=("tmp_out",),
    compare=CompareWithSums(),
    hostile=HOSTILE,
)
