"""Cache writers choose kernels by the number of tokens, and by strides: the bytes are the CPU's.

As many tokens as a choice takes at most, and one more; single ones, and those of a prompt among
them, some of them padding or out of range; rows and caches whose heads and units lie apart.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cache.inputs import awkward
from cache.writers import WRITERS, Writer
from devices import CUDA
from gpu.writer_calls import (
    BLOCK_SIZE,
    single_pages,
    single_slots,
    slots_around_a_prompt,
    writes_the_bytes_of_the_cpu,
)

TOKENS = [1, 128, 129, 256, 257, 512, 513, 1024, 1025]

Cut = Callable[[Tensor], Tensor]
ROWS: dict[str, Cut] = {  # of [tokens, 3 * heads, head_size]
    "dense": lambda rows: rows.unflatten(1, [3, -1])[:, 1].contiguous(),
    "fused": lambda rows: rows.unflatten(1, [3, -1])[:, 1],
    "heads apart": lambda rows: rows[:, ::3],
    "misaligned": lambda rows: rows.flatten()[1:-1].unfold(0, rows[0, ::3].numel(), rows[0].numel())
    .unflatten(1, rows[0, ::3].shape),
}  # fmt: skip


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize(("heads", "head_size"), [(8, 128), (1, 128), (3, 72), (2, 8)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_any_number_of_tokens(
    writer: Writer, kind: str, dtype: torch.dtype, heads: int, head_size: int, device: str
) -> None:
    generator = torch.Generator().manual_seed(heads * head_size)
    some = awkward([2, max(TOKENS) + 1, 3 * heads, head_size], dtype, generator)
    for tokens in TOKENS:
        choices = [single_slots(tokens, generator)]
        if tokens > 256:
            choices.append(slots_around_a_prompt(tokens, generator))
        for slots in choices:
            for cut in ROWS.values():
                key, value = (cut(side[: tokens + 1])[:tokens] for side in some)
                caches = writer.room((key, value), single_pages(tokens), BLOCK_SIZE, kind)
                assert writes_the_bytes_of_the_cpu(
                    device, writer, kind, (key, value), caches, slots
                )


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("tokens", [8192, 8193, 16384, 16385])
@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_many_tokens_of_one_head(writer: Writer, kind: str, tokens: int, device: str) -> None:
    generator = torch.Generator().manual_seed(tokens)
    key, value = awkward([2, tokens, 1, 128], torch.bfloat16, generator)
    slots = slots_around_a_prompt(tokens, generator)
    caches = writer.room((key, value), single_pages(tokens), BLOCK_SIZE, kind)
    assert writes_the_bytes_of_the_cpu(device, writer, kind, (key, value), caches, slots)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("tokens", [3, 200, 600])
@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_caches_of_other_strides(writer: Writer, kind: str, tokens: int, device: str) -> None:
    generator = torch.Generator().manual_seed(tokens)
    heads, head_size = 4, 64
    rows = awkward([2, tokens, heads, head_size], torch.bfloat16, generator)
    wide = rows.repeat(1, 1, 2, 1)
    caches = writer.room((wide[0], wide[1]), single_pages(tokens), BLOCK_SIZE, kind)
    head_dim = 1 if writer.name == "paged" else 2
    slots = single_slots(tokens, generator)
    for first, step in ((0, 2), (1, 2), (3, 1)):
        parts = [cache.narrow(head_dim, first, heads * step - first % step) for cache in caches]
        parts = [part[:, ::step] if head_dim == 1 else part[:, :, ::step] for part in parts]
        assert writes_the_bytes_of_the_cpu(
            device, writer, kind, (rows[0], rows[1]), (parts[0], parts[1]), slots
        )


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("tokens", [3, 600, 5003])
@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_keys_unlike_values(writer: Writer, kind: str, tokens: int, device: str) -> None:
    generator = torch.Generator().manual_seed(tokens)
    heads = 4
    rows = awkward([tokens, 3 * heads, 64], torch.bfloat16, generator)
    slots = (
        slots_around_a_prompt(tokens, generator)
        if tokens > 256
        else single_slots(tokens, generator)
    )
    key, value = (rows[:, first::3] for first in (0, 1))
    room = writer.room((key, value), 2 * single_pages(tokens), BLOCK_SIZE, kind)
    caches = room[0][::2], room[1][: single_pages(tokens)]
    for some in ((key.contiguous(), value), (key, value.contiguous())):
        assert writes_the_bytes_of_the_cpu(device, writer, kind, some, caches, slots)
    if writer.name == "paged":
        return
    narrow = value[..., :40]
    narrow_room = writer.room((narrow, narrow), single_pages(tokens), BLOCK_SIZE, kind)
    assert writes_the_bytes_of_the_cpu(
        device, writer, kind, (key, narrow), (caches[0], narrow_room[1]), slots
    )


@pytest.mark.parametrize("device", CUDA)
def test_more_blocks_than_a_dimension_of_a_grid(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = 2 * 65535 + 3  # a thread block takes two
    writer = next(writer for writer in WRITERS if writer.name == "flash-NHD")
    key, value = awkward([2, tokens, 1, 130], torch.bfloat16, generator)
    slots = slots_around_a_prompt(tokens, generator)
    caches = writer.room((key, value), single_pages(tokens), BLOCK_SIZE)
    assert writes_the_bytes_of_the_cpu(device, writer, "auto", (key, value), caches, slots)
