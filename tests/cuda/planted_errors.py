"""One call with an error that compute-sanitizer must find: else its silence would prove nothing.

    compute-sanitizer --tool memcheck python tests/cuda/planted_errors.py memcheck

`memcheck`: a tensor that claims more memory than its allocation has. `initcheck`: one that nobody
has written. Neither does harm. Needs PYTORCH_NO_CUDA_MEMORY_CACHING=1.
"""

from __future__ import annotations

import sys

import torch

import kvops

_ELEMS = 100  # of 2 bytes: CUDA reserves 512 for it


class Claim:
    """Memory of a tensor, with more elements than it has."""

    def __init__(self, owner: torch.Tensor) -> None:
        self.__cuda_array_interface__ = {
            "data": (owner.data_ptr(), False),
            "shape": (owner.numel() + 16,),
            "typestr": "<f2",
            "version": 2,
        }


def main() -> None:
    owner = torch.empty(_ELEMS, dtype=torch.float16, device="cuda")
    source = owner
    if sys.argv[1] == "memcheck":
        source = torch.as_tensor(Claim(owner.zero_()), device="cuda")
    target = torch.zeros(source.shape, dtype=torch.uint8, device="cuda")
    kvops.convert_fp8(target, source, 1.0, "fp8")
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
