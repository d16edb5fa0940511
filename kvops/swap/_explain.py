"""What a swap would do, and why."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from .._native import libraries

# As CopyKind and SwapPath have them (csrc/libtorch_stable/swap).
_KINDS = (
    *("within the device", "host to device", "device to host"),
    *("memory that a kernel cannot reach", "pageable or managed memory"),
)
_PATHS = {1: "host", 2: "kernel", 4: "batch", 8: "single", 16: "strided"}
_LED_BATCH = "kernel+batch"
_MODEL_PATHS = ("kernel", "batch", "single", "strided", _LED_BATCH)
_MOST_PARTS = 4096
_ALL_ON_HOST = -2


@dataclass(frozen=True)
class Part:
    """Copies that go one way.

    Attributes:
        kind: between what kinds of memory.
        copies: how many, after neighbours have been joined.
        bytes: of all of them.
        path: as of :func:`last_path`.
        microseconds: what the model says of each path; empty where there is nothing to choose.
        why: in words.
    """

    kind: str
    copies: int
    bytes: int
    path: str
    microseconds: dict[str, float]
    why: str


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; `str()` of it is for people."""

    entries: int
    parts: tuple[Part, ...]

    @property
    def path(self) -> str:
        """All paths, as :func:`last_path` would say after the call."""
        taken = {name for part in self.parts for name in part.path.split("+")}
        return "+".join(name for name in _PATHS.values() if name in taken)

    def __str__(self) -> str:
        lines = [f"{self.entries} entries"]
        for part in self.parts:
            lines.append(
                f"{part.copies} copies, {part.bytes} bytes, {part.kind}: {part.path} ({part.why})"
            )
            times = (f"{name} {time:.1f} us" for name, time in part.microseconds.items())
            lines += ["  " + ", ".join(times)] if part.microseconds else []
        return "\n".join(lines)


def explain(src_ptrs: Tensor, dst_ptrs: Tensor, sizes: Tensor) -> Explanation:
    """Say which paths `swap_blocks_batch` would take now with these tables. Copies nothing.

    The choice depends on the tables, on the memory behind the addresses, on :func:`use_path`, on
    the current stream (the batched copy needs a detour on the default stream, and is impossible
    under capture) and on the model of the current device, which is built in or made by
    :func:`calibrate`. A real call decides when it has seen some hundred copies: near a tie that
    may differ.

    Args:
        src_ptrs, dst_ptrs, sizes: as for :func:`swap_blocks_batch`.

    Raises:
        RuntimeError: tables are not int64 vectors of one length on the CPU.

    Example:
        >>> import kvops, torch
        >>> src, dst = torch.zeros(8), torch.ones(8)
        >>> tables = [torch.tensor([t.data_ptr(), t.data_ptr() + 16]) for t in (src, dst)]
        >>> kvops.swap.explain(*tables, torch.tensor([8, 8])).path
        'host'
    """
    names = {"src_ptrs": src_ptrs, "dst_ptrs": dst_ptrs, "sizes": sizes}
    for name, table in names.items():
        if not (table.is_cpu and table.dtype == torch.int64 and table.shape == (len(sizes),)):
            got = f"{table.dtype} {list(table.shape)} on {table.device}"
            raise RuntimeError(
                f"kvops.swap.explain: {name} must be int64 [{len(sizes)}] on cpu, got {got}"
            )
    entries = int((sizes > 0).sum())
    rows = _rows([table.contiguous() for table in names.values()])
    parts = tuple(_part(row) for row in rows or [])
    if rows is None and entries:
        why = "no address is a device's: the CPU copies"
        parts = (Part("host to host", entries, int(sizes.sum()), "host", {}, why),)
    return Explanation(entries, parts)


def _rows(tables: list[Tensor]) -> list[list[float]] | None:
    """The parts as the library tells them; None if no address is a device's."""
    if libraries.cuda is None or not torch.cuda.is_initialized():
        return None
    device = torch.cuda.current_device()
    width = 5 + len(_MODEL_PATHS)
    numbers = (ctypes.c_double * (width * _MOST_PARTS))()
    message = ctypes.create_string_buffer(1000)
    call = libraries.cuda.kvops_cuda_swap_explain
    call.restype = ctypes.c_int64
    found = call(
        *(ctypes.c_void_p(table.data_ptr()) for table in tables),
        *(ctypes.c_int64(len(tables[0])), device),
        int(torch.cuda.current_stream().cuda_stream == 0),
        int(torch.cuda.is_current_stream_capturing()),
        *(numbers, ctypes.c_int64(_MOST_PARTS), message, ctypes.c_size_t(1000)),
    )
    if found == _ALL_ON_HOST:
        return None
    if found < 0:
        raise RuntimeError(message.value.decode())
    shown = min(found, _MOST_PARTS)
    return [numbers[i * width : (i + 1) * width] for i in range(shown)]


def _part(row: list[float]) -> Part:
    kind, copies, size, path, is_rows, *times = row
    name = "+".join(name for bit, name in _PATHS.items() if int(path) & bit)
    over_link = _KINDS[int(kind)] in _KINDS[1:3]
    times_by_path = dict(zip(_MODEL_PATHS, times, strict=True)) if over_link else {}
    if not is_rows:
        times_by_path.pop("strided", None)
    if not times_by_path.get(_LED_BATCH):
        times_by_path.pop(_LED_BATCH, None)
    return Part(_KINDS[int(kind)], int(copies), int(size), name, times_by_path, _why(kind, name))


def _why(kind: float, path: str) -> str:
    if _KINDS[int(kind)] == "within the device" and path == "kernel":
        return "the driver's engines are far slower within a device"
    if _KINDS[int(kind)] in _KINDS[3:]:
        return "no other path reaches this memory" if path == "single" else "for the driver only"
    if path == "strided":
        return "constant distances: one 2-D copy"
    if path == _LED_BATCH:
        return "the kernel copies some while the driver is told of the rest"
    return "the least time of those allowed, multiprocessors left alone if it is close"
