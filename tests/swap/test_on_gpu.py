"""The swaps with memory on a GPU: every direction, kind of host memory, path and stream.

Work before a call is slow and makes what the call reads or is to overwrite; work after it destroys
what it read. A copy that overtakes the one, or is overtaken by the other, shows in the bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA, needs_two_gpus
from gpu.calls import CAPTURE_MODES, SLEEP_CYCLES
from subprocesses import run_python

pytestmark = pytest.mark.parametrize("device", CUDA)

PATHS = ("auto", "kernel", "batch", "single")
STREAMS = {"default": torch.cuda.default_stream, "side": torch.cuda.Stream}
DIRECTIONS = {
    "host-to-device": ("pinned", "cuda"),
    "device-to-host": ("cuda", "pinned"),
    "within-device": ("cuda", "cuda"),
    "pageable-to-device": ("cpu", "cuda"),
    "device-to-pageable": ("cuda", "cpu"),
}
PINNED = {name: ends for name, ends in DIRECTIONS.items() if "cpu" not in ends}
every_path = pytest.mark.parametrize("path", PATHS)
every_stream = pytest.mark.parametrize("make_stream", STREAMS.values(), ids=STREAMS)
every_direction = pytest.mark.parametrize("ends", DIRECTIONS.values(), ids=DIRECTIONS)
pinned_directions = pytest.mark.parametrize("ends", PINNED.values(), ids=PINNED)


def pool(where: str, size_bytes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randint(0, 256, [size_bytes], dtype=torch.uint8, generator=generator)
    return memory.pin_memory() if where == "pinned" else memory.to(where)


class Plan:
    """Copies of random sizes and places; targets do not overlap."""

    def __init__(self, seed: int, copies: int, sizes: Callable[[Random], int]) -> None:
        random = Random(seed)
        self.rows: list[tuple[int, int, int]] = []
        end = 0
        sources = []
        for _ in range(copies):
            size = sizes(random)
            end += random.choice([0, 0, 1, 5, 16])
            sources.append((end, size))
            end += size
        self.total_bytes = end + 64
        start = 0
        for source, size in random.sample(sources, copies):
            self.rows.append((source, start, size))
            start += size + random.choice([0, 0, 3])
        self.total_bytes = max(self.total_bytes, start)

    def pools(self, ends: tuple[str, str]) -> tuple[Tensor, Tensor]:
        return pool(ends[0], self.total_bytes, 0), pool(ends[1], self.total_bytes, 1)

    def tables(self, src: Tensor, dst: Tensor) -> list[Tensor]:
        offsets = torch.tensor(self.rows, dtype=torch.int64).view(-1, 3)
        starts = src.data_ptr() + offsets[:, 0], dst.data_ptr() + offsets[:, 1]
        return [*starts, offsets[:, 2].contiguous()]

    def expected(self, src: Tensor, dst: Tensor) -> Tensor:
        src, result = src.cpu(), dst.cpu().clone()
        for source, target, size in self.rows:
            result[target : target + size] = src[source : source + size]
        return result


SMALL = Plan(0, 150, lambda r: r.choice([1, 16, 37, 512, 4096, r.randrange(1, 9000)]))
EQUAL = Plan(1, 700, lambda r: 4096)
LARGE = Plan(2, 5, lambda r: r.randrange(1 << 20, 3 << 20))
MANY = Plan(3, 20_000, lambda r: r.randrange(1, 64))
PLANS = {"small": SMALL, "equal": EQUAL, "large": LARGE, "many": MANY}


@contextmanager
def filled_late(*tensors: Tensor) -> Iterator[None]:
    """Device tensors hold something else until slow work of the current stream is done."""
    contents = [tensor.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.bitwise_not_()
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    for tensor, content in zip(tensors, contents, strict=True):
        tensor.copy_(content)
    yield


# ---- bytes


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
        kvops.swap_blocks_batch(*plan.tables(*plan.pools(ends)))
        assert kvops.swap.last_path() == path, ends


@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
@pinned_directions
def test_a_path_can_be_demanded(ends: tuple[str, str], path: str, device: str) -> None:
    with kvops.swap.use_path(path):
        for plan in PLANS.values():
            kvops.swap_blocks_batch(*plan.tables(*plan.pools(ends)))
            assert kvops.swap.last_path() == path


# ---- order


@every_path
@every_stream
@every_direction
@pytest.mark.parametrize("plan", [SMALL, LARGE], ids=["small", "large"])
def test_order_on_the_stream(
    plan: Plan, ends: tuple[str, str], make_stream: type, path: str, device: str
) -> None:
    """Slow work before writes the source and the target; work after destroys the source."""
    src, dst = plan.pools(ends)
    expected = plan.expected(src, dst)
    on_device = [tensor for tensor in (src, dst) if tensor.is_cuda]
    torch.cuda.synchronize()
    stream = make_stream()
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        with filled_late(*on_device):
            tables = plan.tables(src, dst)
            kvops.swap_blocks_batch(*tables)
        for table in tables:
            table.fill_(-1)  # they may change as soon as the call has returned
        if src.is_cuda:
            src.zero_()
        result = dst.clone() if dst.is_cuda else dst
    stream.synchronize()
    assert torch.equal(result.cpu(), expected)


@every_stream
@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
def test_any_order_writes_in_stream_order(path: str, make_stream: type, device: str) -> None:
    """Sources are final; targets are still overwritten by work before the call."""
    src, dst = EQUAL.pools(("pinned", "cuda"))
    expected = EQUAL.expected(src, dst)
    torch.cuda.synchronize()
    stream = make_stream()
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        with filled_late(dst):
            kvops.swap_blocks_batch(*EQUAL.tables(src, dst), True)
        result = dst.clone()
    stream.synchronize()
    assert torch.equal(result.cpu(), expected)


@every_stream
@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
@pinned_directions
def test_the_call_waits_for_nothing(
    ends: tuple[str, str], path: str, make_stream: type, device: str
) -> None:
    src, dst = SMALL.pools(ends)
    tables = SMALL.tables(src, dst)
    with torch.cuda.stream(make_stream()), kvops.swap.use_path(path):
        kvops.swap_blocks_batch(*tables)  # loading a kernel may wait
        torch.cuda.synchronize()
        torch.cuda._sleep(20 * SLEEP_CYCLES)
        asleep = torch.cuda.current_stream().record_event()
        kvops.swap_blocks_batch(*tables)
        assert not asleep.query()
    torch.cuda.synchronize()


@pytest.mark.parametrize("path", PATHS)
def test_reload_after_offload(path: str, device: str) -> None:
    """Two calls on one stream: the second reads what the first one writes."""
    device_pool, host = EQUAL.pools(("cuda", "pinned"))
    original = device_pool.clone()
    rows = [(target, source, size) for source, target, size in EQUAL.rows]
    back = Plan(0, 0, lambda r: 1)
    back.rows = rows
    with torch.cuda.stream(torch.cuda.Stream()), kvops.swap.use_path(path):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        torch.cuda._sleep(SLEEP_CYCLES)
        kvops.swap_blocks_batch(*EQUAL.tables(device_pool, host))
        device_pool.zero_()
        kvops.swap_blocks_batch(*back.tables(host, device_pool))
    torch.cuda.synchronize()
    for source, _, size in EQUAL.rows:
        assert torch.equal(device_pool[source : source + size], original[source : source + size])


# ---- graphs


@every_path
@every_direction
@pytest.mark.parametrize("mode", CAPTURE_MODES)
def test_replays(mode: str, ends: tuple[str, str], path: str, device: str) -> None:
    """A graph owns what it replays: the tables are gone by then."""
    src, dst = SMALL.pools(ends)
    untouched = dst.cpu().clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=mode), kvops.swap.use_path(path):
        tables = SMALL.tables(src, dst)
        kvops.swap_blocks_batch(*tables)
        assert "batch" not in (kvops.swap.last_path() or "")
        for table in tables:
            table.fill_(-1)
        del tables
    assert torch.equal(dst.cpu(), untouched)
    for seed in range(3):
        src.copy_(pool("cpu", SMALL.total_bytes, 10 + seed))
        dst.copy_(pool("cpu", SMALL.total_bytes, 20 + seed))
        expected = SMALL.expected(src, dst)
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(dst.cpu(), expected)


FIRST_CALL = """
import torch
from swap.test_on_gpu import SMALL
import kvops
src, dst = SMALL.pools({ends!r})
expected = SMALL.expected(src, dst)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph), kvops.swap.use_path({path!r}):
    kvops.swap_blocks_batch(*SMALL.tables(src, dst))
graph.replay()
torch.cuda.synchronize()
print(torch.equal(dst.cpu(), expected))
"""


@pytest.mark.parametrize("path", ["kernel", "single"])
@pinned_directions
def test_first_call_of_a_process_is_captured(ends: tuple[str, str], path: str, device: str) -> None:
    done = run_python(FIRST_CALL.format(ends=ends, path=path), path=(TESTS,))
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


# ---- the driver's batch call

TESTS = __file__.rpartition("/swap/")[0]
BATCHES = """
import torch
from swap.test_on_gpu import MANY
import kvops
for ends in (("pinned", "cuda"), ("cuda", "pinned"), ("cuda", "cuda")):
    for any_order in (False, True)[: 2 if ends[0] == "pinned" else 1]:
        src, dst = MANY.pools(ends)
        expected = MANY.expected(src, dst)
        torch.cuda.synchronize()
        with kvops.swap.use_path("batch"):
            kvops.swap_blocks_batch(*MANY.tables(src, dst), any_order)
        torch.cuda.synchronize()
        print(kvops.swap.last_path(), torch.equal(dst.cpu(), expected))
"""


@pytest.mark.parametrize("most", ["100", "1", "999999"])
def test_chunks(most: str, device: str) -> None:
    done = run_python(BATCHES, path=(TESTS,), KVOPS_SWAP_MAX_DESCRIPTORS=most)
    assert done.stdout == "batch True\n" * 4, done.stderr


def test_more_copies_than_a_driver_survived(device: str) -> None:
    """51,828 descriptors in one call ended in a crash elsewhere; chunks are smaller than that."""
    count = 60_000
    src, dst = pool("pinned", count * 64, 0), pool("cuda", count * 64, 1)
    order = torch.randperm(count) * 64
    torch.cuda.synchronize()
    with kvops.swap.use_path("batch"):
        kvops.swap_blocks_batch(
            src.data_ptr() + order, dst.data_ptr() + order.flip(0), torch.full([count], 64)
        )
    torch.cuda.synchronize()
    assert torch.equal(dst.view(-1, 64).cpu()[order.flip(0) // 64], src.view(-1, 64)[order // 64])


@pytest.mark.parametrize(
    ("path", "call"), [("single", "cuMemcpyAsync"), ("batch", "cuMemcpyBatchAsync")]
)
def test_what_the_driver_refuses_is_named(path: str, call: str, device: str) -> None:
    src, dst = pool("cuda", 4096, 0), pool("cuda", 4096, 1)
    far_too_much = 1 << 44
    rows = [
        (src.data_ptr(), dst.data_ptr() + 512, 16),
        (src.data_ptr(), dst.data_ptr(), far_too_much),
    ]
    message = rf"kvops::swap_blocks_batch: {call} failed at .*entry [01] \(.* bytes from 0x"
    with kvops.swap.use_path(path), pytest.raises(RuntimeError, match=message):
        kvops.swap_blocks_batch(*torch.tensor(rows).T.contiguous())
    torch.cuda.synchronize()  # no error that stays


# ---- threads and processes

RACE = """
import threading
from concurrent.futures import ThreadPoolExecutor
import torch
from swap.test_on_gpu import SMALL
import kvops
jobs = []
for i in range(16):
    ends = [("pinned", "cuda"), ("cuda", "pinned"), ("cuda", "cuda"), ("cpu", "cuda")][i % 4]
    src, dst = SMALL.pools(ends)
    jobs.append((src, dst, SMALL.expected(src, dst), SMALL.tables(src, dst)))
torch.cuda.synchronize()
ready = threading.Barrier(16)
def work(i):
    with kvops.swap.use_path(["auto", "kernel", "batch", "single"][i // 4]):
        ready.wait()
        with torch.cuda.stream(torch.cuda.Stream() if i % 2 else torch.cuda.default_stream()):
            kvops.swap_blocks_batch(*jobs[i][3])
with ThreadPoolExecutor(16) as threads:
    list(threads.map(work, range(16)))
torch.cuda.synchronize()
print(all(torch.equal(dst.cpu(), expected) for _, dst, expected, _ in jobs))
"""


def test_sixteen_threads_make_the_first_call(device: str) -> None:
    done = run_python(RACE, path=(TESTS,))
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize("path", PATHS)
def test_a_thread_that_never_used_cuda(path: str, device: str) -> None:
    """It has no context of its own, and its first CUDA call is ours."""
    jobs = [(ends, *SMALL.pools(ends)) for ends in (*DIRECTIONS.values(), ("cpu", "cpu"))]
    tables = [SMALL.tables(src, dst) for _, src, dst in jobs]
    expected = [SMALL.expected(src, dst) for _, src, dst in jobs]
    torch.cuda.synchronize()
    errors: list[BaseException] = []

    def work(table: list[Tensor]) -> None:
        try:
            with kvops.swap.use_path(path):
                kvops.swap_blocks_batch(*table)
        except RuntimeError as error:
            errors.append(error)

    for table in tables:
        thread = threading.Thread(target=work, args=(table,))
        thread.start()
        thread.join()
    torch.cuda.synchronize()
    assert errors == []
    for (ends, _, dst), content in zip(jobs, expected, strict=True):
        assert torch.equal(dst.cpu(), content), ends


def test_threads_on_the_default_stream(device: str) -> None:
    """They share one side stream for the batch call."""
    jobs = [SMALL.pools(("pinned", "cuda")) for _ in range(8)]
    expected = [SMALL.expected(*pools) for pools in jobs]
    torch.cuda.synchronize()

    def work(i: int) -> None:
        with kvops.swap.use_path("batch"):
            for _ in range(10):
                kvops.swap_blocks_batch(*SMALL.tables(*jobs[i]))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    torch.cuda.synchronize()
    for (_, dst), content in zip(jobs, expected, strict=True):
        assert torch.equal(dst.cpu(), content)


FORK_BEFORE = """
import os, torch, kvops
src, dst = torch.arange(100), torch.zeros(100, dtype=torch.int64)
tables = [torch.tensor([n]) for n in (src.data_ptr(), dst.data_ptr(), 800)]
kvops.swap_blocks_batch(*tables)
kvops.swap_blocks(src, dst, 8, torch.tensor([[1, 1]]))
assert torch.equal(src, dst) and not torch.cuda.is_initialized()
child = os.fork()
if child == 0:
    dst.zero_()
    kvops.swap_blocks_batch(*tables)
    there = torch.cuda._is_in_bad_fork() or not torch.equal(dst, src)
    there = there or int(torch.ones(3, device="cuda").sum()) != 3
    os._exit(int(there))
print(os.waitpid(child, 0)[1])
"""
FORK_AFTER = """
import os, torch, kvops
torch.ones(3, device="cuda")
src, dst = torch.arange(100), torch.zeros(100, dtype=torch.int64)
tables = [torch.tensor([n]) for n in (src.data_ptr(), dst.data_ptr(), 800)]
child = os.fork()
if child == 0:
    kvops.swap_blocks_batch(*tables)
    os._exit(int(not torch.equal(dst, src)))
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("code", [FORK_BEFORE, FORK_AFTER], ids=["before", "after"])
def test_host_swaps_in_forked_processes(code: str, device: str) -> None:
    """They initialise no CUDA, and need none where a fork has made it unusable."""
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


# ---- host memory of all kinds


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


# ---- checked mode


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


# ---- swap_blocks

BLOCKS, BLOCK_BYTES = 40, 1237


@every_path
@every_stream
@every_direction
def test_swap_blocks(ends: tuple[str, str], make_stream: type, path: str, device: str) -> None:
    src, dst = (pool(where, BLOCKS * BLOCK_BYTES, i) for i, where in enumerate(ends))
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)])
    expected = dst.cpu().clone()
    expected.view(BLOCKS, -1)[mapping[1]] = src.cpu().view(BLOCKS, -1)[mapping[0]]
    on_device = [tensor for tensor in (src, dst) if tensor.is_cuda]
    torch.cuda.synchronize()
    stream = make_stream()
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        with filled_late(*on_device):
            rows = mapping.T.clone() if path == "auto" else mapping.T
            kvops.swap_blocks(src, dst, BLOCK_BYTES, rows)
        rows.fill_(-1)
        if src.is_cuda:
            src.zero_()
        result = dst.clone() if dst.is_cuda else dst
    stream.synchronize()
    assert torch.equal(result.cpu(), expected)


@pytest.mark.parametrize("block_bytes", [16, 40, 4096, 70_001])
@pytest.mark.parametrize("shift", [0, 1, 16, 4096, -7, -4112])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_depend_on_each_other(
    seed: int, shift: int, block_bytes: int, device: str
) -> None:
    """As on the CPU: chains, repeated targets, blocks that overlap themselves."""
    random = Random(seed)
    pairs = torch.tensor([[random.randrange(12), random.randrange(12)] for _ in range(200)])
    size = 12 * block_bytes
    start = 8192
    results = []
    for where in ("cpu", "cuda"):
        buffer = pool(where, size + 2 * start, 0)
        src, dst = buffer[start : start + size], buffer[start + shift : start + shift + size]
        kvops.swap_blocks(src, dst, block_bytes, pairs)
        results.append(buffer.cpu())
    assert torch.equal(*results)


@pinned_directions
def test_repeated_targets_keep_their_order(ends: tuple[str, str], device: str) -> None:
    src, dst = (pool(where, 64 * 5000, i) for i, where in enumerate(ends))
    pairs = torch.stack([torch.randperm(64), torch.arange(64) % 4], dim=1)
    kvops.swap_blocks(src, dst, 5000, pairs)
    torch.cuda.synchronize()
    assert torch.equal(dst.view(64, -1)[:4].cpu(), src.view(64, -1)[pairs[-4:, 0]].cpu())


@pytest.mark.parametrize("path", PATHS)
@pinned_directions
def test_swap_blocks_replays(ends: tuple[str, str], path: str, device: str) -> None:
    src, dst = (pool(where, BLOCKS * BLOCK_BYTES, i) for i, where in enumerate(ends))
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)], dim=1)
    sources, targets = mapping.T.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), kvops.swap.use_path(path):
        kvops.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        mapping.fill_(-1)
    for seed in (7, 8):
        src.copy_(pool("cpu", BLOCKS * BLOCK_BYTES, seed))
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        rows = dst.view(BLOCKS, -1)[targets.to(dst.device)]
        assert torch.equal(rows.cpu(), src.view(BLOCKS, -1)[sources.to(src.device)].cpu())


def test_the_mapping_must_be_on_the_host(device: str) -> None:
    src, dst = pool("cuda", 100, 0), pool("cpu", 100, 1)
    mapping = torch.tensor([[0, 0]], device=device)
    with pytest.raises(RuntimeError, match="block_mapping must be on cpu"):
        kvops.swap_blocks(src, dst, 10, mapping)
    with pytest.raises(RuntimeError, match="block_mapping must be on cpu"):
        kvops.swap_blocks(dst, dst, 10, mapping)


# ---- two GPUs


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


@needs_two_gpus
@every_stream
@pytest.mark.parametrize("path", PATHS)
def test_swap_blocks_between_gpus(path: str, make_stream: type, device: str) -> None:
    """In order with the current streams of both."""
    src, dst = pool("cuda:0", BLOCKS * BLOCK_BYTES, 0), pool("cuda:1", BLOCKS * BLOCK_BYTES, 1)
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)], dim=1)
    expected = dst.cpu().clone()
    expected.view(BLOCKS, -1)[mapping[:, 1]] = src.cpu().view(BLOCKS, -1)[mapping[:, 0]]
    torch.cuda.synchronize(0), torch.cuda.synchronize(1)
    with torch.cuda.device(1):
        there = torch.cuda.default_stream() if "default" in str(make_stream) else make_stream()
    with torch.cuda.stream(there), torch.cuda.stream(make_stream(torch.device("cuda:0"))):
        with filled_late(src), kvops.swap.use_path(path):
            kvops.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        src.zero_()
        assert torch.cuda.current_device() == 0
    with torch.cuda.stream(there):
        result = dst.clone()
    torch.cuda.synchronize(0), torch.cuda.synchronize(1)
    assert torch.equal(result.cpu(), expected)
