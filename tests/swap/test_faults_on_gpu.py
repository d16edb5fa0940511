"""Calls of the driver that fail in the middle of a swap on a GPU, one at a time, on every path.

The driver is a real one, behind native/faulty_driver.c for what kvops asks of it directly, and
native/faulty_launch.c for what the CUDA runtime does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devices import CUDA
from subprocesses import run_python
from swap.gpu_plans import PINNED

pytestmark = pytest.mark.parametrize("device", CUDA)
TESTS = __file__.rpartition("/swap/")[0]
INVALID_VALUE, NOT_SUPPORTED = 1, 801
COUNT = 200

SWAPS = """
import os, torch, kvops
from swap.gpu_plans import PINNED, STREAMS, pool

COUNT, SIZE = {2}, {3}
PATH, FAULT = {0!r}, {1!r}
generator = torch.Generator().manual_seed(7)
places = [torch.randperm(2 * COUNT, generator=generator)[:COUNT] for _ in range(2)]
if PATH == "strided":
    places = [2 * torch.arange(COUNT), torch.arange(COUNT)]


def copied(src, dst, before):
    # How many copies of the front have been made; those after them must not have begun.
    torch.cuda.synchronize()
    src, dst, before = (pool.view(-1, SIZE).cpu() for pool in (src, dst, before))
    there = (dst[places[1]] == src[places[0]]).all(dim=1)
    number = int(there.long().cumprod(0).sum())
    rest = torch.ones(2 * COUNT, dtype=torch.bool)
    rest[places[1][:number]] = False
    assert torch.equal(dst[rest], before[rest])
    return number


for name, ends in PINNED.items():
    if PATH == "strided" and name == "within-device":
        continue  # there are no 2-D copies
    for make_stream in STREAMS.values():
        src, dst = pool(ends[0], 2 * COUNT * SIZE, 0), pool(ends[1], 2 * COUNT * SIZE, 1)
        tables = [pool.data_ptr() + SIZE * at for pool, at in zip((src, dst), places)]
        tables.append(torch.full((COUNT,), SIZE))
        before = dst.clone()
        torch.cuda.synchronize()
        kvops.swap.use_calibration(None)  # and nothing is known of the host
        os.environ["KVOPS_TEST_FAULT"] = f"{{FAULT}}:{{name}} {{make_stream}}"
        with torch.cuda.stream(make_stream()), kvops.swap.use_path(PATH):
            try:
                kvops.swap_blocks_batch(*tables)
                message = "no error"
            except RuntimeError as error:
                message = str(error).splitlines()[0]
            first = copied(src, dst, before), kvops.swap.last_path()
            del os.environ["KVOPS_TEST_FAULT"]
            kvops.swap_blocks_batch(*tables)
            second = copied(src, dst, before), kvops.swap.last_path()
        print(message, *first, *second, sep="|")
"""


def compiled(name: str, folder: Path) -> Path:
    library = folder / f"{name}.so"
    source = Path(__file__).parent / "native" / f"{name}.c"
    # Optimised: a call at the end of a function becomes a jump.
    command = ["gcc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def faulty_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("faulty_driver", tmp_path_factory.mktemp("faulty_driver"))


@pytest.fixture(scope="session")
def faulty_launch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("faulty_launch", tmp_path_factory.mktemp("faulty_launch"))


def swap_with(
    fault: str, path: str, count: int = COUNT, size: int = 4096, **environ: str
) -> list[list[str]]:
    """For each direction: message, copies made, path, and the last two of another swap."""
    code = SWAPS.format(path, fault, count, size)
    done = run_python(code, path=(TESTS,), **environ)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert len(rows) == 2 * (len(PINNED) - (path == "strided"))
    return rows


@pytest.mark.parametrize(
    ("path", "call", "number", "copied"),
    [
        ("single", "cuMemcpyAsync", 0, 0),
        ("single", "cuMemcpyAsync", 77, 77),
        ("single", "cuMemcpyAsync", 199, 199),
        # 32 copies with the first call, 40 with the second.
        ("batch", "cuMemcpyBatchAsync", 0, 0),
        ("batch", "cuMemcpyBatchAsync", 2, 72),
        ("strided", "cuMemcpy2DAsync", 0, 0),
        ("auto", "cuPointerGetAttributes", 0, 0),
        ("auto", "cuPointerGetAttributes", 1, 0),
    ],
)
def test_a_call_that_fails(
    path: str, call: str, number: int, copied: int, faulty_driver: Path, device: str
) -> None:
    """What was issued before it is copied whole, nothing after it is, and the next swap works."""
    fault = f"{call}:{number}:{INVALID_VALUE}"
    for row in swap_with(fault, path, KVOPS_LIBCUDA=str(faulty_driver)):
        message, first, _, second, _ = row
        assert message.startswith(f"kvops::swap_blocks_batch: {call} failed"), row
        assert "CUDA_ERROR_INVALID_VALUE" in message
        assert path != "single" or f"entry {number} (" in message
        assert (int(first), int(second)) == (copied, COUNT), row


def test_batches_that_are_refused_half_way(faulty_driver: Path, device: str) -> None:
    fault = f"cuMemcpyBatchAsync:1:{NOT_SUPPORTED}"
    rows = swap_with(fault, "batch", KVOPS_LIBCUDA=str(faulty_driver))
    assert rows[0] == ["no error", str(COUNT), "batch+single", str(COUNT), "single"]
    # It is not asked again.
    assert rows[1:] == [["no error", str(COUNT), "single", str(COUNT), "single"]] * 5


def test_a_batch_that_fails_behind_its_lead(faulty_driver: Path, device: str) -> None:
    """What the kernel took is copied whole, nothing that was left to the driver is."""
    fault = f"cuMemcpyBatchAsync:0:{INVALID_VALUE}"
    count = 600
    rows = swap_with(fault, "auto", count, 41 << 10, KVOPS_LIBCUDA=str(faulty_driver))
    for row, name in zip(rows, (name for name in PINNED for _ in range(2)), strict=True):
        message, first, _, second, path = row
        if name == "within-device":
            assert (message, int(first), path) == ("no error", count, "kernel"), row
        else:
            assert message.startswith("kvops::swap_blocks_batch: cuMemcpyBatchAsync failed"), row
            assert 0 < int(first) <= count // 3, row
            assert path == "kernel+batch", row
        assert int(second) == count, row


# Over the link the first launch takes 115 copies and the next one all others.
LAUNCHES = {"host-to-device": (0, 115), "device-to-host": (0, 115), "within-device": (0,)}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_launch_that_fails(number: int, faulty_launch: Path, device: str) -> None:
    """As above: earlier launches have copied all that was theirs, later ones are never made."""
    fault = f"cuLaunchKernelEx:{number}:{INVALID_VALUE}"
    rows = swap_with(fault, "kernel", LD_PRELOAD=str(faulty_launch))
    for row, name in zip(rows, (name for name in PINNED for _ in range(2)), strict=True):
        message, first, _, second, path = row
        if number < len(LAUNCHES[name]):
            assert message == ("kvops::swap_blocks_batch: CUDA launch failed: invalid argument"), (
                row
            )
            assert int(first) == LAUNCHES[name][number], row
        else:
            assert (message, int(first)) == ("no error", COUNT), row
        assert (int(second), path) == (COUNT, "kernel"), row
