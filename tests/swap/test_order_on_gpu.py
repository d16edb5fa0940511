"""swap_blocks_batch among the other work of a stream, and as part of CUDA graphs."""

from __future__ import annotations

import ctypes

import pytest
import torch

import kvops
from devices import CUDA
from gpu.calls import CAPTURE_MODES, SLEEP_CYCLES
from subprocesses import run_python
from swap.gpu_plans import (
    EQUAL,
    LARGE,
    PATHS,
    SMALL,
    Plan,
    every_direction,
    every_path,
    every_stream,
    filled_late,
    pinned_directions,
    pool,
)

pytestmark = pytest.mark.parametrize("device", CUDA)


TESTS = __file__.rpartition("/swap/")[0]


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


@every_path
@pinned_directions
@pytest.mark.parametrize("plan", [SMALL, EQUAL], ids=["small", "equal"])
def test_order_among_blocking_streams(
    plan: Plan, ends: tuple[str, str], path: str, device: str
) -> None:
    """The legacy default stream waits for streams that block, and they for it."""
    src, dst = plan.pools(ends)
    expected = plan.expected(src, dst)
    on_device = [tensor for tensor in (src, dst) if tensor.is_cuda]
    handle = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuStreamCreate(ctypes.byref(handle), 0) == 0
    blocking = torch.cuda.ExternalStream(handle.value)
    torch.cuda.synchronize()
    with torch.cuda.stream(blocking), filled_late(*on_device):
        pass
    with kvops.swap.use_path(path):
        kvops.swap_blocks_batch(*plan.tables(src, dst))
    with torch.cuda.stream(blocking):
        if src.is_cuda:
            src.zero_()
        result = dst.clone() if dst.is_cuda else dst
    torch.cuda.synchronize()
    assert torch.equal(result.cpu(), expected)


@every_path
@every_stream
@pinned_directions
@pytest.mark.parametrize("kernel_first", [False, True], ids=["event", "kernel-event"])
def test_order_after_events(
    kernel_first: bool, ends: tuple[str, str], make_stream: type, path: str, device: str
) -> None:
    """Work of another stream, which this one waits for: at once, or after a kernel of its own."""
    src, dst = SMALL.pools(ends)
    expected = SMALL.expected(src, dst)
    on_device = [tensor for tensor in (src, dst) if tensor.is_cuda]
    other, stream = torch.cuda.Stream(), make_stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(other), filled_late(*on_device):
        pass
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        if kernel_first:
            torch.zeros(10, device=device)
        stream.wait_stream(other)
        kvops.swap_blocks_batch(*SMALL.tables(src, dst))
    other.wait_stream(stream)
    with torch.cuda.stream(other):
        if src.is_cuda:
            src.zero_()
        result = dst.clone() if dst.is_cuda else dst
    other.synchronize()
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
from swap.gpu_plans import SMALL
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
