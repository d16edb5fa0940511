"""What only the kernel forms of transfers can show: addresses, kinds of memory, limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA, DEVICES
from gpu.calls import SLEEP_CYCLES

TOKENS, ITEM_BYTES = 12, 64


@pytest.fixture
def pools() -> Iterator[tuple[Tensor, Tensor]]:
    yield (
        torch.randint(0, 256, (TOKENS, ITEM_BYTES), dtype=torch.uint8),
        torch.zeros(TOKENS, ITEM_BYTES, dtype=torch.uint8),
    )


def table(*layers: Tensor, device: str = "cpu") -> Tensor:
    return torch.tensor([t.data_ptr() for t in layers], dtype=torch.uint64).to(device)


@pytest.mark.parametrize("dtype", [torch.uint64, torch.int64])
def test_null_addresses_are_refused_on_the_host(pools, dtype: torch.dtype) -> None:
    src, dst = pools
    tables = [table(src, src).to(dtype), torch.tensor([dst.data_ptr(), 0]).to(dtype)]
    order = torch.arange(TOKENS)
    with pytest.raises(RuntimeError, match=r"dst_layers\[1\] must be an address, got 0"):
        kvops.transfer_kv_all_layer_mla(*tables, order, order, ITEM_BYTES, 2)
    assert not dst.any()


def test_nothing_to_do_looks_at_no_address() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    null = torch.zeros(2, dtype=torch.uint64)
    kvops.transfer_kv_all_layer_mla(null, null, nothing, nothing, ITEM_BYTES, 2)


@pytest.mark.parametrize("device", CUDA)
def test_null_addresses_are_skipped_on_a_gpu(pools, device: str) -> None:
    src, dst = (pool.to(device) for pool in pools)
    tables = [table(src, src, device=device), table(dst, device=device)]
    tables[1] = torch.cat([tables[1].view(torch.int64), torch.zeros(1, dtype=int, device=device)])
    order = torch.arange(TOKENS, device=device)
    kvops.clear_skipped()
    kvops.transfer_kv_all_layer_mla(*tables, order, order, ITEM_BYTES, 2)
    torch.cuda.synchronize()
    record = kvops.skipped()
    kvops.clear_skipped()
    assert torch.equal(src, dst)
    assert record is not None and (record.argument, record.index) == ("dst_layers", 1)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("bad", [2**40, 2**62, 2**63 - 1])
@pytest.mark.parametrize("side", ["src", "dst"])
def test_checked_mode_looks_behind_addresses(pools, side: str, bad: int, device: str) -> None:
    """How large a pool is nobody can tell, but where its memory ends the driver can."""
    src, dst = (pool.to(device) for pool in pools)
    tables = table(src, device=device), table(dst, device=device)
    indices = {name: torch.arange(TOKENS, device=device) for name in ("src", "dst")}
    with kvops.checked():
        kvops.transfer_kv_all_layer_mla(*tables, *indices.values(), ITEM_BYTES, 1)
        assert torch.equal(src, dst)
        dst.zero_()
        indices[side][3] = bad
        with pytest.raises(RuntimeError, match=rf"{side}_indices\[3\] must be in .*, got {bad}"):
            kvops.transfer_kv_all_layer_mla(*tables, *indices.values(), ITEM_BYTES, 1)
        indices[side][3] = 3
        for i in range(2):
            null = [t.view(torch.int64) * (i != k) for k, t in enumerate(tables)]
            with pytest.raises(RuntimeError, match=r"_layers\[0\] must be an address, got 0"):
                kvops.transfer_kv_all_layer_mla(*null, *indices.values(), ITEM_BYTES, 1)
    assert not dst.any()


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("side", ["src", "dst"])
def test_paths_and_waiting(pools, device: str, side: str) -> None:
    """A kernel for pinned memory, which waits for nothing; the host plans for pageable memory."""
    order = torch.arange(TOKENS, device=device)
    for pinned in (True, False):
        src, dst = (pool.clone() for pool in pools)
        if side == "src":
            src, dst = src.pin_memory() if pinned else src, dst.to(device)
        else:
            src, dst = src.to(device), dst.pin_memory() if pinned else dst
        call = src, dst, order, order.flip(0), ITEM_BYTES
        kvops.transfer_kv_per_layer_mla(*call)  # loading a kernel may wait for the device
        torch.cuda.synchronize()
        dst.zero_()
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(SLEEP_CYCLES)
            slept = stream.record_event()
            kvops.transfer_kv_per_layer_mla(*call)
            assert (kvops.swap.last_path() == "kernel") == pinned
            assert slept.query() != pinned
        stream.synchronize()
        assert torch.equal(dst.cpu(), src.cpu().flip(0))


@pytest.mark.parametrize("device", CUDA)
def test_pageable_memory_is_refused_under_capture(pools, device: str) -> None:
    src, dst = pools[0], pools[1].to(device)
    order = torch.arange(TOKENS, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(RuntimeError, match="src must be in pinned memory"):
        kvops.transfer_kv_per_layer_mla(src, dst, order, order, ITEM_BYTES)


@pytest.mark.parametrize("device", CUDA)
def test_pools_of_another_device_than_the_indices_are_refused(pools, device: str) -> None:
    order = torch.arange(TOKENS)
    with pytest.raises(RuntimeError, match="src must be on cpu like src_indices, got cuda:0"):
        kvops.transfer_kv_per_layer_mla(pools[0].to(device), pools[1], order, order, ITEM_BYTES)


@pytest.mark.parametrize("device", CUDA)
def test_both_sides_on_the_host(pools, device: str) -> None:
    """Indices on the GPU: its kernel moves what it reaches, the engine of the swaps the rest."""
    order = torch.arange(TOKENS, device=device)
    for src, dst in (pools, (pools[0].pin_memory(), torch.zeros_like(pools[1]).pin_memory())):
        kvops.transfer_kv_per_layer_mla(src, dst, order, order.flip(0), ITEM_BYTES)
        torch.cuda.synchronize()
        assert torch.equal(dst, src.flip(0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["kernel", "tables", "direct"])
def test_within_one_pool(pools, form: str, device: str) -> None:
    """A pool may be source and target, of items that are not both."""
    pool = pools[0].to(device)
    expected = pool.clone()
    order = torch.randperm(TOKENS, device=device)
    sources, targets = order[: TOKENS // 2].clone(), order[TOKENS // 2 :].clone()
    expected[targets] = expected[sources]
    if form == "kernel":
        kvops.transfer_kv_per_layer_mla(pool, pool, sources, targets, ITEM_BYTES)
    elif form == "tables":
        layers = table(pool, device=device)
        kvops.transfer_kv_all_layer_mla(layers, layers, sources, targets, ITEM_BYTES, 1)
    else:
        kvops.transfer_kv_direct([pool], [pool], sources, targets, 1)
    assert torch.equal(pool, expected)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("limits", [(1, 1), (1, 32), (3, 5), (2**62, 2**62)])
def test_limits_change_no_result(device: str, limits: tuple[int, int]) -> None:
    src = torch.randn(3000, 128, device=device)
    dst, order = torch.zeros_like(src), torch.randperm(3000, device=device)
    kvops.transfer_kv_per_layer_mla(src, dst, order, order.flip(0), 512, *limits)
    assert torch.equal(dst[order.flip(0)], src[order])


@pytest.mark.parametrize("device", CUDA)
def test_few_blocks_leave_the_others_to_other_kernels(device: str) -> None:
    """With one warp a large transfer takes long; another stream's kernel is done before it."""
    src = torch.zeros(1 << 14, 4096, dtype=torch.uint8, device=device)
    dst, order = torch.empty_like(src), torch.arange(1 << 14, device=device)
    other = torch.ones(1 << 20, device=device)
    streams = torch.cuda.Stream(), torch.cuda.Stream()
    other.add_(1)  # loading a kernel may wait for the device
    torch.cuda.synchronize()
    with torch.cuda.stream(streams[0]):
        kvops.transfer_kv_per_layer_mla(src, dst, order, order, 4096, 1, 1)
        moved = streams[0].record_event()
    with torch.cuda.stream(streams[1]):
        other.add_(1)
        added = streams[1].record_event()
    added.synchronize()
    assert not moved.query()
    torch.cuda.synchronize()
    assert torch.equal(src, dst)
