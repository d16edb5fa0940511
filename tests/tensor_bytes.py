"""The bytes of tensors of any dtype and strides, also of dtypes that torch can hardly handle."""

from __future__ import annotations

import torch
from torch import Tensor


def byte_view(tensor: Tensor) -> Tensor:
    """uint8 [*sizes, element size]: the bytes of a tensor of any dtype and strides, writable."""
    size = tensor.element_size()
    view = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return view.set_(
        tensor.untyped_storage(),
        tensor.storage_offset() * size,
        [*tensor.size(), size],
        [*(stride * size for stride in tensor.stride()), 1],
    )


def has_memory(tensor: Tensor) -> bool:
    """Whether the storage holds all elements: not so on "meta", or after it was freed."""
    if tensor.device.type == "meta":
        return False
    return storage_end_bytes(tensor) <= tensor.untyped_storage().nbytes()


def storage_end_bytes(tensor: Tensor) -> int:
    """Where in its storage a tensor's last element ends."""
    if tensor.numel() == 0:
        return 0
    sizes_and_strides = zip(tensor.size(), tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * step for size, step in sizes_and_strides)
    return (last + 1) * tensor.element_size()
