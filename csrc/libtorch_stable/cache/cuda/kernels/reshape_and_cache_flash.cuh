// Writes heads of tokens into pages that hold whole heads: units of up to 16 bytes, several in
// flight per thread, over the flat space (token, head, unit) of keys and of values.
// Launched by cuda::reshape_and_cache_flash; falls back to single elements where it must.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/slots.cuh"
#include "cache/params.h"
#include "common/cuda/launch.cuh"

namespace kvops::kernels {

// One of key and value, in units of a mover.
struct FlashSide {
  const char* src;
  const float* scale;
  char* cache;
  int64_t units;  // of all tokens
  Divisor units_per_token;
  Divisor units_per_head;
  int64_t src_token_stride_bytes;
  int64_t src_head_stride_bytes;
  int64_t block_stride_bytes;
  int64_t offset_stride_bytes;
  int64_t head_stride_bytes;
  bool reports;
};

struct FlashWriter {
  FlashSide sides[2];
  Slots slots;
  int64_t scale_stride;
};

inline constexpr int kFlashUnitsInFlight = 4;

template <class Mover>
__global__ void __launch_bounds__(256)
    reshape_and_cache_flash_kernel(const __grid_constant__ FlashWriter w) {
  const FlashSide& side = w.sides[blockIdx.y];
  const Slots& slots = w.slots;
  const int64_t tile = static_cast<int64_t>(blockDim.x) * kFlashUnitsInFlight;
  for (int64_t base = blockIdx.x * tile; base < side.units; base += gridDim.x * tile) {
    typename Mover::In loaded[kFlashUnitsInFlight];
    int64_t slot[kFlashUnitsInFlight];
    int64_t place_in_entry[kFlashUnitsInFlight];
    float scale[kFlashUnitsInFlight];
#pragma unroll
    for (int i = 0; i < kFlashUnitsInFlight; ++i) {
      // Behind the end, the last unit is loaded again and not stored: no branch between the loads.
      const int64_t wanted = base + i * static_cast<int64_t>(blockDim.x) + threadIdx.x;
      const int64_t unit = wanted < side.units ? wanted : side.units - 1;
      const int64_t token = side.units_per_token.quotient(unit);
      const int64_t in_token = side.units_per_token.remainder(unit, token);
      const int64_t head = side.units_per_head.quotient(in_token);
      const int64_t in_head = side.units_per_head.remainder(in_token, head);
      slot[i] = slots.of_tokens[token];
      loaded[i] = load_unit<typename Mover::In>(
          side.src + token * side.src_token_stride_bytes + head * side.src_head_stride_bytes +
          in_head * static_cast<int64_t>(sizeof(typename Mover::In)));
      if constexpr (Mover::kScales) scale[i] = side.scale[head * w.scale_stride];
      place_in_entry[i] = head * side.head_stride_bytes +
                          in_head * static_cast<int64_t>(sizeof(typename Mover::Out));
    }
#pragma unroll
    for (int i = 0; i < kFlashUnitsInFlight; ++i) {
      const int64_t unit = base + i * static_cast<int64_t>(blockDim.x) + threadIdx.x;
      if (unit >= side.units) break;
      if (slots.is_written(slot[i])) {
        const int64_t block = slots.block_size.quotient(slot[i]);
        const int64_t offset = slots.block_size.remainder(slot[i], block);
        store_unit(side.cache + block * side.block_stride_bytes +
                       offset * side.offset_stride_bytes + place_in_entry[i],
                   Mover::convert(loaded[i], Mover::kScales ? scale[i] : 1.0f));
      } else if (side.reports) {
        const int64_t token = side.units_per_token.quotient(unit);
        if (side.units_per_token.remainder(unit, token) == 0) slots.report(token, slot[i]);
      }
    }
  }
}

// ---- launch

// `elems` elements make a unit.
inline FlashSide flash_side(const CacheSide& s, const CacheWriterParams& p, int64_t elems) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  const int64_t cache_bytes = stored_bytes_of(p.dtype, p.kind);
  const int64_t units_per_head = s.head_size / elems;
  const int64_t units_per_token = units_per_head * p.heads;
  const int64_t units = units_per_token * p.tokens;
  return {
      .src = s.src,
      .scale = s.scale,
      .cache = s.cache,
      .units = units,
      .units_per_token = Divisor(units_per_token, units),
      .units_per_head = Divisor(units_per_head, units_per_token),
      .src_token_stride_bytes = s.src_token_stride * src_bytes,
      .src_head_stride_bytes = s.src_head_stride * src_bytes,
      .block_stride_bytes = s.block_stride * cache_bytes,
      .offset_stride_bytes = s.offset_stride * cache_bytes,
      .head_stride_bytes = s.head_stride * cache_bytes,
      .reports = false,
  };
}

template <class Mover>
cudaError_t launch_flash_writer(const CacheWriterParams& p, int64_t elems, const SkipReport& report,
                                cudaStream_t stream) {
  FlashWriter w{
      .sides = {flash_side(p.key, p, elems), flash_side(p.value, p, elems)},
      .slots = Slots(p, report),
      .scale_stride = p.scale_stride,
  };
  w.sides[w.sides[0].units > 0 ? 0 : 1].reports = true;
  const int64_t units = w.sides[0].units > w.sides[1].units ? w.sides[0].units : w.sides[1].units;
  if (units == 0) return cudaSuccess;
  // Few tokens: smaller blocks, so that more multiprocessors have one.
  const int64_t threads = units < (int64_t{1} << 18) ? 64 : 256;
  const int64_t tile = threads * kFlashUnitsInFlight;
  const int64_t tiles = (units + tile - 1) / tile;
  const dim3 grid(static_cast<unsigned>(tiles < INT32_MAX ? tiles : INT32_MAX), 2);
  return launch_kernel(reshape_and_cache_flash_kernel<Mover>, grid, static_cast<unsigned>(threads),
                       stream, w);
}

// What must be a multiple of the size of a unit: of the input, and of the cache.
inline void align_flash_side(const CacheSide& s, const CacheWriterParams& p, Alignment& src,
                             Alignment& cache) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  const int64_t cache_bytes = stored_bytes_of(p.dtype, p.kind);
  src.with(s.src).with(s.head_size * src_bytes).with(s.src_token_stride * src_bytes);
  cache.with(s.cache).with(s.head_size * cache_bytes).with(s.block_stride * cache_bytes);
  cache.with(s.offset_stride * cache_bytes);
  // A single head's stride may be anything and is not used.
  if (p.heads > 1) {
    src.with(s.src_head_stride * src_bytes);
    cache.with(s.head_stride * cache_bytes);
  }
}

inline cudaError_t launch_reshape_and_cache_flash(const CacheWriterParams& p,
                                                  const SkipReport& report, cudaStream_t stream) {
  Alignment src;
  Alignment cache;
  align_flash_side(p.key, p, src, cache);
  align_flash_side(p.value, p, src, cache);
  const auto launch = [&](auto mover) {
    return launch_flash_writer<decltype(mover)>(p, decltype(mover)::kElems, report, stream);
  };
  if (p.kind != CacheKind::kAuto) {
    return src.allows(16) && cache.allows(kWideElems)
               ? with_quantizer<kWideElems>(p.dtype, p.kind, launch)
               : with_quantizer<1>(p.dtype, p.kind, launch);
  }
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  if (src.allows(16) && cache.allows(16)) {
    return launch_flash_writer<Copier<uint16_t, 8>>(p, 16 / elem_bytes, report, stream);
  }
  if (src.allows(4) && cache.allows(4)) {
    return launch_flash_writer<Copier<uint32_t, 1>>(p, 4 / elem_bytes, report, stream);
  }
  return launch_flash_writer<Copier<uint16_t, 1>>(p, 1, report, stream);
}

}  // namespace kvops::kernels
