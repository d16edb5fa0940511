// Contracts of the kernel forms for one layer (spec 13, stricter than SGLang: sizes are checked).
// Called through Transfer<> (transfer/ops.h) by the CPU and the CUDA operator alike.
#include "transfer/validate.h"
#include "transfer/validate/sides.h"

namespace kvops {
namespace {

TransferParams one_layer(TransferParams params, const Tensor& src_indices, Pools src, Pools dst) {
  params.num_parts = static_cast<int64_t>(src.size());
  params.src = layer_first(params, src_indices, src, Access::kRead);
  params.dst = layer_first(params, src_indices, dst, Access::kWritten);
  return params;
}

TransferParams one_layer_of_pages(TransferParams params, const Tensor& src_indices, Pools src,
                                  Pools dst, int64_t layer_id, const PageFirst& layout) {
  params.num_parts = static_cast<int64_t>(src.size());
  params.src = page_first(params, src_indices, src, Access::kRead, layout);
  select_layer(params, params.src, layer_id, layout);
  params.dst = layer_first(params, src_indices, dst, Access::kWritten);
  return params;
}

}  // namespace

TransferParams validate_transfer_kv_per_layer(const Tensor& src_k, const Tensor& dst_k,
                                              const Tensor& src_v, const Tensor& dst_v,
                                              const Tensor& src_indices, const Tensor& dst_indices,
                                              int64_t item_size, int64_t block_quota,
                                              int64_t num_warps_per_block) {
  return one_layer(validate_items("transfer_kv_per_layer", src_indices, dst_indices, item_size,
                                  {block_quota, num_warps_per_block}),
                   src_indices, {{src_k, "src_k"}, {src_v, "src_v"}},
                   {{dst_k, "dst_k"}, {dst_v, "dst_v"}});
}

TransferParams validate_transfer_kv_per_layer_mla(const Tensor& src, const Tensor& dst,
                                                  const Tensor& src_indices,
                                                  const Tensor& dst_indices, int64_t item_size,
                                                  int64_t block_quota,
                                                  int64_t num_warps_per_block) {
  return one_layer(validate_items("transfer_kv_per_layer_mla", src_indices, dst_indices, item_size,
                                  {block_quota, num_warps_per_block}),
                   src_indices, {{src, "src"}}, {{dst, "dst"}});
}

TransferParams validate_transfer_kv_per_layer_pf_lf(
    const Tensor& src_k, const Tensor& dst_k, const Tensor& src_v, const Tensor& dst_v,
    const Tensor& src_indices, const Tensor& dst_indices, int64_t layer_id, int64_t item_size,
    int64_t src_layout_dim, int64_t block_quota, int64_t num_warps_per_block) {
  return one_layer_of_pages(validate_items("transfer_kv_per_layer_pf_lf", src_indices, dst_indices,
                                           item_size, {block_quota, num_warps_per_block}),
                            src_indices, {{src_k, "src_k"}, {src_v, "src_v"}},
                            {{dst_k, "dst_k"}, {dst_v, "dst_v"}}, layer_id,
                            {"src_layout_dim", src_layout_dim});
}

TransferParams validate_transfer_kv_per_layer_mla_pf_lf(const Tensor& src, const Tensor& dst,
                                                        const Tensor& src_indices,
                                                        const Tensor& dst_indices, int64_t layer_id,
                                                        int64_t item_size, int64_t src_layout_dim,
                                                        int64_t block_quota,
                                                        int64_t num_warps_per_block) {
  return one_layer_of_pages(
      validate_items("transfer_kv_per_layer_mla_pf_lf", src_indices, dst_indices, item_size,
                     {block_quota, num_warps_per_block}),
      src_indices, {{src, "src"}}, {{dst, "dst"}}, layer_id, {"src_layout_dim", src_layout_dim});
}

TransferParams validate_transfer_kv_per_layer_ph_lf(
    const Tensor& src_k, const Tensor& dst_k, const Tensor& src_v, const Tensor& dst_v,
    const Tensor& src_indices, const Tensor& dst_indices, int64_t layer_id, int64_t item_size,
    int64_t src_layout_dim, int64_t page_size, int64_t head_num, int64_t block_quota,
    int64_t num_warps_per_block) {
  TransferParams params = validate_items("transfer_kv_per_layer_ph_lf", src_indices, dst_indices,
                                         item_size, {block_quota, num_warps_per_block});
  const PageHead layout{{"src_layout_dim", src_layout_dim}, page_size, head_num};
  set_heads(params, layout);
  params.num_parts = 2;
  params.src =
      page_head(params, src_indices, {{src_k, "src_k"}, {src_v, "src_v"}}, Access::kRead, layout);
  select_layer(params, params.src, layer_id, layout.tokens);
  params.dst =
      layer_first(params, src_indices, {{dst_k, "dst_k"}, {dst_v, "dst_v"}}, Access::kWritten);
  return params;
}

}  // namespace kvops
