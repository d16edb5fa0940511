"""Run in a fresh process: the first call of an operator, and of each kind, happens in capture.

python -c 'from gpu.first_calls import main; main("convert_fp8", "global")'
"""

from __future__ import annotations

import torch

from gpu.calls import capture, uses_device
from support import CASES, assert_same_outcome, kinds, make_call, reference_outcome


def main(name: str, mode: str) -> None:
    for sample in kinds(CASES[name]):
        call = make_call(CASES[name], sample, "cuda")
        if not uses_device(call):
            continue
        expected = reference_outcome(call)
        graph = capture(call, mode)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_outcome(call, expected)
        print(f"{name}-{sample.id}: ok")
