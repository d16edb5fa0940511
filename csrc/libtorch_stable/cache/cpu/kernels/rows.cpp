// Copies rows of elements, or converts them to FP8 and back exactly as the formats say (spec 4.3,
// 4.4). Called by the cache writers and convert_fp8 through row_kernels().
// Blocks of fixed size over float_convert.h, which the compiler vectorises at every SIMD level.
#include <cstddef>

#include "cache/cpu/kernels.h"
#include "cache/cpu/kernels/vector16.h"
#include "cache/cpu/kernels/widen_block.h"
#include "common/float_convert.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

template <class T>
void narrow_block(const float* __restrict in, T* __restrict out) {
  for (int64_t i = 0; i < kBlockElems; ++i) out[i] = from_float<T>(in[i]);
}

#if defined(__F16C__)
// See widen_block.h; makes the canonical half NaN from the canonical float NaN.
void narrow_block(const float* __restrict in, half_t* __restrict out) {
  for (int64_t i = 0; i < kBlockElems; i += 8) {
    const __m256 floats = _mm256_loadu_ps(in + i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT));
  }
}
#endif

// Towards the cache. Any NaN becomes the one NaN byte when it is narrowed.
struct Divide {
  static float apply(float x, float scale) { return x / scale; }
};

// From the cache. A processor's NaN keeps sign and payload of an operand; here there is one NaN.
struct Multiply {
  static float apply(float x, float scale) {
    const float product = x * scale;
    return product == product ? product : bits_float(0x7fffffffu);
  }
};

// In steps, because a loop over elements of one size vectorises best. Inlined, so that constants
// stay in registers from block to block.
template <class Src, class Dst, class Scaling>
__attribute__((always_inline)) inline void convert_block(const Src* in, Dst* out, float scale) {
  float wide[kBlockElems];
  widen_block(in, wide);
  for (int64_t i = 0; i < kBlockElems; ++i) wide[i] = Scaling::apply(wide[i], scale);
  narrow_block(wide, out);
}

template <class T>
void stream_block(const T* block, T* out) {
  const char* from = reinterpret_cast<const char*>(block);
  char* to = reinterpret_cast<char*>(out);
  constexpr int64_t kBytes = kBlockElems * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < kBytes; i += kVectorBytes) {
    store_vector<Stores::kStreaming>(to + i, load_vector<Bytes16>(from + i));
  }
}

template <class Src, class Dst, class Scaling>
void convert_row(const void* src, void* dst, int64_t count, float scale, Stores stores) {
  const Src* in = static_cast<const Src*>(src);
  Dst* out = static_cast<Dst*>(dst);
  const bool streaming = stores == Stores::kStreaming && is_vector_aligned(dst);
  Src padded[kBlockElems] = {};
  alignas(kVectorBytes) Dst block[kBlockElems];
  for (int64_t done = 0; done < count; done += kBlockElems) {
    const int64_t rest = count - done;
    const bool whole = rest >= kBlockElems;
    if (!whole) __builtin_memcpy(padded, in + done, static_cast<size_t>(rest) * sizeof(Src));
    Dst* to = whole && !streaming ? out + done : block;
    convert_block<Src, Dst, Scaling>(whole ? in + done : padded, to, scale);
    if (!whole) {
      __builtin_memcpy(out + done, block, static_cast<size_t>(rest) * sizeof(Dst));
    } else if (streaming) {
      stream_block(block, out + done);
    }
  }
}

// Not memcpy: rows of 2 KiB whose addresses agree modulo 4 KiB take it twice as long.
template <class T>
void copy_row(const void* src, void* dst, int64_t count, float /*scale*/, Stores stores) {
  const T* in = static_cast<const T*>(src);
  T* out = static_cast<T*>(dst);
  const bool streaming = stores == Stores::kStreaming && is_vector_aligned(dst);
  for (; count >= kBlockElems; count -= kBlockElems) {
    if (streaming) {
      stream_block(in, out);
    } else {
      __builtin_memcpy(out, in, kBlockElems * sizeof(T));
    }
    in += kBlockElems;
    out += kBlockElems;
  }
  if (count > 0) __builtin_memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
}

}  // namespace

extern const RowKernels row_kernels_table;
const RowKernels row_kernels_table{
    .copy_2_bytes = copy_row<uint16_t>,
    .copy_4_bytes = copy_row<uint32_t>,
    .half_to_e4m3 = convert_row<half_t, e4m3_t, Divide>,
    .half_to_e5m2 = convert_row<half_t, e5m2_t, Divide>,
    .bfloat16_to_e4m3 = convert_row<bfloat16_t, e4m3_t, Divide>,
    .bfloat16_to_e5m2 = convert_row<bfloat16_t, e5m2_t, Divide>,
    .float_to_e4m3 = convert_row<float, e4m3_t, Divide>,
    .float_to_e5m2 = convert_row<float, e5m2_t, Divide>,
    .e4m3_to_half = convert_row<e4m3_t, half_t, Multiply>,
    .e4m3_to_bfloat16 = convert_row<e4m3_t, bfloat16_t, Multiply>,
    .e4m3_to_float = convert_row<e4m3_t, float, Multiply>,
};

}  // namespace kvops::cpu::KVOPS_ISA
