"""swap_blocks_batch in threads and forks, and the driver's batch call: chunks and errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA
from subprocesses import run_python
from swap.gpu_plans import (
    DIRECTIONS,
    PATHS,
    SMALL,
    pool,
)

pytestmark = pytest.mark.parametrize("device", CUDA)


TESTS = __file__.rpartition("/swap/")[0]


BATCHES = """
import torch
from swap.gpu_plans import MANY
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


RACE = """
import threading
from concurrent.futures import ThreadPoolExecutor
import torch
from swap.gpu_plans import SMALL
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
