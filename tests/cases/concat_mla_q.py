"""Cases of concat_mla_q: vLLM's shape, odd widths, strided inputs, no tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from mla.inputs import awkward, freed, poisoned, replace, transposed
from registry import Args, OpCase, Refusal, Sample


def sample(
    tokens: int, heads: int, nope: int, rope: int, dtype: torch.dtype, padded: bool = False
) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        pad = 8 if padded else 0
        ql_nope = awkward(tokens, heads, nope + pad, dtype=dtype, generator=generator)
        q_pe = awkward(heads, tokens, rope, dtype=dtype, generator=generator)
        q_out = poisoned(tokens, heads, nope + rope + pad, dtype=dtype)
        return {
            "ql_nope": ql_nope.to(device)[..., :nope],
            "q_pe": q_pe.to(device).transpose(0, 1),
            "q_out": q_out.to(device)[..., : nope + rope],
        }

    name = str(dtype).removeprefix("torch.")
    return Sample(f"{tokens}x{heads}x{nope}+{rope}-{name}{'-padded' if padded else ''}", make)


CASE = OpCase(
    name="concat_mla_q",
    samples=(
        sample(5, 3, 512, 64, torch.bfloat16),
        sample(2, 128, 512, 64, torch.float16),
        sample(3, 2, 1024, 64, torch.bfloat16),
        sample(3, 5, 7, 3, torch.float32),
        sample(4, 2, 512, 64, torch.bfloat16, padded=True),
        sample(0, 2, 512, 64, torch.bfloat16),
        sample(3, 0, 512, 64, torch.bfloat16),
        sample(70, 9, 129, 0, torch.float16, padded=True),
        sample(1, 1, 1, 1, torch.float16),
    ),
    refusals=(
        Refusal("rank", replace("ql_nope", lambda t: t[0]), "ql_nope must have 3 dimensions"),
        Refusal("heads", replace("q_pe", lambda t: t[:, :1]), "q_pe must have shape"),
        Refusal("width", replace("q_out", lambda t: t[..., 1:]), "q_out must have shape"),
        Refusal("tokens", replace("q_out", lambda t: t[1:]), "q_out must have shape"),
        Refusal("dtype", replace("ql_nope", Tensor.double), "ql_nope must have dtype one of"),
        Refusal("mixed", replace("q_pe", Tensor.half), "q_pe must have dtype bfloat16"),
        Refusal("mixed output", replace("q_out", Tensor.float), "q_out must have dtype bfloat16"),
        Refusal("nope stride", replace("ql_nope", transposed), "ql_nope must have stride 1"),
        Refusal("rope stride", replace("q_pe", transposed), "q_pe must have stride 1"),
        Refusal("output stride", replace("q_out", transposed), "q_out must have stride 1"),
        Refusal("freed", replace("ql_nope", freed), "ql_nope must have a storage"),
        Refusal("output freed", replace("q_out", freed), "q_out must have a storage"),
    ),
    outputs=("q_out",),
)
