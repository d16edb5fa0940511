// What the CPU cache operators call per row and per tile; one table of each for every SIMD level.
// Implemented in kernels/, used by the loops over tokens beside this file.
// All functions take any alignment and touch exactly the elements named.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace kvops::cpu {

// Streaming stores go around the cache and save reading what is overwritten. They pay where whole
// cache lines are written and nobody reads them soon, and need finish_streaming() afterwards.
enum class Stores { kCached, kStreaming };

// dst[i] = src[i] converted, for i < count; src / scale when bytes are stored, src * scale when
// they are loaded.
using RowConversion = void (*)(const void* src, void* dst, int64_t count, float scale,
                               Stores stores);

struct RowKernels {
  RowConversion copy_2_bytes;  // elements as they are, whatever the scale
  RowConversion copy_4_bytes;
  RowConversion half_to_e4m3;
  RowConversion half_to_e5m2;
  RowConversion bfloat16_to_e4m3;
  RowConversion bfloat16_to_e5m2;
  RowConversion float_to_e4m3;
  RowConversion float_to_e5m2;
  RowConversion e4m3_to_half;
  RowConversion e4m3_to_bfloat16;
  RowConversion e4m3_to_float;
};

// dst[col][row] = src[row][col] for elements of a fixed size; pitches are those of the rows.
using Transposition = void (*)(const char* src, int64_t src_pitch_bytes, int64_t rows, int64_t cols,
                               char* dst, int64_t dst_pitch_bytes, Stores stores);

struct TransposeKernels {
  Transposition elements_of_1_byte;
  Transposition elements_of_2_bytes;
  Transposition elements_of_4_bytes;
  Transposition elements_of_16_bytes;
};

// Quantises groups of 16 elements of a head: 8 bytes of data and one scale each. The factor is
// nvfp4_global_factor() of the scale argument.
using Nvfp4Quantization = void (*)(const void* src, int64_t groups, float global_factor,
                                   uint8_t* data, uint8_t* scales);

struct Nvfp4Kernels {
  Nvfp4Quantization quantize_half;
  Nvfp4Quantization quantize_bfloat16;
  Nvfp4Quantization quantize_float;
};

}  // namespace kvops::cpu

KVOPS_DECLARE_KERNELS(RowKernels, row_kernels)
KVOPS_DECLARE_KERNELS(TransposeKernels, transpose_kernels)
KVOPS_DECLARE_KERNELS(Nvfp4Kernels, nvfp4_kernels)
