"""What tests on a GPU do with calls: other content in the same memory, other streams, capture."""

from __future__ import annotations

import torch

from registry import OpCase, Sample
from support import Call, by_operator, guard, make_args

# Read by the host before the call returns, whatever device the memory is on.
_HOST_TABLES = {"block_mapping", "src_ptrs", "dst_ptrs", "sizes"}
_INDICES = {"src_indices", "dst_indices"}  # likewise, of transfers, where they are on the host
_LENGTHS = ("seq_lens", "cu_seq_lens", "workspace_starts")
SLEEP_CYCLES = 50_000_000  # 25 ms at 2 GHz: much longer than the host needs for a call
CAPTURE_MODES = ("global", "thread_local", "relaxed")


def variant(case: OpCase, sample: Sample, device: str, seed: int) -> Call:
    """A call of the same shapes as the sample's, with other content."""
    return guard(case, make_args(case, sample, device, seed))


def refill(call: Call, other: Call) -> None:
    """Put the bytes of another call of the same shapes into this one's memory."""
    for mine, theirs in zip(call.buffers, other.buffers, strict=True):
        if not mine.is_address_table:
            mine.content.copy_(theirs.content)


def halve_lengths(call: Call) -> None:
    """Let sequences end earlier, in place. What other indices say of the rest is out of range."""
    for name in _LENGTHS:
        if name in call.args:
            call.args[name].div_(2, rounding_mode="floor")


def is_on_device_only(call: Call) -> bool:
    """Whether all memory that the operator reads and writes in stream order is on a GPU."""
    return all(
        buffer.content.is_cuda or (_HOST_TABLES | _INDICES).issuperset(buffer.arguments)
        for buffer in call.buffers
    )


def uses_device(call: Call) -> bool:
    """Whether any memory is on a GPU: copies from host to host happen at once, on the host."""
    return any(buffer.content.is_cuda for buffer in call.buffers)


def call_when_filled_late(call: Call) -> bool:
    """Call the operator on the current stream, behind the work that fills its arguments.

    They get their values on that stream, after a long sleep: an operator that runs on any other
    stream, or too early, works on zeros. Returns whether the call waited for that work.
    """
    late = [buffer for buffer in call.buffers if buffer.content.is_cuda]
    contents = [buffer.content.clone() for buffer in late]
    for buffer in late:
        buffer.content.zero_()
    device = late[0].content.device if late else torch.device("cuda", 0)
    torch.cuda.synchronize(device)
    stream = torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SLEEP_CYCLES)
        for buffer, content in zip(late, contents, strict=True):
            buffer.content.copy_(content)
    by_operator(call)
    filled_and_called = stream.record_event()
    waited = filled_and_called.query()
    stream.synchronize()
    return waited


def capture(call: Call, mode: str = "global") -> torch.cuda.CUDAGraph:
    """A graph of one call, captured on a stream of its own."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=mode):
        by_operator(call)
    return graph


def rounds(case: OpCase, sample: Sample, device: str) -> list[Call]:
    """Contents for replays of one captured call: other values and indices, then shorter ones."""
    found = [variant(case, sample, device, seed) for seed in (1, 2, 3)]
    halve_lengths(found[-1])
    return found
