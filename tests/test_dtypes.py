"""Every tensor argument meets every dtype of torch: right bytes, or refused before a write.

One argument changes its dtype, or all that have the same dtype do. What the operator then accepts
is compared with what the reference makes of the same tensors.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from registry import OpCase, Sample
from support import by_operator, complaint, guard, kinds, make_args, sample_params
from tensor_bytes import byte_view

_QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype)} - _QUANTISED,
    key=str,
)


def with_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Sizes and strides of a tensor with another dtype: the same bits, or the same values.

    Bits where elements have one width, values where torch can convert them, else any bytes.
    """
    result = torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device=tensor.device)
    target, source = byte_view(result), byte_view(tensor)
    if dtype == torch.bool:
        target.copy_(source[..., :1] & 1)
    elif dtype.itemsize == tensor.element_size():
        target.copy_(source)
    else:
        try:
            result.copy_(tensor)
        except RuntimeError:  # torch has no arithmetic for this dtype
            target.copy_(source.repeat_interleave(dtype.itemsize, -1)[..., : dtype.itemsize])
    return result


def test_every_dtype_is_met() -> None:
    assert {torch.float64, torch.uint16, torch.complex32, torch.float8_e4m3fnuz} <= {*DTYPES}


def choices() -> list[Any]:
    """`(case, sample, names)`: each tensor argument alone, and those of one dtype together."""
    found = []
    for param in sample_params(kinds):
        case, sample = param.values
        tensors = {k: v for k, v in make_args(case, sample, "cpu").items() if isinstance(v, Tensor)}
        together: dict[torch.dtype, list[str]] = {}
        for name, tensor in tensors.items():
            if not name.startswith("_"):
                together.setdefault(tensor.dtype, []).append(name)
        groups = [[name] for names in together.values() for name in names]
        groups += [names for names in together.values() if len(names) > 1]
        found += [
            pytest.param(case, sample, names, id=f"{param.id}-{'+'.join(names)}")
            for names in groups
        ]
    return found


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(("case", "sample", "names"), choices())
def test_dtypes(case: OpCase, sample: Sample, names: list[str]) -> None:
    problems = {}
    for dtype in DTYPES:
        args = make_args(case, sample, "cpu")
        if args[names[0]].dtype == dtype:
            continue
        args.update({name: with_dtype(args[name], dtype) for name in names})
        problem = complaint(guard(case, args), by_operator)
        if problem is not None:
            problems[str(dtype)] = problem
    assert problems == {}
