"""The swaps' driver layer against a stand-in for the driver: no GPU, no CUDA runtime, no torch.

It is compiled with the headers of CUDA 12.8, in which the batch call has 9 arguments, and with
those of the installed toolkit, in which the same name may mean a function of 8.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from random import Random

import pytest
import torch

from swap.driver_layer import Binaries, Layer, build, fetch_12_8_headers, toolkit_headers

NOT_SUPPORTED, INVALID_VALUE, ILLEGAL_ADDRESS = 801, 1, 700
SIZE_MAX = 2**64 - 1
STREAM_ORDER, ANY_ORDER = 1, 3


@pytest.fixture(scope="session", params=["12.8", "toolkit"])
def binaries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    folder = tmp_path_factory.mktemp("driver_layer")
    headers = fetch_12_8_headers(folder) if request.param == "12.8" else toolkit_headers()
    if headers is None:
        pytest.skip(
            "pip cannot fetch the headers of CUDA 12.8"
            if request.param == "12.8"
            else "there is no CUDA toolkit"
        )
    return build(folder, headers)


@pytest.fixture
def layer(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layer:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")  # given back after the test
    return Layer(tmp_path, binaries)


class Memory:
    """Host memory that plays every part: 200 blocks of 64 bytes, and as many empty ones."""

    def __init__(self) -> None:
        self.source = torch.randint(1, 256, [200, 64], dtype=torch.uint8)
        self.target = torch.zeros([200, 64], dtype=torch.uint8)

    def rows(self, blocks: range) -> list[tuple[int, int, int]]:
        """Copies of every second block, so that none is next to another."""
        src, dst = self.source.data_ptr(), self.target.data_ptr()
        return [(src + 64 * i, dst + 64 * i, 64) for i in blocks]

    def copied(self) -> list[int]:
        same = (self.source == self.target).all(dim=1)
        return same.nonzero().flatten().tolist()


def test_the_batch_call_copies(layer: Layer) -> None:
    memory = Memory()
    blocks = range(0, 200, 2)
    assert layer.copy(memory.rows(blocks)) == 100
    assert memory.copied() == list(blocks)
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (1, 0)


def test_a_missing_symbol_means_single_copies(layer: Layer) -> None:
    layer.set(has_batch=0)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert memory.copied() == list(range(0, 20, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (0, 10)


@pytest.mark.parametrize("version", [12000, 12060, 12079])
def test_an_old_driver_means_single_copies(layer: Layer, version: int) -> None:
    layer.set(version=version)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert memory.copied() == list(range(0, 20, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (0, 10)


@pytest.mark.parametrize("version", [12080, 12090, 13000, 13020])
def test_every_newer_driver_is_asked_for_version_12080(layer: Layer, version: int) -> None:
    layer.set(version=version)
    memory = Memory()
    for _ in range(2):
        assert layer.copy(memory.rows(range(3))) == 3
    name = (ctypes.c_char * 64).in_dll(layer.driver, "asked_name").value
    assert (name, layer.get("asked_version")) == (b"cuMemcpyBatchAsync", 12080)
    assert layer.get("lookups") == 1


def test_not_supported_means_single_copies_from_then_on(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 20, 2))) == 0
    assert layer.copy(memory.rows(range(1, 20, 2))) == 0
    assert memory.copied() == list(range(20))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (1, 20)


def test_not_supported_in_a_later_chunk(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED, fail_in_call=2)
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 40, 2)), chunk=6) == 12
    assert memory.copied() == list(range(0, 40, 2))
    assert (layer.get("batch_calls"), layer.get("single_calls")) == (3, 8)


@pytest.mark.parametrize("index", [0, 3, 9])
def test_an_error_names_the_copy(layer: Layer, index: int) -> None:
    layer.set(batch_error=INVALID_VALUE, fail_index=index)
    memory = Memory()
    rows = memory.rows(range(0, 20, 2))
    src, dst, size = rows[index]
    with pytest.raises(RuntimeError) as error:
        layer.copy(rows)
    assert str(error.value) == (
        f"kvops::swap_blocks_batch: cuMemcpyBatchAsync failed at entry {index} ({size} bytes from "
        f"{src:#x} to {dst:#x}): CUDA_ERROR_INVALID_VALUE (1)"
    )
    assert layer.get("single_calls") == 0


def test_an_error_in_a_later_chunk_names_the_caller_s_entry(layer: Layer) -> None:
    layer.set(batch_error=ILLEGAL_ADDRESS, fail_in_call=1, fail_index=2)
    memory = Memory()
    rows = memory.rows(range(0, 40, 2))
    with pytest.raises(RuntimeError, match=rf"entry 8 \(64 bytes from {rows[8][0]:#x} .*error 700"):
        layer.copy(rows, chunk=6)
    assert layer.get("batch_calls") == 2, "nothing goes on after an error"


def test_an_error_that_is_nobody_s(layer: Layer) -> None:
    layer.set(batch_error=INVALID_VALUE, fail_in_call=1)
    memory = Memory()
    with pytest.raises(RuntimeError, match="some entry from 6 to 11, the first being entry 6"):
        layer.copy(memory.rows(range(0, 40, 2)), chunk=6)


def test_an_error_of_a_single_copy(layer: Layer) -> None:
    layer.set(has_batch=0, single_error=INVALID_VALUE, fail_in_single=4)
    memory = Memory()
    rows = memory.rows(range(0, 20, 2))
    message = rf"cuMemcpyAsync failed at entry 4 \(64 bytes from {rows[4][0]:#x} to"
    with pytest.raises(RuntimeError, match=message):
        layer.copy(rows)
    assert memory.copied() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("any_order", "expected"), [(False, STREAM_ORDER), (True, ANY_ORDER)], ids=["stream", "any"]
)
def test_the_nine_arguments(layer: Layer, any_order: bool, expected: int) -> None:
    memory = Memory()
    layer.copy(memory.rows(range(0, 10, 2)), any_order=any_order, stream=0x1234)
    attribute = layer.attribute()
    assert (attribute.order, list(attribute.hints), attribute.flags) == (expected, [0] * 4, 0)
    assert layer.get("num_attributes", ctypes.c_size_t) == 1
    assert layer.get("first_index", ctypes.c_size_t) == 0
    assert layer.get("has_fail_index") == 1
    assert layer.get("batch_stream", ctypes.c_void_p) == 0x1234
    assert layer.counts() == [5]


@pytest.mark.parametrize(
    ("chunk", "counts"), [(7, [7, 7, 6]), (20, [20]), (21, [20]), (1, [1] * 20)]
)
def test_chunks(layer: Layer, chunk: int, counts: list[int]) -> None:
    memory = Memory()
    assert layer.copy(memory.rows(range(0, 40, 2)), chunk=chunk) == 20
    assert layer.counts() == counts
    assert memory.copied() == list(range(0, 40, 2))


@pytest.mark.parametrize(
    ("text", "expected"), [("100", 100), ("0", 8192), ("-3", 8192), ("many", 8192), (None, 8192)]
)
def test_the_size_of_chunks(
    binaries: Binaries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    expected: int,
) -> None:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")
    monkeypatch.delenv("KVOPS_SWAP_MAX_DESCRIPTORS", raising=False)
    if text is not None:
        monkeypatch.setenv("KVOPS_SWAP_MAX_DESCRIPTORS", text)
    assert Layer(tmp_path, binaries).library.harness_max_descriptors() == expected


@pytest.mark.parametrize("attempt", range(5))
def test_sixteen_threads_make_the_first_call(layer: Layer, attempt: int) -> None:
    assert layer.library.harness_race(16) == 16
    assert layer.get("lookups") == 1
    assert layer.get("batch_calls") == 16


def test_sixteen_threads_meet_a_driver_without_support(layer: Layer) -> None:
    layer.set(batch_error=NOT_SUPPORTED)
    assert layer.library.harness_race(16) == 0
    assert layer.get("single_calls") == 16


def test_no_driver(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_LIBCUDA", "")
    layer = Layer(tmp_path, binaries, with_driver=False)
    assert not layer.library.harness_has_driver()
    plan = layer.plan([(4096, 8192, 100)])
    assert plan["singly"] == [(4096, 8192, 100, 0)]


# ---- plans. Addresses are numbers here: nothing is copied.

HOST, OTHER_HOST, GPU, PEER, MANAGED, FAR = (n << 40 for n in range(1, 7))
SPACE = 1 << 30


@pytest.fixture
def known(layer: Layer) -> Layer:
    layer.add_range(HOST, SPACE)
    layer.add_range(OTHER_HOST, SPACE)
    layer.add_range(GPU, SPACE, device=0)
    layer.add_range(PEER, SPACE, device=1)
    layer.add_range(MANAGED, SPACE, device=0, managed=True)
    return layer


PAGEABLE = 99 << 40
DIRECTIONS = {
    "host to device": (HOST, GPU, "over_link"),
    "device to host": (GPU, HOST, "over_link"),
    "device to device": (GPU, GPU + SPACE // 2, "on_device"),
    "to a peer": (GPU, PEER, "by_driver"),
    "from a peer": (PEER, GPU, "by_driver"),
    "host to host": (HOST, OTHER_HOST, "by_driver"),
    "pageable to device": (PAGEABLE, GPU, "singly"),
    "device to pageable": (GPU, PAGEABLE, "singly"),
    "pageable to pinned": (PAGEABLE, HOST, "singly"),
    "managed to device": (MANAGED, GPU, "singly"),
    "host to managed": (HOST, MANAGED, "singly"),
}


@pytest.mark.parametrize(("src", "dst", "name"), DIRECTIONS.values(), ids=DIRECTIONS)
def test_every_direction_has_its_list(known: Layer, src: int, dst: int, name: str) -> None:
    plan = known.plan([(src + 100, dst + 7, 33)])
    assert plan.pop(name) == [(src + 100, dst + 7, 33, 0)]
    assert not any(plan.values())


def test_the_kernel_s_device_is_the_current_one(known: Layer) -> None:
    rows = [(HOST, PEER, 64), (PEER, PEER + 4096, 64), (HOST, GPU, 64)]
    plan = known.plan(rows, device=1)
    assert plan["over_link"] == [(*rows[0], 0)]
    assert plan["on_device"] == [(*rows[1], 1)]
    assert plan["by_driver"] == [(*rows[2], 2)]


def test_neighbours_become_one(known: Layer) -> None:
    rows = [(HOST + 64 * i, GPU + 64 * i, 64) for i in range(100)]
    assert known.plan(rows)["over_link"] == [(HOST, GPU, 6400, 0)]


def test_what_is_no_neighbour_stays_apart(known: Layer) -> None:
    rows = [(HOST, GPU, 64), (HOST + 64, GPU + 128, 64), (HOST + 256, GPU + 192, 64)]
    assert known.plan(rows)["over_link"] == [(*row, i) for i, row in enumerate(rows)]


def test_neighbours_on_both_sides_of_another_direction(known: Layer) -> None:
    rows = [(HOST, GPU, 64), (GPU + 4096, GPU + 8192, 64), (HOST + 64, GPU + 64, 64)]
    plan = known.plan(rows)
    assert plan["over_link"] == [(*rows[0], 0), (*rows[2], 2)]
    assert plan["on_device"] == [(*rows[1], 1)]


def test_pageable_neighbours_stay_apart(known: Layer) -> None:
    rows = [(PAGEABLE, GPU, 64), (PAGEABLE + 64, GPU + 64, 64)]
    assert len(known.plan(rows)["singly"]) == 2


def test_neighbours_in_different_allocations_stay_apart(known: Layer) -> None:
    known.add_range(GPU + SPACE, SPACE, device=0)
    rows = [(HOST, GPU + SPACE - 64, 64), (HOST + 64, GPU + SPACE, 64)]
    assert known.plan(rows)["over_link"] == [(*rows[0], 0), (*rows[1], 1)]


def test_a_registration_ends_inside_a_block(known: Layer) -> None:
    known.add_range(HOST + SPACE, SPACE)
    end = HOST + SPACE
    plan = known.plan([(end - 100, GPU, 300), (GPU, end - 5, 10)])
    assert plan["over_link"] == [
        (end - 100, GPU, 100, 0),
        (end, GPU + 100, 200, 0),
        (GPU, end - 5, 5, 1),
        (GPU + 5, end, 5, 1),
    ]


def test_a_registration_ends_and_pageable_memory_goes_on(known: Layer) -> None:
    end = HOST + SPACE
    plan = known.plan([(end - 100, GPU, 300)])
    assert plan["over_link"] == [(end - 100, GPU, 100, 0)]
    assert plan["singly"] == [(end, GPU + 100, 200, 0)]


def test_pageable_memory_runs_into_a_registration(known: Layer) -> None:
    plan = known.plan([(HOST - 50, GPU, 300)])
    assert plan["singly"] == [(HOST - 50, GPU, 50, 0)]
    assert plan["over_link"] == [(HOST, GPU + 50, 250, 0)]


def test_device_memory_in_pieces_stays_one_copy(known: Layer) -> None:
    for i in range(4):
        known.add_range(FAR + i * 4096, 4096, device=0)
    rows = [(FAR + 100, HOST, 3 * 4096)]
    assert known.plan(rows)["over_link"] == [(*rows[0], 0)]
    rows = [(FAR + 100, HOST, 4 * 4096)]  # the last 100 bytes are nobody's
    assert known.plan(rows)["by_driver"] == [(*rows[0], 0)]


def test_registered_memory_at_another_address_is_not_for_kernels(known: Layer) -> None:
    known.add_range(FAR, SPACE, device_pointer_offset=1 << 35)
    rows = [(FAR, GPU, 64)]
    assert known.plan(rows)["by_driver"] == [(*rows[0], 0)]


def test_without_cuda_all_memory_is_pageable_and_one_question_is_enough(known: Layer) -> None:
    known.set(is_initialised=0)
    rows = [(HOST + 4096 * i, GPU + 64 * i, 64) for i in range(50)]
    assert len(known.plan(rows)["singly"]) == 50
    assert known.get("queries") == 1


def test_the_driver_is_asked_once_for_each_allocation(known: Layer) -> None:
    known.plan([(HOST + 4096 * i, GPU + 128 * i, 64) for i in range(1000)])
    assert known.get("queries") == 2


@pytest.mark.parametrize("seed", range(20))
def test_plans_copy_what_the_entries_do(known: Layer, seed: int) -> None:
    """Random entries over registrations of random sizes: pieces add up to the entries."""
    random = Random(seed)
    begin = FAR
    for _ in range(20):
        size = random.randrange(1, 5000)
        if random.random() < 0.7:
            known.add_range(begin, size, device=random.choice([None, None, 0, 1]))
        begin += size
    rows = []
    for _ in range(100):
        size = random.randrange(1, 6000)
        ends = [FAR + random.randrange(begin - FAR), GPU + random.randrange(SPACE // 2)]
        random.shuffle(ends)
        rows.append((ends[0], ends[1], size))
    plan = known.plan(rows)
    assert sum(copy[2] for copies in plan.values() for copy in copies) == sum(r[2] for r in rows)
    for src, dst, size, index in (copy for copies in plan.values() for copy in copies):
        entry_src, entry_dst, entry_size = rows[index]
        offset = src - entry_src
        assert dst - entry_dst == offset and 0 <= offset < entry_size
        assert offset + size <= entry_size or rows[index + 1][0] == entry_src + entry_size


# ---- the order of swap_blocks


def slow_order_is_free(src: int, dst: int, pairs: list[tuple[int, int]], block: int) -> bool:
    """By every pair of rows; ranges are compared in bytes."""
    rows = [(src + a * block, dst + b * block) for a, b in pairs]
    rows = [row for row in rows if row[0] != row[1]]

    def meet(a: int, b: int) -> bool:
        return abs(a - b) < block

    return not any(
        meet(target, rows[j][0]) or (i != j and meet(target, rows[j][1]))
        for i, (_, target) in enumerate(rows)
        for j in range(len(rows))
    )


@pytest.mark.parametrize("seed", range(300))
def test_order_of_blocks(layer: Layer, seed: int) -> None:
    random = Random(seed)
    block = random.choice([1, 24, 4096])
    src = 10**9
    shift = random.choice([0, 0, 5, -7, 1000]) * block
    dst = src + shift
    ids = random.choice([6, 30, 1000])
    pairs = [
        (random.randrange(ids), random.randrange(ids)) for _ in range(random.choice([1, 3, 12]))
    ]
    assert layer.order_is_free(src, dst, pairs, block) == slow_order_is_free(src, dst, pairs, block)


def test_pools_shifted_by_part_of_a_block_keep_their_order(layer: Layer) -> None:
    assert not layer.order_is_free(10**9, 10**9 + 5, [(0, 9), (9, 0)], 24)
    assert layer.order_is_free(10**9, 10**9 + 24 * 100 + 5, [(0, 9), (9, 0)], 24)


def test_order_of_many_blocks(layer: Layer) -> None:
    pairs = [(i, 99_999 - i) for i in range(50_000)]
    assert layer.order_is_free(10**9, 10**9, pairs, 4096)
    assert not layer.order_is_free(10**9, 10**9, [*pairs, (99_999, 60_000)], 4096)
