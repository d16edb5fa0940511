"""Direct forms where the driver's batched copy is missing, refused or failing, on a real GPU.

tests/swap/test_driver_layer.py has every fault against a stand-in; here all but the batched copy is
the machine's own driver. A process for each fault: what the driver has is looked up once.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devices import CUDA
from subprocesses import Finished, run_python

NOT_SUPPORTED, INVALID_VALUE = 801, 1

# What it does not define, callers find in the driver that it is linked to.
PROXY = """
#include <stdint.h>
#include <string.h>
static int fail(void) { return ERROR; }
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* status) {
  *function = ERROR != 0 && strcmp(name, "cuMemcpyBatchAsync") == 0 ? (void*)fail : 0;
  *status = *function != 0 ? 0 : 1;
  return 0;
}
"""
CALLS = """
import torch, kvops
TOKENS, PAGE, LAYERS, WIDTH = 128, 16, 3, 1024
pages = TOKENS // PAGE
host = torch.randn(2, pages, LAYERS, PAGE, WIDTH).pin_memory()
pools = torch.zeros(2, LAYERS, TOKENS, WIDTH, device="cuda")
back, direct = torch.zeros_like(host).pin_memory(), torch.zeros_like(pools[0])
straight = torch.arange(TOKENS)
order = straight.view(-1, PAGE).flip(0).flatten()
with kvops.swap.use_path("batch"):
    for layer in range(LAYERS):
        layers = list(pools[:, layer])
        kvops.transfer_kv_per_layer_direct_pf_lf(list(host), layers, order, straight, layer, PAGE)
    layers = list(pools.flatten(0, 1))
    kvops.transfer_kv_all_layer_direct_lf_pf(layers, list(back), straight, order, PAGE)
    kvops.transfer_kv_direct(layers[:LAYERS], list(direct), straight, order, PAGE)
    rows = torch.zeros(TOKENS, WIDTH).pin_memory()
    kvops.transfer_embedding_ranges_direct(pools[0, 0], rows, [0, 64], [64, 0], [64, 64])
torch.cuda.synchronize()
assert torch.equal(host, back)
assert torch.equal(direct[:, order], pools[0])
assert torch.equal(rows, pools[0, 0].roll(64, 0).cpu())
print(kvops.swap.last_path())
"""


def run(folder: Path, error: int) -> Finished:
    """The calls, with a batched copy that returns `error`; 0: the driver has none."""
    source, stub, proxy = folder / "proxy.c", folder / "libcuda.so.1", folder / "proxy.so"
    source.write_text(PROXY)
    soname = "-Wl,-soname,libcuda.so.1"
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", soname, "-o", stub], check=True)
    command = ["cc", "-shared", "-fPIC", f"-DERROR={error}", source, "-o", proxy]
    command += ["-Wl,--no-as-needed", f"-L{folder}", "-l:libcuda.so.1"]
    subprocess.run(command, check=True)
    return run_python(CALLS, KVOPS_LIBCUDA=str(proxy))


pytestmark = pytest.mark.parametrize("device", CUDA)


@pytest.mark.parametrize("error", [0, NOT_SUPPORTED], ids=["missing", "not-supported"])
def test_other_copies_take_its_place(device: str, error: int, tmp_path: Path) -> None:
    done = run(tmp_path, error)
    assert (done.returncode, done.stdout) == (0, "single\n"), done.stderr


def test_every_other_error_raises(device: str, tmp_path: Path) -> None:
    done = run(tmp_path, INVALID_VALUE)
    said = "RuntimeError: kvops::transfer_kv_per_layer_direct_pf_lf: cuMemcpyBatchAsync failed at "
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert "CUDA_ERROR_INVALID_VALUE" in done.stderr
