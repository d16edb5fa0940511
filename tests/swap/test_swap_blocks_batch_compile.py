"""swap_blocks_batch under torch.compile: out of the graph, with right bytes.

It declares no mutation: a compiler that believes that drops the call, or moves it past writes to
the same memory. Every program here writes the source before the call and after it, and reads the
target after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import kvops
from subprocesses import run_python

NAMES = {
    "wrapper": lambda *tables: kvops.swap_blocks_batch(*tables),
    "kvops": lambda *tables: torch.ops.kvops.swap_blocks_batch(*tables),
    "kvops-default": lambda *tables: torch.ops.kvops.swap_blocks_batch.default(*tables),
    "vllm": lambda *tables: torch.ops._C_cache_ops.swap_blocks_batch(*tables),
    "vllm-default": lambda *tables: torch.ops._C_cache_ops.swap_blocks_batch.default(*tables),
}
every_name = pytest.mark.parametrize("call", NAMES.values(), ids=NAMES)
ROW_ELEMS = 16


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def program(call: Callable[..., None]) -> Callable[..., Tensor]:
    def run(pool: Tensor, host: Tensor, value: Tensor, rows: Tensor, tables: list[Tensor]):
        host.zero_()
        pool.fill_(1.0)
        pool.index_put_((rows,), value)
        call(*tables)
        pool.fill_(-1.0)
        return host * 2 + pool

    return run


def check(run: Callable[..., Tensor], num_rows: int) -> None:
    """Half of the rows get a value of their own and all are copied, in reverse order."""
    pool, host = torch.full([2, num_rows, ROW_ELEMS], torch.nan)
    rows = torch.arange(0, num_rows, 2)
    value = torch.randn(len(rows), ROW_ELEMS)
    offsets = torch.arange(num_rows) * ROW_ELEMS * 4
    tables = [
        pool.data_ptr() + offsets,
        host.data_ptr() + offsets.flip(0),
        torch.full([num_rows], ROW_ELEMS * 4),
    ]
    result = run(pool, host, value, rows, tables)
    expected = torch.ones(num_rows, ROW_ELEMS)
    expected[rows] = value
    assert torch.equal(host, expected.flip(0))
    assert torch.equal(result, expected.flip(0) * 2 - 1)
    assert (pool == -1).all()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@every_name
def test_bytes_are_right(call: Callable[..., None], backend: str, dynamic: bool) -> None:
    compiled = torch.compile(program(call), backend=backend, dynamic=dynamic)
    for num_rows in (6, 6, 11):
        check(compiled, num_rows)


def test_bytes_are_right_with_inductor() -> None:
    check(torch.compile(program(NAMES["wrapper"]), backend="inductor"), 6)


@every_name
def test_one_graph_is_refused(call: Callable[..., None]) -> None:
    compiled = torch.compile(program(call), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="swap_blocks_batch"):
        check(compiled, 6)


# In a process of its own: where dynamo is imported, and where vLLM's name is first looked up.
CHILD = """
{imports}
import torch
def run(pool, host, tables):
    pool.fill_(1.0)
    {call}(*tables)
    pool.fill_(-1.0)
    return host + pool
pool, host = torch.full([2, 64], torch.nan)
tables = [torch.tensor([n]) for n in (pool.data_ptr(), host.data_ptr(), pool.nbytes)]
result = torch.compile(run, backend="aot_eager")(pool, host, tables)
print(bool((host == 1).all() and (pool == -1).all() and (result == 0).all()))
torch._dynamo.reset()
try:
    torch.compile(run, backend="aot_eager", fullgraph=True)(pool, host, tables)
except torch._dynamo.exc.Unsupported as error:
    print("swap_blocks_batch" in str(error))
"""


IMPORTS = {
    "dynamo-first": "import torch._dynamo, kvops",
    "dynamo-by-compile": "import kvops",
    "dynamo-after": "import kvops, torch._dynamo",
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
@pytest.mark.parametrize(
    "call", ["kvops.swap_blocks_batch", "torch.ops._C_cache_ops.swap_blocks_batch"]
)
def test_any_order_of_imports(imports: str, call: str) -> None:
    done = run_python(CHILD.format(imports=imports, call=call))
    assert (done.stdout, done.returncode) == ("True\nTrue\n", 0), done.stderr


def test_first_look_at_an_overload() -> None:
    call = "torch.ops._C_cache_ops.swap_blocks_batch.default"
    done = run_python(CHILD.format(imports=IMPORTS["dynamo-by-compile"], call=call))
    assert (done.stdout, done.returncode) == ("True\nTrue\n", 0), done.stderr
