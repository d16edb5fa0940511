"""What CUDA kernels have skipped: one sticky record per device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from ._native import libraries


@dataclass(frozen=True)
class Skipped:
    """The first index that a kernel skipped because it was out of range, and how many followed.

    Attributes:
        operator: name of the operator, without namespace.
        argument: the tensor argument that held the index.
        index: where in it, counted in row-major order.
        value: the index itself.
        count: how often something was skipped since the last :func:`clear_skipped`; an index that
            several thread blocks read counts several times.
    """

    operator: str
    argument: str
    index: int
    value: int
    count: int


class _Record(ctypes.Structure):
    """common/skipped.h's SkipRecord."""

    _fields_ = (
        ("state", ctypes.c_uint),
        ("count", ctypes.c_ulonglong),
        ("operator", ctypes.c_char_p),
        ("argument", ctypes.c_char_p),
        ("index", ctypes.c_int64),
        ("value", ctypes.c_int64),
    )


def skipped(device: int | torch.device | None = None) -> Skipped | None:
    """What operators have skipped on a CUDA device, or None if nothing was.

    Slots, block ids, lengths and starts live on the device, where nobody looks at them before a
    kernel runs. One that is out of range is skipped, and the first such index is kept until
    :func:`clear_skipped`. Padding (a slot of -1) is no mistake and not recorded.

    Reading waits for no work of any other stream, so it sees what kernels have met so far; call
    `torch.cuda.synchronize()` first to see everything. It also works between replays of a graph.
    On the CPU nothing is recorded; there and here, `kvops.checked()` raises instead.

    Args:
        device: index or device; None is the current CUDA device.

    Raises:
        RuntimeError: the record cannot be read, as after an error that ended the CUDA context.

    Example:
        >>> import kvops
        >>> kvops.skipped() is None  # nothing was skipped, or there is no GPU
        True
    """
    if libraries.cuda is None:
        return None
    record = _Record()
    found = libraries.cuda.kvops_cuda_skipped(_index(device), ctypes.byref(record))
    if found < 0:
        raise RuntimeError(f"kvops: the skip record of cuda:{_index(device)} cannot be read")
    if found == 0:
        return None
    operator, argument = (record.operator or b"").decode(), (record.argument or b"").decode()
    return Skipped(operator, argument, record.index, record.value, record.count)


def clear_skipped(device: int | torch.device | None = None) -> None:
    """Forget what was skipped on a CUDA device; work under way may add to it again.

    Args:
        device: index or device; None is the current CUDA device.

    Raises:
        RuntimeError: the record cannot be written, as after an error that ended the CUDA context.
    """
    if libraries.cuda is not None and libraries.cuda.kvops_cuda_clear_skipped(_index(device)):
        raise RuntimeError(f"kvops: the skip record of cuda:{_index(device)} cannot be written")


def _index(device: int | torch.device | None) -> int:
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    if index is not None:
        return index
    return torch.cuda.current_device() if torch.cuda.is_initialized() else 0
