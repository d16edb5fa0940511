"""Cases of convert_fp8: both directions, every dtype, any rank, equal and different layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cache.inputs import WRITER_DTYPES, awkward, change, freed, poisoned
from registry import Args, OpCase, Refusal, Sample

View = Callable[[Tensor], Tensor]


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def sample(
    direction: str,
    dtype: torch.dtype,
    shape: Sequence[int] = (3, 2, 5, 40),
    *,
    scale: float = 0.1,
    kind: str = "fp8",
    fp8: torch.dtype = torch.uint8,
    views: tuple[str, View, View] = ("", _as_is, _as_is),
) -> Sample:
    """`views`: a name, and how dst and src are seen."""
    label, view_dst, view_src = views

    def make(device: torch.device, generator: torch.Generator) -> Args:
        dst_dtype, src_dtype = (fp8, dtype) if direction == "store" else (dtype, fp8)
        src = awkward(shape, src_dtype, generator)
        return {
            "dst_cache": view_dst(poisoned(shape, dst_dtype).to(device)),
            "src_cache": view_src(src.to(device)),
            "scale": scale,
            "kv_cache_dtype": kind,
        }

    name = f"{direction}-{str(dtype).removeprefix('torch.')}-{'x'.join(map(str, shape))}-{scale}"
    name += "-float8" if fp8 != torch.uint8 else ""
    return Sample(f"{name}-{kind}{label and '-'}{label}", make)


def _swapped(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2)


def _half_of_pages(tensor: Tensor) -> Tensor:
    return tensor[:, 0]


_BOTH_SWAPPED = ("hnd", _swapped, _swapped)
_ONE_SWAPPED = ("dst-swapped", _swapped, lambda t: _swapped(t).contiguous())
_PARTS = ("parts-of-pages", _half_of_pages, lambda t: t[:, 1])
_STRIDED = ("every-second", lambda t: t[..., ::2], lambda t: t[..., 1::2])
_REPEATED = ("repeated", _as_is, lambda t: t[:1].expand_as(t))

CASE = OpCase(
    name="convert_fp8",
    samples=(
        *(sample("store", dtype) for dtype in WRITER_DTYPES),
        *(sample("load", dtype) for dtype in WRITER_DTYPES),
        *(sample("store", dtype, scale=-3.5, kind="fp8_e4m3") for dtype in WRITER_DTYPES),
        *(sample("load", dtype, scale=1e30, kind="fp8_e4m3") for dtype in WRITER_DTYPES),
        sample("store", torch.bfloat16, fp8=torch.float8_e4m3fn),
        sample("load", torch.float16, fp8=torch.float8_e4m3fn),
        sample("store", torch.float32, (777,), scale=0.0),
        sample("load", torch.float32, (777,), scale=float("nan")),
        sample("load", torch.float16, (777,), scale=float("inf")),
        sample("store", torch.bfloat16, (), scale=1.0),
        sample("load", torch.bfloat16, (1, 1), scale=1e300),
        *(sample("store", torch.bfloat16, views=v) for v in (_BOTH_SWAPPED, _ONE_SWAPPED, _PARTS)),
        *(sample("load", torch.float32, views=v) for v in (_BOTH_SWAPPED, _STRIDED, _REPEATED)),
        sample("store", torch.float16, (0, 4)),
        sample("load", torch.bfloat16, (3, 0, 2)),
    ),
    refusals=(
        Refusal("auto", change(kv_cache_dtype=lambda _: "auto"), "kv_cache_dtype must be one of"),
        Refusal(
            "e5m2",
            change(kv_cache_dtype=lambda _: "fp8_e5m2"),
            "kv_cache_dtype must be one of fp8, fp8_e4m3; got 'fp8_e5m2'",
        ),
        Refusal("size", change(src_cache=lambda t: t[1:]), "dst_cache must have the shape of src"),
        Refusal(
            "rank",
            change(dst_cache=lambda t: t[0]),
            r"dst_cache must have the shape of src_cache, \[3, 2, 5, 40\], got \[2, 5, 40\]",
        ),
        Refusal("two floats", change(dst_cache=Tensor.half), "dst_cache must have dtype one of"),
        Refusal(
            "two fp8",
            change(src_cache=lambda t: torch.zeros_like(t, dtype=torch.uint8)),
            "dst_cache must have dtype one of float16, bfloat16, float32, got uint8",
        ),
        Refusal(
            "store into e5m2",
            change(dst_cache=lambda t: t.view(torch.float8_e5m2)),
            "dst_cache must have dtype one of uint8, float8_e4m3fn, got float8_e5m2",
        ),
        Refusal("from double", change(src_cache=Tensor.double), "src_cache must have dtype one of"),
        Refusal(
            "layouts that agree nowhere",
            change(
                dst_cache=lambda t: torch.zeros([2] * 9, dtype=torch.uint8),
                src_cache=lambda t: torch.zeros([2] * 9).permute(*range(8, -1, -1)),
            ),
            "dst_cache must have at most 8 dimensions",
        ),
        Refusal("dst freed", change(dst_cache=freed), "dst_cache must have a storage"),
        Refusal("src freed", change(src_cache=freed), "src_cache must have a storage"),
    ),
    outputs=("dst_cache",),
)
