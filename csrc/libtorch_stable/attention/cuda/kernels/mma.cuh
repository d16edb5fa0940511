// Tensor-core instructions of a warp: 16 x 8 results from 16-bit operands, and their loading.
// Used by the tensor-core engine; needs sm_80. Fragments are those of PTX's m16n8k16:
// lane 4 g + j holds rows g and g + 8 of A and C, column g of B, and elements 2 j, 2 j + 1 (+ 8).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "attention/cuda/kernels/async_copy.cuh"
#include "common/float_convert.h"

namespace kvops::kernels {

// Four 8 x 8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i, and
// gets elements 2 j, 2 j + 1 of row g of each.
static __device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
#endif
}

static __device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1, half_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

static __device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1, bfloat16_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// An 8 x 8 matrix of 16-bit elements: lane 4 g + j has elements 2 j, 2 j + 1 of row g, and gets
// those of column g.
static __device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  uint32_t result = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(result) : "r"(pair));
#endif
  return result;
}

// Two elements in a register, the first in the low half.
static __device__ __forceinline__ uint32_t pack(float first, float second, half_t) {
  const __half2 pair = __floats2half2_rn(first, second);
  return reinterpret_cast<const uint32_t&>(pair);
}

static __device__ __forceinline__ uint32_t pack(float first, float second, bfloat16_t) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t&>(pair);
}

}  // namespace kvops::kernels
