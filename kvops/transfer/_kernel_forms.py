"""Kernel forms: one launch moves items by indices that the host never looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from ._docstrings import kernel_form


@kernel_form("lf", "lf")
def transfer_kv_per_layer(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, between layer-first pools."""
    torch.ops.kvops.transfer_kv_per_layer.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("pf", "lf")
def transfer_kv_per_layer_pf_lf(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, from page-first to layer-first pools."""
    torch.ops.kvops.transfer_kv_per_layer_pf_lf.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("ph", "lf")
def transfer_kv_per_layer_ph_lf(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    page_size: int,
    head_num: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, from page-head to layer-first pools."""
    torch.ops.kvops.transfer_kv_per_layer_ph_lf.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        page_size,
        head_num,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("lf", "lf")
def transfer_kv_per_layer_mla(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer of an MLA cache between layer-first pools."""
    torch.ops.kvops.transfer_kv_per_layer_mla.default(
        src, dst, src_indices, dst_indices, item_size, block_quota, num_warps_per_block
    )


@kernel_form("pf", "lf")
def transfer_kv_per_layer_mla_pf_lf(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer of an MLA cache from a page-first to a layer-first pool."""
    torch.ops.kvops.transfer_kv_per_layer_mla_pf_lf.default(
        src,
        dst,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("tables", "tables")
def transfer_kv_all_layer(
    src_k_layers: Tensor,
    dst_k_layers: Tensor,
    src_v_layers: Tensor,
    dst_v_layers: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, between layer-first pools given by address."""
    torch.ops.kvops.transfer_kv_all_layer.default(
        src_k_layers,
        dst_k_layers,
        src_v_layers,
        dst_v_layers,
        src_indices,
        dst_indices,
        item_size,
        num_layers,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("tables", "pf")
def transfer_kv_all_layer_lf_pf(
    src_k_layers: Tensor,
    dst_k: Tensor,
    src_v_layers: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, from layer-first pools to page-first ones."""
    torch.ops.kvops.transfer_kv_all_layer_lf_pf.default(
        src_k_layers,
        dst_k,
        src_v_layers,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("tables", "ph")
def transfer_kv_all_layer_lf_ph(
    src_k_layers: Tensor,
    dst_k: Tensor,
    src_v_layers: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    page_size: int,
    head_num: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, from layer-first pools to page-head ones."""
    torch.ops.kvops.transfer_kv_all_layer_lf_ph.default(
        src_k_layers,
        dst_k,
        src_v_layers,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        page_size,
        head_num,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("tables", "tables")
def transfer_kv_all_layer_mla(
    src_layers: Tensor,
    dst_layers: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers of an MLA cache between layer-first pools given by address."""
    torch.ops.kvops.transfer_kv_all_layer_mla.default(
        src_layers,
        dst_layers,
        src_indices,
        dst_indices,
        item_size,
        num_layers,
        block_quota,
        num_warps_per_block,
    )


@kernel_form("tables", "pf")
def transfer_kv_all_layer_mla_lf_pf(
    src_layers: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers of an MLA cache from layer-first pools to a page-first one."""
    torch.ops.kvops.transfer_kv_all_layer_mla_lf_pf.default(
        src_layers,
        dst,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        block_quota,
        num_warps_per_block,
    )
