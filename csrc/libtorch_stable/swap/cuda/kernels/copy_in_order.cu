// Copies that may depend on each other, one after the other, each as memmove does it.
// Launched by cuda::swap_blocks for pools that share memory or targets that repeat.
// One thread block for all: its barrier is what keeps the order.
#include <cuda_runtime.h>

#include <algorithm>

#include "swap/cuda/kernels/copy_launch.h"
#include "swap/cuda/kernels/copy_units.cuh"

namespace kvops::kernels {
namespace {

constexpr int kThreads = 1024;

// Not CopyTable: a copy onto itself must stay whole, however large it is.
struct MoveTable {
  static constexpr size_t kCapacity = 127;
  uint32_t num_copies;
  cuda::Copy copies[kCapacity];
};
static_assert(sizeof(MoveTable) <= 4096);

// At most 15 bytes, each in a thread. Such ends of a range never reach into its other parts:
// source and target are at least a unit apart, and the ends are shorter than that.
__device__ __forceinline__ void move_end(uint64_t dst, uint64_t src, uint32_t bytes) {
  if (threadIdx.x < bytes) {
    reinterpret_cast<uint8_t*>(dst)[threadIdx.x] =
        reinterpret_cast<const uint8_t*>(src)[threadIdx.x];
  }
}

// A tile is read whole before any of it is written. What a tile writes has been read: by tiles that
// came before it if the direction is away from the target, by itself otherwise.
template <class Unit>
__device__ void move_units(uint64_t dst, uint64_t src, uint64_t units) {
  constexpr uint32_t kInFlight = 4;
  constexpr uint64_t kTile = kThreads * kInFlight;
  const Unit* from = reinterpret_cast<const Unit*>(src);
  Unit* to = reinterpret_cast<Unit*>(dst);
  const uint64_t tiles = (units + kTile - 1) / kTile;
  for (uint64_t i = 0; i < tiles; ++i) {
    const uint64_t tile = dst < src ? i : tiles - 1 - i;
    const uint64_t base = tile * kTile + threadIdx.x;
    Unit held[kInFlight];
#pragma unroll
    for (uint32_t k = 0; k < kInFlight; ++k) {
      if (base + k * kThreads < units) held[k] = from[base + k * kThreads];
    }
    __syncthreads();
#pragma unroll
    for (uint32_t k = 0; k < kInFlight; ++k) {
      if (base + k * kThreads < units) to[base + k * kThreads] = held[k];
    }
  }
}

template <class Unit>
__device__ void move(const cuda::Copy& copy) {
  const Parts parts = parts_of<Unit>(copy.dst, copy.bytes);
  const uint64_t tail_at = parts.head_bytes + parts.units * sizeof(Unit);
  const auto tail_bytes = static_cast<uint32_t>(copy.bytes - tail_at);
  const bool forward = copy.dst < copy.src;
  if (forward) {
    move_end(copy.dst, copy.src, parts.head_bytes);
  } else {
    move_end(copy.dst + tail_at, copy.src + tail_at, tail_bytes);
  }
  move_units<Unit>(copy.dst + parts.head_bytes, copy.src + parts.head_bytes, parts.units);
  __syncthreads();
  if (forward) {
    move_end(copy.dst + tail_at, copy.src + tail_at, tail_bytes);
  } else {
    move_end(copy.dst, copy.src, parts.head_bytes);
  }
}

__global__ void __launch_bounds__(kThreads)
    copy_in_order_kernel(const __grid_constant__ MoveTable table) {
  for (uint32_t i = 0; i < table.num_copies; ++i) {
    const cuda::Copy& copy = table.copies[i];
    switch (common_unit_bytes(copy.dst, copy.src)) {
      case 16:
        move<uint4>(copy);
        break;
      case 8:
        move<uint2>(copy);
        break;
      case 4:
        move<uint32_t>(copy);
        break;
      case 2:
        move<uint16_t>(copy);
        break;
      default:
        move<uint8_t>(copy);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t launch_copies_in_order(std::span<const cuda::Copy> copies, cudaStream_t stream) {
  MoveTable table;
  while (!copies.empty()) {
    const auto chunk = copies.first(std::min(copies.size(), MoveTable::kCapacity));
    table.num_copies = static_cast<uint32_t>(chunk.size());
    std::copy(chunk.begin(), chunk.end(), table.copies);
    copies = copies.subspan(chunk.size());
    copy_in_order_kernel<<<1, kThreads, 0, stream>>>(table);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace kvops::kernels
