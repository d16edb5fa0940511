"""The model that paths are chosen by: measured on this machine, kept, loaded again."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._native import libraries
from ._blocks import swap_blocks_batch
from ._paths import use_path

# As PathModel has them (csrc/libtorch_stable/swap/cuda/path_model.h).
_DIRECTIONS = ("host to device", "device to host")
_PATHS = ("kernel", "batch", "single", "strided")
_LEAST_COPIES = 4
_MOST_COPIES = 512
_MOST_BYTES = 32 << 20
_POOL_BYTES = 2 * _MOST_BYTES
_REPEATS = 5
_MAX_DEVICES = 64

Model = dict[str, dict[str, dict[str, Any]]]


def calibrate(
    device: torch.device | str | int | None = None, *, file: str | os.PathLike[str] | None = None
) -> Model:
    """Measure each path between pinned host memory and a GPU, and choose by that from now on.

    Takes a few seconds; the GPU should have nothing else to do. Counts for every thread of this
    process. Without it, numbers measured on an H200 with PCIe 5 are built in.

    Args:
        device: None for the current one.
        file: where to keep the result, beside those of other devices that are there. It is used by
            :func:`use_calibration`, and at import if `KVOPS_SWAP_CALIBRATION` names it.

    Returns:
        For each direction and path: "fixed", microseconds of a call, and "copies", microseconds of
        one copy by its size in bytes.

    Raises:
        RuntimeError: there is no GPU, or this kvops has no CUDA.
    """
    library = _library()
    if not torch.cuda.is_available():
        raise RuntimeError("kvops.swap.calibrate: torch sees no GPU")
    index = torch.cuda._utils._get_device_index(device, optional=True)
    sizes = _sizes(library)
    with torch.cuda.device(index), torch.cuda.stream(torch.cuda.Stream()):
        pools = _Pools()
        costs = [
            _cost(pools, direction, path, sizes) for direction in _DIRECTIONS for path in _PATHS
        ]
    numbers = [number for cost in costs for number in cost]
    _set(library, index, numbers)
    if file is not None:
        _save(Path(file), index, sizes, numbers)
    return _as_model(sizes, numbers)


def use_calibration(file: str | os.PathLike[str] | None) -> list[int]:
    """Choose by results that :func:`calibrate` has kept; by the built-in numbers if None.

    Neither needs nor initialises a GPU. Results are kept by device index: they are for the machine
    that they were measured on.

    Returns:
        The devices that there were results for.

    Raises:
        RuntimeError: the file is no such file, or of another version of kvops; or this kvops has
            no CUDA.
    """
    library = _library()
    if file is None:
        for index in range(_MAX_DEVICES):
            library.kvops_cuda_swap_set_model(index, None)
        return []
    try:
        content = json.loads(Path(file).read_text())
        devices = {int(index): list(map(float, row)) for index, row in content["devices"].items()}
        fits = content["sizes"] == _sizes(library)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f"kvops.swap.use_calibration: {file} cannot be read: {error}") from None
    numbers = library.kvops_cuda_swap_model_numbers()
    if not fits or any(len(row) != numbers for row in devices.values()):
        raise RuntimeError(f"kvops.swap.use_calibration: {file} is of another version of kvops")
    for index, row in devices.items():
        _set(library, index, row)
    return sorted(devices)


def use_environment() -> None:
    """At import: results that `KVOPS_SWAP_CALIBRATION` names; a warning if they are no good."""
    file = os.environ.get("KVOPS_SWAP_CALIBRATION")
    if not file or libraries.cuda is None:
        return
    try:
        use_calibration(file)
    except RuntimeError as error:
        warnings.warn(f"KVOPS_SWAP_CALIBRATION: {error}", RuntimeWarning, stacklevel=2)


class _Pools:
    """Pinned and device memory, and copies between them."""

    def __init__(self) -> None:
        self.host = torch.empty(_POOL_BYTES, dtype=torch.uint8, pin_memory=True)
        self.device = torch.empty(_POOL_BYTES, dtype=torch.uint8, device="cuda")

    def copies(self, direction: str, path: str, count: int, size: int) -> Callable[[], None]:
        """Scattered, or at constant distances for the strided path."""
        ends = (self.host, self.device) if direction == _DIRECTIONS[0] else (self.device, self.host)
        generator = torch.Generator().manual_seed(0)
        tables: list[Tensor] = []
        for end in ends:
            places = 2 * torch.arange(count)
            if path != "strided":
                places = places[torch.randperm(count, generator=generator)]
            tables.append(end.data_ptr() + size * places)
        tables.append(torch.full((count,), size))
        return lambda: swap_blocks_batch(*tables, direction == _DIRECTIONS[0])


def _cost(pools: _Pools, direction: str, path: str, sizes: list[int]) -> list[float]:
    """Fixed microseconds, and those of a copy of each size."""
    each, fixed = [], []
    with use_path(path):
        for size in sizes:
            # Rows of a 2-D copy are seen as such from 16 on.
            least = 16 if path == "strided" else _LEAST_COPIES
            many = min(_MOST_COPIES, _MOST_BYTES // size)
            # What the first copies wait for is no part of what each of many takes.
            few = max(least, many // 8)
            times = {
                count: _microseconds(pools.copies(direction, path, count, size))
                for count in (least, few, many)
            }
            each.append(max((times[many] - times[few]) / (many - few), 1e-3))
            fixed.append(max(times[least] - least * each[-1], 0.0))
    return [statistics.median(fixed), *each]


def _microseconds(run: Callable[[], None]) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1e6


def _library() -> ctypes.CDLL:
    library = libraries.cuda
    if library is None:
        raise RuntimeError(f"kvops.swap: there is nothing to calibrate: {libraries.cuda_reason}")
    library.kvops_cuda_swap_model_size.restype = ctypes.c_double
    library.kvops_cuda_swap_set_model.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_double)]
    return library


def _sizes(library: ctypes.CDLL) -> list[int]:
    sizes: list[int] = []
    while size := int(library.kvops_cuda_swap_model_size(len(sizes))):
        sizes.append(size)
    return sizes


def _set(library: ctypes.CDLL, index: int, numbers: list[float]) -> None:
    if not library.kvops_cuda_swap_set_model(index, (ctypes.c_double * len(numbers))(*numbers)):
        raise RuntimeError(f"kvops.swap: there can be no device {index}")


def _as_model(sizes: list[int], numbers: list[float]) -> Model:
    width = 1 + len(sizes)
    rows = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    costs = [{"fixed": row[0], "copies": dict(zip(sizes, row[1:], strict=True))} for row in rows]
    half = len(_PATHS)
    return {
        direction: dict(zip(_PATHS, costs[i * half : (i + 1) * half], strict=True))
        for i, direction in enumerate(_DIRECTIONS)
    }


def _save(file: Path, index: int, sizes: list[int], numbers: list[float]) -> None:
    content: dict[str, Any] = {"sizes": sizes, "devices": {}}
    if file.exists():
        kept = json.loads(file.read_text())
        if kept.get("sizes") == sizes:
            content = kept
    content["devices"][str(index)] = numbers
    # Whole or not at all: another process may be reading it.
    scratch = file.with_name(file.name + f".{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(file)
