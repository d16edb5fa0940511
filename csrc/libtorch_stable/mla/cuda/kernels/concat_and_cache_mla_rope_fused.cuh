// Rotates q_pe and k_pe of every token in place, then writes its MLA entry: a block per token, some
// of its warps for the heads, the others for the entry, which is the only user of k_pe.
// Launched by cuda::concat_and_cache_mla_rope_fused only.
// A token is rotated and written, or, with a bad slot or position, left alone altogether.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/skipped.cuh"
#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/cuda/kernels/rotate.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr int kHeadsAtOnce = 4;  // of a thread
inline constexpr int kMaxHeadThreads = 256;
inline constexpr int kMaxEntryThreads = 128;

// Blocks that a multiprocessor should have room for, or their loads are too few to keep it busy.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr int kRopeBlocks = 2;
#else
inline constexpr int kRopeBlocks = 4;
#endif

inline constexpr int64_t kMaxHeadBlocks = 65535;  // of a token

// A unit is what a thread rotates at once of a row. `lanes` threads take a head's units, and
// `groups` such sets of threads take different heads.
template <bool kWide>
struct RopeShape {
  EntryTable<std::conditional_t<kWide, NarrowIndices, WideIndices>> entries;
  SkipReport positions;
  NarrowDivisor lane_count;
  uint32_t lanes;
  uint32_t groups;
  int64_t group_stride_elems;  // between heads of a thread
  uint32_t heads;
  uint32_t pairs;  // of a head
  int head_threads;
  int entry_threads;
};

struct TokenIndices {
  int64_t slot;
  int64_t position;
};

__device__ __forceinline__ TokenIndices read_indices(const RopeFusedParams& p, int64_t token) {
  return {p.entries.slot_mapping[token], p.positions[token]};
}

__device__ __forceinline__ bool is_position(const RopeFusedParams& p, int64_t position) {
  return position >= 0 && position < p.max_positions;
}

// ---- the heads

template <class T, bool kNeox, bool kWide>
__device__ __forceinline__ void rotate_heads(const RopeFusedParams& p,
                                             const RopeShape<kWide>& shape, int64_t token,
                                             const TokenIndices& indices) {
  constexpr int kCount = kPairsAtOnce<T, kWide>;
  const auto [group, lane] = shape.lane_count.divide(threadIdx.x);
  const uint32_t first_head = blockIdx.y * kHeadsAtOnce * shape.groups + group;
  if (group >= shape.groups) return;
  const auto has_head = [&](int j) { return first_head + j * shape.groups < shape.heads; };
  T* row =
      static_cast<T*>(p.q_pe) + token * p.q_token_stride_elems + first_head * p.q_head_stride_elems;
  for (uint32_t first = lane * kCount; first < shape.pairs; first += shape.lanes * kCount) {
    PackedPairs<T, kCount> heads[kHeadsAtOnce];
#pragma unroll
    for (int j = 0; j < kHeadsAtOnce; ++j) {
      if (!has_head(j)) continue;
      heads[j] = read_pairs<kNeox, kCount>(row + j * shape.group_stride_elems, shape.pairs, first);
    }
    // Or compilers would not read the heads before they know the indices.
    __syncwarp();
    if (!shape.entries.has(indices.slot) || !is_position(p, indices.position)) return;
    const T* cos = static_cast<const T*>(p.cos_sin) + indices.position * p.cos_sin_stride_elems;
    const auto cos_sin = load_pairs<true, kCount>(cos, shape.pairs, first);
    // So that addresses are computed again: kept, they would take the registers of a thread block.
    asm volatile("" : "+l"(row));
#pragma unroll
    for (int j = 0; j < kHeadsAtOnce; ++j) {
      if (!has_head(j)) continue;
      auto rotated = unpack_pairs<kNeox, T, kCount>(heads[j]);
      rotate_pairs(rotated, cos_sin);
      store_pairs<kNeox>(row + j * shape.group_stride_elems, shape.pairs, first, rotated);
    }
  }
}

// ---- the entry

template <class Fp8, class T, int kCount>
__device__ __forceinline__ Vec<Fp8, kCount> to_fp8(const Vec<T, kCount>& in,
                                                   const Fp8Quotient& quotient) {
  const auto packed = __builtin_bit_cast(Packed<T, kCount>, in);
  return __builtin_bit_cast(Vec<Fp8, kCount>, quotient.divide<Fp8, T, kCount>(packed));
}

// Where the elements of an entry go, in any of the three kinds.
template <class T>
class EntryWriter {
 public:
  __device__ EntryWriter(const MlaEntriesParams& p, char* entry)
      : p_(p), entry_(entry), quotient_(p.scale != nullptr ? *p.scale : 1.0f) {}

  template <int kCount>
  __device__ __forceinline__ void store_latent(int64_t elem, const Vec<T, kCount>& in) const {
    switch (p_.kind) {
      case CacheKind::kFp8E4m3:
        return store_vec(reinterpret_cast<e4m3_t*>(entry_) + elem, to_fp8<e4m3_t>(in, quotient_));
      case CacheKind::kFp8E5m2:
        return store_vec(reinterpret_cast<e5m2_t*>(entry_) + elem, to_fp8<e5m2_t>(in, quotient_));
      default:
        return store_vec(reinterpret_cast<T*>(entry_) + elem, in);
    }
  }

  template <bool kNeox, int kCount>
  __device__ __forceinline__ void store_rope(int64_t first, const Pairs<T, kCount>& in) const {
    switch (p_.kind) {
      case CacheKind::kFp8E4m3:
        return store_rope_as<kNeox>(first, to_fp8_pairs<e4m3_t>(in));
      case CacheKind::kFp8E5m2:
        return store_rope_as<kNeox>(first, to_fp8_pairs<e5m2_t>(in));
      default:
        return store_rope_as<kNeox>(first, in);
    }
  }

 private:
  template <class Fp8, int kCount>
  __device__ __forceinline__ Pairs<Fp8, kCount> to_fp8_pairs(const Pairs<T, kCount>& in) const {
    return {to_fp8<Fp8>(in.x, quotient_), to_fp8<Fp8>(in.y, quotient_)};
  }

  template <bool kNeox, class Out, int kCount>
  __device__ __forceinline__ void store_rope_as(int64_t first, const Pairs<Out, kCount>& in) const {
    store_pairs<kNeox>(reinterpret_cast<Out*>(entry_) + p_.latent_elems, p_.rope_elems / 2, first,
                       in);
  }

  const MlaEntriesParams& p_;
  char* entry_;
  Fp8Quotient quotient_;
};

template <class T, bool kNeox, bool kWide>
__device__ void write_entry(const RopeFusedParams& p, const RopeShape<kWide>& shape, int64_t token,
                            const TokenIndices& indices, int thread) {
  constexpr int kCount = kPairsAtOnce<T, kWide>;
  constexpr int kLatentCount = kWide ? 16 / static_cast<int>(sizeof(T)) : 1;
  if (!shape.entries.has(indices.slot) || !is_position(p, indices.position)) {
    if (thread != 0 || indices.slot == -1) return;
    if (!shape.entries.has(indices.slot)) {
      return shape.entries.slots.report(token, indices.slot);
    }
    return report_skipped(shape.positions, token, indices.position);
  }
  const EntryWriter<T> writer(p.entries, shape.entries.place(indices.slot));
  const T* kv_c = static_cast<const T*>(p.entries.kv_c) + token * p.entries.kv_c_stride_elems;
  T* k_pe = static_cast<T*>(p.k_pe) + token * p.entries.k_pe_stride_elems;
  const T* cos = static_cast<const T*>(p.cos_sin) + indices.position * p.cos_sin_stride_elems;
  const int64_t pairs = p.rot_elems / 2;
  const int64_t latent_units = p.entries.latent_elems / kLatentCount;
  const int64_t units = latent_units + pairs / kCount;
  for (int64_t unit = thread; unit < units; unit += shape.entry_threads) {
    if (unit < latent_units) {
      const int64_t elem = unit * kLatentCount;
      writer.store_latent(elem, load_vec<kLatentCount>(kv_c + elem));
    } else {
      const int64_t first = (unit - latent_units) * kCount;
      auto key = load_pairs<kNeox, kCount>(k_pe, pairs, first);
      rotate_pairs(key, load_pairs<true, kCount>(cos, pairs, first));
      store_pairs<kNeox>(k_pe, pairs, first, key);
      writer.template store_rope<kNeox>(first, key);
    }
  }
}

// ---- the kernel and its launch

template <class T, bool kNeox, bool kWide>
__global__ void __launch_bounds__(kMaxHeadThreads + kMaxEntryThreads, kRopeBlocks)
    rope_fused_kernel(const __grid_constant__ RopeFusedParams p,
                      const __grid_constant__ RopeShape<kWide> shape) {
  // First of all: most of what follows waits for them.
  const TokenIndices indices = read_indices(p, blockIdx.x);
  const int entry_thread = static_cast<int>(threadIdx.x) - shape.head_threads;
  if (entry_thread < 0) {
    rotate_heads<T, kNeox, kWide>(p, shape, blockIdx.x, indices);
  } else if (blockIdx.y == 0) {
    write_entry<T, kNeox, kWide>(p, shape, blockIdx.x, indices, entry_thread);
  }
}

// Whole warps, at most `limit` threads.
inline int threads_for(int64_t items, int limit) {
  return items < limit ? static_cast<int>((items + 31) / 32 * 32) : limit;
}

template <class T, bool kNeox, bool kWide>
cudaError_t launch_rope_fused_of(const RopeFusedParams& p, const SkipReport& slots,
                                 const SkipReport& positions, cudaStream_t stream) {
  constexpr int kLatentCount = kWide ? 16 / static_cast<int>(sizeof(T)) : 1;
  const int64_t units = p.rot_elems / 2 / kPairsAtOnce<T, kWide>;
  const int64_t head_rows = (p.heads + kHeadsAtOnce - 1) / kHeadsAtOnce;
  const int head_threads = threads_for(head_rows * units, kMaxHeadThreads);
  const int lanes = static_cast<int>(units < head_threads ? units : head_threads);
  const int groups = lanes > 0 ? head_threads / lanes : 0;
  const int entry_threads =
      threads_for(p.entries.latent_elems / kLatentCount + units + 1, kMaxEntryThreads);
  const RopeShape<kWide> shape{
      .entries = {p.entries, slots},
      .positions = positions,
      .lane_count = NarrowDivisor(lanes),
      .lanes = static_cast<uint32_t>(lanes),
      .groups = static_cast<uint32_t>(groups),
      .group_stride_elems = groups * p.q_head_stride_elems,
      .heads = static_cast<uint32_t>(p.heads),
      .pairs = static_cast<uint32_t>(p.rot_elems / 2),
      .head_threads = head_threads,
      .entry_threads = entry_threads,
  };
  const int64_t head_blocks = groups > 0 ? (head_rows + groups - 1) / groups : 1;
  if (p.entries.tokens > INT32_MAX || p.heads > INT32_MAX || p.rot_elems > INT32_MAX ||
      head_blocks > kMaxHeadBlocks) {
    return cudaErrorInvalidConfiguration;
  }
  const dim3 grid(static_cast<unsigned>(p.entries.tokens), static_cast<unsigned>(head_blocks));
  return launch_kernel(rope_fused_kernel<T, kNeox, kWide>, grid,
                       static_cast<unsigned>(head_threads + entry_threads), stream, p, shape);
}

// Whether every row starts at a multiple of 16 bytes and ends with a whole unit, and there are not
// too many.
template <class T>
bool is_wide(const RopeFusedParams& p) {
  constexpr int64_t kBytes = sizeof(T);
  const MlaEntriesParams& e = p.entries;
  const auto address = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  const uint64_t in_bits =
      address(p.q_pe) | address(p.k_pe) | address(p.cos_sin) | address(e.kv_c) |
      static_cast<uint64_t>(kBytes * (p.q_token_stride_elems | p.q_head_stride_elems |
                                      p.cos_sin_stride_elems | e.k_pe_stride_elems |
                                      e.kv_c_stride_elems | e.latent_elems));
  // A unit of 16 bytes becomes as many bytes as it has elements, or stays as it is.
  const uint64_t out_unit = e.kind == CacheKind::kAuto ? 16 : 16 / kBytes;
  const uint64_t out_bits =
      address(e.kv_cache) | static_cast<uint64_t>(e.block_stride_bytes | e.entry_stride_bytes);
  return in_bits % 16 == 0 && out_bits % out_unit == 0 &&
         p.rot_elems / 2 % kPairsAtOnce<T, true> == 0 && can_count_entries(e);
}

template <class T>
cudaError_t launch_rope_fused(const RopeFusedParams& p, const SkipReport& slots,
                              const SkipReport& positions, cudaStream_t stream) {
  const bool wide = is_wide<T>(p);
  const auto launch =
      p.is_neox
          ? (wide ? launch_rope_fused_of<T, true, true> : launch_rope_fused_of<T, true, false>)
          : (wide ? launch_rope_fused_of<T, false, true> : launch_rope_fused_of<T, false, false>);
  return launch(p, slots, positions, stream);
}

// Kernels: 3 dtypes x 2 kinds of pairs x 2 widths = 12.
inline cudaError_t launch_concat_and_cache_mla_rope_fused(const RopeFusedParams& p,
                                                          const SkipReport& slots,
                                                          const SkipReport& positions,
                                                          cudaStream_t stream) {
  if (p.entries.tokens == 0) return cudaSuccess;
  switch (p.entries.dtype) {
    case DType::kHalf:
      return launch_rope_fused<half_t>(p, slots, positions, stream);
    case DType::kBFloat16:
      return launch_rope_fused<bfloat16_t>(p, slots, positions, stream);
    default:
      return launch_rope_fused<float>(p, slots, positions, stream);
  }
}

}  // namespace kvops::kernels
