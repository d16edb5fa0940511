"""Nothing is missing: every operator has a schema, kernels, a fake, a wrapper, a reference, a case.

The list of schemas in the native library is compared with the letter of vLLM 0.23 and SGLang;
everything else is compared with that list.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import kvops
from kvops.reference import REFERENCE
from support import CASES, PEER_NAMESPACES, make_call

_KV_WRITER = (
    "(Tensor key, Tensor value, Tensor! key_cache, Tensor! value_cache, Tensor slot_mapping, "
    "str kv_cache_dtype, Tensor k_scale, Tensor v_scale) -> ()"
)
_PAGED_ATTENTION = (
    "Tensor query, Tensor key_cache, Tensor value_cache, int num_kv_heads, float scale, "
    "Tensor block_tables, Tensor seq_lens, int block_size, int max_seq_len, Tensor? alibi_slopes, "
    "str kv_cache_dtype, Tensor k_scale, Tensor v_scale, int tp_rank, "
    "int blocksparse_local_blocks, int blocksparse_vert_stride, int blocksparse_block_size, "
    "int blocksparse_head_sliding_step) -> ()"
)
_MERGE_ATTN_STATES = (
    "(Tensor! output, Tensor!? output_lse, Tensor prefix_output, Tensor prefix_lse, "
    "Tensor suffix_output, Tensor suffix_lse, {} prefill_tokens_with_context, "
    "Tensor? output_scale=None) -> ()"
)

# What vLLM 0.23.0 registers.
VLLM_SCHEMAS = [
    "_C_cache_ops::swap_blocks(Tensor src, Tensor! dst, int block_size_in_bytes, "
    "Tensor block_mapping) -> ()",
    "_C_cache_ops::swap_blocks_batch(Tensor src_ptrs, Tensor dst_ptrs, Tensor sizes, "
    "bool is_src_access_order_any=False) -> ()",
    f"_C_cache_ops::reshape_and_cache{_KV_WRITER}",
    f"_C_cache_ops::reshape_and_cache_flash{_KV_WRITER}",
    "_C_cache_ops::concat_and_cache_mla(Tensor kv_c, Tensor k_pe, Tensor! kv_cache, "
    "Tensor slot_mapping, str kv_cache_dtype, Tensor scale) -> ()",
    "_C_cache_ops::concat_and_cache_mla_rope_fused(Tensor positions, Tensor! q_pe, Tensor! k_pe, "
    "Tensor kv_c, Tensor cos_sin_cache, bool is_neox, Tensor slot_mapping, Tensor! kv_cache, "
    "str kv_cache_dtype, Tensor kv_cache_scale) -> ()",
    "_C_cache_ops::convert_fp8(Tensor! dst_cache, Tensor src_cache, float scale, "
    "str kv_cache_dtype) -> ()",
    "_C_cache_ops::gather_and_maybe_dequant_cache(Tensor src_cache, Tensor! dst, "
    "Tensor block_table, Tensor cu_seq_lens, Tensor token_to_seq, int num_tokens, "
    "str kv_cache_dtype, Tensor scale, Tensor? seq_starts) -> ()",
    "_C_cache_ops::cp_gather_cache(Tensor src_cache, Tensor! dst, Tensor block_table, "
    "Tensor cu_seq_lens, int batch_size, Tensor? seq_starts) -> ()",
    "_C_cache_ops::cp_gather_and_upconvert_fp8_kv_cache(Tensor src_cache, Tensor! dst, "
    "Tensor block_table, Tensor seq_lens, Tensor workspace_starts, int batch_size) -> ()",
    "_C_cache_ops::indexer_k_quant_and_cache(Tensor k, Tensor! kv_cache, Tensor slot_mapping, "
    "int quant_block_size, str kv_cache_dtype) -> ()",
    "_C_cache_ops::concat_mla_q(Tensor ql_nope, Tensor q_pe, Tensor! q_out) -> ()",
    "_C_cache_ops::cp_gather_indexer_k_quant_cache(Tensor kv_cache, Tensor! dst_k, "
    "Tensor! dst_scale, Tensor block_table, Tensor cu_seq_lens) -> ()",
    f"_C::paged_attention_v1(Tensor! out, {_PAGED_ATTENTION}",
    "_C::paged_attention_v2(Tensor! out, Tensor! exp_sums, Tensor! max_logits, Tensor! tmp_out, "
    f"{_PAGED_ATTENTION}",
    f"_C::merge_attn_states{_MERGE_ATTN_STATES.format('int!?')}",
]

_KV = "Tensor src_k, Tensor dst_k, Tensor src_v, Tensor dst_v, "
_LAYERS_TO_POOL = "Tensor src_k_layers, Tensor dst_k, Tensor src_v_layers, Tensor dst_v, "
_INDICES = "Tensor src_indices, Tensor dst_indices, "
_LIMITS = "int block_quota, int num_warps_per_block) -> ()"

# What SGLang registers.
SGLANG_SCHEMAS = [
    f"sgl_kernel::transfer_kv_per_layer({_KV}{_INDICES}int item_size, {_LIMITS}",
    f"sgl_kernel::transfer_kv_per_layer_pf_lf({_KV}{_INDICES}int layer_id, int item_size, "
    f"int src_layout_dim, {_LIMITS}",
    f"sgl_kernel::transfer_kv_per_layer_ph_lf({_KV}{_INDICES}int layer_id, int item_size, "
    f"int src_layout_dim, int page_size, int head_num, {_LIMITS}",
    "sgl_kernel::transfer_kv_all_layer(Tensor src_k_layers, Tensor dst_k_layers, "
    f"Tensor src_v_layers, Tensor dst_v_layers, {_INDICES}int item_size, int num_layers, {_LIMITS}",
    f"sgl_kernel::transfer_kv_all_layer_lf_pf({_LAYERS_TO_POOL}{_INDICES}int item_size, "
    f"int dst_layout_dim, int num_layers, {_LIMITS}",
    f"sgl_kernel::transfer_kv_all_layer_lf_ph({_LAYERS_TO_POOL}{_INDICES}int item_size, "
    f"int dst_layout_dim, int num_layers, int page_size, int head_num, {_LIMITS}",
    f"sgl_kernel::transfer_kv_per_layer_mla(Tensor src, Tensor dst, {_INDICES}int item_size, "
    f"{_LIMITS}",
    f"sgl_kernel::transfer_kv_per_layer_mla_pf_lf(Tensor src, Tensor dst, {_INDICES}"
    f"int layer_id, int item_size, int src_layout_dim, {_LIMITS}",
    f"sgl_kernel::transfer_kv_all_layer_mla(Tensor src_layers, Tensor dst_layers, {_INDICES}"
    f"int item_size, int num_layers, {_LIMITS}",
    f"sgl_kernel::transfer_kv_all_layer_mla_lf_pf(Tensor src_layers, Tensor dst, {_INDICES}"
    f"int item_size, int dst_layout_dim, int num_layers, {_LIMITS}",
    f"sgl_kernel::transfer_kv_direct(Tensor[] src_layers, Tensor[] dst_layers, {_INDICES}"
    "int page_size) -> ()",
    "sgl_kernel::transfer_embedding_ranges_direct(Tensor src, Tensor! dst, int[] src_starts, "
    "int[] dst_starts, int[] lengths) -> ()",
    f"sgl_kernel::transfer_kv_per_layer_direct_pf_lf(Tensor[] src_ptrs, Tensor[] dst_ptrs, "
    f"{_INDICES}int layer_id, int page_size) -> ()",
    f"sgl_kernel::transfer_kv_all_layer_direct_lf_pf(Tensor[] src_ptrs, Tensor[] dst_ptrs, "
    f"{_INDICES}int page_size) -> ()",
]


def with_writes(schema: str) -> str:
    """SGLang's letter, and what it does not say: which tensors are written."""
    letter = schema.partition("::")[2]
    letter = re.sub(r"Tensor (dst(?:_k|_v)?),", r"Tensor! \1,", letter)
    return re.sub(r"Tensor\[\] dst_", "Tensor(a!)[] dst_", letter)


# kvops:: says the same but here: no compiler takes vLLM's `int!?`, and none may believe SGLang's.
OWN_LETTER = {
    "merge_attn_states": _MERGE_ATTN_STATES.format("int?"),
    **{
        letter.partition("(")[0]: "(" + letter.partition("(")[2]
        for letter in map(with_writes, SGLANG_SCHEMAS)
    },
}

# Added to the schemas above, under both names: trailing arguments of vLLM 0.33 whose defaults leave
# every call of vLLM 0.23 as it was.
TRAILING = {
    "reshape_and_cache": "bool interleaved_v=False",
    "concat_and_cache_mla": "bool skip_scale=False",
}

SCHEMAS = {
    schema.split("::")[1].split("(")[0]: schema for schema in (*VLLM_SCHEMAS, *SGLANG_SCHEMAS)
}

every_operator = pytest.mark.parametrize("name", SCHEMAS)


def parsed(text: str) -> Any:
    return torch._C.parse_schema(text)


def with_trailing(name: str, schema: str) -> str:
    """A schema of a peer's, and what kvops adds to it."""
    arguments, _, result = schema.rpartition(") -> ")
    added = f", {TRAILING[name]}" if name in TRAILING else ""
    return f"{arguments}{added}) -> {result}"


def registered(qualified: str) -> Any:
    """The only schema under a name."""
    (schema,) = torch._C._jit_get_schemas_for_operator(qualified)
    return schema


def parameters(function: Callable[..., None]) -> dict[str, Any]:
    """Name and default of every parameter that an operator's schema may have."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }


def schema_parameters(name: str) -> dict[str, Any]:
    return {
        argument.name: argument.default_value
        if argument.has_default_value()
        else inspect.Parameter.empty
        for argument in registered(f"kvops::{name}").arguments
    }


def section(docstring: str, title: str) -> str:
    """The text below `title:` in a docstring, up to the next title."""
    found = re.search(rf"^{title}:\n((?:\n|    .*\n?)*)", inspect.cleandoc(docstring), re.M)
    assert found, f"no section {title}"
    return found[1]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(PEER_NAMESPACES), id="native library"),
        pytest.param(list(REFERENCE), id="reference"),
        pytest.param(list(CASES), id="cases"),
    ],
)
def test_same_operators(names: list[str]) -> None:
    assert sorted(names) == sorted(SCHEMAS)


@every_operator
def test_kvops_schema(name: str) -> None:
    _, _, letter = SCHEMAS[name].partition(name)
    expected = parsed(f"kvops::{name}{with_trailing(name, OWN_LETTER.get(name, letter))}")
    assert str(registered(f"kvops::{name}")) == str(expected)


@every_operator
def test_peer_schema(name: str) -> None:
    qualified = SCHEMAS[name].split("(")[0]
    namespace, _ = qualified.split("::")
    assert PEER_NAMESPACES[name] == namespace
    getattr(getattr(torch.ops, namespace), name)  # names of peers are claimed when looked up
    assert str(registered(qualified)) == str(parsed(with_trailing(name, SCHEMAS[name])))


@every_operator
def test_every_call_of_a_peer_is_one_of_ours(name: str) -> None:
    """What is added to its schema comes last and has a default."""
    old, new = parsed(SCHEMAS[name]).arguments, registered(f"kvops::{name}").arguments
    assert [a.name for a in old] == [a.name for a in new[: len(old)]]
    assert all(argument.has_default_value() for argument in new[len(old) :])


@every_operator
def test_cpu_kernel(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kvops::{name}", "CPU")


@every_operator
def test_peer_name_has_the_cpu_kernel(name: str) -> None:
    qualified = SCHEMAS[name].split("(")[0]
    getattr(getattr(torch.ops, PEER_NAMESPACES[name]), name)
    assert torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "CPU")


@every_operator
def test_explicit_fake(name: str) -> None:
    namespace = PEER_NAMESPACES[name]
    getattr(getattr(torch.ops, namespace), name)
    for qualified in (f"kvops::{name}", f"{namespace}::{name}"):
        fakes = torch._library.simple_registry.singleton.find(qualified).fake_impl
        assert fakes.kernel is not None, qualified


@every_operator
@pytest.mark.parametrize("functions", [vars(kvops), REFERENCE], ids=["wrapper", "reference"])
def test_same_parameters(name: str, functions: Mapping[str, Any]) -> None:
    actual, expected = parameters(functions[name]), schema_parameters(name)
    assert list(actual) == list(expected)
    for parameter, default in expected.items():
        if default is not inspect.Parameter.empty:
            assert actual[parameter] == default


@every_operator
def test_wrapper_is_exported(name: str) -> None:
    assert name in kvops.__all__


@every_operator
def test_wrapper_is_typed(name: str) -> None:
    wrapper = getattr(kvops, name)
    assert wrapper.__annotations__.keys() == {*parameters(wrapper), "return"}


@every_operator
def test_docstring(name: str) -> None:
    documentation = getattr(kvops, name).__doc__
    for title in ("Args", "Raises", "Source"):
        assert section(documentation, title).strip(), title
    entries = re.findall(r"^    (\w+(?:, \w+)*):", section(documentation, "Args"), re.M)
    documented = [parameter for entry in entries for parameter in entry.split(", ")]
    assert documented == list(schema_parameters(name))


@every_operator
def test_case_has_the_schema_s_arguments(name: str) -> None:
    case = CASES[name]
    mutable = {a.name for a in registered(f"kvops::{name}").arguments if a.is_write}
    memory = set(case.addresses.values())
    assert {*case.outputs, *case.scratch} - memory == mutable
    assert {*case.hostile, *case.padding, *case.addresses} <= set(schema_parameters(name))
    assert case.samples and case.refusals
    for sample in case.samples:
        given = make_call(case, sample, "cpu").keywords()
        expected = list(schema_parameters(name))
        assert list(given) == expected[: len(given)], sample.id


@pytest.mark.parametrize("kind", ["samples", "refusals"])
@pytest.mark.parametrize("name", CASES)
def test_ids_are_distinct(name: str, kind: str) -> None:
    ids = [entry.id for entry in getattr(CASES[name], kind)]
    assert len(set(ids)) == len(ids)


def test_no_kernel_without_a_schema() -> None:
    defined = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("kvops::")}
    assert defined == {f"kvops::{name}" for name in SCHEMAS}
