"""A pool of pinned host memory: pageable memory is the usual reason for slow swaps."""

from __future__ import annotations

import ctypes
import math
import mmap
import platform
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

OS_PAGE_BYTES = mmap.PAGESIZE
# Far below 512 GiB, which drivers from R580 on refuse for a single registration.
DEFAULT_CHUNK_BYTES = 16 << 30


class PinnedPool:
    """Pages of host memory that a GPU reaches at full speed: all of them, or an error.

    Memory is mapped once, bound to the NUMA node of the GPU where the machine has several, and
    registered with CUDA in chunks. No page crosses a chunk, so each is one copy.

    Args:
        num_pages: how many pages.
        page_bytes: size of each; a multiple of 16 lets every path copy it quickly.
        device: the GPU that the memory shall be near to; None for the current one. All GPUs can
            use it.
        chunk_bytes: of one registration, at most (at least one page).
        numa_node: the node to take memory of; None for the GPU's. Ignored where the machine has
            one node only, or does not let us choose.
        pin: False leaves the memory pageable, for machines without a GPU.

    Attributes:
        pages: uint8 [num_pages, page_bytes], all of the memory; `pool.pages[i]` is a page.
        numa_node: the node the memory was bound to; None if it was not.

    Raises:
        RuntimeError: CUDA registers less than all of it; nothing stays registered then.
        ValueError: a number is not positive.

    Example:
        >>> import kvops
        >>> pool = kvops.PinnedPool(4, 4096, pin=False)  # pinned where there is a GPU
        >>> pages = pool.allocate(3)
        >>> pool.pages[pages[0]].fill_(7).shape, pool.num_free
        (torch.Size([4096]), 1)
        >>> pool.free(pages)
    """

    def __init__(
        self,
        num_pages: int,
        page_bytes: int,
        *,
        device: torch.device | str | int | None = None,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        numa_node: int | None = None,
        pin: bool = True,
    ) -> None:
        numbers = {"num_pages": num_pages, "page_bytes": page_bytes, "chunk_bytes": chunk_bytes}
        for name, number in numbers.items():
            if number <= 0:
                raise ValueError(f"kvops.PinnedPool: {name} must be positive, got {number}")
        self.num_pages = num_pages
        self.page_bytes = page_bytes
        # A whole number of both kinds of pages: two registrations may not share an OS page.
        unit = math.lcm(page_bytes, OS_PAGE_BYTES)
        chunk = max(chunk_bytes // unit, 1) * unit
        total = -(-num_pages * page_bytes // OS_PAGE_BYTES) * OS_PAGE_BYTES
        memory = torch.frombuffer(mmap.mmap(-1, total), dtype=torch.uint8)
        self.numa_node: int | None = None
        if pin:
            gpu = _gpu(device)
            node = _node_of(gpu) if numa_node is None else numa_node
            self.numa_node = node if _bind(memory, node) else None
            registered = _register_all(memory, chunk, gpu)
            # Keeps the mapping until nothing of it is registered any more.
            self._release = weakref.finalize(self, _unregister, registered, memory)
        self.pages = memory[: num_pages * page_bytes].view(num_pages, page_bytes)
        self._free = deque(range(num_pages))
        self._is_free = bytearray(b"\1" * num_pages)
        self._writes: list[torch.cuda.Event] = []
        self._captured = False

    @property
    def num_free(self) -> int:
        """Pages that nobody has."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take pages, those that have been free for longest. All of them, or `MemoryError`."""
        if not 0 <= count <= len(self._free):
            raise MemoryError(
                f"kvops.PinnedPool: {count} pages wanted, {len(self._free)} of"
                f" {self.num_pages} free"
            )
        pages = [self._free.popleft() for _ in range(count)]
        for page in pages:
            self._is_free[page] = 0
        return pages

    def free(self, pages: Sequence[int]) -> None:
        """Give pages back, when the copies from and to them are done."""
        for page in pages:
            if not 0 <= page < self.num_pages or self._is_free[page]:
                raise ValueError(f"kvops.PinnedPool: page {page} is not one that was taken")
        if len(set(pages)) != len(pages):
            raise ValueError("kvops.PinnedPool: pages must not be given back twice")
        for page in pages:
            self._is_free[page] = 1
        self._free.extend(pages)

    def note_writes(self, device: torch.device | None) -> None:
        """The current stream of this device has just got work that writes to pages."""
        if device is None:
            return
        with torch.cuda.device(device):
            if torch.cuda.is_current_stream_capturing():
                self._captured = True
            else:
                self._writes.append(torch.cuda.current_stream().record_event())

    def has_pending_writes(self) -> bool:
        """Whether work that was noted may still be writing; always, once a graph has some."""
        if not self._captured and self._writes and not torch.cuda.is_current_stream_capturing():
            self._writes = [event for event in self._writes if not event.query()]
        return self._captured or bool(self._writes)

    def close(self) -> None:
        """Wait for the GPUs and take the registration back; the pages stay, pageable."""
        if hasattr(self, "_release"):
            self._release()


def _gpu(device: torch.device | str | int | None) -> int:
    if not torch.cuda.is_available():
        raise RuntimeError("kvops.PinnedPool: memory can be pinned only where there is a GPU")
    return torch.cuda._utils._get_device_index(device, optional=True)


def _register_all(memory: Tensor, chunk: int, gpu: int) -> list[int]:
    """Addresses of the registrations, which cover all of the memory."""
    registered: list[int] = []
    runtime = torch.cuda.cudart()
    with torch.cuda.device(gpu):
        for start in range(0, memory.nbytes, chunk):
            size = min(chunk, memory.nbytes - start)
            error = int(runtime.cudaHostRegister(memory.data_ptr() + start, size, _PORTABLE))
            if error:
                _unregister(registered, memory)
                raise RuntimeError(
                    f"kvops.PinnedPool: CUDA could not register {size} bytes after"
                    f" {start} of {memory.nbytes} (cudaError {error}); nothing was kept"
                )
            registered.append(memory.data_ptr() + start)
    return registered


_PORTABLE = 1  # cudaHostRegisterPortable: for all GPUs


def _unregister(registered: list[int], memory: Tensor) -> None:
    """`memory` is held by the caller until this is over."""
    if registered:
        torch.cuda.synchronize()
    for address in registered:
        torch.cuda.cudart().cudaHostUnregister(address)
    registered.clear()


def _node_of(gpu: int) -> int | None:
    """The NUMA node next to a GPU; None if there is one node only, or it is not known."""
    if len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) < 2:
        return None
    properties = torch.cuda.get_device_properties(gpu)
    numbers = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    if None in numbers:
        return None
    name = "{:04x}:{:02x}:{:02x}.0".format(*numbers)
    try:
        node = int(Path(f"/sys/bus/pci/devices/{name}/numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _bind(memory: Tensor, node: int | None) -> bool:
    """Let pages that are not there yet come from a node, as far as it has some."""
    number = {"x86_64": 237, "aarch64": 235}.get(platform.machine())  # mbind
    if node is None or number is None:
        return False
    preferred, bits = 1, 64 * (node // 64 + 1)
    mask = (ctypes.c_ulong * (bits // 64))()
    mask[node // 64] = 1 << node % 64
    libc = ctypes.CDLL(None, use_errno=True)
    return (
        libc.syscall(
            *(ctypes.c_long(number), ctypes.c_void_p(memory.data_ptr())),
            *(ctypes.c_ulong(memory.nbytes), ctypes.c_long(preferred), mask),
            *(ctypes.c_ulong(bits + 1), ctypes.c_uint(0)),
        )
        == 0
    )
