// Contracts of the kernel forms for all layers (spec 13, stricter than SGLang: sizes are checked).
// Called through Transfer<> (transfer/ops.h) by the CPU and the CUDA operator alike.
// What is behind the addresses of a table, and how much of it, is the caller's promise.
#include <string>

#include "transfer/validate.h"
#include "transfer/validate/sides.h"

namespace kvops {
namespace {

TransferParams with_layers(TransferParams params, int64_t num_layers) {
  if (num_layers <= 0) {
    fail({params.op, "num_layers"}, "must be positive, got " + std::to_string(num_layers));
  }
  params.num_layers = num_layers;
  return params;
}

TransferParams between_tables(TransferParams params, const Tensor& src_indices, Pools src,
                              Pools dst) {
  params.num_parts = static_cast<int64_t>(src.size());
  params.src = layer_tables(params, src_indices, src);
  params.dst = layer_tables(params, src_indices, dst);
  return params;
}

TransferParams to_pages(TransferParams params, const Tensor& src_indices, Pools src, Pools dst,
                        const PageFirst& layout) {
  params.num_parts = static_cast<int64_t>(src.size());
  params.src = layer_tables(params, src_indices, src);
  params.dst = page_first(params, src_indices, dst, Access::kWritten, layout);
  check_layers_fit(params, layout);
  return params;
}

}  // namespace

TransferParams validate_transfer_kv_all_layer(
    const Tensor& src_k_layers, const Tensor& dst_k_layers, const Tensor& src_v_layers,
    const Tensor& dst_v_layers, const Tensor& src_indices, const Tensor& dst_indices,
    int64_t item_size, int64_t num_layers, int64_t block_quota, int64_t num_warps_per_block) {
  return between_tables(
      with_layers(validate_items("transfer_kv_all_layer", src_indices, dst_indices, item_size,
                                 {block_quota, num_warps_per_block}),
                  num_layers),
      src_indices, {{src_k_layers, "src_k_layers"}, {src_v_layers, "src_v_layers"}},
      {{dst_k_layers, "dst_k_layers"}, {dst_v_layers, "dst_v_layers"}});
}

TransferParams validate_transfer_kv_all_layer_mla(const Tensor& src_layers,
                                                  const Tensor& dst_layers,
                                                  const Tensor& src_indices,
                                                  const Tensor& dst_indices, int64_t item_size,
                                                  int64_t num_layers, int64_t block_quota,
                                                  int64_t num_warps_per_block) {
  return between_tables(
      with_layers(validate_items("transfer_kv_all_layer_mla", src_indices, dst_indices, item_size,
                                 {block_quota, num_warps_per_block}),
                  num_layers),
      src_indices, {{src_layers, "src_layers"}}, {{dst_layers, "dst_layers"}});
}

TransferParams validate_transfer_kv_all_layer_lf_pf(
    const Tensor& src_k_layers, const Tensor& dst_k, const Tensor& src_v_layers,
    const Tensor& dst_v, const Tensor& src_indices, const Tensor& dst_indices, int64_t item_size,
    int64_t dst_layout_dim, int64_t num_layers, int64_t block_quota, int64_t num_warps_per_block) {
  return to_pages(
      with_layers(validate_items("transfer_kv_all_layer_lf_pf", src_indices, dst_indices, item_size,
                                 {block_quota, num_warps_per_block}),
                  num_layers),
      src_indices, {{src_k_layers, "src_k_layers"}, {src_v_layers, "src_v_layers"}},
      {{dst_k, "dst_k"}, {dst_v, "dst_v"}}, {"dst_layout_dim", dst_layout_dim});
}

TransferParams validate_transfer_kv_all_layer_mla_lf_pf(const Tensor& src_layers, const Tensor& dst,
                                                        const Tensor& src_indices,
                                                        const Tensor& dst_indices,
                                                        int64_t item_size, int64_t dst_layout_dim,
                                                        int64_t num_layers, int64_t block_quota,
                                                        int64_t num_warps_per_block) {
  return to_pages(
      with_layers(validate_items("transfer_kv_all_layer_mla_lf_pf", src_indices, dst_indices,
                                 item_size, {block_quota, num_warps_per_block}),
                  num_layers),
      src_indices, {{src_layers, "src_layers"}}, {{dst, "dst"}},
      {"dst_layout_dim", dst_layout_dim});
}

TransferParams validate_transfer_kv_all_layer_lf_ph(
    const Tensor& src_k_layers, const Tensor& dst_k, const Tensor& src_v_layers,
    const Tensor& dst_v, const Tensor& src_indices, const Tensor& dst_indices, int64_t item_size,
    int64_t dst_layout_dim, int64_t num_layers, int64_t page_size, int64_t head_num,
    int64_t block_quota, int64_t num_warps_per_block) {
  TransferParams params =
      with_layers(validate_items("transfer_kv_all_layer_lf_ph", src_indices, dst_indices, item_size,
                                 {block_quota, num_warps_per_block}),
                  num_layers);
  const PageHead layout{{"dst_layout_dim", dst_layout_dim}, page_size, head_num};
  set_heads(params, layout);
  params.num_parts = 2;
  params.src = layer_tables(params, src_indices,
                            {{src_k_layers, "src_k_layers"}, {src_v_layers, "src_v_layers"}});
  params.dst = page_head(params, src_indices, {{dst_k, "dst_k"}, {dst_v, "dst_v"}},
                         Access::kWritten, layout);
  check_layers_fit(params, layout.tokens);
  return params;
}

}  // namespace kvops
