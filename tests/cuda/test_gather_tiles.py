"""Gathers choose kernels and tiles by width and number: CUDA and CPU agree whatever the choice.

More requests than a warp has lanes, than fit into a block's shared memory; starts that descend,
tables of any values; rows of one unit and rows of more units than a block has threads.
"""

from __future__ import annotations

import pytest
import torch

import kvops
from devices import CUDA
from gather.paged import poisoned, random_bits
from gpu.gather_calls import gathers_of_any_tables

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


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("rows", [1, 31, 33, 700, 3001])
@pytest.mark.parametrize("block_size", [1, 3, 64])
@pytest.mark.parametrize("head_dim, scales", [(128, 1), (256, 2), (1024, 8), (8192, 1), (132, 1)])
def test_cp_gather_indexer_k_quant_cache(
    head_dim: int, scales: int, block_size: int, rows: int, descending: bool, device: str
) -> None:
    """Pages in order now and then, so that rows are neighbours across pages too."""
    width = head_dim + 4 * scales
    cache = random_bits([BLOCKS, block_size, width], torch.uint8, torch.Generator())
    table, starts, _ = tables(40, rows, descending)
    table[::3] = (torch.arange(table.shape[1]) % BLOCKS).int()
    results = []
    for place in ("cpu", device):
        outs = [poisoned([rows, n], torch.uint8).to(place) for n in (head_dim, 4 * scales)]
        arguments = [tensor.to(place) for tensor in (cache, *outs, table, starts)]
        kvops.cp_gather_indexer_k_quant_cache(*arguments)
        results.append([out.cpu() for out in arguments[1:3]])
    assert all(map(torch.equal, *results))


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


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("rows", [5, 300, 9000])
@pytest.mark.parametrize("requests", [1, 5, 31, 32, 80])
def test_any_tables(requests: int, rows: int, share: float, device: str) -> None:
    results = [gathers_of_any_tables(requests, rows, share, place) for place in ("cpu", device)]
    assert all(map(torch.equal, *results))
