"""vLLM's tests of paged attention and of merge_attn_states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import kvops  # noqa: F401  (registers the names)
from vllm_grids.grid import KINDS, as_fp8, from_fp8, grid, random_cache, uniform

SEQUENCES, PARTITION = 7, 512


@pytest.fixture(autouse=True)
def _give_memory_back() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


def longest_on(device: str) -> int:
    """What the shared memory of a thread block held in vLLM's version 1."""
    if device == "cpu":
        return 700
    return torch.cuda.get_device_properties(0).shared_memory_per_block_optin // 4 - 512


def attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, slopes: Tensor | None
) -> Tensor:
    """One sequence: query [H, D], keys and values [T, KVH, D]; in fp32 but for the weights."""
    groups = query.size(0) // keys.size(1)
    grouped = query.view(-1, groups, query.size(1)).float()
    logits = scale * torch.einsum("kgd,tkd->kgt", grouped, keys.float())
    if slopes is not None:
        distance = torch.arange(1 - len(keys), 1, device=keys.device)
        logits = logits + slopes.view(-1, groups, 1) * distance
    weights = torch.softmax(logits, dim=-1).to(values.dtype).float()
    return torch.einsum("kgt,tkd->kgd", weights, values.float()).reshape_as(query)


@grid(
    cpu_every=11,
    version=("v1", "v2"),
    heads=((40, 40), (64, 8)),
    head_size=(32, 80, 128, 256),
    block_size=(16, 32),
    alibi=(False, True),
    kind=KINDS,
)
def test_paged_attention(
    device: str, version: str, heads: tuple[int, int], head_size: int, block_size: int,
    alibi: bool, kind: str,
) -> None:  # fmt: skip
    (num_heads, kv_heads), dtype = heads, torch.bfloat16
    longest, blocks = longest_on(device), 4321 if device == "cuda" else 128
    scale = head_size**-0.5
    query = uniform(SEQUENCES, num_heads, head_size, bound=scale, dtype=dtype, device=device)
    slopes = torch.randn(num_heads, device=device) if alibi else None
    lengths = torch.randint(1, longest + 1, [SEQUENCES])
    lengths[-1] = longest
    width = -(-longest // block_size)
    tables = torch.randint(0, blocks, [SEQUENCES, width], dtype=torch.int32).to(device)
    x = 16 if kind == "fp8" else 8
    shared = {"head_size": head_size, "dtype": dtype, "kind": kind, "device": device}
    key_cache = random_cache(blocks, kv_heads, head_size // x, block_size, x, **shared)
    value_cache = random_cache(blocks, kv_heads, head_size, block_size, **shared)
    one = torch.tensor(1.0, device=device)
    out = torch.empty_like(query)
    scratch = []
    if version == "v2":
        partitions = -(-longest // PARTITION)
        sums = torch.empty(SEQUENCES, num_heads, partitions, device=device)
        tmp_out = torch.empty(*sums.shape, head_size, dtype=dtype, device=device)
        scratch = [sums, sums.clone(), tmp_out]
    run = torch.ops._C.paged_attention_v1 if version == "v1" else torch.ops._C.paged_attention_v2
    run(
        *[out, *scratch, query, key_cache, value_cache, kv_heads, scale, tables],
        *[lengths.int().to(device), block_size, longest, slopes, kind, one, one, 0, 0, 0, 64, 0],
    )
    for index, length in enumerate(lengths.tolist()):
        used = tables[index, : -(-length // block_size)].long()
        keys = key_cache[used].permute(0, 3, 1, 2, 4).reshape(-1, kv_heads, head_size)[:length]
        values = value_cache[used].permute(0, 3, 1, 2).reshape(-1, kv_heads, head_size)[:length]
        if kind == "fp8":
            keys, values = (from_fp8(t.contiguous(), 1.0, dtype) for t in (keys, values))
        expected = attend(query[index], keys, values, scale, slopes)
        close = {"atol": 1e-2 if kind == "fp8" else 1e-3, "rtol": 1e-5}
        torch.testing.assert_close(out[index].float(), expected, **close)


def merged(prefix: Tensor, prefix_lse: Tensor, suffix: Tensor, suffix_lse: Tensor):
    """fp32 [n, h, d] and lse [h, n]; an infinite lse means that the part has no token."""
    lses = [torch.where(lse.isinf(), -torch.inf, lse) for lse in (prefix_lse, suffix_lse)]
    largest = torch.maximum(*lses)
    parts = [torch.exp(lse - largest) for lse in lses]
    total = parts[0] + parts[1]
    weights = [(part / total).T[:, :, None] for part in parts]
    output = prefix.float() * weights[0] + suffix.float() * weights[1]
    return output, torch.log(total) + largest


@grid(
    cpu_every=61,
    tokens=(256, 512, 613, 1024, 1536, 4096),
    heads=(4, 8, 16, 24, 28, 32, 48, 64),
    head_size=(32, 48, 64, 96, 128, 256),
    dtype=(torch.float32, torch.float16, torch.bfloat16),
    to_fp8=(False, True),
)
def test_merge_attn_states(
    device: str, tokens: int, heads: int, head_size: int, dtype: torch.dtype, to_fp8: bool
) -> None:
    prefix, suffix = (
        torch.randn(tokens, heads, head_size, dtype=dtype, device=device) for _ in range(2)
    )
    lses = [torch.randn(heads, tokens, device=device) for _ in range(2)]
    # One in ten without tokens, on one side only.
    side = torch.rand(heads, tokens, device=device)
    lses[0][side < 0.05], lses[1][side > 0.95] = torch.inf, -torch.inf
    lse = torch.empty(heads, tokens, device=device)
    output = torch.empty(prefix.shape, dtype=dtype, device=device)
    scale = None
    if to_fp8:
        output = torch.empty(prefix.shape, dtype=torch.float8_e4m3fn, device=device)
        scale = torch.tensor([0.05], device=device)
    torch.ops._C.merge_attn_states(output, lse, prefix, lses[0], suffix, lses[1], None, scale)
    expected, expected_lse = merged(prefix, lses[0], suffix, lses[1])
    torch.testing.assert_close(lse, expected_lse, atol=1e-3, rtol=1e-3)
    if to_fp8:
        numbers = from_fp8(output.view(torch.uint8), 0.05, torch.float32)
        wanted = from_fp8(as_fp8(expected, 0.05), 0.05, torch.float32)
        torch.testing.assert_close(numbers, wanted, atol=1e-1, rtol=1e-1)
        return
    rtol = 1e-2 if dtype == torch.bfloat16 else 1e-3
    torch.testing.assert_close(output.float(), expected, atol=1e-3, rtol=rtol)
