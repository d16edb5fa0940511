"""Plans of copies, and which rows of swap_blocks may be copied in any order: no GPU is needed.

Addresses are numbers here: the stand-in for the driver says what is behind them, and nothing is
copied.
"""

from __future__ import annotations

from random import Random

import pytest

from swap.driver_layer import Layer

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
    "host to device": (HOST, GPU, "to_device"),
    "device to host": (GPU, HOST, "to_host"),
    "device to device": (GPU, GPU + SPACE // 2, "within_device"),
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
    assert plan["to_device"] == [(*rows[0], 0)]
    assert plan["within_device"] == [(*rows[1], 1)]
    assert plan["by_driver"] == [(*rows[2], 2)]


def test_neighbours_become_one(known: Layer) -> None:
    rows = [(HOST + 64 * i, GPU + 64 * i, 64) for i in range(100)]
    assert known.plan(rows)["to_device"] == [(HOST, GPU, 6400, 0)]


def test_what_is_no_neighbour_stays_apart(known: Layer) -> None:
    rows = [(HOST, GPU, 64), (HOST + 64, GPU + 128, 64), (HOST + 256, GPU + 192, 64)]
    assert known.plan(rows)["to_device"] == [(*row, i) for i, row in enumerate(rows)]


def test_neighbours_on_both_sides_of_another_direction(known: Layer) -> None:
    rows = [(HOST, GPU, 64), (GPU + 4096, GPU + 8192, 64), (HOST + 64, GPU + 64, 64)]
    plan = known.plan(rows)
    assert plan["to_device"] == [(*rows[0], 0), (*rows[2], 2)]
    assert plan["within_device"] == [(*rows[1], 1)]


def test_pageable_neighbours_stay_apart(known: Layer) -> None:
    rows = [(PAGEABLE, GPU, 64), (PAGEABLE + 64, GPU + 64, 64)]
    assert len(known.plan(rows)["singly"]) == 2


def test_neighbours_in_different_allocations_stay_apart(known: Layer) -> None:
    known.add_range(GPU + SPACE, SPACE, device=0)
    rows = [(HOST, GPU + SPACE - 64, 64), (HOST + 64, GPU + SPACE, 64)]
    assert known.plan(rows)["to_device"] == [(*rows[0], 0), (*rows[1], 1)]


def test_a_registration_ends_inside_a_block(known: Layer) -> None:
    known.add_range(HOST + SPACE, SPACE)
    end = HOST + SPACE
    plan = known.plan([(end - 100, GPU, 300), (GPU, end - 5, 10)])
    assert plan["to_device"] == [(end - 100, GPU, 100, 0), (end, GPU + 100, 200, 0)]
    assert plan["to_host"] == [(GPU, end - 5, 5, 1), (GPU + 5, end, 5, 1)]


def test_a_registration_ends_and_pageable_memory_goes_on(known: Layer) -> None:
    end = HOST + SPACE
    plan = known.plan([(end - 100, GPU, 300)])
    assert plan["to_device"] == [(end - 100, GPU, 100, 0)]
    assert plan["singly"] == [(end, GPU + 100, 200, 0)]


def test_pageable_memory_runs_into_a_registration(known: Layer) -> None:
    plan = known.plan([(HOST - 50, GPU, 300)])
    assert plan["singly"] == [(HOST - 50, GPU, 50, 0)]
    assert plan["to_device"] == [(HOST, GPU + 50, 250, 0)]


def test_device_memory_in_pieces_stays_one_copy(known: Layer) -> None:
    for i in range(4):
        known.add_range(FAR + i * 4096, 4096, device=0)
    rows = [(FAR + 100, HOST, 3 * 4096)]
    assert known.plan(rows)["to_host"] == [(*rows[0], 0)]
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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [0, 1, 7, 115, 5000])
def test_many_entries_at_once_are_planned_like_one_by_one(
    known: Layer, most: int, seed: int
) -> None:
    """Runs of neighbours, entries that copy nothing, and now and then other memory."""
    random = Random(seed)
    rows = []
    src, dst = HOST, GPU
    for _ in range(500):
        size = random.choice([0, 16, 64, 64, 64])
        if random.random() < 0.3:
            src += random.choice([0, 64])
            dst += random.choice([0, 64])
        if random.random() < 0.02:
            ends = random.choice(list(DIRECTIONS.values()))
            src, dst = (end + 64 * random.randrange(1000) for end in ends[:2])
        rows.append((src, dst, size))
        src, dst = src + size, dst + size
        if random.random() < 0.02:
            rows.append((src, src, 64))
    assert known.plans_alike(rows, most)
