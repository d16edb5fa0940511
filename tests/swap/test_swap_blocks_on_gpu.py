"""swap_blocks with tensors on a GPU: directions, order of rows, graphs, two GPUs."""

from __future__ import annotations

from random import Random

import pytest
import torch

import kvops
from devices import CUDA, needs_two_gpus
from swap.gpu_plans import (
    PATHS,
    every_direction,
    every_path,
    every_stream,
    filled_late,
    pinned_directions,
    pool,
)

pytestmark = pytest.mark.parametrize("device", CUDA)


BLOCKS, BLOCK_BYTES = 40, 1237


@every_path
@every_stream
@every_direction
def test_swap_blocks(ends: tuple[str, str], make_stream: type, path: str, device: str) -> None:
    src, dst = (pool(where, BLOCKS * BLOCK_BYTES, i) for i, where in enumerate(ends))
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)])
    expected = dst.cpu().clone()
    expected.view(BLOCKS, -1)[mapping[1]] = src.cpu().view(BLOCKS, -1)[mapping[0]]
    on_device = [tensor for tensor in (src, dst) if tensor.is_cuda]
    torch.cuda.synchronize()
    stream = make_stream()
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        with filled_late(*on_device):
            rows = mapping.T.clone() if path == "auto" else mapping.T
            kvops.swap_blocks(src, dst, BLOCK_BYTES, rows)
        rows.fill_(-1)
        if src.is_cuda:
            src.zero_()
        result = dst.clone() if dst.is_cuda else dst
    stream.synchronize()
    assert torch.equal(result.cpu(), expected)


@pytest.mark.parametrize("block_bytes", [16, 40, 4096, 70_001])
@pytest.mark.parametrize("shift", [0, 1, 16, 4096, -7, -4112])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_depend_on_each_other(
    seed: int, shift: int, block_bytes: int, device: str
) -> None:
    """As on the CPU: chains, repeated targets, blocks that overlap themselves."""
    random = Random(seed)
    pairs = torch.tensor([[random.randrange(12), random.randrange(12)] for _ in range(200)])
    size = 12 * block_bytes
    start = 8192
    results = []
    for where in ("cpu", "cuda"):
        buffer = pool(where, size + 2 * start, 0)
        src, dst = buffer[start : start + size], buffer[start + shift : start + shift + size]
        kvops.swap_blocks(src, dst, block_bytes, pairs)
        results.append(buffer.cpu())
    assert torch.equal(*results)


@pinned_directions
def test_repeated_targets_keep_their_order(ends: tuple[str, str], device: str) -> None:
    src, dst = (pool(where, 64 * 5000, i) for i, where in enumerate(ends))
    pairs = torch.stack([torch.randperm(64), torch.arange(64) % 4], dim=1)
    kvops.swap_blocks(src, dst, 5000, pairs)
    torch.cuda.synchronize()
    assert torch.equal(dst.view(64, -1)[:4].cpu(), src.view(64, -1)[pairs[-4:, 0]].cpu())


@pytest.mark.parametrize("path", PATHS)
@pinned_directions
def test_swap_blocks_replays(ends: tuple[str, str], path: str, device: str) -> None:
    src, dst = (pool(where, BLOCKS * BLOCK_BYTES, i) for i, where in enumerate(ends))
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)], dim=1)
    sources, targets = mapping.T.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), kvops.swap.use_path(path):
        kvops.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        mapping.fill_(-1)
    for seed in (7, 8):
        src.copy_(pool("cpu", BLOCKS * BLOCK_BYTES, seed))
        torch.cuda.synchronize()
        graph.replay()
        torch.cuda.synchronize()
        rows = dst.view(BLOCKS, -1)[targets.to(dst.device)]
        assert torch.equal(rows.cpu(), src.view(BLOCKS, -1)[sources.to(src.device)].cpu())


def test_the_mapping_must_be_on_the_host(device: str) -> None:
    src, dst = pool("cuda", 100, 0), pool("cpu", 100, 1)
    mapping = torch.tensor([[0, 0]], device=device)
    with pytest.raises(RuntimeError, match="block_mapping must be on cpu"):
        kvops.swap_blocks(src, dst, 10, mapping)
    with pytest.raises(RuntimeError, match="block_mapping must be on cpu"):
        kvops.swap_blocks(dst, dst, 10, mapping)


@needs_two_gpus
@every_stream
@pytest.mark.parametrize("path", PATHS)
def test_swap_blocks_between_gpus(path: str, make_stream: type, device: str) -> None:
    """In order with the current streams of both."""
    src, dst = pool("cuda:0", BLOCKS * BLOCK_BYTES, 0), pool("cuda:1", BLOCKS * BLOCK_BYTES, 1)
    mapping = torch.stack([torch.randperm(BLOCKS), torch.randperm(BLOCKS)], dim=1)
    expected = dst.cpu().clone()
    expected.view(BLOCKS, -1)[mapping[:, 1]] = src.cpu().view(BLOCKS, -1)[mapping[:, 0]]
    torch.cuda.synchronize(0), torch.cuda.synchronize(1)
    with torch.cuda.device(1):
        there = torch.cuda.default_stream() if "default" in str(make_stream) else make_stream()
    with torch.cuda.stream(there), torch.cuda.stream(make_stream(torch.device("cuda:0"))):
        with filled_late(src), kvops.swap.use_path(path):
            kvops.swap_blocks(src, dst, BLOCK_BYTES, mapping)
        src.zero_()
        assert torch.cuda.current_device() == 0
    with torch.cuda.stream(there):
        result = dst.clone()
    torch.cuda.synchronize(0), torch.cuda.synchronize(1)
    assert torch.equal(result.cpu(), expected)
