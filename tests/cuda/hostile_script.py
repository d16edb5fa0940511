"""Calls every operator with values that are out of range in every index tensor.

    python tests/cuda/hostile_script.py [--device cpu]

Meant for compute-sanitizer memcheck (tools/gpu_check.py runs it): every tensor has an allocation
of its own, so any access outside of it is found. Results are compared in
tests/test_hostile_indices.py. Prints a line per operator; ends with an error if anything is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests/

from torch import Tensor

from gpu.plain_calls import device_of_script, plain_call, wait
from hostile import PLACES, hostile_values, index_arguments, index_of
from registry import OpCase
from support import CASES, Call, by_operator, kinds

# Indices that the host holds: a bad one is refused.
HOST_INDICES = {"swap_blocks": "block_mapping"}


def hostile_tensors(case: OpCase, call: Call, name: str) -> Iterator[Tensor]:
    """The argument with each bad value at one place, and everywhere."""
    valid = call.args[name]
    for value in hostile_values(case, call, name):
        for place in PLACES:
            changed = valid.clone()
            changed[index_of(valid, place)] = value
            yield changed
        yield valid.clone().fill_(value)


def run(case: OpCase, device: str) -> int:
    """Each index tensor in turn, then all of them at once; how many calls."""
    count = 0
    for sample in kinds(case):
        valid = plain_call(case, sample, device)
        names = index_arguments(valid)
        for name in names:
            for tensor in hostile_tensors(case, valid, name):
                by_operator(Call(case, valid.args | {name: tensor}, ()))
                wait(device)
                count += 1
        for pick in range(8 if len(names) > 1 else 0):
            everywhere = {
                name: valid.args[name].clone().fill_(values[pick % len(values)])
                for name in names
                for values in [hostile_values(case, valid, name)]
            }
            by_operator(Call(case, valid.args | everywhere, ()))
            wait(device)
            count += 1
    return count


def run_refused(case: OpCase, name: str, device: str) -> int:
    count = 0
    for sample in kinds(case):
        call = plain_call(case, sample, device)
        for value in (-(2**63), -(2**31), -1, 2**31 - 1, 2**40, 2**63 - 1):
            changed = call.args[name].clone()
            changed[-1, 0] = value
            try:
                by_operator(Call(case, call.args | {name: changed}, ()))
            except RuntimeError:
                count += 1
                continue
            raise AssertionError(f"{case.name} accepts {value} in {name}")
    return count


def main() -> None:
    device = device_of_script(__doc__.splitlines()[0])
    for case in CASES.values():
        if case.name in HOST_INDICES:
            print(f"{case.name}: {run_refused(case, HOST_INDICES[case.name], device)} refusals")
        else:
            print(f"{case.name}: {run(case, device)} calls", flush=True)


if __name__ == "__main__":
    main()
