"""How paged attention on a GPU shares its work out: whatever the lengths, nothing is lost.

Sequences are so long that several blocks share them; the numbers at which shares change come from
the device. Results are compared with dense attention in float64 on the same device.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA

TILE = 64  # tokens that a block attends to at a time, with 16-bit pages of up to 128 dimensions
HEAD_SIZE, PAGE = 64, 16

pytestmark = pytest.mark.parametrize("device", CUDA)


def multiprocessors() -> int:
    return torch.cuda.get_device_properties(0).multi_processor_count


def attend(
    lengths: list[int], heads: int, kv_heads: int, page: int = PAGE
) -> tuple[Tensor, Tensor]:
    """What kvops computes for random pages, and what it should be."""
    generator = torch.Generator("cuda").manual_seed(sum(lengths))
    pages = [-(-length // page) for length in lengths]
    shape = (sum(pages), kv_heads, HEAD_SIZE // 8, page, 8)
    keys = torch.randn(shape, device="cuda", generator=generator).half()
    values = torch.randn(*shape[:2], HEAD_SIZE, page, device="cuda", generator=generator).half()
    tables = torch.zeros(len(lengths), max(pages), dtype=torch.int32, device="cuda")
    order = torch.randperm(sum(pages), device="cuda", generator=generator).int()
    for table, part in zip(tables, order.split(pages), strict=True):
        table[: len(part)] = part
    query = torch.randn(len(lengths), heads, HEAD_SIZE, device="cuda", generator=generator).half()
    out = torch.full_like(query, torch.nan)
    one = torch.ones(1, device="cuda")
    kvops.paged_attention_v1(
        *[out, query, keys, values, kv_heads, HEAD_SIZE**-0.5, tables],
        *[torch.tensor(lengths, dtype=torch.int32, device="cuda"), page, max(lengths)],
        *[None, "auto", one, one, 0, 0, 0, 64, 0],
    )
    return out, dense(query, keys, values, tables, lengths)


def dense(
    query: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: list[int]
) -> Tensor:
    rows = []
    for row, table, length in zip(query, tables, lengths, strict=True):
        used = table[: -(-length // keys.size(3))].long()
        k = keys[used].permute(0, 3, 1, 2, 4).reshape(-1, keys.size(1), HEAD_SIZE)[:length]
        v = values[used].permute(0, 3, 1, 2).reshape(-1, keys.size(1), HEAD_SIZE)[:length]
        grouped = row.view(keys.size(1), -1, HEAD_SIZE).double()
        logits = torch.einsum("kgd,tkd->kgt", grouped, k.double()) * HEAD_SIZE**-0.5
        mixed = torch.einsum("kgt,tkd->kgd", logits.softmax(-1), v.double())
        rows.append(mixed.reshape_as(row))
    return torch.stack(rows)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    # Of the largest value of a row, as for recorded calls of half.
    bound = 2e-3 * expected.abs().amax(-1, keepdim=True)
    assert ((actual.double() - expected).abs() <= bound).all()


def around(number: int) -> list[int]:
    return [n for n in (number - 1, number, number + 1) if n > 0]


@pytest.mark.parametrize("heads", [(1, 1), (8, 1), (12, 1), (4, 2)])
def test_one_sequence_around_every_share(heads: tuple[int, int], device: str) -> None:
    sms = multiprocessors()
    # Tiles at which blocks get a second tile, and at which there are two blocks a multiprocessor.
    # The last ones' pages make no room for each other in the L2 cache first.
    tiles = {1, 2, 3, sms, 2 * sms, 8 * 2 * sms} | {n // heads[1] for n in (sms, 16 * sms)}
    tiles.add(64 * sms // heads[1])
    lengths = sorted({n for count in tiles for n in around(count * TILE)})
    wrong = {}
    for length in lengths:
        actual, expected = attend([length], *heads)
        try:
            assert_close(actual, expected)
        except AssertionError as error:
            wrong[length] = str(error)
    assert not wrong


@pytest.mark.parametrize("heads", [(16, 1), (8, 2)])
@pytest.mark.parametrize("sequences", [2, 7, 33, 66, 130])
def test_shares_that_end_where_units_do(
    sequences: int, heads: tuple[int, int], device: str
) -> None:
    """Blocks of their own for every unit: of equal lengths, around a tile, and one longer."""
    # Up to four blocks for a unit, of as many tiles as let them get along with two more.
    blocks = max(1, min(4, multiprocessors() // (sequences * heads[1])))
    lengths = {n for tiles in (8, 9, 31) for n in around(blocks * tiles * TILE)}
    wrong = {}
    for length in sorted(lengths):
        for longer in (0, 3 * TILE):
            try:
                assert_close(*attend([length + longer] + [length] * (sequences - 1), *heads))
            except AssertionError as error:
                wrong[length, longer] = str(error)
    assert not wrong


@pytest.mark.parametrize("page", [32, 64, 128, 256])
@pytest.mark.parametrize("heads", [(4, 2), (12, 1)])
def test_around_pages_of_every_kind_of_tile(page: int, heads: tuple[int, int], device: str) -> None:
    """Several pages a tile, one, and several tiles a page; many sequences, and shares of few."""
    lengths = [n for pages in (1, 2, 3, 70) for n in around(pages * page)]
    lengths += [n for tokens in (16, 64, 64 + 16) for n in around(5 * page + tokens)]
    assert_close(*attend(lengths, *heads, page))
    for length in around(multiprocessors() * page // heads[1]):
        assert_close(*attend([length], *heads, page))


def test_many_sequences_of_all_lengths(device: str) -> None:
    lengths = torch.randint(1, 3000, [600], generator=torch.Generator().manual_seed(0)).tolist()
    assert_close(*attend(lengths, 8, 2))


def test_one_long_sequence_among_short_ones(device: str) -> None:
    assert_close(*attend([1] * 40 + [70000] + [17] * 40, 4, 1))


def test_whatever_memory_holds_before(device: str) -> None:
    """The workspace is memory that anybody had: counters in it may say anything."""
    first, _ = attend([40000], 8, 1)
    for byte in (0, 1, 0x7F, 0xFF):
        # Given back at once, and taken again by the call.
        for size in (1 << 16, 1 << 20, 1 << 22, 1 << 24):
            torch.full([size], byte, dtype=torch.uint8, device="cuda")
        again, _ = attend([40000], 8, 1)
        assert torch.equal(first, again), byte


def test_equal_calls_give_equal_bytes(device: str) -> None:
    results = [attend([5000, 131, 9000, 1], 8, 2)[0] for _ in range(5)]
    assert all(torch.equal(results[0], result) for result in results[1:])
