// Chooses engine, stages and grid of paged attention from shapes. See plan.h. Called by
// launch_paged_attention's caller before it allocates the workspace.
#include "attention/cuda/kernels/plan.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <iterator>
#include <limits>
#include <random>

namespace kvops::kernels {
namespace {

constexpr int64_t kBoundary = 128;  // of every part of shared memory and workspace
// Shared memory that CUDA takes for itself, per block.
constexpr int32_t kReservedBytes = 1024;
constexpr int32_t kFloatBytes = 4;
// Of a page that is copied whole, at most: a tile.
constexpr int64_t kLongestWholePage = kMaxTileWarps * kWarpTokens;
// Tiles are not longer than this but for a page that is.
constexpr int32_t kUsualTileWarps = 4;
// So much under way in a multiprocessor saturates memory. More of it, and multiprocessors get less
// even shares of the memory's rate: the last one is done later.
constexpr int32_t kEnoughBytes = 96 * 1024;
// A call that reads up to so many times what the L2 cache holds is mostly done before the cache has
// written back what others left in it, if pages do not drive that out. Longer calls have to wait
// for it anyway, and pages that drive out each other are up to 3 % slower.
constexpr int64_t kBriefReads = 4;
// A call has few units if there are so many multiprocessors for each, divided by the heads of a
// unit: the more heads and the more blocks a unit has, the longer it takes to add up.
constexpr int64_t kMultiprocessorsOfUnit = 10;

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

// Whether both caches can be read in pieces of that many bytes.
bool is_aligned(const PagedAttentionParams& p, int64_t key_bytes, int64_t value_bytes) {
  const int64_t elem = cache_elem_bytes(p);
  return divides(key_bytes, p.key_cache) && p.key_block_stride * elem % key_bytes == 0 &&
         p.key_head_stride * elem % key_bytes == 0 && divides(value_bytes, p.value_cache) &&
         p.value_block_stride * elem % value_bytes == 0 &&
         p.value_head_stride * elem % value_bytes == 0;
}

void choose_copy(const PagedAttentionParams& p, const DeviceLimits& limits, AttentionPlan& plan) {
  const int64_t elem = cache_elem_bytes(p);
  const bool is_whole = kLongestWholePage % p.block_size == 0;
  plan.key_piece_bytes = static_cast<int32_t>(p.x * elem);
  plan.value_piece_bytes = elem == 1 && p.block_size % kWarpTokens != 0 ? 8 : 16;
  // Sizes within a page are multiples of 8 elements anyway, and of 16 bytes in whole.
  if (!is_aligned(p, plan.key_piece_bytes, plan.value_piece_bytes)) {
    plan.copy = PageCopy::kElements;
  } else if (limits.architecture >= 90 && is_whole && p.block_size * p.head_size * elem % 16 == 0 &&
             is_aligned(p, 16, 16)) {
    plan.copy = PageCopy::kWhole;
  } else {
    plan.copy = PageCopy::kPieces;
  }
}

void choose_units(const PagedAttentionParams& p, const DeviceLimits& limits, AttentionPlan& plan) {
  plan.group = static_cast<int32_t>(p.num_heads / p.num_kv_heads);
  // Under block sparsity every head has pages of its own.
  const int32_t heads = p.sparse.active ? 1 : plan.group;
  // fp32 stays fp32, and there is no bfloat16 on tensor cores before sm_80.
  const bool has_query_pairs =
      divides(4, p.query) && p.query_seq_stride % 2 == 0 && p.query_head_stride % 2 == 0;
  const bool can_use_mma = p.query_dtype != DType::kFloat && has_query_pairs &&
                           plan.copy != PageCopy::kElements && limits.architecture >= 80;
  if (can_use_mma) {
    plan.engine = heads <= 8 ? AttentionEngine::kMma8 : AttentionEngine::kMma16;
  } else {
    plan.engine = heads == 1   ? AttentionEngine::kFma1
                  : heads <= 4 ? AttentionEngine::kFma4
                               : AttentionEngine::kFma8;
  }
  const int32_t most = heads == 1 ? 1 : can_use_mma ? 16 : heads <= 4 ? 4 : 8;
  plan.units_per_kv_head = round_up(plan.group, most) / most;
  plan.unit_heads = round_up(plan.group, plan.units_per_kv_head) / plan.units_per_kv_head;
  plan.units = static_cast<int32_t>(plan.units_per_kv_head * p.num_kv_heads);
}

StageLayout stage_layout(const PagedAttentionParams& p, const AttentionPlan& plan,
                         int32_t tile_warps) {
  const auto head_size = static_cast<int32_t>(p.head_size);
  const auto elem = static_cast<int32_t>(cache_elem_bytes(p));
  const int32_t tokens = tile_warps * kWarpTokens;
  StageLayout stage = {};
  if (plan.copy == PageCopy::kWhole) {
    // As it is in the page.
    const auto chunk = static_cast<int32_t>(p.block_size);
    stage = {.chunk_shift = std::countr_zero(static_cast<uint32_t>(chunk)),
             .key_chunk = chunk * head_size * elem,
             .key_pitch = chunk * static_cast<int32_t>(p.x) * elem,
             .key_step = 0,
             .values = 0,
             .value_chunk = chunk * head_size * elem,
             .value_piece = 16,
             .value_pitch = chunk * elem,
             .value_step = 0,
             .bytes = 0};
  } else {
    // 16 bytes of each dimension together; pieces of the same dimension in different banks.
    const int32_t piece = head_size * 16 + 16;
    stage = {.chunk_shift = 4,
             .key_chunk = kWarpTokens * head_size * elem,
             .key_pitch = kWarpTokens * static_cast<int32_t>(p.x) * elem,
             .key_step = 0,
             .values = 0,
             .value_chunk = elem * piece,
             .value_piece = piece,
             .value_pitch = 16,
             .value_step = 0,
             .bytes = 0};
  }
  stage.key_step = 16 / static_cast<int32_t>(p.x) * stage.key_pitch;
  stage.value_step = 16 * stage.value_pitch;
  const int32_t chunks = std::max(tokens >> stage.chunk_shift, 1);
  stage.values = round_up(chunks * stage.key_chunk, static_cast<int32_t>(kBoundary));
  stage.bytes =
      round_up(stage.values + chunks * stage.value_chunk, static_cast<int32_t>(kBoundary));
  return stage;
}

SharedLayout layout(const PagedAttentionParams& p, const AttentionPlan& plan, int32_t groups,
                    int32_t tile_warps, int32_t stages) {
  const auto head_size = static_cast<int32_t>(p.head_size);
  const int32_t warps = groups * tile_warps;
  SharedLayout shared = {};
  int32_t end = 0;
  const auto take = [&end](int32_t bytes) {
    const int32_t begin = end;
    end += round_up(bytes, static_cast<int32_t>(kBoundary));
    return begin;
  };
  shared.stage = stage_layout(p, plan, tile_warps);
  const int32_t piece_values = plan.unit_heads * head_size * kFloatBytes;
  const int32_t piece_bytes = piece_values + plan.unit_heads * 2 * kFloatBytes;
  const int32_t ring_bytes = std::max(stages * shared.stage.bytes, piece_bytes);
  shared.stages = take(ring_bytes);
  shared.combine_batch = ring_bytes / piece_bytes;
  shared.combine_values = shared.stages;
  shared.combine_states = shared.combine_values + shared.combine_batch * piece_values;
  shared.merge_rows = std::min(plan.unit_heads, kMergeRows);
  shared.merge_values = take(warps * shared.merge_rows * head_size * kFloatBytes);
  shared.merge_states = take(warps * plan.unit_heads * 2 * kFloatBytes);
  if (plan.engine == AttentionEngine::kMma16) {
    shared.engine = take(p.head_size > 128 ? 16 * 2 * 32 * 8 : 0);  // queries
  } else if (plan.engine != AttentionEngine::kMma8) {
    const int32_t heads = plan.engine == AttentionEngine::kFma1   ? 1
                          : plan.engine == AttentionEngine::kFma4 ? 4
                                                                  : 8;
    shared.engine = take(heads * (head_size + 1) * 4);   // queries and slopes
    shared.engine_warp_bytes = heads * kWarpTokens * 4;  // weights
  }
  shared.engine_warp = take(warps * shared.engine_warp_bytes);
  shared.barriers = take((2 * stages + 1) * 8);
  shared.stage_infos = take(stages * kStageInfoBytes);
  shared.combines = take(kCombinesBytes);
  shared.bytes = end;
  return shared;
}

// Of those that there is room for: enough under way, and two for each group.
int32_t enough_stages(int32_t room, int32_t stage_bytes, int32_t blocks, int32_t groups) {
  const int32_t at_once = stage_bytes * blocks * groups;
  const int32_t rounds = std::max((kEnoughBytes + at_once - 1) / at_once, 2);
  return std::min(room, rounds * groups);
}

// What is under way in a multiprocessor hides the latency of memory: enough stages, and two groups
// of warps, so that one waits while the other computes. They are blocks of their own, so
// that one attends while the other adds up at the end of a unit; or where there are few units, one
// block: fewer blocks share a unit, and less is added up. Or fewer and smaller ones. False if there
// is no room for two stages of whole pages.
bool choose_stages(const PagedAttentionParams& p, const DeviceLimits& limits, AttentionPlan& plan,
                   int32_t& blocks) {
  struct Choice {
    int32_t blocks;  // of a multiprocessor
    int32_t groups;  // of a block
    int32_t tile_warps;
    int32_t fewest_stages;
  };
  constexpr Choice kChoices[] = {{1, 1, 8, 2}, {2, 1, 4, 3}, {1, 2, 4, 4}, {1, 2, 2, 4},
                                 {1, 1, 4, 2}, {1, 1, 2, 2}, {1, 1, 1, 2}, {1, 1, 4, 1},
                                 {1, 1, 2, 1}, {1, 1, 1, 1}};
  const int32_t most = limits.architecture >= 80 ? kMaxStages : kMaxNamedStages;
  // These need so many registers that a second group has no room.
  const bool is_alone = plan.engine == AttentionEngine::kMma16 && p.head_size > 128;
  const bool has_few_units = p.num_seqs * plan.units * kMultiprocessorsOfUnit <=
                             int64_t{limits.multiprocessors} * plan.unit_heads;
  for (const Choice& choice : kChoices) {
    if (is_alone && choice.blocks * choice.groups * choice.tile_warps > kUsualTileWarps) continue;
    if (has_few_units && choice.blocks > 1) continue;
    // A page that is copied whole lies in one tile.
    const bool is_whole = plan.copy == PageCopy::kWhole;
    if (is_whole && (choice.fewest_stages < 2 || choice.tile_warps * kWarpTokens < p.block_size)) {
      continue;
    }
    if (choice.tile_warps > kUsualTileWarps &&
        !(is_whole && p.block_size > kUsualTileWarps * kWarpTokens)) {
      continue;
    }
    // Every stage is of one group only, which so sees each of its rounds.
    for (int32_t stages = choice.fewest_stages == 1 ? 1 : most; stages >= choice.fewest_stages;
         stages -= choice.groups) {
      const SharedLayout shared = layout(p, plan, choice.groups, choice.tile_warps, stages);
      const bool fits_block = shared.bytes <= limits.shared_bytes_block;
      const bool fits_multiprocessor =
          choice.blocks * (shared.bytes + kReservedBytes) <= limits.shared_bytes_multiprocessor;
      const bool is_last = &choice == std::end(kChoices) - 1;
      if ((fits_block && fits_multiprocessor) || is_last) {
        plan.groups = choice.groups;
        plan.tile_warps = choice.tile_warps;
        plan.warps = choice.groups * choice.tile_warps;
        plan.stages = enough_stages(stages, shared.stage.bytes, choice.blocks, choice.groups);
        plan.shared = shared;
        blocks = choice.blocks;
        return true;
      }
    }
  }
  return false;
}

// Another one for each call of a process, and most likely another one than any bytes that memory
// happens to hold: the upper 48 bits of what arrive() counts with.
uint64_t next_call() {
  static std::atomic<uint64_t> calls{std::random_device{}() * uint64_t{0x9e3779b97f4a7c15}};
  return calls.fetch_add(1, std::memory_order_relaxed) << kArrivalBits;
}

}  // namespace

AttentionPlan plan_paged_attention(const PagedAttentionParams& p, const DeviceLimits& limits) {
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max();
  AttentionPlan plan = {.page_tokens = Divisor(p.block_size, std::min(p.max_tokens, kLongest) + 1),
                        .quarters = Divisor(p.head_size / 4, kLongest)};
  plan.call = next_call();
  plan.shared_limit = limits.shared_bytes_block;
  choose_copy(p, limits, plan);
  choose_units(p, limits, plan);
  int32_t blocks = 1;
  if (!choose_stages(p, limits, plan, blocks)) {
    plan.copy = PageCopy::kPieces;
    choose_stages(p, limits, plan, blocks);
  }
  const int64_t most = static_cast<int64_t>(limits.multiprocessors) * blocks;
  // No more blocks than there can be tiles; at least one, for sequences without tokens.
  const int64_t tile_tokens = plan.tile_warps * kWarpTokens;
  const int64_t tiles = (std::min(p.max_tokens, kLongest) + tile_tokens - 1) / tile_tokens;
  const int64_t per_sequence = std::min(most, std::max<int64_t>(tiles, 1) * plan.units);
  plan.grid = static_cast<int32_t>(std::min(most, per_sequence * std::min(p.num_seqs, most)));
  const int64_t units = p.num_seqs * plan.units;
  // More units than that have blocks of their own sooner than they share fewer.
  plan.few_blocks =
      units <= limits.multiprocessors ? std::min(plan.grid, limits.multiprocessors) : plan.grid;
  plan.brief_share = kBriefReads * limits.l2_bytes / plan.grid / plan.shared.stage.bytes;
  plan.by_grid = NarrowDivisor(plan.grid);
  plan.by_few_blocks = NarrowDivisor(plan.few_blocks);
  plan.may_align = units <= plan.grid && units * tiles < NarrowDivisor::kEnd - plan.grid;
  return plan;
}

int64_t workspace_bytes(const PagedAttentionParams& p, const AttentionPlan& plan) {
  const int64_t rows = static_cast<int64_t>(plan.grid) * 2 * plan.unit_heads;
  return round_up<int64_t>(plan.grid * 8, kBoundary) + round_up<int64_t>(rows * 8, kBoundary) +
         rows * p.head_size * 4;
}

void place_workspace(const PagedAttentionParams&, void* memory, AttentionPlan& plan) {
  const int64_t rows = static_cast<int64_t>(plan.grid) * 2 * plan.unit_heads;
  char* at = static_cast<char*>(memory);
  plan.workspace.arrivals = reinterpret_cast<uint64_t*>(at);
  at += round_up<int64_t>(plan.grid * 8, kBoundary);
  plan.workspace.states = reinterpret_cast<float2*>(at);
  at += round_up<int64_t>(rows * 8, kBoundary);
  plan.workspace.values = reinterpret_cast<float*>(at);
}

}  // namespace kvops::kernels
