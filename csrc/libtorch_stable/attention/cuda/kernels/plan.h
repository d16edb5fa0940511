// How a call of paged attention is laid out on the GPU: made on the host from shapes alone, passed
// to the kernel by value. No torch, no device code. Lengths are on the device, so nothing in here
// depends on them: which block does what is found out by the blocks themselves (work_split.cuh).
#pragma once

#include <vector_types.h>

#include <cstdint>

#include "attention/params.h"
#include "common/cuda/divisor.cuh"
#include "common/skipped.h"

namespace kvops::kernels {

// A warp attends to 16 tokens at a time: two groups of 8. Page sizes are multiples of 8, so a group
// never crosses a page.
inline constexpr int kGroupTokens = 8;
inline constexpr int kWarpTokens = 16;
inline constexpr int kMaxWarps = 4;
inline constexpr int kMaxStages = 6;
// Rows (query heads) of a unit whose results are added up across warps at a time.
inline constexpr int kMergeRows = 4;
// Floats between two rows, so that rows lie in different banks.
inline constexpr int kMergePad = 8;
// Of shared memory: a StageInfo (page_loader.cuh) and a BlockScratch (work_split.cuh).
inline constexpr int kStageInfoBytes = 48;
inline constexpr int kScratchBytes = 128;

// The code that computes with what is in shared memory; all share everything else.
enum class AttentionEngine : uint8_t {
  kFma1,  // fused multiply-adds in fp32, for that many query heads at once
  kFma4,
  kFma8,
  kMma,  // tensor cores, for up to 16 query heads at once
};

// What blocks leave for each other, in one allocation. A unit is some query heads of one KV head,
// for one sequence; a block shares at most two units with others.
struct AttentionWorkspace {
  int32_t* arrivals;  // [grid], 0 when the kernel starts
  float2* states;     // [grid][2][unit_heads]: largest logit (times log2 e) and sum
  float* values;      // [grid][2][unit_heads][head_size]
};

// Bytes from the start of a block's shared memory.
struct SharedLayout {
  int32_t stages;        // [warps][stages][stage_bytes]
  int32_t stage_bytes;   // keys of 16 tokens, then values
  int32_t key_bytes;     // of a stage
  int32_t value_pitch;   // from the tokens of one 16-byte piece of values to the next
  int32_t merge;         // float [warps][min(unit_heads, kMergeRows)][head_size + kMergePad]
  int32_t merge_states;  // float2 [warps][unit_heads]
  int32_t engine;        // of the engine's own
  int32_t engine_warp;   // likewise, [warps][engine_warp_bytes]
  int32_t engine_warp_bytes;
  int32_t stage_infos;  // StageInfo [warps][stages]
  int32_t scratch;      // BlockScratch
  int32_t bytes;
};

struct AttentionPlan {
  Divisor page_tokens;
  AttentionWorkspace workspace = {};
  SkipReport skipped_lengths = {};
  SkipReport skipped_blocks = {};
  SharedLayout shared = {};
  int32_t units = 0;  // of a sequence
  int32_t units_per_kv_head = 0;
  int32_t unit_heads = 0;  // the last unit of a KV head may have fewer
  int32_t group = 0;       // query heads of a KV head
  int32_t warps = 0;
  int32_t stages = 0;
  int32_t grid = 0;
  int32_t key_piece_bytes = 0;    // copied at once: 16, or 8 for fp8 with x = 8
  int32_t value_piece_bytes = 0;  // likewise, or 8 for fp8 where 16 tokens do not divide a page
  bool has_query_pairs = false;   // pairs of query elements are aligned
  bool is_aligned = false;        // every piece is; else elements are copied one by one
  AttentionEngine engine = AttentionEngine::kFma1;
};

struct DeviceLimits {
  int32_t architecture;  // of the code that the device runs; 90 is sm_90
  int32_t multiprocessors;
  int32_t shared_bytes_block;  // opted in
  int32_t shared_bytes_multiprocessor;
};

// Everything but the workspace. There must be a sequence, a query head and a KV head.
AttentionPlan plan_paged_attention(const PagedAttentionParams& p, const DeviceLimits& limits);

int64_t workspace_bytes(const PagedAttentionParams& p, const AttentionPlan& plan);

// Puts the workspace into memory of that size.
void place_workspace(const PagedAttentionParams& p, void* memory, AttentionPlan& plan);

}  // namespace kvops::kernels
