"""Checked mode: index values are verified before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ._native import libraries


@contextmanager
def checked() -> Iterator[None]:
    """Within this context, operators called from this thread verify every index value.

    Without it, an index that is out of range (a slot, block id, sequence length or start) is
    skipped: never an access outside of the tensors, but silent. With it, the same call raises
    before the first byte is written, naming the operator, the argument, the index and the value.
    `KVOPS_CHECKED=1` switches it on for every thread of the process.

    Example:
        >>> import kvops, torch
        >>> cache = torch.zeros(4, 8, 4, 16), torch.zeros(4, 8, 4, 16)
        >>> kv = torch.zeros(1, 4, 16)
        >>> one = torch.ones(1)
        >>> with kvops.checked():
        ...     kvops.reshape_and_cache_flash(kv, kv, *cache, torch.tensor([32]), "auto", one, one)
        Traceback (most recent call last):
        RuntimeError: kvops::reshape_and_cache_flash: slot_mapping[0] must be in [-1, 32), got 32
    """
    libraries.cpu.kvops_set_checked(1)
    try:
        yield
    finally:
        libraries.cpu.kvops_set_checked(0)
