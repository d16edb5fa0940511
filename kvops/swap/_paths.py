"""How swaps go: what the thread asks for, and what its last swap did."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from .._native import libraries

_last_path = libraries.cpu.kvops_swap_last_path
_last_path.argtypes, _last_path.restype = [ctypes.c_uint], ctypes.c_char_p
_use_path = libraries.cpu.kvops_swap_use_path
_use_path.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
_use_max_sms = libraries.cpu.kvops_swap_use_max_sms
_wanted_path = libraries.cpu.kvops_swap_wanted_path
_wanted_path.restype = ctypes.c_char_p
PATHS = ("auto", "dma", "kernel", "batch", "single", "strided")


def last_path() -> str | None:
    """How this thread's last swap moved its bytes; None if it has not made one.

    Returns:
        "host" (by the CPU, before the call returned), "kernel" (a copy kernel on the GPU), "batch"
        (the driver's batched copy), "single" (one driver call for each copy), "strided" (one 2-D
        copy for blocks at constant distances), or several of these joined by "+" if one call
        needed them.

    Example:
        >>> import kvops, torch
        >>> blocks = torch.zeros(4, 8)
        >>> kvops.swap_blocks(blocks, blocks, 32, torch.tensor([[0, 1]]))
        >>> kvops.swap.last_path()
        'host'
    """
    names: list[str] = []
    index = 0
    while (name := _last_path(index)) is not None:
        names += [name.decode()] if name else []
        index += 1
    return "+".join(names) or None


@contextmanager
def use_path(path: str | None = None, *, max_sms: int | None = None) -> Iterator[None]:
    """Say how this thread's swaps with a device go, where they can go that way.

    What a path cannot move goes another way: a kernel reaches only pinned host memory and the
    current device, the batched copy needs a driver from CUDA 12.8 on and is impossible under
    capture, and only blocks at constant distances are strided. Pairs of :func:`swap_blocks` that
    depend on each other keep their own way.

    Args:
        path: "auto" for the best, by a model of this device (:func:`explain` shows what it says);
            "dma" for the best that leaves all multiprocessors to other kernels; or "kernel",
            "batch", "single" or "strided" for one of them. None leaves it as it is, which is
            "auto" or what `KVOPS_SWAP_PATH` says.
        max_sms: how much room a copy kernel may take between host and device, in multiprocessors,
            at least 1: thread blocks of 512 threads, or for each of those up to eight of one
            thread, where the GPU has bulk copies. None leaves it as it is, which is 4 or what
            `KVOPS_SWAP_MAX_SMS` says. Within a device the kernel uses all of them.

    Raises:
        ValueError: there is no such path, or `max_sms` is not from 1 to 1024.

    Example:
        >>> import kvops
        >>> with kvops.swap.use_path("dma"):
        ...     pass  # swaps
    """
    if max_sms is not None and not 1 <= max_sms <= 1024:
        raise ValueError(f"max_sms must be from 1 to 1024, got {max_sms}")
    path_before = ctypes.c_char_p()
    if path is not None and not _use_path(path.encode(), ctypes.byref(path_before)):
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}")
    sms_before = _use_max_sms(max_sms) if max_sms is not None else 0
    try:
        yield
    finally:
        if path is not None:
            _use_path(path_before, ctypes.byref(ctypes.c_char_p()))
        if max_sms is not None:
            _use_max_sms(sms_before)


def wishes() -> str:
    """What this thread asks for, in words, for `kvops.info()`."""
    return f"{_wanted_path().decode()}, max_sms {libraries.cpu.kvops_swap_max_sms()}"
