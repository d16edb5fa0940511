"""What only the direct forms of transfers can show: where indices are, joined copies, capture."""

from __future__ import annotations

import pytest
import torch

import kvops
from devices import CUDA, DEVICES

TOKENS, PAGE, LAYERS = 64, 16, 3


def layers(device: str, fill: str) -> list[torch.Tensor]:
    make = torch.randn if fill == "random" else torch.zeros
    return [make(TOKENS, 40, device=device) for _ in range(LAYERS)]


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_list_is_nothing_to_do(device: str) -> None:
    order = torch.arange(TOKENS, device=device)
    kvops.transfer_kv_direct([], [], order, order, PAGE)
    pool = torch.zeros(4, LAYERS, PAGE, 40, device=device)
    kvops.transfer_kv_per_layer_direct_pf_lf([pool], [], order, order, 0, PAGE)
    kvops.transfer_kv_all_layer_direct_lf_pf([], [pool], order, order, PAGE)
    assert not pool.any()


def test_rows_without_bytes_are_nothing_to_do() -> None:
    """However many there are: looking at each would take forever."""
    rows = torch.empty(2**62, 0)
    kvops.transfer_embedding_ranges_direct(rows, rows, [0] * 4, [0] * 4, [2**62] * 4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [0, 1, 7])
def test_layers_of_different_widths(device: str, width: int) -> None:
    src = [torch.randn(TOKENS, w, device=device) for w in (40, width)]
    dst = [torch.zeros(TOKENS, w, device=device) for w in (40, width)]
    order = torch.randperm(TOKENS)
    kvops.transfer_kv_direct(src, dst, order, order.flip(0), 1)
    for left, right in zip(src, dst, strict=True):
        assert torch.equal(right[order.flip(0)], left[order])


def test_later_items_win_on_the_host() -> None:
    src, dst = torch.arange(8.0).view(4, 2), torch.zeros(4, 2)
    kvops.transfer_kv_direct([src], [dst], torch.tensor([1, 3, 2]), torch.tensor([0, 0, 1]), 1)
    assert dst[:2].tolist() == [[6, 7], [4, 5]]


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("src_on", ["cpu", "cuda"])
@pytest.mark.parametrize("dst_on", ["cpu", "cuda"])
def test_indices_may_be_anywhere(device: str, src_on: str, dst_on: str) -> None:
    src, dst = layers("cpu", "random"), layers(device, "zeros")
    order = torch.randperm(TOKENS)
    kvops.transfer_kv_direct(src, dst, order.to(src_on), order.flip(0).to(dst_on), PAGE)
    for left, right in zip(src, dst, strict=True):
        assert torch.equal(right.cpu()[order.flip(0)], left[order])


@pytest.mark.parametrize("device", CUDA)
def test_indices_on_the_gpu_are_refused_under_capture(device: str) -> None:
    src, dst = layers(device, "random"), layers(device, "zeros")
    order, marker = torch.arange(TOKENS, device=device), torch.zeros(1, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(RuntimeError, match="src_indices must be on the host under CUDA graph"):
            kvops.transfer_kv_direct(src, dst, order, order, PAGE)
        kvops.transfer_kv_direct(src, dst, torch.arange(TOKENS), torch.arange(TOKENS), PAGE)
        marker.add_(1)
    graph.replay()
    torch.cuda.synchronize()
    assert marker.item() == 1 and all(map(torch.equal, src, dst))


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("path", ["kernel", "batch", "single"])
def test_every_path_of_the_engine(device: str, path: str) -> None:
    host = torch.randn(2, TOKENS // PAGE, LAYERS, PAGE, 40).pin_memory()
    pools = torch.zeros(2, LAYERS, TOKENS, 40, device=device)
    back = torch.zeros_like(host).pin_memory()
    order = torch.arange(TOKENS).view(-1, PAGE).flip(0).flatten()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # the pools are cleared on another stream
    with torch.cuda.stream(stream), kvops.swap.use_path(path):
        for layer in range(LAYERS):
            kvops.transfer_kv_per_layer_direct_pf_lf(
                *(list(host), list(pools[:, layer]), order, torch.arange(TOKENS), layer, PAGE)
            )
            assert kvops.swap.last_path() == path
        kvops.transfer_kv_all_layer_direct_lf_pf(
            *(list(pools.flatten(0, 1)), list(back), torch.arange(TOKENS), order, PAGE)
        )
        assert kvops.swap.last_path() == path
    stream.synchronize()
    assert torch.equal(host, back)
