"""Builds the driver layer of the swaps, and a stand-in for the driver, without GPU or CUDA runtime.

`Layer(folder, binaries)` loads fresh copies of both: what the layer looks up once for each process,
it then looks up once for each test.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "csrc" / "libtorch_stable"
NATIVE = Path(__file__).resolve().parent / "native"
DRIVER_LAYER = (
    *("driver_entry", "driver_copies", "memory_map", "copy_plan", "block_order"),
    *("path_model", "path_choice", "host_pace"),
)
HEADERS_12_8 = "nvidia-cuda-runtime-cu12==12.8.*"

Row = tuple[int, int, int]
LISTS = ("within_device", "to_device", "to_host", "by_driver", "singly")
PATHS = {"kernel": 2, "batch": 4, "single": 8, "strided": 16}
ANY_PATH = sum(PATHS.values())


def toolkit_headers() -> Path | None:
    """The folder of the cuda.h of an installed toolkit."""
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    roots += sorted(map(str, Path("/usr/local").glob("cuda-*")))
    nvcc = shutil.which("nvcc")
    if nvcc:
        roots.append(str(Path(nvcc).resolve().parents[1]))
    includes = [Path(root) / "include" for root in roots if root]
    return next((folder for folder in includes if (folder / "cuda.h").exists()), None)


def fetch_12_8_headers(folder: Path) -> Path | None:
    """The headers of CUDA 12.8, unpacked into `folder`; None if pip cannot fetch them."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), HEADERS_12_8], capture_output=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        return None
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)
    return next(folder.rglob("cuda.h")).parent


@dataclass(frozen=True)
class Binaries:
    harness: Path
    stand_in: Path


def build(folder: Path, headers: Path) -> Binaries:
    """Compile the driver layer against one release's cuda.h; fails on any warning."""
    harness, stand_in = folder / "harness.so", folder / "stand_in.so"
    sources = [SOURCES / "swap" / "cuda" / f"{name}.cpp" for name in DRIVER_LAYER]
    flags = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command = ["g++", "-std=c++20", *flags, f"-I{SOURCES}", f"-isystem{headers}", "-pthread"]
    command += [*map(str, [*sources, NATIVE / "harness.cpp"]), "-ldl", "-o", str(harness)]
    subprocess.run(command, check=True)
    command = ["gcc", "-O1", "-shared", "-fPIC", "-pthread", str(NATIVE / "stand_in_driver.c")]
    subprocess.run([*command, "-o", str(stand_in)], check=True)
    return Binaries(harness, stand_in)


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("device_pointer_offset", ctypes.c_uint64),
        ("type", ctypes.c_int),
        ("device", ctypes.c_int),
        ("managed", ctypes.c_int),
    )


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("order", ctypes.c_int),
        ("hints", ctypes.c_int * 4),
        ("flags", ctypes.c_uint),
    )


class Layer:
    """One loaded copy of the layer and of its driver."""

    def __init__(self, folder: Path, binaries: Binaries, *, with_driver: bool = True) -> None:
        harness, stand_in = folder / "h.so", folder / "s.so"
        shutil.copy(binaries.harness, harness)
        shutil.copy(binaries.stand_in, stand_in)
        os.environ["KVOPS_LIBCUDA"] = str(stand_in if with_driver else folder / "missing.so")
        self.driver = ctypes.CDLL(str(stand_in))
        self.library = ctypes.CDLL(str(harness))
        self.library.harness_copy.restype = ctypes.c_int64
        self.library.harness_copy_2d.restype = ctypes.c_int64
        self.library.harness_plan.restype = ctypes.c_int64
        self.library.harness_lead.restype = ctypes.c_int64
        self.library.harness_host_pace.restype = ctypes.c_double
        self.library.harness_max_descriptors.restype = ctypes.c_int64

    def set(self, **values: int) -> None:
        """Set globals of the driver."""
        for name, value in values.items():
            kind = ctypes.c_size_t if name == "fail_index" else ctypes.c_int
            kind.in_dll(self.driver, name).value = value

    def get(self, name: str, kind: type = ctypes.c_int) -> int:
        return kind.in_dll(self.driver, name).value

    def counts(self) -> list[int]:
        """Copies of each batch call."""
        table = (ctypes.c_size_t * 64).in_dll(self.driver, "counts")
        return list(table[: self.get("batch_calls")])

    def attribute(self) -> _Attributes:
        return _Attributes.in_dll(self.driver, "attribute")

    def add_range(
        self,
        begin: int,
        size: int,
        *,
        device: int | None = None,
        managed: bool = False,
        device_pointer_offset: int = 0,
    ) -> None:
        """Let the driver know memory: of a device, or else pinned."""
        number = self.get("num_ranges")
        kind = 1 if device is None else 2  # CU_MEMORYTYPE_HOST, _DEVICE
        ranges = (_Range * 64).in_dll(self.driver, "ranges")
        ranges[number] = _Range(begin, size, device_pointer_offset, kind, device or 0, managed)
        self.set(num_ranges=number + 1)

    def copy(
        self, rows: Sequence[Row], *, any_order: bool = False, chunk: int = 8192, stream: int = 7
    ) -> int:
        """Batch, then single copies for the rest; how many the batch did. Raises as it does."""
        message = ctypes.create_string_buffer(1000)
        done = self.library.harness_copy(
            *_columns(rows),
            ctypes.c_int64(len(rows)),
            int(any_order),
            ctypes.c_int64(chunk),
            ctypes.c_void_p(stream),
            message,
            ctypes.c_size_t(1000),
        )
        if done < 0:
            raise RuntimeError(message.value.decode())
        return done

    def plan(self, rows: Sequence[Row], device: int = 0) -> dict[str, list[tuple[int, ...]]]:
        """The lists of the plan: (src, dst, bytes, index)."""
        most = 10_000
        table = (ctypes.c_int64 * (5 * most))()
        written = self.library.harness_plan(
            *_columns(rows), ctypes.c_int64(len(rows)), device, table, ctypes.c_int64(most)
        )
        assert written >= 0
        lists: dict[str, list[tuple[int, ...]]] = {name: [] for name in LISTS}
        for i in range(written):
            list_index, *copy = table[5 * i : 5 * i + 5]
            lists[LISTS[list_index]].append(tuple(copy))
        return lists

    def plans_alike(self, rows: Sequence[Row], most: int) -> bool:
        """Whether planning up to so many rows at once comes to the same as one by one."""
        numbers = ctypes.c_int64(len(rows)), 0, ctypes.c_int64(most)
        return bool(self.library.harness_plans_alike(*_columns(rows), *numbers))

    def copy_2d(self, rows: Sequence[Row]) -> int:
        """The rows at the front that are one 2-D copy, copied if there are two; how many."""
        message = ctypes.create_string_buffer(1000)
        done = self.library.harness_copy_2d(
            *_columns(rows), ctypes.c_int64(len(rows)), message, ctypes.c_size_t(1000)
        )
        if done < 0:
            raise RuntimeError(message.value.decode())
        return done

    def choose(
        self,
        kind: str,
        copies: int,
        copy_bytes: int,
        *,
        allowed: int = ANY_PATH,
        has_batch: bool = True,
        capturing: bool = False,
        on_default_stream: bool = False,
        strided: bool = False,
        host_pace: float = 0,
    ) -> str:
        """The path for scattered copies, or whether rows are one copy ("strided" or "")."""
        path = self.library.harness_choose(
            *(allowed, int(has_batch), int(capturing), int(on_default_stream)),
            *(LISTS.index(kind), int(strided), ctypes.c_int64(copies)),
            *(ctypes.c_int64(copies * copy_bytes), ctypes.c_double(host_pace)),
        )
        return "+".join(name for name, bit in PATHS.items() if bit & path)

    def lead(self, kind: str, copies: int, copy_bytes: int, *, host_pace: float = 0) -> int:
        """How many of the first copies of a led batch are the kernel's; 0 if there can be none."""
        number = ctypes.c_int64(copies), ctypes.c_int64(copies * copy_bytes)
        return self.library.harness_lead(LISTS.index(kind), *number, ctypes.c_double(host_pace))

    def host_pace(self, measured: float | None = None) -> float:
        """What is known of the host; after a batch that measured so many microseconds a copy."""
        return self.library.harness_host_pace(ctypes.c_double(measured or 0))

    def note_slow_host(self) -> None:
        self.library.harness_note_slow_host()

    def order_is_free(
        self, src: int, dst: int, pairs: Sequence[tuple[int, int]], block_bytes: int
    ) -> bool:
        flat = [number for pair in pairs for number in pair]
        table = (ctypes.c_int64 * len(flat))(*flat)
        return bool(
            self.library.harness_order_is_free(
                *(ctypes.c_int64(n) for n in (src, dst)),
                table,
                *(ctypes.c_int64(n) for n in (len(pairs), block_bytes)),
            )
        )


def _columns(rows: Sequence[Row]) -> list[ctypes.Array]:
    return [(ctypes.c_int64 * len(rows))(*(row[i] for row in rows)) for i in range(3)]
