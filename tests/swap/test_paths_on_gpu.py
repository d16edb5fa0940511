"""Which paths swaps take on a GPU, what explain says of them, and calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA
from subprocesses import run_python
from swap.gpu_plans import EQUAL, LARGE, PATHS, PLANS, every_direction, pinned_directions, pool

pytestmark = pytest.mark.parametrize("device", CUDA)


def rows(ends: tuple[str, str], count: int, size: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Blocks at constant distances, twice as far apart in the source."""
    src, dst = pool(ends[0], 2 * count * size, 0), pool(ends[1], count * size + count, 1)
    steps = torch.arange(count)
    starts = src.data_ptr() + 2 * size * steps, dst.data_ptr() + (size + 1) * steps
    return [*starts, torch.full([count], size)], src, dst


@pytest.mark.parametrize("path", ["auto", "dma", "strided"])
@pytest.mark.parametrize(("count", "size"), [(16, 70_001), (300, 4096), (5000, 777)])
@pinned_directions
def test_constant_distances(
    ends: tuple[str, str], count: int, size: int, path: str, device: str
) -> None:
    tables, src, dst = rows(ends, count, size)
    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        dst.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream), kvops.swap.use_path(path):
            kvops.swap_blocks_batch(*tables)
            torch.cuda.synchronize()
            if ends[0] != ends[1]:
                assert kvops.swap.last_path() == "strided"
        blocks = src.view(count, 2, size)[:, 0].cpu()
        assert torch.equal(dst.view(count, size + 1)[:, :size].cpu(), blocks)
        assert not dst.view(count, size + 1)[:, size:].any()


def test_runs_of_rows_among_others(device: str) -> None:
    """A layer's blocks at constant distances, layer after layer, and some that are scattered."""
    size, count = 4096, 40
    src, dst = pool("pinned", 1000 * size, 0), pool("cuda", 1000 * size, 1)
    places = [(layer * 100 + 2 * i, layer * 100 + i) for layer in range(8) for i in range(count)]
    places += [(1 + 2 * (i * 37 % 499), 950 + i) for i in range(50)]
    order = torch.tensor(places)
    expected = dst.cpu().view(1000, size).clone()
    expected[order[:, 1]] = src.view(1000, size)[order[:, 0]]
    tables = [src.data_ptr() + size * order[:, 0], dst.data_ptr() + size * order[:, 1]]
    kvops.swap_blocks_batch(*tables, torch.full([len(places)], size))
    torch.cuda.synchronize()
    assert torch.equal(dst.cpu().view(1000, size), expected)
    assert kvops.swap.last_path() == "kernel+strided"


def test_rows_over_two_registrations_are_no_2d_copy(device: str) -> None:
    """The driver would see one copy from the one into the other."""
    size, count = 4096, 32
    memory = torch.zeros(2 * count * size + 4096, dtype=torch.uint8)
    host = memory[-memory.data_ptr() % 4096 :][: 2 * count * size]
    host.copy_(pool("cpu", 2 * count * size, 0))
    gpu = torch.zeros(count * size, dtype=torch.uint8, device=device)
    runtime, half = torch.cuda.cudart(), count * size
    starts = [host.data_ptr(), host.data_ptr() + half]
    assert all(int(runtime.cudaHostRegister(start, half, 0)) == 0 for start in starts)
    try:
        steps = size * torch.arange(count)
        for path in ("auto", "dma", "strided"):
            gpu.zero_()
            with kvops.swap.use_path(path):
                kvops.swap_blocks_batch(
                    host.data_ptr() + 2 * steps, gpu.data_ptr() + steps, torch.full([count], size)
                )
            torch.cuda.synchronize()
            assert torch.equal(gpu.view(count, size).cpu(), host.view(count, 2, size)[:, 0])
    finally:
        assert all(int(runtime.cudaHostUnregister(start)) == 0 for start in starts)


@pytest.mark.parametrize("path", [*PATHS, "dma"])
@every_direction
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_explain_says_what_happens(plan, ends: tuple[str, str], path: str, device: str) -> None:
    src, dst = plan.pools(ends)
    before = dst.clone()
    with kvops.swap.use_path(path):
        told = kvops.swap.explain(*plan.tables(src, dst))
        assert torch.equal(dst, before)
        kvops.swap_blocks_batch(*plan.tables(src, dst))
        torch.cuda.synchronize()
        assert told.path == kvops.swap.last_path(), str(told)
    assert told.entries == len(plan.rows)
    assert sum(part.bytes for part in told.parts) == sum(row[2] for row in plan.rows)
    assert str(told).count("\n") >= len(told.parts)


def test_no_multiprocessor(device: str) -> None:
    for plan in (EQUAL, LARGE):
        for ends in (("pinned", "cuda"), ("cuda", "pinned"), ("cuda", "cuda")):
            pools = plan.pools(ends)
            with kvops.swap.use_path("dma"):
                kvops.swap_blocks_batch(*plan.tables(*pools))
                torch.cuda.synchronize()
                assert "kernel" not in kvops.swap.last_path()


def test_wishes_nest_and_end(device: str) -> None:
    def path() -> str:
        pools = EQUAL.pools(("pinned", "cuda"))
        kvops.swap_blocks_batch(*EQUAL.tables(*pools))
        torch.cuda.synchronize()
        return kvops.swap.last_path()

    with kvops.swap.use_path("single"), kvops.swap.use_path(max_sms=1):
        assert path() == "single"
        with kvops.swap.use_path("kernel", max_sms=2):
            assert path() == "kernel"
        assert path() == "single"
    assert path() == "kernel"
    for wrong in (0, -1, 2000):
        with pytest.raises(ValueError, match="max_sms"), kvops.swap.use_path(max_sms=wrong):
            pass
    with pytest.raises(ValueError, match="auto, dma, kernel"), kvops.swap.use_path("engine"):
        pass


ENVIRONMENT = """
import torch, kvops
from swap.gpu_plans import EQUAL
pools = EQUAL.pools(("pinned", "cuda"))
kvops.swap_blocks_batch(*EQUAL.tables(*pools))
torch.cuda.synchronize()
print(kvops.swap.last_path())
"""


@pytest.mark.parametrize(
    ("wish", "path"), [("single", "single"), ("dma", "batch"), ("no such", "kernel")]
)
def test_the_environment_s_wish(wish: str, path: str, device: str) -> None:
    tests = __file__.rpartition("/swap/")[0]
    done = run_python(ENVIRONMENT, path=(tests,), KVOPS_SWAP_PATH=wish, KVOPS_SWAP_MAX_SMS="1")
    assert done.stdout == f"{path}\n", done.stderr


def test_calibration(tmp_path: Path, device: str) -> None:
    file = tmp_path / "swaps.json"
    tables = EQUAL.tables(*EQUAL.pools(("pinned", "cuda")))
    built_in = kvops.swap.explain(*tables)
    try:
        model = kvops.swap.calibrate(file=file)
        costs = model["host to device"]
        assert costs["kernel"]["copies"][4096] < costs["single"]["copies"][4096]
        assert all(
            0 < time < 1e4
            for paths in model.values()
            for cost in paths.values()
            for time in cost["copies"].values()
        )
        measured = kvops.swap.explain(*tables)
        assert measured.parts[0].microseconds != built_in.parts[0].microseconds
        kvops.swap.use_calibration(None)
        assert kvops.swap.explain(*tables) == built_in
        assert kvops.swap.use_calibration(file) == [0]
        assert kvops.swap.explain(*tables) == measured
        content = json.loads(file.read_text())
        for wrong in ("no json", "[]", json.dumps(content | {"sizes": [1]})):
            file.write_text(wrong)
            with pytest.raises(RuntimeError, match="use_calibration"):
                kvops.swap.use_calibration(file)
    finally:
        kvops.swap.use_calibration(None)


@pytest.mark.parametrize("max_sms", [1, 3, 64, 1024])
@pytest.mark.parametrize("name", ["small", "equal", "large", "many"])
@every_direction
def test_any_number_of_thread_blocks(
    ends: tuple[str, str], name: str, max_sms: int, device: str
) -> None:
    plan = PLANS[name]
    src, dst = plan.pools(ends)
    expected = plan.expected(src, dst)
    torch.cuda.synchronize()
    with kvops.swap.use_path("kernel", max_sms=max_sms):
        kvops.swap_blocks_batch(*plan.tables(src, dst))
    torch.cuda.synchronize()
    assert torch.equal(dst.cpu(), expected)


@pytest.mark.parametrize("size", [16, 48, 512, 1008, 1024, 1040, 4096, 10 << 10, 41 << 10, 3 << 20])
@pytest.mark.parametrize("count", [1, 2, 114, 115, 116, 231, 350, 1200])
@pinned_directions
def test_whole_units(ends: tuple[str, str], count: int, size: int, device: str) -> None:
    """Equal and unequal copies of multiples of 16 bytes, in tables full, nearly full and over."""
    if count * size > 16 << 20:
        pytest.skip("too large")
    src, dst = pool(ends[0], 2 * count * size, 0), pool(ends[1], 2 * count * size, 1)
    order = torch.randperm(2 * count)[:count]
    for sizes in (torch.full([count], size), size - 16 * (torch.arange(count) % (size // 16))):
        dst.zero_()
        torch.cuda.synchronize()
        starts = src.data_ptr() + size * order, dst.data_ptr() + size * order.flip(0)
        with kvops.swap.use_path("kernel"):
            kvops.swap_blocks_batch(*starts, sizes)
        torch.cuda.synchronize()
        offsets = torch.arange(size)
        wanted = torch.zeros(2 * count, size, dtype=torch.uint8)
        blocks = src.view(-1, size).cpu()[order]
        wanted[order.flip(0)] = blocks * (offsets < sizes[:, None])
        assert torch.equal(dst.view(-1, size).cpu(), wanted)


@pytest.mark.parametrize("steps", [(1 << 16) - 1, 1 << 16])
@pytest.mark.parametrize("count", [2, 115, 116, 230, 231, 499, 500, 998, 999, 2500])
@pinned_directions
def test_rows_far_apart(ends: tuple[str, str], count: int, steps: int, device: str) -> None:
    """The least and the most that tables of 16 bits can tell, and one step more."""
    size = 32
    src, dst = pool(ends[0], (steps + 1) * size, 0), pool(ends[1], (steps + 1) * size, 1)
    expected = dst.cpu().view(-1, size).clone()
    inner = 1 + torch.randperm(steps - 1)[: count - 2]
    order = torch.cat([torch.tensor([steps, 0]), inner])[torch.randperm(count)]
    expected[order.flip(0)] = src.cpu().view(-1, size)[order]
    starts = src.data_ptr() + size * order, dst.data_ptr() + size * order.flip(0)
    torch.cuda.synchronize()
    with kvops.swap.use_path("kernel"):
        kvops.swap_blocks_batch(*starts, torch.full([count], size))
    torch.cuda.synchronize()
    assert torch.equal(dst.cpu().view(-1, size), expected)


MEASURED = """
import torch, kvops
from swap.gpu_plans import pool
size, count = 32 << 10, 1200
src, dst = pool("pinned", 2 * count * size, 0), pool("cuda", 2 * count * size, 1)
order = torch.randperm(2 * count)[:count]
tables = [src.data_ptr() + size * order, dst.data_ptr() + size * order.flip(0)]
tables.append(torch.full([count], size))
for stream in (torch.cuda.Stream(), torch.cuda.default_stream(), torch.cuda.Stream()):
    dst.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        told = kvops.swap.explain(*tables)
        kvops.swap_blocks_batch(*tables)
        torch.cuda.synchronize()
    assert torch.equal(dst.view(-1, size)[order.flip(0)].cpu(), src.view(-1, size)[order])
    print(told.path, kvops.swap.last_path())
"""


def test_the_first_long_call_measures_the_host(device: str) -> None:
    tests = __file__.rpartition("/swap/")[0]
    done = run_python(MEASURED, path=(tests,))
    told, taken, *others = done.stdout.split()
    assert told == taken == "kernel+batch", done.stderr
    assert len(others) == 4
    assert set(others) <= {"kernel", "batch", "kernel+batch"}
