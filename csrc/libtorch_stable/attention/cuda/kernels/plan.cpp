// Chooses engine, stages and grid of paged attention from shapes. See plan.h. Called by
// launch_paged_attention's caller before it allocates the workspace.
#include "attention/cuda/kernels/plan.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace kvops::kernels {
namespace {

constexpr int64_t kBoundary = 128;  // of every part of shared memory and workspace
// Shared memory that CUDA takes for itself, per block.
constexpr int32_t kReservedBytes = 1024;

template <class Int>
Int round_up(Int value, Int step) {
  return (value + step - 1) / step * step;
}

int64_t cache_elem_bytes(const PagedAttentionParams& p) {
  if (p.cache_kind != CacheKind::kAuto) return 1;
  return p.query_dtype == DType::kFloat ? 4 : 2;
}

bool divides(int64_t step, const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer) % static_cast<uint64_t>(step) == 0;
}

void choose_pieces(const PagedAttentionParams& p, AttentionPlan& plan) {
  const int64_t elem = cache_elem_bytes(p);
  plan.key_piece_bytes = static_cast<int32_t>(p.x * elem);
  plan.value_piece_bytes = elem == 1 && p.block_size % kWarpTokens != 0 ? 8 : 16;
  // Sizes within a page are multiples of 8 elements anyway.
  plan.is_aligned = divides(plan.key_piece_bytes, p.key_cache) &&
                    p.key_block_stride * elem % plan.key_piece_bytes == 0 &&
                    p.key_head_stride * elem % plan.key_piece_bytes == 0 &&
                    divides(plan.value_piece_bytes, p.value_cache) &&
                    p.value_block_stride * elem % plan.value_piece_bytes == 0 &&
                    p.value_head_stride * elem % plan.value_piece_bytes == 0;
  plan.has_query_pairs =
      divides(4, p.query) && p.query_seq_stride % 2 == 0 && p.query_head_stride % 2 == 0;
}

void choose_units(const PagedAttentionParams& p, const DeviceLimits& limits, AttentionPlan& plan) {
  plan.group = static_cast<int32_t>(p.num_heads / p.num_kv_heads);
  // Under block sparsity every head has pages of its own.
  const int32_t heads = p.sparse.active ? 1 : plan.group;
  // fp32 stays fp32, and there is no bfloat16 on tensor cores before sm_80.
  const bool can_use_mma =
      p.query_dtype != DType::kFloat && plan.is_aligned && limits.architecture >= 80;
  plan.engine = can_use_mma  ? AttentionEngine::kMma
                : heads == 1 ? AttentionEngine::kFma1
                : heads <= 4 ? AttentionEngine::kFma4
                             : AttentionEngine::kFma8;
  const int32_t most = heads == 1 ? 1 : can_use_mma ? 16 : heads <= 4 ? 4 : 8;
  plan.units_per_kv_head = round_up(plan.group, most) / most;
  plan.unit_heads = round_up(plan.group, plan.units_per_kv_head) / plan.units_per_kv_head;
  plan.units = static_cast<int32_t>(plan.units_per_kv_head * p.num_kv_heads);
}

SharedLayout layout(const PagedAttentionParams& p, const AttentionPlan& plan, int32_t warps,
                    int32_t stages) {
  const auto head_size = static_cast<int32_t>(p.head_size);
  const auto elem = static_cast<int32_t>(cache_elem_bytes(p));
  SharedLayout shared = {};
  int32_t end = 0;
  const auto take = [&end](int32_t bytes) {
    const int32_t begin = end;
    end += round_up(bytes, static_cast<int32_t>(kBoundary));
    return begin;
  };
  // Pieces of the same dimension lie in different banks: 128 bytes are spread over all of them.
  shared.value_pitch = elem == 1   ? plan.value_piece_bytes
                       : elem == 2 ? head_size * 16 + 64
                                   : head_size * 16 + 32;
  shared.key_bytes = kWarpTokens * head_size * elem;
  const int32_t value_bytes =
      elem == 1 ? kWarpTokens * head_size : kWarpTokens * elem / 16 * shared.value_pitch;
  shared.stage_bytes = round_up(shared.key_bytes + value_bytes, static_cast<int32_t>(kBoundary));
  shared.stages = take(warps * stages * shared.stage_bytes);
  shared.merge = take(warps * std::min(plan.unit_heads, kMergeRows) * (head_size + kMergePad) * 4);
  shared.merge_states = take(warps * plan.unit_heads * 8);
  if (plan.engine == AttentionEngine::kMma) {
    shared.engine = take(p.head_size > 128 ? round_up(head_size, 16) * 32 : 0);  // queries
  } else {
    shared.engine = take(plan.unit_heads * (head_size + 1) * 4);   // queries and slopes
    shared.engine_warp_bytes = plan.unit_heads * kWarpTokens * 4;  // weights
  }
  shared.engine_warp = take(warps * shared.engine_warp_bytes);
  shared.stage_infos = take(warps * stages * kStageInfoBytes);
  shared.scratch = take(kScratchBytes);
  shared.bytes = end;
  return shared;
}

// What is under way in a multiprocessor hides the latency of memory: two blocks of as many stages
// as fit, or fewer and smaller blocks.
void choose_stages(const PagedAttentionParams& p, const DeviceLimits& limits, AttentionPlan& plan,
                   int32_t& blocks) {
  struct Choice {
    int32_t blocks;  // of a multiprocessor
    int32_t warps;
    int32_t fewest_stages;
  };
  constexpr Choice kChoices[] = {{2, 4, 2}, {1, 4, 2}, {1, 2, 2}, {1, 1, 2},
                                 {1, 4, 1}, {1, 2, 1}, {1, 1, 1}};
  for (const Choice& choice : kChoices) {
    for (int32_t stages = choice.fewest_stages == 1 ? 1 : kMaxStages;
         stages >= choice.fewest_stages; --stages) {
      const SharedLayout shared = layout(p, plan, choice.warps, stages);
      const bool fits_block = shared.bytes <= limits.shared_bytes_block;
      const bool fits_multiprocessor =
          choice.blocks * (shared.bytes + kReservedBytes) <= limits.shared_bytes_multiprocessor;
      const bool is_last = &choice == std::end(kChoices) - 1;
      if ((fits_block && fits_multiprocessor) || is_last) {
        plan.warps = choice.warps;
        plan.stages = stages;
        plan.shared = shared;
        blocks = choice.blocks;
        return;
      }
    }
  }
}

}  // namespace

AttentionPlan plan_paged_attention(const PagedAttentionParams& p, const DeviceLimits& limits) {
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max();
  AttentionPlan plan = {.page_tokens = Divisor(p.block_size, std::min(p.max_tokens, kLongest) + 1)};
  choose_pieces(p, plan);
  choose_units(p, limits, plan);
  int32_t blocks = 1;
  choose_stages(p, limits, plan, blocks);
  const int64_t most = static_cast<int64_t>(limits.multiprocessors) * blocks;
  // No more blocks than there can be tiles; at least one, for sequences without tokens.
  const int64_t tile_tokens = plan.warps * kWarpTokens;
  const int64_t tiles = (std::min(p.max_tokens, kLongest) + tile_tokens - 1) / tile_tokens;
  const int64_t per_sequence = std::min(most, std::max<int64_t>(tiles, 1) * plan.units);
  plan.grid = static_cast<int32_t>(std::min(most, per_sequence * std::min(p.num_seqs, most)));
  return plan;
}

int64_t workspace_bytes(const PagedAttentionParams& p, const AttentionPlan& plan) {
  const int64_t rows = static_cast<int64_t>(plan.grid) * 2 * plan.unit_heads;
  return round_up<int64_t>(plan.grid * 4, kBoundary) + round_up<int64_t>(rows * 8, kBoundary) +
         rows * p.head_size * 4;
}

void place_workspace(const PagedAttentionParams&, void* memory, AttentionPlan& plan) {
  const int64_t rows = static_cast<int64_t>(plan.grid) * 2 * plan.unit_heads;
  char* at = static_cast<char*>(memory);
  plan.workspace.arrivals = reinterpret_cast<int32_t*>(at);
  at += round_up<int64_t>(plan.grid * 4, kBoundary);
  plan.workspace.states = reinterpret_cast<float2*>(at);
  at += round_up<int64_t>(rows * 8, kBoundary);
  plan.workspace.values = reinterpret_cast<float*>(at);
}

}  // namespace kvops::kernels
