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


def at_offset(tensor: torch.Tensor, bytes_off: int) -> torch.Tensor:
    """The same bytes as many bytes behind the start of an allocation."""
    room = torch.empty(tensor.numel() + bytes_off, dtype=torch.uint8, device=tensor.device)
    room[bytes_off:] = tensor.flatten()
    return room[bytes_off:].view(tensor.shape)


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


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("requests", [1, 30, 31, 32])
@pytest.mark.parametrize("rows", [9983, 9984, 9985, 40_001])
@pytest.mark.parametrize(
    "head_dim, scales, block_size", [(128, 1, 64), (240, 4, 1), (256, 1, 4), (512, 2, 3)]
)
def test_keys_of_few_requests(
    head_dim: int,
    scales: int,
    block_size: int,
    rows: int,
    requests: int,
    descending: bool,
    device: str,
) -> None:
    """Rows of whole warps and one more or less; requests as many as a warp has lanes for and one
    more; keys of as many units as lanes can be divided by, and of another number. Some blocks do
    not exist; outputs have rows of their own stride, and all addresses are odd multiples of 16, or
    of 4 bytes, which takes other kernels."""
    width = head_dim + 4 * scales
    generator = torch.Generator().manual_seed(rows * requests)
    cache = random_bits([BLOCKS, block_size, width], torch.uint8, generator)
    starts = torch.randint(rows + 1, (requests + 1,), generator=generator).int()
    starts = starts if descending else starts.sort().values
    table = torch.randint(-1, BLOCKS, (requests, rows // block_size + 2), generator=generator).int()
    for padding, shift in ((0, 0), (16, 16), (0, 4)):
        results = []
        for place in ("cpu", device):
            wide = poisoned([rows, head_dim + padding], torch.uint8).to(place)
            moved = [at_offset(x, shift) for x in (cache.to(place), wide)]
            out_scales = poisoned([rows, 4 * scales], torch.uint8).to(place)
            arguments = [moved[0], moved[1][:, :head_dim], out_scales, table.to(place)]
            kvops.cp_gather_indexer_k_quant_cache(*arguments, starts.to(place))
            results.append([moved[1].cpu(), out_scales.cpu()])
        assert all(map(torch.equal, *results))


WIDTHS_AND_ROWS = [
    *[(1152, rows) for rows in (938, 939, 1023, 1024, 1025)],
    *[(272, rows) for rows in (4607, 4608, 4609)],
    *[(144, rows) for rows in (7679, 7680, 7681)],
    *[(128, 8500), (1136, 1153), (9600, 113), (40_000, 97), (524_288, 3), (524_304, 3)],
]


@pytest.mark.parametrize("requests", [1, 31, 32])
@pytest.mark.parametrize("width, rows", WIDTHS_AND_ROWS)
def test_rows_of_few_requests(width: int, rows: int, requests: int, device: str) -> None:
    """Blocks that end where a row does, and inside; rows so narrow or wide, or requests so many,
    that a warp's lanes do not suffice; addresses that are multiples of 16 bytes or not."""
    cache = random_bits([BLOCKS, BLOCK_SIZE, width], torch.uint8, torch.Generator())
    table, starts, seq_starts = tables(requests, rows, descending=False)
    for shift in (0, 16, 4, 1):
        results = []
        for place in ("cpu", device):
            out = at_offset(poisoned([rows, width], torch.uint8).to(place), shift)
            rest = [tensor.to(place) for tensor in (table, starts)]
            kvops.cp_gather_cache(
                at_offset(cache.to(place), shift), out, *rest, requests, seq_starts.to(place)
            )
            results.append(out.cpu())
        assert torch.equal(*results)


@pytest.mark.parametrize("requests", [1, 31, 32])
@pytest.mark.parametrize("rows", [939, 1024, 4001])
def test_upconvert(rows: int, requests: int, device: str) -> None:
    """Entries that start at multiples of 16 bytes, of 8 and at any byte."""
    entries = random_bits([BLOCKS, BLOCK_SIZE, 656], torch.uint8, torch.Generator())
    table, starts, _ = tables(requests, rows, descending=False)
    for shift in (0, 8, 1):
        results = []
        for place in ("cpu", device):
            out = poisoned([rows, 576], torch.bfloat16).to(place)
            rest = [tensor.to(place) for tensor in (table, starts.diff(), starts[:-1])]
            kvops.cp_gather_and_upconvert_fp8_kv_cache(
                at_offset(entries.to(place), shift), out, *rest, requests
            )
            results.append(out.cpu().view(torch.uint8))
        assert torch.equal(*results)


@pytest.mark.parametrize("rows", [1, 2, 100, 3001, 40_000])
@pytest.mark.parametrize("width", [1, 8, 64, 576, 5136])
@pytest.mark.parametrize("dtype", [torch.float, torch.half, torch.bfloat16], ids=str)
@pytest.mark.parametrize("requests", [31, 40])
def test_fp8(requests: int, dtype: torch.dtype, width: int, rows: int, device: str) -> None:
    rows = min(rows, 40_000_000 // width)
    cache = random_bits([BLOCKS, BLOCK_SIZE, width], torch.uint8, torch.Generator())
    table, starts, _ = tables(requests, rows, descending=False)
    tokens = torch.arange(requests).repeat_interleave((starts[1:] - starts[:-1]).long())
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
