"""Which kernels a captured CUDA graph launches, and how large: asked of the driver."""

from __future__ import annotations

import ctypes
from math import prod
from typing import NamedTuple

import torch

_KERNEL_NODE = 0


class Launch(NamedTuple):
    blocks: int
    threads: int  # of a block


class _KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("arguments", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


def launches(graph: torch.cuda.CUDAGraph) -> list[Launch]:
    """Of a graph made with `keep_graph=True`."""
    driver = ctypes.CDLL("libcuda.so.1")

    def ask(name: str, *arguments: object) -> None:
        assert getattr(driver, name)(*arguments) == 0, name

    whole, count = ctypes.c_void_p(graph.raw_cuda_graph()), ctypes.c_size_t()
    ask("cuGraphGetNodes", whole, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    ask("cuGraphGetNodes", whole, nodes, ctypes.byref(count))
    found = []
    for node in map(ctypes.c_void_p, nodes):
        kind, kernel = ctypes.c_int(), _KernelNode()
        ask("cuGraphNodeGetType", node, ctypes.byref(kind))
        if kind.value == _KERNEL_NODE:
            ask("cuGraphKernelNodeGetParams_v2", node, ctypes.byref(kernel))
            found.append(Launch(prod(kernel.grid), prod(kernel.block)))
    return found
