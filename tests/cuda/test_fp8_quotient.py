"""What is stored as FP8 is the rounded quotient, for every significand that a scale may have.

Kernels multiply by parts of the reciprocal instead of dividing (common/cuda/fp8_quotient.cuh). That
is as good as a division unless the quotient is within 2^-43 of the middle of two floats which round
to different FP8 values, so the inputs are those nearest to such places.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA

CHUNK = 2**20  # scales of one call
# Middles of two e4m3 values, of every significand that there is: 17, 19 .. 31, and those of
# subnormal values, which have fewer bits.
MIDDLES = [*range(17, 32, 2), *(m * 2.0**-10 for m in (1, 3, 5, 7, 9, 11, 13, 15))]


def nearest_inputs(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """[scales, 2 * middles]: the values of the dtype around the product of scale and middle."""
    products = scales.double()[:, None] * torch.tensor(MIDDLES, device=scales.device).double()
    spacing = torch.finfo(dtype).eps * torch.exp2(products.log2().floor())
    below = torch.floor(products / spacing) * spacing
    return torch.cat([below, below + spacing], 1).to(dtype)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("kind", ["fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_significand_of_a_scale(dtype: torch.dtype, kind: str, device: str) -> None:
    fp8 = torch.float8_e4m3fn if kind == "fp8_e4m3" else torch.float8_e5m2
    slots = torch.zeros(1, dtype=torch.int64, device=device)
    for first in range(0, 2**23, CHUNK):
        bits = torch.arange(first, first + CHUNK, dtype=torch.int32, device=device)
        scales = (bits | 127 << 23).view(torch.float32)
        inputs = nearest_inputs(scales, dtype)
        stored = torch.empty(2, 1, 1, *inputs.shape, dtype=torch.uint8, device=device)
        kvops.reshape_and_cache_flash(
            inputs[None], -inputs[None], stored[0], stored[1], slots, kind, scales, scales
        )
        expected = (inputs.float() / scales[:, None]).to(fp8).view(torch.uint8)
        assert torch.equal(stored[0, 0, 0], expected)
        assert torch.equal(stored[1, 0, 0], expected | 0x80)
