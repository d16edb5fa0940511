// A few tokens, as in decode: a thread moves the units of one token, so that there is one slot to
// wait for and little code, all of which has to be fetched.
// Used by reshape_and_cache, and by reshape_and_cache_flash for keys unlike their values.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cache/cuda/kernels/column_side.cuh"
#include "cache/cuda/kernels/movers.cuh"
#include "cache/params.h"
#include "common/cuda/divisor.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/slots.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

inline constexpr uint32_t kFewThreads = 128;

// Thread blocks of the same tokens are numbered along y: those of the first side, then those of the
// second one, the last of which reports skipped slots.
struct FewTokensWriter {
  ColumnSide first;
  ColumnSide second;
  Slots<NarrowIndices> slots;
  uint32_t first_parts;
};

#if defined(__CUDACC__)
// Moves columns `first`, first + kFewThreads, ..., kUnits of them: if there are several, columns
// are equally far apart, and thread blocks have that many threads or fewer columns.
template <uint32_t kUnits, class Mover>
__device__ __forceinline__ void move_columns(const ColumnSide& side, const FewTokensWriter& w,
                                             uint32_t token, uint32_t first) {
  using In = typename Mover::In;
  using Out = typename Mover::Out;
  if (first >= side.columns) return;
  const int64_t slot = w.slots.of_tokens[token];
  Divided<uint32_t> at{0, first};  // head and unit
  if constexpr (kUnits == 1) at = side.units_per_head.divide(first);
  const auto [head, unit] = at;
  const char* from =
      side.src + side.in_token<In>(head, unit) + uint64_t{token} * side.src_token_stride;
  const auto has = [&](uint32_t i) { return i == 0 || first + i * kFewThreads < side.columns; };
  In values[kUnits];
#pragma unroll
  for (uint32_t i = 0; i < kUnits; ++i) {
    if (has(i)) values[i] = *reinterpret_cast<const In*>(from + i * kFewThreads * sizeof(In));
  }
  const Mover mover(Mover::kScales ? side.scale[head * side.scale_stride] : 1.0f);
  // Or compilers would not read the values before they know that the slot is written.
  __syncwarp();
  if (!w.slots.is_written(slot)) {
    if (threadIdx.x == 0 && blockIdx.y == gridDim.y - 1) w.slots.report(token, slot);
    return;
  }
  char* to = side.cache + side.in_slot(head, unit) + side.slot_places.place(w.slots, slot);
  const uint64_t step = uint64_t{kFewThreads} * side.unit_stride;
#pragma unroll
  for (uint32_t i = 0; i < kUnits; ++i) {
    if (has(i)) store_words(reinterpret_cast<Out*>(to + i * step), mover(values[i]));
  }
}
#endif

// ---- launch

// Whether a side can be moved in units of the mover, those of the cache or parts of whole heads;
// several of them by each thread.
template <class Mover>
bool has_few_units(const CacheSide& s, const CacheWriterParams& p, bool several) {
  if (s.group_tokens != p.block_size) return false;
  if (s.unit_elems != Mover::kElems && s.unit_elems != s.head_size) return false;
  if (!can_count_columns<Mover>(s, p)) return false;
  if (!several) return true;
  return p.scale_stride == 0 &&
         (p.heads == 1 || (s.src_head_stride == s.head_size &&
                           s.head_stride * Mover::kElems == s.head_size * s.unit_stride));
}

// How a call is divided into thread blocks. A thread takes so many columns of the first side, and
// one of the second side.
struct FewTokensGrid {
  int64_t first_parts;
  int64_t second_parts;
  int64_t threads;  // of a block

  FewTokensGrid(const CacheWriterParams& p, int64_t first_columns, int64_t first_units,
                int64_t second_columns) {
    const int64_t most = std::max({first_columns, second_columns, int64_t{1}});
    threads = std::min((most + 31) / 32 * 32, int64_t{kFewThreads});
    first_parts = (first_columns + first_units * threads - 1) / (first_units * threads);
    second_parts = (second_columns + threads - 1) / threads;
  }

  // Also, numbers of tokens, and of slots, which are divided, have 32 bits.
  bool fits(const CacheWriterParams& p, int64_t max_blocks) const {
    constexpr int64_t kMaxParts = 65535;
    const int64_t parts = first_parts + second_parts;
    return NarrowIndices::can_count(p.tokens, p.num_slots) && parts <= kMaxParts &&
           p.tokens <= max_blocks / std::max(parts, int64_t{1});
  }
};

template <class FirstMover, class SecondMover>
cudaError_t launch_few_tokens(void (*kernel)(FewTokensWriter), const FewTokensGrid& grid,
                              const CacheSide& first, const CacheSide& second,
                              const CacheWriterParams& p, const SkipReport& report,
                              cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(p.tokens),
                    static_cast<unsigned>(grid.first_parts + grid.second_parts));
  if (blocks.x == 0 || blocks.y == 0) return cudaSuccess;
  const FewTokensWriter w{
      .first = column_side<FirstMover>(first, p),
      .second = column_side<SecondMover>(second, p),
      .slots = {p, report},
      .first_parts = static_cast<uint32_t>(grid.first_parts),
  };
  return launch_kernel(kernel, blocks, static_cast<unsigned>(grid.threads), stream, w);
}

}  // namespace kvops::kernels
