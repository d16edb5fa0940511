"""Gathers cut their rows into tiles by width and number: CUDA and CPU agree whatever the cut.

More requests than fit into a block's shared memory, starts that descend, rows of one unit and rows
of more units than a block has threads.
"""

from __future__ import annotations

import pytest
import torch

import kvops
from devices import CUDA
from gather.paged import poisoned, random_bits

BLOCKS, BLOCK_SIZE = 50, 3

pytestmark = pytest.mark.parametrize("device", CUDA)


def tables(requests: int, rows: int, descending: bool) -> tuple[torch.Tensor, ...]:
    """Block table, row starts and sequence starts of so many requests for so many rows."""
    generator = torch.Generator().manual_seed(requests)
    starts = torch.randint(rows + 1, (requests + 1,), generator=generator).int()
    starts = starts if descending else starts.sort().values
    longest = int((starts[1:] - starts[:-1]).max())
    table = torch.randint(-1, BLOCKS, (requests, longest // BLOCK_SIZE + 2), generator=generator)
    return table.int(), starts, torch.randint(2, (requests,), generator=generator).int()


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("requests", [1, 40, 1023, 1024, 3000])
@pytest.mark.parametrize("width", [1, 3, 16, 48, 576, 5136, 9999])
def test_cp_gather_cache(width: int, requests: int, descending: bool, device: str) -> None:
    rows = 700
    cache = random_bits([BLOCKS, BLOCK_SIZE, width], torch.uint8, torch.Generator())
    table, starts, seq_starts = tables(requests, rows, descending)
    results = []
    for place in ("cpu", device):
        out = poisoned([rows, width], torch.uint8).to(place)
        arguments = [tensor.to(place) for tensor in (cache, out, table, starts)]
        kvops.cp_gather_cache(*arguments, requests, seq_starts.to(place))
        results.append(arguments[1].cpu())
    assert torch.equal(*results)


@pytest.mark.parametrize("rows", [1, 2, 100, 3001, 40_000])
@pytest.mark.parametrize("width", [1, 8, 64, 576, 5136])
@pytest.mark.parametrize("dtype", [torch.float, torch.half, torch.bfloat16], ids=str)
def test_fp8(dtype: torch.dtype, width: int, rows: int, device: str) -> None:
    rows = min(rows, 40_000_000 // width)
    cache = random_bits([BLOCKS, BLOCK_SIZE, width], torch.uint8, torch.Generator())
    table, starts, _ = tables(40, rows, descending=False)
    tokens = torch.arange(40).repeat_interleave((starts[1:] - starts[:-1]).long())
    request = torch.zeros(rows, dtype=torch.int32)
    request[int(starts[0]) : int(starts[-1])] = tokens.int()
    results = []
    for place in ("cpu", device):
        out = poisoned([rows, width], dtype).to(place)
        arguments = [tensor.to(place) for tensor in (cache, out, table, starts, request)]
        scale = torch.tensor([0.3], device=place)
        kvops.gather_and_maybe_dequant_cache(*arguments, rows, "fp8", scale, None)
        results.append(arguments[1].cpu().view(torch.uint8))
    assert torch.equal(*results)
