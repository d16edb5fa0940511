// What a warp that computes sees of a stage: its 16 tokens. Used by the engines.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/plan.h"

namespace kvops::kernels {

inline constexpr uint32_t kAllTokens = (1u << kWarpTokens) - 1;

// Else everything that follows from it would be kept in registers, tile after tile.
static __device__ __forceinline__ int not_hoisted(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// 2^x, relative error 2^-22; subnormal results are 0.
static __device__ __forceinline__ float power_of_2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

struct Stage {
  const char* keys;    // of the warp's first token
  const char* values;  // likewise
  uint32_t mask;       // bit t: token t is to be attended to; others hold anything
  int32_t distance;    // from the sequence's newest token to the warp's first one: 0 or negative
};

// Where things lie in a stage, from the warp's first token on, in bytes.
struct StageOffsets {
  int32_t keys;         // of the warp's first token, from the stage
  int32_t values;       // likewise
  int32_t key_octet;    // from tokens 0-7 to tokens 8-15
  int32_t value_octet;  // likewise

  __device__ StageOffsets(const StageLayout& stage, int warp, int token_bytes, int elem_bytes) {
    const int first = warp * kWarpTokens;
    const int chunk = first >> stage.chunk_shift;
    const int within = first - (chunk << stage.chunk_shift);
    keys = chunk * stage.key_chunk + within * token_bytes;
    values =
        stage.values + chunk * stage.value_chunk + within * elem_bytes / 16 * stage.value_piece;
    if (1 << stage.chunk_shift == kOctet) {
      key_octet = stage.key_chunk;
      value_octet = stage.value_chunk;
    } else {
      key_octet = kOctet * token_bytes;
      // fp8: half of 16 bytes.
      value_octet = elem_bytes == 1 ? kOctet : kOctet * elem_bytes / 16 * stage.value_piece;
    }
  }
};

}  // namespace kvops::kernels
