"""Blocks of all layers out to a pool and back, and the pool."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA, DEVICES
from gpu.calls import SLEEP_CYCLES

BLOCKS = 40


def make_caches(device: str, seed: int = 0) -> list[Tensor]:
    """Layers of different sizes, dtypes and strides."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)

    packed = some(BLOCKS, 3, 512)
    return [
        some(BLOCKS, 4, 16, 8),
        some(BLOCKS, 132),
        some(BLOCKS, 64).view(torch.int16),
        some(2, BLOCKS, 16, 24)[1],
        packed[:, 1],
        some(BLOCKS, 6, 4).transpose(1, 2),
    ]


def make_pool(caches: list[Tensor], pages: int, device: str, spare: int = 0) -> kvops.PinnedPool:
    size = sum(cache[0].numel() * cache.element_size() for cache in caches) + spare
    return kvops.PinnedPool(pages, size, pin=device == "cuda")


def same(a: list[Tensor], blocks_a: list[int], b: list[Tensor], blocks_b: list[int]) -> bool:
    return all(torch.equal(x[blocks_a].cpu(), y[blocks_b].cpu()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spare", [0, 7])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_out_and_in_again(as_tensor: bool, spare: int, device: str) -> None:
    caches, original = make_caches(device), make_caches(device)
    pool = make_pool(caches, 12, device, spare)
    out, back = [7, 30, 2, 3, 4, 5, 11, 0], [20, 21, 22, 23, 6, 1, 39, 38]
    pages = kvops.swap.offload(caches, torch.tensor(out) if as_tensor else out, pool)
    assert len(set(pages)) == 8 and pool.num_free == 4
    for cache in caches:
        cache[out] = 0
    kvops.swap.reload(caches, torch.tensor(back) if as_tensor else back, pool, pages)
    assert same(caches, back, original, out)
    untouched = sorted(set(range(BLOCKS)) - {*out, *back})
    assert same(caches, untouched, original, untouched)


@pytest.mark.parametrize("device", DEVICES)
def test_a_page_holds_the_layers_in_order(device: str) -> None:
    caches = make_caches(device)
    pool = make_pool(caches, 5, device, spare=100)
    assert kvops.swap.offload(caches, [9, 4], pool, [3, 1]) == [3, 1]
    assert pool.num_free == 5, "the caller's pages are the caller's"
    if device == "cuda":
        torch.cuda.synchronize()
    for page, block in ((3, 9), (1, 4)):
        at = 0
        for cache in caches:
            start = cache.storage_offset() + block * cache.stride(0)
            content = cache.as_strided([cache[0].numel()], [1], start).view(torch.uint8).cpu()
            assert torch.equal(pool.pages[page, at : at + len(content)], content)
            at += len(content)


BAD = {
    "block": (
        lambda c, p: kvops.swap.offload(c, [0, 40], p),
        r"block_ids\[1\] must be in \[0, 40\)",
    ),
    "negative": (lambda c, p: kvops.swap.offload(c, [-1], p), r"block_ids\[0\] must be .* got -1"),
    "page": (lambda c, p: kvops.swap.reload(c, [1], p, [12]), r"pages\[0\] must be in \[0, 12\)"),
    "lengths": (
        lambda c, p: kvops.swap.reload(c, [1, 2], p, [0]),
        "as block_ids, 2, got 1",
    ),
    "twice": (lambda c, p: kvops.swap.reload(c, [1, 1], p, [0, 1]), "must not name a block twice"),
    "floats": (lambda c, p: kvops.swap.offload(c, [1.5], p), "must be a list of integers"),
    "table": (lambda c, p: kvops.swap.offload(c, torch.zeros(1, 1).long(), p), "list of integers"),
    "gaps": (lambda c, p: kvops.swap.offload([c[0][..., ::2]], [1], p), r"caches\[0\] must fill"),
    "no cache": (lambda c, p: kvops.swap.offload([], [1], p), "got no cache"),
    "other": (
        lambda c, p: kvops.swap.offload([c[0], c[1][:3]], [1], p),
        r" 0, got \[3, 40",
    ),
    "small page": (lambda c, p: kvops.swap.offload([*c, c[0]], [1], p), "a block of every cache"),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_what_is_refused_changes_nothing(call, message: str, device: str) -> None:
    caches, original = make_caches(device), make_caches(device)
    pool = make_pool(caches, 12, device)
    before = pool.pages.clone()
    with pytest.raises(RuntimeError, match=message):
        call(caches, pool)
    assert pool.num_free == 12 and torch.equal(pool.pages, before)
    assert same(caches, list(range(BLOCKS)), original, list(range(BLOCKS)))


def test_a_full_pool_takes_nothing() -> None:
    caches = make_caches("cpu")
    pool = make_pool(caches, 3, "cpu")
    with pytest.raises(MemoryError, match="4 pages wanted, 3 of 3 free"):
        kvops.swap.offload(caches, [0, 1, 2, 3], pool)
    assert pool.num_free == 3


def test_pages_are_taken_once_and_given_back_once() -> None:
    pool = kvops.PinnedPool(4, 100, pin=False)
    taken = pool.allocate(3)
    assert sorted(taken + pool.allocate(1)) == [0, 1, 2, 3]
    for wrong in ([taken[0], taken[0]], [4], [-1]):
        with pytest.raises(ValueError):
            pool.free(wrong)
    pool.free(taken)
    with pytest.raises(ValueError, match="is not one that was taken"):
        pool.free(taken[:1])
    assert pool.num_free == 3
    with pytest.raises(MemoryError):
        pool.allocate(-1)


@pytest.mark.parametrize("name", ["num_pages", "page_bytes", "chunk_bytes"])
def test_sizes_of_a_pool_are_positive(name: str) -> None:
    sizes = {"num_pages": 1, "page_bytes": 1, "chunk_bytes": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
        kvops.PinnedPool(**sizes, pin=False)


def is_pinned(pool: kvops.PinnedPool, offset: int) -> bool:
    return pool.pages.flatten()[offset:].is_pinned()


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 16, 1 << 30])
def test_all_of_a_pool_is_pinned(chunk_bytes: int, device: str) -> None:
    pool = kvops.PinnedPool(50, 6144, chunk_bytes=chunk_bytes)
    assert all(is_pinned(pool, offset) for offset in range(0, 50 * 6144, 1024))
    gpu = torch.arange(256, dtype=torch.uint8, device=device).repeat(1200)
    gpu[:6144] = 7
    reverse = torch.stack([torch.arange(50), torch.arange(49, -1, -1)], dim=1)
    kvops.swap_blocks(gpu, pool.pages, 6144, reverse)
    torch.cuda.synchronize()
    assert torch.equal(pool.pages, gpu.view(50, 6144).flip(0).cpu())
    assert kvops.swap.last_path() == "kernel", "no page crosses a registration"
    pool.close()
    assert not is_pinned(pool, 0)


@pytest.mark.parametrize("device", CUDA)
def test_a_registration_that_fails_takes_the_others_back(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = torch.cuda.cudart()
    registered: list[int] = []

    class Failing:
        @staticmethod
        def cudaHostRegister(address: int, size: int, flags: int) -> int:
            if len(registered) == 2:
                return 2
            registered.append(address)
            return int(runtime.cudaHostRegister(address, size, flags))

        @staticmethod
        def cudaHostUnregister(address: int) -> int:
            registered.remove(address)
            return int(runtime.cudaHostUnregister(address))

    monkeypatch.setattr(torch.cuda, "cudart", lambda: Failing)
    with pytest.raises(
        RuntimeError, match=r"could not register 65536 bytes after 131072 of 262144"
    ):
        kvops.PinnedPool(64, 4096, chunk_bytes=1 << 16)
    assert registered == []


@pytest.mark.parametrize("device", CUDA)
def test_a_reload_does_not_overtake_its_offload(device: str) -> None:
    """Pages are read in ANY order only when nothing is still to be written to them."""
    caches, original = make_caches(device), make_caches(device)
    pool = make_pool(caches, 20, device)
    out, back = list(range(20)), list(range(20, 40))
    torch.cuda.synchronize()
    # The first use of a kernel loads it, which may wait for the GPU.
    kvops.swap.reload(caches, back, pool, kvops.swap.offload(caches, out, pool))
    torch.cuda.synchronize()
    pool.free(list(range(20)))
    for path in ("auto", "dma", "kernel", "batch", "single"):
        pool.pages.zero_()
        for cache, content in zip(caches, original, strict=True):
            cache.copy_(content)
        with torch.cuda.stream(torch.cuda.Stream()), kvops.swap.use_path(path):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            torch.cuda._sleep(SLEEP_CYCLES)
            pages = kvops.swap.offload(caches, out, pool)
            assert pool.has_pending_writes()
            kvops.swap.reload(caches, back, pool, pages)
        torch.cuda.synchronize()
        assert not pool.has_pending_writes()
        assert same(caches, back, original, out), path
        pool.free(pages)


@pytest.mark.parametrize("device", CUDA)
def test_captured_offloads_and_reloads(device: str) -> None:
    caches = make_caches(device)
    pool = make_pool(caches, 20, device)
    graph = torch.cuda.CUDAGraph()
    out, back = list(range(20)), list(range(39, 19, -1))
    with torch.cuda.graph(graph):
        pages = kvops.swap.offload(caches, out, pool)
        kvops.swap.reload(caches, back, pool, pages)
    assert pool.has_pending_writes()
    for seed in range(3):
        content = make_caches(device, seed)
        for cache, new in zip(caches, content, strict=True):
            cache.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert same(caches, back, content, out)
