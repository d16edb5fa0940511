"""Kernels are launched straight through the driver, and by the runtime where that does not do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devices import CUDA
from subprocesses import run_python

# libcuda.so.1 with a launch of its own: LAUNCH is what is done instead.
DRIVER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
static void* real(const char* name) {
  return dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), name);
}
int cuDriverGetVersion(int* version) {
  return ((int (*)(int*))real("cuDriverGetVersion"))(version);
}
int cuCtxGetId(void* context, unsigned long long* id) {
  return ((int (*)(void*, unsigned long long*))real("cuCtxGetId"))(context, id);
}
#ifdef LAUNCH
typedef int (*Launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                      void*, void**, void**);
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads_x,
                   unsigned threads_y, unsigned threads_z, unsigned shared, void* stream,
                   void** arguments, void** extra) {
  fputs("launch\\n", stderr);
  return LAUNCH;
}
#endif
"""
FORWARD = (
    '((Launch)real("cuLaunchKernel"))(function, x, y, z, threads_x, threads_y, threads_z, shared,'
    " stream, arguments, extra)"
)
LAUNCHES = {"forwards": FORWARD, "refuses": "1", "has none": None}

# Every call stores another number. The first one of the process may be that of a capture, or of
# a thread that has no context yet.
CALLS = """
import sys, threading, torch, kvops

def stored(number, device):
    target = torch.zeros(3, 40, dtype=torch.uint8, device=device)
    source = torch.full((3, 40), float(number), device=device)
    def call():
        kvops.convert_fp8(target, source, 1.0, "fp8")
    def check():
        expected = source.cpu().to(torch.float8_e4m3fn).view(torch.uint8)
        assert torch.equal(target.cpu(), expected), (number, device)
    return call, check

def plain(number, device):
    call, check = stored(number, device)
    call()
    check()

def in_thread(number, device):
    call, check = stored(number, device)
    torch.cuda.synchronize(device)
    failures = []
    def run():
        try:
            call()
        except Exception as error:
            failures.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures, failures
    check()

def captured(number, device):
    call, check = stored(number, device)
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        graph.replay()
    check()

forms = [plain, in_thread, captured]
first = forms.index(globals()[{first!r}])
number = 0
for form in forms[first:] + forms[:first] + forms:
    for device in range(torch.cuda.device_count()):
        number += 1
        form(number, f"cuda:{{device}}")
print(number)
"""


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("first", ["plain", "in_thread", "captured"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_launches(launch: str, first: str, device: str, tmp_path: Path) -> None:
    source, library = tmp_path / "libcuda.c", tmp_path / "libcuda.so"
    source.write_text(DRIVER)
    body = LAUNCHES[launch]
    define = [] if body is None else [f"-DLAUNCH={body}"]
    subprocess.run(["cc", "-shared", "-fPIC", *define, "-o", library, source, "-ldl"], check=True)
    done = run_python(CALLS.format(first=first), KVOPS_LIBCUDA=str(library))
    assert done.returncode == 0, done.stderr
    calls = int(done.stdout)
    launches = done.stderr.count("launch\n")
    if launch == "has none":
        assert launches == 0
    else:
        # In a thread without a context there is nothing to ask the driver for.
        assert calls / 2 <= launches <= calls
