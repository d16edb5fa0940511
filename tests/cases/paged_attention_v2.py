"""Cases of paged_attention_v2: those of version 1, and its scratch tensors."""

from __future__ import annotations

import torch

from attention.inputs import Problem, compare
from cases.paged_attention_v1 import HOSTILE, PROBLEMS, REFUSALS, replace_by
from registry import Args, OpCase, Refusal, Sample


def sample(name: str, problem: Problem, spare_partitions: int = 0) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        return problem.make_v2(device, generator, spare_partitions=spare_partitions)

    return Sample(name, make)


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
    compare=compare,
    hostile=HOSTILE,
)
