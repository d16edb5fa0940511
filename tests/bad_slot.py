"""A call with one slot that is out of range: nothing happens by default, checked mode raises."""

from __future__ import annotations

import torch

import kvops

MESSAGE = r"kvops::reshape_and_cache_flash: slot_mapping\[1\] must be in \[-1, 8\), got 8"


def write_out_of_range() -> None:
    key_cache, value_cache = torch.zeros(2, 2, 4, 1, 16)
    token, scale = torch.ones(2, 1, 16), torch.ones(1)
    slots = torch.tensor([-1, 8])
    kvops.reshape_and_cache_flash(token, token, key_cache, value_cache, slots, "auto", scale, scale)
