// Checks the arguments of the transfers and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// Values of index tensors are left to the kernels (skipped) or to check_transfer_indices, which
// needs indices that the host can read. Ranges that the schema holds as integers always raise.
#pragma once

#include <cstdint>
#include <vector>

#include "common/tensor.h"
#include "transfer/params.h"

namespace kvops {

using TensorList = std::vector<Tensor>;
using IntList = std::vector<int64_t>;

// ---- kernel forms: one layer
TransferParams validate_transfer_kv_per_layer(const Tensor& src_k, const Tensor& dst_k,
                                              const Tensor& src_v, const Tensor& dst_v,
                                              const Tensor& src_indices, const Tensor& dst_indices,
                                              int64_t item_size, int64_t block_quota,
                                              int64_t num_warps_per_block);
TransferParams validate_transfer_kv_per_layer_pf_lf(
    const Tensor& src_k, const Tensor& dst_k, const Tensor& src_v, const Tensor& dst_v,
    const Tensor& src_indices, const Tensor& dst_indices, int64_t layer_id, int64_t item_size,
    int64_t src_layout_dim, int64_t block_quota, int64_t num_warps_per_block);
TransferParams validate_transfer_kv_per_layer_ph_lf(
    const Tensor& src_k, const Tensor& dst_k, const Tensor& src_v, const Tensor& dst_v,
    const Tensor& src_indices, const Tensor& dst_indices, int64_t layer_id, int64_t item_size,
    int64_t src_layout_dim, int64_t page_size, int64_t head_num, int64_t block_quota,
    int64_t num_warps_per_block);
TransferParams validate_transfer_kv_per_layer_mla(const Tensor& src, const Tensor& dst,
                                                  const Tensor& src_indices,
                                                  const Tensor& dst_indices, int64_t item_size,
                                                  int64_t block_quota, int64_t num_warps_per_block);
TransferParams validate_transfer_kv_per_layer_mla_pf_lf(const Tensor& src, const Tensor& dst,
                                                        const Tensor& src_indices,
                                                        const Tensor& dst_indices, int64_t layer_id,
                                                        int64_t item_size, int64_t src_layout_dim,
                                                        int64_t block_quota,
                                                        int64_t num_warps_per_block);

// ---- kernel forms: all layers
TransferParams validate_transfer_kv_all_layer(
    const Tensor& src_k_layers, const Tensor& dst_k_layers, const Tensor& src_v_layers,
    const Tensor& dst_v_layers, const Tensor& src_indices, const Tensor& dst_indices,
    int64_t item_size, int64_t num_layers, int64_t block_quota, int64_t num_warps_per_block);
TransferParams validate_transfer_kv_all_layer_lf_pf(
    const Tensor& src_k_layers, const Tensor& dst_k, const Tensor& src_v_layers,
    const Tensor& dst_v, const Tensor& src_indices, const Tensor& dst_indices, int64_t item_size,
    int64_t dst_layout_dim, int64_t num_layers, int64_t block_quota, int64_t num_warps_per_block);
TransferParams validate_transfer_kv_all_layer_lf_ph(
    const Tensor& src_k_layers, const Tensor& dst_k, const Tensor& src_v_layers,
    const Tensor& dst_v, const Tensor& src_indices, const Tensor& dst_indices, int64_t item_size,
    int64_t dst_layout_dim, int64_t num_layers, int64_t page_size, int64_t head_num,
    int64_t block_quota, int64_t num_warps_per_block);
TransferParams validate_transfer_kv_all_layer_mla(const Tensor& src_layers,
                                                  const Tensor& dst_layers,
                                                  const Tensor& src_indices,
                                                  const Tensor& dst_indices, int64_t item_size,
                                                  int64_t num_layers, int64_t block_quota,
                                                  int64_t num_warps_per_block);
TransferParams validate_transfer_kv_all_layer_mla_lf_pf(const Tensor& src_layers, const Tensor& dst,
                                                        const Tensor& src_indices,
                                                        const Tensor& dst_indices,
                                                        int64_t item_size, int64_t dst_layout_dim,
                                                        int64_t num_layers, int64_t block_quota,
                                                        int64_t num_warps_per_block);

// ---- direct forms
DirectTransferParams validate_transfer_kv_direct(const TensorList& src_layers,
                                                 const TensorList& dst_layers,
                                                 const Tensor& src_indices,
                                                 const Tensor& dst_indices, int64_t page_size);
DirectTransferParams validate_transfer_kv_per_layer_direct_pf_lf(
    const TensorList& src_ptrs, const TensorList& dst_ptrs, const Tensor& src_indices,
    const Tensor& dst_indices, int64_t layer_id, int64_t page_size);
DirectTransferParams validate_transfer_kv_all_layer_direct_lf_pf(const TensorList& src_ptrs,
                                                                 const TensorList& dst_ptrs,
                                                                 const Tensor& src_indices,
                                                                 const Tensor& dst_indices,
                                                                 int64_t page_size);
EmbeddingRangesParams validate_transfer_embedding_ranges_direct(const Tensor& src,
                                                                const Tensor& dst,
                                                                const IntList& src_starts,
                                                                const IntList& dst_starts,
                                                                const IntList& lengths);

// Addresses in tables have to be believed, but for null. For hosts that can read the table.
void check_addresses(const char* op, const char* table_name, const uint64_t* table,
                     int64_t num_layers);

// Checked mode: raises for the first index that a transfer would skip.
void check_transfer_indices(const char* op, const int64_t* src_indices, const int64_t* dst_indices,
                            int64_t num_items, const TokenGrid& src, const TokenGrid& dst);

}  // namespace kvops
