"""Cases of concat_mla_q: vLLM's shape, odd widths, strided inputs, no tokens."""

from __future__ import annotations

import torch

from registry import Args, OpCase, Refusal, Sample


def _sample(
    tokens: int, heads: int, nope: int, rope: int, dtype: torch.dtype, padded: bool = False
) -> Sample:
    def make(device: torch.device, generator: torch.Generator) -> Args:
        pad = 8 if padded else 0
        ql_nope = torch.randn(tokens, heads, nope + pad, generator=generator).to(device, dtype)
        q_pe = torch.randn(heads, tokens, rope, generator=generator).to(device, dtype)
        q_out = torch.full((tokens, heads, nope + rope + pad), float("nan"), dtype=dtype)
        return {
            "ql_nope": ql_nope[..., :nope],
            "q_pe": q_pe.transpose(0, 1),
            "q_out": q_out.to(device)[..., : nope + rope],
        }

    name = str(dtype).removeprefix("torch.")
    return Sample(f"{tokens}x{heads}x{nope}+{rope}-{name}{'-padded' if padded else ''}", make)


def _replace(name: str, change):
    def edit(args: Args) -> None:
        args[name] = change(args[name])

    return edit


CASE = OpCase(
    name="concat_mla_q",
    samples=(
        _sample(5, 3, 512, 64, torch.bfloat16),
        _sample(2, 128, 512, 64, torch.float16),
        _sample(3, 2, 1024, 64, torch.bfloat16),
        _sample(3, 5, 7, 3, torch.float32),
        _sample(4, 2, 512, 64, torch.bfloat16, padded=True),
        _sample(0, 2, 512, 64, torch.bfloat16),
        _sample(1, 1, 1, 1, torch.float16),
    ),
    refusals=(
        Refusal("rank", _replace("ql_nope", lambda t: t[0]), "ql_nope must have 3 dimensions"),
        Refusal("heads", _replace("q_pe", lambda t: t[:, :1]), "q_pe must have shape"),
        Refusal("width", _replace("q_out", lambda t: t[..., 1:]), "q_out must have shape"),
        Refusal("mixed dtypes", _replace("q_pe", torch.Tensor.half), "q_pe must have dtype"),
        Refusal(
            "last stride",
            _replace("ql_nope", lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)),
            "ql_nope must have stride 1 in dimension 2",
        ),
    ),
    outputs=("q_out",),
)
