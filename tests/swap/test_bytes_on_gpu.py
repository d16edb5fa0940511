"""What swap_blocks_batch copies on a GPU: every direction, path, alignment and kind of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA, needs_two_gpus
from swap.gpu_plans import (
    EQUAL,
    LARGE,
    PATHS,
    PLANS,
    SMALL,
    Plan,
    every_direction,
    every_path,
    pinned_directions,
    pool,
)

pytestmark = pytest.mark.parametrize("device", CUDA)


@every_path
@every_direction
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_bytes(plan: Plan, ends: tuple[str, str], path: str, device: str) -> None:
    src, dst = plan.pools(ends)
    expected = plan.expected(src, dst)
    with kvops.swap.use_path(path):
        kvops.swap_blocks_batch(*plan.tables(src, dst))
    torch.cuda.synchronize()
    assert torch.equal(dst.cpu(), expected)


@pytest.mark.parametrize("offset", [0, 1, 2, 4, 8, 15])
@pytest.mark.parametrize("shift", [0, 1, 2, 4, 8])
@pinned_directions
def test_every_alignment(ends: tuple[str, str], shift: int, offset: int, device: str) -> None:
    """Of both ends alike and against each other, with sizes around units and pieces."""
    sizes = [1, 2, 3, 15, 16, 17, 31, 33, 511, 512, 513, 4095, 4096, 4097, 8191, 12_289]
    places = torch.tensor([0, *sizes]).add(96).div(32, rounding_mode="floor").mul(32).cumsum(0)[:-1]
    src, dst = pool(ends[0], 1 << 16, 0), pool(ends[1], 1 << 16, 1)
    expected = dst.cpu().clone()
    for place, size in zip(places.tolist(), sizes, strict=True):
        start = place + offset
        expected[start + shift : start + shift + size] = src.cpu()[start : start + size]
    starts = places + offset
    with kvops.swap.use_path("kernel"):
        kvops.swap_blocks_batch(
            src.data_ptr() + starts, dst.data_ptr() + starts + shift, torch.tensor(sizes)
        )
    torch.cuda.synchronize()
    assert torch.equal(dst.cpu(), expected)
    assert kvops.swap.last_path() == "kernel"


@pytest.mark.parametrize("path", PATHS)
def test_directions_may_be_mixed(path: str, device: str) -> None:
    """Pinned, pageable and device memory in one call, each to each."""
    kinds = ("cuda", "pinned", "cpu")
    sources = [pool(kind, 9 * 5000, i) for i, kind in enumerate(kinds)]
    targets = [pool(kind, 9 * 5000, 5 + i) for i, kind in enumerate(kinds)]
    expected = [target.cpu().clone() for target in targets]
    rows = []
    for s, source in enumerate(sources):
        for t, target in enumerate(targets):
            place, size = 5000 * (3 * s + t), 4000 + s + t
            rows.append((source.data_ptr() + place, target.data_ptr() + place, size))
            expected[t][place : place + size] = source.cpu()[place : place + size]
    with kvops.swap.use_path(path):
        kvops.swap_blocks_batch(*torch.tensor(rows).T.contiguous())
    torch.cuda.synchronize()
    for target, content in zip(targets, expected, strict=True):
        assert torch.equal(target.cpu(), content)


def test_the_usual_paths(device: str) -> None:
    """A kernel within the device and for small blocks; the driver's batch for large ones."""
    for plan, ends, path in (
        (EQUAL, ("cuda", "cuda"), "kernel"),
        (LARGE, ("cuda", "cuda"), "kernel"),
        (EQUAL, ("pinned", "cuda"), "kernel"),
        (EQUAL, ("cuda", "pinned"), "kernel"),
        (LARGE, ("pinned", "cuda"), "batch"),
        (LARGE, ("cuda", "pinned"), "batch"),
        (LARGE, ("cpu", "cuda"), "single"),
        (LARGE, ("cpu", "cpu"), "host"),
    ):
        pools = plan.pools(ends)
        kvops.swap_blocks_batch(*plan.tables(*pools))
        torch.cuda.synchronize()  # the pools must outlive the copies
        assert kvops.swap.last_path() == path, ends


@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
@pinned_directions
def test_a_path_can_be_demanded(ends: tuple[str, str], path: str, device: str) -> None:
    with kvops.swap.use_path(path):
        for plan in PLANS.values():
            pools = plan.pools(ends)
            kvops.swap_blocks_batch(*plan.tables(*pools))
            torch.cuda.synchronize()  # the pools must outlive the copies
            assert kvops.swap.last_path() == path


@contextmanager
def registered(memory: Tensor, begin: int, end: int) -> Iterator[None]:
    runtime = torch.cuda.cudart()
    assert int(runtime.cudaHostRegister(memory.data_ptr() + begin, end - begin, 0)) == 0
    try:
        yield
    finally:
        torch.cuda.synchronize()
        assert int(runtime.cudaHostUnregister(memory.data_ptr() + begin)) == 0


def page_aligned(size_bytes: int) -> Tensor:
    memory = torch.zeros(size_bytes + 4096, dtype=torch.uint8)
    start = -memory.data_ptr() % 4096
    return memory[start : start + size_bytes]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("to_device", [True, False], ids=["in", "out"])
def test_registrations_that_end_inside_a_block(path: str, to_device: bool, device: str) -> None:
    host = page_aligned(16 * 4096)
    host.copy_(pool("cpu", 16 * 4096, 0))
    gpu = pool("cuda", 16 * 4096, 1)
    src, dst = (host, gpu) if to_device else (gpu, host)
    plan = Plan(0, 0, lambda r: 1)
    plan.rows = [(0, 0, 3 * 4096 + 5), (4 * 4096 - 7, 4 * 4096 - 7, 30), (20_000, 20_000, 40_000)]
    expected = plan.expected(src, dst)
    with registered(host, 0, 2 * 4096), registered(host, 2 * 4096, 4 * 4096):
        with registered(host, 6 * 4096, 7 * 4096), kvops.swap.use_path(path):
            kvops.swap_blocks_batch(*plan.tables(src, dst))
        torch.cuda.synchronize()
    assert torch.equal(dst.cpu(), expected)


@pytest.mark.parametrize("path", PATHS)
def test_memory_that_was_pinned_a_moment_ago(path: str, device: str) -> None:
    host, gpu = page_aligned(1 << 20), pool("cuda", 1 << 20, 1)
    table = [torch.tensor([n, n + 8192]) for n in (gpu.data_ptr(), host.data_ptr(), 0)]
    table[2].fill_(4096)
    for round_number in range(3):
        gpu.fill_(round_number + 1)
        with registered(host, 0, 1 << 20), kvops.swap.use_path(path):
            kvops.swap_blocks_batch(*table)
        assert (host[:4096] == round_number + 1).all()
        gpu.fill_(round_number + 101)
        with kvops.swap.use_path(path):
            kvops.swap_blocks_batch(*table)
        torch.cuda.synchronize()
        assert kvops.swap.last_path() == "single"
        assert (host[:4096] == round_number + 101).all()


def test_any_order_with_a_source_on_a_device_is_refused_in_checked_mode(device: str) -> None:
    src, dst = SMALL.pools(("cuda", "pinned"))
    before = dst.clone()
    with kvops.checked(), pytest.raises(RuntimeError, match=r"is_src_access_order_any must be Fal"):
        kvops.swap_blocks_batch(*SMALL.tables(src, dst), True)
    torch.cuda.synchronize()
    assert torch.equal(dst, before)
    with kvops.checked():
        kvops.swap_blocks_batch(*SMALL.tables(src, dst), False)
        kvops.swap_blocks_batch(*SMALL.tables(*SMALL.pools(("pinned", "cuda"))), True)
    torch.cuda.synchronize()


@needs_two_gpus
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("plan", [SMALL, LARGE], ids=["small", "large"])
def test_batches_between_gpus(plan: Plan, path: str, device: str) -> None:
    for ends in (("cuda:0", "cuda:1"), ("cuda:1", "cuda:0"), ("cuda:1", "cuda:1")):
        for current in (0, 1):
            src, dst = plan.pools(ends)
            expected = plan.expected(src, dst)
            with torch.cuda.device(current), kvops.swap.use_path(path):
                torch.cuda.synchronize(0), torch.cuda.synchronize(1)
                kvops.swap_blocks_batch(*plan.tables(src, dst))
                torch.cuda.synchronize()
                assert torch.cuda.current_device() == current
            assert torch.equal(dst.cpu(), expected)


@pytest.mark.parametrize("any_order", [False, True], ids=["stream", "any"])
@pytest.mark.parametrize("path", PATHS)
def test_pinned_memory_that_comes_back_as_pageable(path: str, any_order: bool, device: str) -> None:
    """At the same address, again and again: nothing may be remembered from one call to the next."""
    blocks, size = 40, 4096
    host = page_aligned(blocks * size)
    gpu = torch.zeros(blocks * size, dtype=torch.uint8, device=device)
    order = torch.randperm(blocks)
    tables = [
        host.data_ptr() + size * order,
        gpu.data_ptr() + size * torch.arange(blocks),
        torch.full([blocks], size),
    ]

    def swap_in(seed: int) -> None:
        torch.cuda.synchronize()
        host.copy_(pool("cpu", blocks * size, seed))
        with kvops.swap.use_path(path):
            kvops.swap_blocks_batch(*tables, any_order)
        torch.cuda.synchronize()
        assert torch.equal(gpu.view(blocks, size).cpu(), host.view(blocks, size)[order])

    def swap_out(seed: int) -> None:
        gpu.copy_(pool("cuda", blocks * size, seed))
        host.zero_()
        torch.cuda.synchronize()
        with kvops.swap.use_path(path):
            kvops.swap_blocks_batch(tables[1], tables[0], tables[2])
        torch.cuda.synchronize()
        assert torch.equal(gpu.view(blocks, size).cpu(), host.view(blocks, size)[order])

    for seed in range(3):
        with registered(host, 0, blocks * size):
            swap_in(4 * seed)
            assert path != "auto" or kvops.swap.last_path() == "kernel"
            swap_out(4 * seed + 1)
        swap_in(4 * seed + 2)
        assert kvops.swap.last_path() == "single"
        swap_out(4 * seed + 3)
        assert kvops.swap.last_path() == "single"
