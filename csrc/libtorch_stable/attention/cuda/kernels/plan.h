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

// Tokens that never lie in two pages: page sizes are multiples of it.
inline constexpr int kOctet = 8;
// A warp attends to 16 tokens of a tile.
inline constexpr int kWarpTokens = 16;
// Warps of a block are in groups that take turns with tiles. First come those of all groups that
// compute, then those that load: for each group one for keys and one for values.
inline constexpr int kMaxGroups = 2;
inline constexpr int kMaxTileWarps = 8;
inline constexpr int kLoaderWarps = 2;
inline constexpr int kMaxStages = 12;
// Before sm_80: stages have named barriers, of which there are few.
inline constexpr int kMaxNamedStages = 6;
// Rows (query heads) of a unit whose results are added up across warps at a time.
inline constexpr int kMergeRows = 8;
// Of shared memory: a StageInfo (page_loader.cuh), Combines (combine_units.cuh).
inline constexpr int kStageInfoBytes = 16;
inline constexpr int kCombinesBytes = 256;
// Of a word that counts the blocks of a unit that have arrived; the others are the call's number.
inline constexpr int kArrivalBits = 16;

// The code that computes with what is in shared memory; all share everything else.
enum class AttentionEngine : uint8_t {
  kFma1,  // fused multiply-adds in fp32, for that many query heads at once
  kFma4,
  kFma8,
  kMma8,  // tensor cores, likewise
  kMma16,
};

// How a page comes into shared memory.
enum class PageCopy : uint8_t {
  kWhole,     // a page of one KV head at once: sm_90 and newer, pages of up to 128 tokens
  kPieces,    // 8 or 16 bytes at a time
  kElements,  // one by one: nothing is aligned
};

// What blocks leave for each other, in one allocation. A unit is some query heads of one KV head,
// for one sequence; a block shares at most two units with others.
struct AttentionWorkspace {
  uint64_t* arrivals;  // [grid], any content when the kernel starts; see arrive()
  float2* states;      // [grid][2][unit_heads]: largest logit (times log2 e) and sum
  float* values;       // [grid][2][unit_heads][head_size]
};

// A stage in shared memory: a tile's keys, then its values, in chunks of consecutive tokens.
// Distances in bytes.
struct StageLayout {
  int32_t chunk_shift;  // a chunk has 2^chunk_shift tokens: 8 to 128
  int32_t key_chunk;    // from chunk to chunk
  int32_t key_pitch;    // from a token's x elements to its next ones; tokens lie together
  int32_t key_step;     // from 16 dimensions to the next ones
  int32_t values;       // from the keys
  int32_t value_chunk;  // from chunk to chunk
  int32_t value_piece;  // from 16 bytes of tokens of one dimension to the next ones
  int32_t value_pitch;  // from dimension to dimension
  int32_t value_step;   // from 16 dimensions to the next ones
  int32_t bytes;
};

// Bytes from the start of a block's shared memory.
struct SharedLayout {
  StageLayout stage;
  int32_t stages;          // room for as many as fit, of which plan.stages are used
  int32_t combine_values;  // where stages have been: StagedPieces (combine_units.cuh)
  int32_t combine_states;  // likewise
  int32_t combine_batch;   // pieces of a unit that there is room for in them at once
  int32_t merge_values;    // WarpRows (unit_result.cuh)
  int32_t merge_states;    // likewise
  int32_t merge_rows;      // of a unit that there is room for in them at once
  int32_t engine;          // of the engine's own
  int32_t engine_warp;     // likewise, [warps][engine_warp_bytes]
  int32_t engine_warp_bytes;
  int32_t barriers;     // uint64_t [2][stages], and one
  int32_t stage_infos;  // StageInfo [stages]
  int32_t combines;     // Combines
  int32_t bytes;
};

struct AttentionPlan {
  Divisor page_tokens;
  Divisor quarters;  // of four dimensions, of a head
  AttentionWorkspace workspace = {};
  uint64_t call = 0;  // that no other call has, in the upper bits; see arrive()
  SkipReport skipped_lengths = {};
  SkipReport skipped_blocks = {};
  SharedLayout shared = {};
  int32_t shared_limit = 0;  // of the device, for a block
  int32_t units = 0;         // of a sequence
  int32_t units_per_kv_head = 0;
  int32_t unit_heads = 0;  // the last unit of a KV head may have fewer
  int32_t group = 0;       // query heads of a KV head
  int32_t tile_warps = 0;  // that compute with one tile; a power of 2
  int32_t groups = 0;      // of those
  int32_t warps = 0;       // that compute: of all groups
  int32_t stages = 0;
  int32_t grid = 0;
  int32_t few_blocks = 0;  // of the grid, for few tiles
  // Tiles: where a block has no more of them, pages make room in the L2 cache for each other first.
  int64_t brief_share = 0;
  NarrowDivisor by_grid{1};
  NarrowDivisor by_few_blocks{1};
  bool may_align = false;         // shares may end where units do; tiles are below 2^31
  int32_t key_piece_bytes = 0;    // copied at once: 16, or 8 for fp8 with x = 8
  int32_t value_piece_bytes = 0;  // likewise, or 8 for fp8 where 16 tokens do not divide a page
  PageCopy copy = PageCopy::kElements;
  AttentionEngine engine = AttentionEngine::kFma1;
};

struct DeviceLimits {
  int32_t architecture;  // of the code that the device runs; 90 is sm_90
  int32_t multiprocessors;
  int32_t shared_bytes_block;  // opted in
  int32_t shared_bytes_multiprocessor;
  int32_t l2_bytes;
};

// Everything but the workspace. There must be a sequence, a query head and a KV head.
AttentionPlan plan_paged_attention(const PagedAttentionParams& p, const DeviceLimits& limits);

int64_t workspace_bytes(const PagedAttentionParams& p, const AttentionPlan& plan);

// Puts the workspace into memory of that size.
void place_workspace(const PagedAttentionParams& p, void* memory, AttentionPlan& plan);

}  // namespace kvops::kernels
