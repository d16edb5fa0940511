// Converts a tensor to e4m3 bytes or back, a unit of neighbouring elements at a time where both
// tensors hold them side by side, else single elements. Any strides.
// Launched by cuda::convert_fp8. Dimensions are merged already: mostly there is only one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/params.h"
#include "common/cuda/alignment.h"
#include "common/cuda/divisor.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// Dimensions in units, outermost first.
struct ConvertWalk {
  char* dst;
  const char* src;
  float scale;
  int dims;
  int64_t units;
  int64_t dst_strides_bytes[kMaxMergedDims];
  int64_t src_strides_bytes[kMaxMergedDims];
  Divisor sizes[kMaxMergedDims];
};

inline constexpr int kConvertUnitsInFlight = 4;
inline constexpr int kConvertThreads = 256;

template <class Mover>
__global__ void __launch_bounds__(kConvertThreads)
    convert_fp8_kernel(const __grid_constant__ ConvertWalk w) {
  constexpr int64_t kTile = kConvertThreads * kConvertUnitsInFlight;
  const Mover mover(w.scale);
  for (int64_t base = blockIdx.x * kTile; base < w.units; base += gridDim.x * kTile) {
    typename Mover::In loaded[kConvertUnitsInFlight];
    char* to[kConvertUnitsInFlight];
#pragma unroll
    for (int i = 0; i < kConvertUnitsInFlight; ++i) {
      // Behind the end, the last unit is loaded again and not stored: no branch between the loads.
      const int64_t wanted = base + i * kConvertThreads + threadIdx.x;
      int64_t rest = wanted < w.units ? wanted : w.units - 1;
      const char* from = w.src;
      to[i] = w.dst;
      for (int dim = w.dims - 1; dim > 0; --dim) {
        const int64_t outer = w.sizes[dim].quotient(rest);
        const int64_t index = w.sizes[dim].remainder(rest, outer);
        from += index * w.src_strides_bytes[dim];
        to[i] += index * w.dst_strides_bytes[dim];
        rest = outer;
      }
      to[i] += rest * w.dst_strides_bytes[0];
      from += rest * w.src_strides_bytes[0];
      loaded[i] = *reinterpret_cast<const typename Mover::In*>(from);
    }
    // No load may move behind the first use of another one.
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kConvertUnitsInFlight; ++i) {
      if (base + i * kConvertThreads + threadIdx.x >= w.units) break;
      store_words(reinterpret_cast<typename Mover::Out*>(to[i]), mover(loaded[i]));
    }
  }
}

// ---- launch

struct ConvertBytes {
  int64_t dst;  // per element
  int64_t src;
};

inline ConvertBytes convert_bytes(const ConvertFp8Params& p) {
  const int64_t other = element_bytes_of(p.dtype);
  return p.store ? ConvertBytes{.dst = 1, .src = other} : ConvertBytes{.dst = other, .src = 1};
}

template <class Mover>
cudaError_t launch_convert_walk(const ConvertFp8Params& p, cudaStream_t stream) {
  const ConvertBytes bytes = convert_bytes(p);
  const int inner = p.dims - 1;
  int64_t units = 1;
  for (int dim = 0; dim < p.dims; ++dim) {
    units *= dim == inner ? p.sizes[dim] / Mover::kElems : p.sizes[dim];
  }
  if (units == 0) return cudaSuccess;
  const Divisor one(1, 1);
  ConvertWalk w{.dst = p.dst,
                .src = p.src,
                .scale = p.scale,
                .dims = p.dims,
                .units = units,
                .dst_strides_bytes = {},
                .src_strides_bytes = {},
                .sizes = {one, one, one, one, one, one, one, one}};
  static_assert(kMaxMergedDims == 8);
  for (int dim = 0; dim < p.dims; ++dim) {
    const int64_t elems = dim == inner ? Mover::kElems : 1;
    w.dst_strides_bytes[dim] = p.dst_strides[dim] * elems * bytes.dst;
    w.src_strides_bytes[dim] = p.src_strides[dim] * elems * bytes.src;
    w.sizes[dim] = Divisor(p.sizes[dim] / elems, units);
  }
  constexpr int64_t kTile = kConvertThreads * kConvertUnitsInFlight;
  const int64_t tiles = (units + kTile - 1) / kTile;
  const unsigned blocks = static_cast<unsigned>(tiles < INT32_MAX ? tiles : INT32_MAX);
  return launch_kernel(convert_fp8_kernel<Mover>, blocks, kConvertThreads, stream, w);
}

template <int kCount>
cudaError_t launch_convert_units(const ConvertFp8Params& p, cudaStream_t stream) {
  return with_element(p.dtype, [&](auto element) {
    using Element = decltype(element);
    return p.store ? launch_convert_walk<Quantizer<Element, e4m3_t, kCount>>(p, stream)
                   : launch_convert_walk<Dequantizer<Element, kCount>>(p, stream);
  });
}

// Whether rows of the innermost dimension begin where wide units may.
inline bool has_wide_rows(const ConvertFp8Params& p) {
  const ConvertBytes bytes = convert_bytes(p);
  const int inner = p.dims - 1;
  if (p.dst_strides[inner] != 1 || p.src_strides[inner] != 1) return false;
  Alignment wide_side;
  Alignment fp8_side;
  Alignment& dst = p.store ? fp8_side : wide_side;
  Alignment& src = p.store ? wide_side : fp8_side;
  dst.with(p.dst);
  src.with(p.src);
  for (int dim = 0; dim < inner; ++dim) {
    dst.with(p.dst_strides[dim] * bytes.dst);
    src.with(p.src_strides[dim] * bytes.src);
  }
  return wide_side.allows(16) && fp8_side.allows(kWideElems);
}

inline cudaError_t launch_convert_fp8(const ConvertFp8Params& p, cudaStream_t stream) {
  const int inner = p.dims - 1;
  const int64_t rest = p.sizes[inner] % kWideElems;
  const int64_t bulk = p.sizes[inner] - rest;
  if (!has_wide_rows(p) || bulk == 0) return launch_convert_units<1>(p, stream);
  const cudaError_t error = launch_convert_units<kWideElems>(p, stream);
  if (error != cudaSuccess || rest == 0) return error;
  const ConvertBytes bytes = convert_bytes(p);
  ConvertFp8Params ends = p;
  ends.sizes[inner] = rest;
  ends.dst += bulk * bytes.dst;
  ends.src += bulk * bytes.src;
  return launch_convert_units<1>(ends, stream);
}

}  // namespace kvops::kernels
