"""Cases of merge_attn_states: dtypes, fp8 outputs, special lse values, strides, no prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvops.reference.numerics import E4M3, decode_fp8
from registry import Args, OpCase, Refusal, Sample

INF, NAN = float("inf"), float("nan")
_SPECIAL_LSE = (0.5, -3.0, 200.0, -200.0, INF, -INF, NAN)


@dataclass(frozen=True)
class States:
    """Two parts of a context; lse values include every pair of special ones if `special`."""

    tokens: int = 6
    heads: int = 3
    head_size: int = 32
    dtype: torch.dtype = torch.float32
    fp8: torch.dtype | None = None  # of the output
    with_lse: bool = True
    tokens_with_context: int | None = None
    special: bool = False
    strided: bool = False

    def make(self, device: torch.device, generator: torch.Generator) -> Args:
        shape = [self.tokens, self.heads, self.head_size]
        parts = [torch.randn(shape, generator=generator).to(self.dtype) for _ in range(2)]
        lses = [3 * torch.randn(self.heads, self.tokens, generator=generator) for _ in range(2)]
        if self.special:
            pairs = torch.cartesian_prod(*[torch.tensor(_SPECIAL_LSE)] * 2)
            lses = list(pairs.T.view(2, self.heads, self.tokens))
        output = torch.empty(shape, dtype=self.fp8 or self.dtype)
        output.view(torch.uint8).fill_(0x7F)
        output_lse = torch.full([self.heads, self.tokens], NAN) if self.with_lse else None
        args = {
            "output": self._spread(output),
            "output_lse": None if output_lse is None else self._spread(output_lse),
            "prefix_output": self._spread(parts[0]),
            "prefix_lse": self._spread(lses[0]),
            "suffix_output": parts[1],
            "suffix_lse": lses[1],
            "prefill_tokens_with_context": self.tokens_with_context,
            "output_scale": torch.tensor([0.37]) if self.fp8 else None,
        }
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in args.items()}

    def _spread(self, tensor: Tensor) -> Tensor:
        """The same elements with the first two dimensions swapped in memory and gaps."""
        if not self.strided:
            return tensor
        first, second, *rest = tensor.shape
        wide = torch.empty([second, first + 1, *rest], dtype=tensor.dtype)
        wide.view(torch.uint8).fill_(0x7F)
        view = wide[:, 1:].transpose(0, 1)
        view.copy_(tensor)
        return view


_STATES = {
    "float32": States(),
    "float16": States(dtype=torch.float16),
    "bfloat16": States(dtype=torch.bfloat16, heads=5, head_size=128, tokens=40),
    "float32-to-fp8": States(fp8=torch.float8_e4m3fn),
    "float16-to-fp8": States(dtype=torch.float16, fp8=torch.uint8, tokens_with_context=4),
    "bfloat16-to-fp8": States(dtype=torch.bfloat16, fp8=torch.float8_e4m3fn, with_lse=False),
    "without-lse": States(with_lse=False),
    "some-without-prefix": States(tokens_with_context=2, dtype=torch.bfloat16),
    "none-with-prefix": States(tokens_with_context=0),
    "special-lse": States(special=True, tokens=7, heads=7, head_size=8),
    "special-lse-to-fp8": States(special=True, tokens=7, heads=7, fp8=torch.uint8),
    "odd-head-size": States(head_size=13, dtype=torch.float16),
    "strided": States(strided=True, dtype=torch.bfloat16, tokens_with_context=5),
    "strided-special": States(strided=True, special=True, tokens=7, heads=7),
    "no-tokens": States(tokens=0),
    "no-heads": States(heads=0),
    "no-elements": States(head_size=0),
}

# Rounding, of the larger part of a row: as for recorded calls (tests/golden/README.md).
_FACTORS = {torch.bfloat16: 1.2e-2, torch.float16: 2e-3, torch.float32: 3e-6}


def compare(name: str, actual: Tensor, expected: Tensor, args: Args) -> None:
    """NaN and infinities are in the same places, and errors are within rounding."""
    if expected.numel() == 0:
        return
    is_fp8 = actual.element_size() == 1
    if is_fp8:
        actual, expected = decode_fp8(actual, E4M3), decode_fp8(expected, E4M3)
        # exp differs in its last bits, so a few values fall on the other side of a tie.
        differing = (actual != expected) & ~expected.isnan()
        assert int(differing.sum()) <= 1 + actual.numel() // 99, f"{name}: too many bytes differ"
    if name == "output_lse":  # a logarithm: its error does not shrink with it
        allowed = _FACTORS[torch.float32] * expected.abs().clamp(min=1.0)
    elif is_fp8:  # one step, which is 1/8 of a number at most
        allowed = expected.abs() / 8 + 2.0**-9
    else:
        largest = args["suffix_output"].double().abs().amax(dim=2, keepdim=True)
        # The prefix may have fewer rows (not all tokens have one) or more than there are tokens.
        prefix = args["prefix_output"][: len(largest)].double().abs().amax(dim=2, keepdim=True)
        largest[: len(prefix)] = torch.maximum(largest[: len(prefix)], prefix)
        allowed = _FACTORS[actual.dtype] * largest
    actual, expected = actual.double(), expected.double()
    is_exact = (actual == expected) | (actual.isnan() & expected.isnan())
    is_off = ~is_exact & ~((actual - expected).abs() <= allowed)
    assert not is_off.any(), f"{name}: {int(is_off.sum())} of {is_off.numel()} elements are off"


def _scales(count: int) -> Callable[[Args], None]:
    """Replaces the scale by `count` ones on the device of the others."""
    return lambda args: args.update(output_scale=torch.ones(count, device=args["output"].device))


def _assign(**values: Any) -> Callable[[Args], None]:
    return lambda args: args.update(values)


def _replace(name: str, change: Callable[[Any], Any]) -> Callable[[Args], None]:
    def edit(args: Args) -> None:
        args[name] = change(args[name])

    return edit


def _heads_innermost(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


CASE = OpCase(
    name="merge_attn_states",
    samples=tuple(Sample(name, states.make) for name, states in _STATES.items()),
    refusals=(
        Refusal("rank", _replace("output", lambda t: t[0]), "output must have 3 dimensions"),
        Refusal("output dtype", _replace("output", torch.Tensor.half), "output must have dtype"),
        Refusal("output stride", _replace("output", _heads_innermost), "output must have stride 1"),
        Refusal(
            "scale with an output that is not fp8",
            _scales(1),
            "output must have dtype one of float8_e4m3fn, uint8, got float32",
        ),
        Refusal(
            "fp8 output without scale",
            _assign(output_scale=None),
            "output must have dtype float32, got float8_e4m3fn",
            sample="float32-to-fp8",
        ),
        Refusal(
            "scale dtype",
            _replace("output_scale", torch.Tensor.double),
            "output_scale must have dtype float32",
            sample="float32-to-fp8",
        ),
        Refusal(
            "scale per head",
            _scales(3),
            "output_scale must have 1 element",
            sample="float32-to-fp8",
        ),
        Refusal("lse shape", _replace("output_lse", lambda t: t.T), "output_lse must have shape"),
        Refusal(
            "lse dtype", _replace("output_lse", torch.Tensor.double), "output_lse must have dtype"
        ),
        Refusal(
            "prefix dtype",
            _replace("prefix_output", torch.Tensor.double),
            "prefix_output must have dtype one of",
        ),
        Refusal(
            "prefix heads",
            _replace("prefix_output", lambda t: t[:, 1:]),
            "prefix_output must have shape",
        ),
        Refusal(
            "prefix tokens",
            _replace("prefix_output", lambda t: t[1:]),
            "prefix_output must have at least prefill_tokens_with_context = 6 tokens",
        ),
        Refusal(
            "prefix stride",
            _replace("prefix_output", _heads_innermost),
            "prefix_output must have stride 1",
        ),
        Refusal(
            "prefix lse tokens",
            _replace("prefix_lse", lambda t: t[:, :1]),
            "prefix_lse must have at least prefill_tokens_with_context = 2 tokens",
            sample="some-without-prefix",
        ),
        Refusal(
            "prefix lse heads", _replace("prefix_lse", lambda t: t[1:]), "prefix_lse must have"
        ),
        Refusal(
            "prefix lse dtype", _replace("prefix_lse", torch.Tensor.half), "prefix_lse must ha"
        ),
        Refusal(
            "suffix dtype", _replace("suffix_output", torch.Tensor.half), "suffix_output must have"
        ),
        Refusal(
            "suffix tokens",
            _replace("suffix_output", lambda t: t[1:]),
            "suffix_output must have sh",
        ),
        Refusal(
            "suffix stride",
            _replace("suffix_output", _heads_innermost),
            "suffix_output must have stride 1",
        ),
        Refusal(
            "suffix lse", _replace("suffix_lse", lambda t: t[:, 1:]), "suffix_lse must have sh"
        ),
        Refusal(
            "suffix lse dtype", _replace("suffix_lse", torch.Tensor.half), "suffix_lse must ha"
        ),
        Refusal(
            "negative context",
            _assign(prefill_tokens_with_context=-1),
            r"prefill_tokens_with_context must be in \[0, 6\], got -1",
        ),
        Refusal(
            "too much context",
            _assign(prefill_tokens_with_context=7),
            r"prefill_tokens_with_context must be in \[0, 6\], got 7",
        ),
    ),
    outputs=("output", "output_lse"),
    compare=compare,
)
