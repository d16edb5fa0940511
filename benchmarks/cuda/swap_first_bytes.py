"""How long after the start of a call its first bytes arrive in pinned memory.

Called by swap.py. Another process looks at the memory all the time: one that does not share an
interpreter with the call. Bytes that come back to the host cannot be seen before they moved.
"""

from __future__ import annotations

import mmap
import statistics
import subprocess
import sys
import tempfile
import time

import torch

import kvops
from harness import DEVICE

# Words at the front of the shared memory: the word to look at, 0 for none; and whether it is being
# looked at. The answer, in nanoseconds of the clock that all processes share, comes as text.
WATCHED, READY, CONTROL_BYTES = 0, 1, 4096
WATCHER = f"""
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    words = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
while True:
    while not words[{WATCHED}]:
        pass
    word = words[{WATCHED}]
    if word < 0:
        break
    words[{READY}] = 1
    while not words[word]:
        pass
    arrived = time.perf_counter_ns()
    words[{WATCHED}] = 0
    print(arrived, flush=True)
"""
REPEATS = 15


def measure_first_bytes(blocks: int, size: int) -> dict[str, float]:
    """Seconds from the start of a call to the arrival of its first and of its last block."""
    pool_bytes = 2 * blocks * size
    device = torch.ones(pool_bytes, dtype=torch.uint8, device=DEVICE)
    places = torch.randperm(2 * blocks)[:blocks]
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(CONTROL_BYTES + pool_bytes)
        shared = mmap.mmap(file.fileno(), 0)
        words = memoryview(shared).cast("q")
        host = torch.frombuffer(shared, dtype=torch.uint8)
        torch.cuda.check_error(
            torch.cuda.cudart().cudaHostRegister(host.data_ptr(), host.nbytes, 0)
        )
        starts = CONTROL_BYTES + size * places
        tables = [
            device.data_ptr() + size * torch.randperm(2 * blocks)[:blocks],
            host.data_ptr() + starts,
            torch.full((blocks,), size),
        ]
        command = [sys.executable, "-c", WATCHER, file.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
            found = {
                which: statistics.median(
                    _arrival(tables, words, int(starts[block]) // 8, watcher)
                    for _ in range(REPEATS)
                )
                for which, block in (("first", 0), ("last", -1))
            }
            words[WATCHED] = -1
        torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(host.data_ptr()))
    return found


def _arrival(
    tables: list[torch.Tensor], words: memoryview, word: int, watcher: subprocess.Popen[str]
) -> float:
    words[word] = words[READY] = 0
    words[WATCHED] = word
    while not words[READY]:
        pass
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    kvops.swap_blocks_batch(*tables)
    assert watcher.stdout is not None
    arrived = int(watcher.stdout.readline())
    torch.cuda.synchronize()
    return (arrived - start) * 1e-9
