"""`_C_cuda_utils`: what vLLM's tests ask about the device before they start."""

from __future__ import annotations

import pytest
import torch

import kvops  # noqa: F401  (registers the names)
from devices import DEVICES

pytestmark = pytest.mark.parametrize("device", DEVICES[1:])

MULTIPROCESSORS = 16  # cudaDevAttrMultiProcessorCount
WARP_SIZE = 10  # cudaDevAttrWarpSize


def test_every_answer_is_for_its_question(device: str) -> None:
    ask = torch.ops._C_cuda_utils.get_device_attribute
    properties = torch.cuda.get_device_properties(0)
    assert ask(MULTIPROCESSORS, 0) == properties.multi_processor_count
    assert ask(WARP_SIZE, 0) == properties.warp_size
    assert ask(MULTIPROCESSORS, 0) == properties.multi_processor_count


def test_a_negative_device_is_the_current_one(device: str) -> None:
    ask = torch.ops._C_cuda_utils.get_device_attribute
    with torch.cuda.device(torch.cuda.device_count() - 1):
        expected = torch.cuda.get_device_properties(torch.cuda.current_device())
        assert ask(MULTIPROCESSORS, -1) == expected.multi_processor_count


def test_shared_memory(device: str) -> None:
    ask = torch.ops._C_cuda_utils.get_max_shared_memory_per_block_device_attribute
    assert ask(0) == torch.cuda.get_device_properties(0).shared_memory_per_block_optin


@pytest.mark.parametrize(("attribute", "index"), [(-1, 0), (2**40, 0), (MULTIPROCESSORS, 4096)])
def test_unknown(device: str, attribute: int, index: int) -> None:
    with pytest.raises(RuntimeError, match=r"_C_cuda_utils::get_device_attribute: .*got"):
        torch.ops._C_cuda_utils.get_device_attribute(attribute, index)
