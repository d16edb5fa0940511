// A warp's tile in shared memory: 32 tokens by some columns, written by tokens, read by columns.
// Used to transpose tokens that are neighbours in a page (transposed_side.cuh).
// Chunks of 16 bytes are swizzled within a row, so that both ways are free of bank conflicts.
#pragma once

#include <cstdint>

#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

inline constexpr uint32_t kTileTokens = 32;
inline constexpr uint32_t kTileRowUnits = 8;  // of a mover
inline constexpr uint32_t kPieceTokens = 8;   // neighbours in a page that are stored at once

template <class Stored, uint32_t kRowBytes>
class TokenTile {
  static constexpr uint32_t kBytes = sizeof(Stored);

 public:
  static constexpr uint32_t kColumns = kRowBytes / kBytes;

  struct Row {
    char* start;
    uint32_t swizzle;

    __device__ __forceinline__ char* at(uint32_t column) const {
      const uint32_t byte = column * kBytes;
      return start + ((byte & ~15u) ^ swizzle) + (byte & 15u);
    }
  };

  __device__ __forceinline__ Row row(uint32_t token) {
    const uint32_t group = token / kPieceTokens;
    const uint32_t chunks = kRowBytes == 64 ? group : group * 2 + token % 2;
    return {bytes_ + token * kRowBytes, chunks * 16};
  }

 private:
  alignas(128) char bytes_[kTileTokens * kRowBytes];
};

// ---- reading pieces: a column of kPieceTokens neighbours each

// Four matrices of 8 rows, 16 bytes each, transposed as 16-bit elements. Lane 8 i + r has the
// address of row r of matrix i; lane 4 c + j gets of word i rows 2 j and 2 j + 1, column c.
static __device__ __forceinline__ uint4 load_transposed(const char* row) {
  uint4 words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
  return words;
}

// Four pieces of one column for every group of four lanes.
struct ColumnOfLanes {
  static constexpr uint32_t kPieces = 4;
  static constexpr uint32_t kColumns = 8;
  static __device__ __forceinline__ uint32_t piece(uint32_t lane) { return lane % 4; }
  static __device__ __forceinline__ uint32_t column(uint32_t lane) { return lane / 4; }
};

// In one step, every group of four lanes reads kPieces pieces of some columns. Of 16-bit elements:
// of one. Made and used by whole warps.
template <class Tile, uint32_t kElemBytes>
class PieceReader : public ColumnOfLanes {
 public:
  // `first_token_of(piece)` is in the tile.
  template <class FirstTokenOf>
  __device__ __forceinline__ PieceReader(Tile& tile, uint32_t lane,
                                         const FirstTokenOf& first_token_of)
      // Row r of matrix i is token 2 i + r % 2 of the piece of lanes 4 c + r / 2.
      : row_(tile.row(first_token_of(piece(lane % 8 / 2)) + lane / 8 * 2 + lane % 2)) {}

  __device__ __forceinline__ uint4 read(uint32_t first_column) const {
    return load_transposed(row_.at(first_column));
  }

 private:
  typename Tile::Row row_;
};

// Bytes: two pieces of both columns of a pair.
template <class Tile>
class PieceReader<Tile, 1> {
 public:
  static constexpr uint32_t kPieces = 2;
  static constexpr uint32_t kColumns = 16;
  static __device__ __forceinline__ uint32_t piece(uint32_t lane) { return lane % 2; }
  static __device__ __forceinline__ uint32_t column(uint32_t lane) {
    return lane / 4 * 2 + lane / 2 % 2;
  }

  template <class FirstTokenOf>
  __device__ __forceinline__ PieceReader(Tile& tile, uint32_t lane,
                                         const FirstTokenOf& first_token_of)
      : row_(tile.row(first_token_of(piece(lane % 8 / 2)) + lane / 8 * 2 + lane % 2)),
        kept_(lane / 2 % 2 == 0 ? 0x6420u : 0x7531u) {}

  // Both columns are read, and the lane's kept.
  __device__ __forceinline__ uint2 read(uint32_t first_column) const {
    const uint4 words = load_transposed(row_.at(first_column));
    return {__byte_perm(words.x, words.y, kept_), __byte_perm(words.z, words.w, kept_)};
  }

 private:
  typename Tile::Row row_;
  uint32_t kept_;
};

// Words: of one column too, element by element.
template <class Tile>
class PieceReader<Tile, 4> : public ColumnOfLanes {
 public:
  template <class FirstTokenOf>
  __device__ __forceinline__ PieceReader(Tile& tile, uint32_t lane,
                                         const FirstTokenOf& first_token_of)
      : tile_(tile), lane_(lane), first_token_(first_token_of(piece(lane))) {}

  __device__ __forceinline__ Packed<uint32_t, kPieceTokens> read(uint32_t first_column) const {
    Elems<uint32_t, kPieceTokens> words;
#pragma unroll
    for (uint32_t i = 0; i < kPieceTokens; ++i) {
      const char* from = tile_.row(first_token_ + i).at(first_column + column(lane_));
      words.of[i] = *reinterpret_cast<const uint32_t*>(from);
    }
    return __builtin_bit_cast(Packed<uint32_t, kPieceTokens>, words);
  }

 private:
  Tile& tile_;
  uint32_t lane_;
  uint32_t first_token_;
};

}  // namespace kvops::kernels
