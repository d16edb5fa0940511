"""Checked mode of the gathers: what it names, and what it does not mind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import kvops
from gather.paged import poisoned

# Request 0: positions 0 .. 4 in blocks 3 and 1; request 1: positions 0 .. 2 in block 0.
BLOCK_SIZE = 4
CACHE = torch.arange(4 * BLOCK_SIZE * 2.0).view(4, BLOCK_SIZE, 2)
DEAD = 2147480000


def tables() -> dict[str, Tensor]:
    return {
        "block_table": torch.tensor([[3, 1, DEAD], [0, DEAD, -1]], dtype=torch.int32),
        "cu_seq_lens": torch.tensor([0, 5, 8], dtype=torch.int32),
        "token_to_seq": torch.tensor([0] * 5 + [1] * 3 + [-7], dtype=torch.int32),
        "seq_starts": torch.zeros(2, dtype=torch.int32),
    }


def gather(t: dict[str, Tensor], num_tokens: int = 8) -> Tensor:
    dst = poisoned([9, 2], torch.float32)
    kvops.gather_and_maybe_dequant_cache(
        *(CACHE, dst, t["block_table"], t["cu_seq_lens"], t["token_to_seq"], num_tokens),
        *("auto", torch.ones(1), t["seq_starts"]),
    )
    return dst


def cp_gather(t: dict[str, Tensor], seq_starts: bool = True) -> Tensor:
    dst = poisoned([9, 2], torch.float32)
    starts = t["seq_starts"] if seq_starts else None
    kvops.cp_gather_cache(CACHE, dst, t["block_table"], t["cu_seq_lens"], 2, starts)
    return dst


def refusal(call: Callable[[], Tensor]) -> str:
    with kvops.checked(), pytest.raises(RuntimeError) as caught:
        call()
    return str(caught.value).split(": ", 1)[1]


def test_valid_calls_and_dead_entries_pass() -> None:
    expected = gather(tables()), cp_gather(tables())
    with kvops.checked():
        assert torch.equal(gather(tables()), expected[0])
        assert torch.equal(cp_gather(tables()), expected[1])


def test_rows_past_num_tokens_need_no_block() -> None:
    changed = tables()
    changed["block_table"][1, 0] = DEAD
    with kvops.checked():
        gather(changed, num_tokens=5)
    assert "block_table[1, 0] must be in [0, 4), got 2147480000" in refusal(lambda: gather(changed))


@pytest.mark.parametrize("call", [gather, cp_gather])
@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("cu_seq_lens", 0, -1, "cu_seq_lens[0] must be in [0, 10), got -1"),
        ("cu_seq_lens", 2, 10, "cu_seq_lens[2] must be in [0, 10), got 10"),
        ("cu_seq_lens", 2, 4, "cu_seq_lens[2] must be at least 5, the value before it, got 4"),
        ("seq_starts", 1, -1, "seq_starts[1] must be 0 or more, got -1"),
        (
            "seq_starts",
            1,
            10,
            "seq_starts[1] must be such that 3 positions end within the 3 blocks that block_table"
            " has for request 1, got 10",
        ),
        ("block_table", (0, 1), 4, "block_table[0, 1] must be in [0, 4), got 4"),
        ("block_table", (1, 0), -1, "block_table[1, 0] must be in [0, 4), got -1"),
    ],
)
def test_names_the_entry(
    call: Callable[[dict[str, Tensor]], Tensor], name: str, index: object, value: int, message: str
) -> None:
    changed = tables()
    changed[name][index] = value
    assert refusal(lambda: call(changed)) == message


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (3, 2, "token_to_seq[3] must be in [0, 2), got 2"),
        (0, -1, "token_to_seq[0] must be in [0, 2), got -1"),
        (
            6,
            0,
            "token_to_seq[6] must be the request whose rows in cu_seq_lens include 6, got 0",
        ),
    ],
)
def test_names_the_token(index: int, value: int, message: str) -> None:
    changed = tables()
    changed["token_to_seq"][index] = value
    assert refusal(lambda: gather(changed)) == message


def test_table_too_narrow() -> None:
    changed = tables()
    changed["block_table"] = changed["block_table"][:, :1]
    assert refusal(lambda: cp_gather(changed, seq_starts=False)) == (
        "block_table must have a block for every position, got 5 positions for the 1 blocks that"
        " block_table has for request 0"
    )


def test_workspace_starts() -> None:
    cache = torch.zeros(2, 4, 656, dtype=torch.uint8)
    dst = poisoned([4, 576], torch.bfloat16)
    table = torch.zeros(2, 1, dtype=torch.int32)
    for starts, message in [
        ([0, 5], "workspace_starts[1] must be in [0, 5), got 5"),
        ([3, 2], "workspace_starts[1] must be at least 3, the value before it, got 2"),
    ]:
        rows = torch.tensor(starts, dtype=torch.int32)
        args = (cache, dst, table, torch.zeros(2, dtype=torch.int32), rows, 2)
        said = refusal(lambda args=args: kvops.cp_gather_and_upconvert_fp8_kv_cache(*args))
        assert said == message
    assert torch.equal(dst.view(torch.uint8), poisoned([4, 576], torch.bfloat16).view(torch.uint8))
