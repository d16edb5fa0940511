// Transposes tiles of 1-, 2-, 4- and 16-byte elements: [token][dim] to a page's [dim][token].
// Called by reshape_and_cache through transpose_kernels().
// Blocks of 16-byte vectors stay in registers; what is left at the edges goes element by element.
#include "cache/cpu/kernels.h"
#include "cache/cpu/kernels/vector16.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

using Words8 = uint16_t __attribute__((vector_size(16)));
using DoubleWords4 = uint32_t __attribute__((vector_size(16)));

inline Bytes16 interleave_low(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes16 interleave_high(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
inline Words8 interleave_low(Words8 a, Words8 b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline Words8 interleave_high(Words8 a, Words8 b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
inline DoubleWords4 interleave_low(DoubleWords4 a, DoubleWords4 b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
inline DoubleWords4 interleave_high(DoubleWords4 a, DoubleWords4 b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

// Transposes kSide rows of kSide elements in registers. Interleaving row i with row i + kSide / 2
// moves one bit of the row number into the column number and one back; log2(kSide) rounds exchange
// all of them.
template <class Vector, int kSide>
inline void transpose_registers(Vector (&rows)[kSide]) {
#pragma GCC unroll 4
  for (int round = kSide; round > 1; round /= 2) {
    Vector next[kSide];
#pragma GCC unroll 8
    for (int i = 0; i < kSide / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kSide / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kSide / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) rows[i] = next[i];
  }
}

template <class Vector, int kSide, Stores kStores>
inline void transpose_square(const char* src, int64_t src_pitch_bytes, char* dst,
                             int64_t dst_pitch_bytes) {
  Vector rows[kSide];
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) rows[i] = load_vector<Vector>(src + i * src_pitch_bytes);
  transpose_registers<Vector, kSide>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) store_vector<kStores>(dst + i * dst_pitch_bytes, rows[i]);
}

// Half as many rows: pages of 8 tokens in FP8 are made of these.
template <class Vector, int kSide>
inline void transpose_half_square(const char* src, int64_t src_pitch_bytes, char* dst,
                                  int64_t dst_pitch_bytes) {
  Vector rows[kSide] = {};
#pragma GCC unroll 8
  for (int i = 0; i < kSide / 2; ++i) rows[i] = load_vector<Vector>(src + i * src_pitch_bytes);
  transpose_registers<Vector, kSide>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kSide; ++i) {
    __builtin_memcpy(dst + i * dst_pitch_bytes, &rows[i], kVectorBytes / 2);
  }
}

// kSide columns of a multiple of kSide rows.
template <class Vector, int kSide, Stores kStores>
inline void transpose_strip(const char* src, int64_t src_pitch_bytes, int64_t rows, char* dst,
                            int64_t dst_pitch_bytes) {
  for (int64_t row = 0; row < rows; row += kSide) {
    transpose_square<Vector, kSide, kStores>(src + row * src_pitch_bytes, src_pitch_bytes,
                                             dst + row * kVectorBytes / kSide, dst_pitch_bytes);
  }
}

// The same through a buffer, so that the pieces of a cache line leave one after the other: the
// processor collects no more than about 8 unfinished lines of streaming stores at a time.
template <class Vector, int kSide>
inline void stream_strip_by_lines(const char* src, int64_t src_pitch_bytes, int64_t rows, char* dst,
                                  int64_t dst_pitch_bytes) {
  alignas(kVectorBytes) char buffer[kSide * kLineBytes];
  transpose_strip<Vector, kSide, Stores::kCached>(src, src_pitch_bytes, rows, buffer, kLineBytes);
  for (int64_t i = 0; i < kSide; ++i) {
    for (int64_t byte = 0; byte < rows * kVectorBytes / kSide; byte += kVectorBytes) {
      store_vector<Stores::kStreaming>(dst + i * dst_pitch_bytes + byte,
                                       load_vector<Vector>(buffer + i * kLineBytes + byte));
    }
  }
}

// A cache line's worth of rows at a time: whole lines are written, and few input rows are in use.
// `rows` and `cols` are multiples of kSide.
template <class Vector, int kSide, Stores kStores>
void transpose_squares(const char* src, int64_t src_pitch_bytes, int64_t rows, int64_t cols,
                       char* dst, int64_t dst_pitch_bytes) {
  constexpr int64_t kElementBytes = kVectorBytes / kSide;
  constexpr int64_t kLineRows = kLineBytes / kElementBytes;
  for (int64_t row = 0; row < rows; row += kLineRows) {
    const int64_t strip_rows = rows - row < kLineRows ? rows - row : kLineRows;
    const int64_t open_lines = kSide * strip_rows * kElementBytes / kLineBytes;
    for (int64_t col = 0; col < cols; col += kSide) {
      const char* from = src + row * src_pitch_bytes + col * kElementBytes;
      char* to = dst + col * dst_pitch_bytes + row * kElementBytes;
      if (kStores == Stores::kStreaming && open_lines > 8) {
        stream_strip_by_lines<Vector, kSide>(from, src_pitch_bytes, strip_rows, to,
                                             dst_pitch_bytes);
      } else {
        transpose_strip<Vector, kSide, kStores>(from, src_pitch_bytes, strip_rows, to,
                                                dst_pitch_bytes);
      }
    }
  }
}

// What squares do not cover: the columns from `first_col` on, of all rows, and the rows from
// `first_row` on, of all columns.
template <class Vector, int kSide>
void transpose_edges(const char* src, int64_t src_pitch_bytes, int64_t first_row, int64_t rows,
                     int64_t first_col, int64_t cols, char* dst, int64_t dst_pitch_bytes) {
  constexpr int64_t kElementBytes = kVectorBytes / kSide;
  const bool half = kSide > 1 && rows - first_row >= kSide / 2;
  for (int64_t col = 0; half && col < first_col; col += kSide) {
    transpose_half_square<Vector, kSide>(
        src + first_row * src_pitch_bytes + col * kElementBytes, src_pitch_bytes,
        dst + col * dst_pitch_bytes + first_row * kElementBytes, dst_pitch_bytes);
  }
  const int64_t covered_rows = first_row + (half ? kSide / 2 : 0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = row < covered_rows ? first_col : 0; col < cols; ++col) {
      __builtin_memcpy(dst + col * dst_pitch_bytes + row * kElementBytes,
                       src + row * src_pitch_bytes + col * kElementBytes, kElementBytes);
    }
  }
}

template <class Vector, int64_t kElementBytes>
void transpose(const char* src, int64_t src_pitch_bytes, int64_t rows, int64_t cols, char* dst,
               int64_t dst_pitch_bytes, Stores stores) {
  constexpr int kSide = kVectorBytes / kElementBytes;
  const int64_t square_rows = rows - rows % kSide;
  const int64_t square_cols = cols - cols % kSide;
  const bool aligned = is_vector_aligned(dst) && dst_pitch_bytes % kVectorBytes == 0;
  const auto squares = stores == Stores::kStreaming && aligned
                           ? transpose_squares<Vector, kSide, Stores::kStreaming>
                           : transpose_squares<Vector, kSide, Stores::kCached>;
  squares(src, src_pitch_bytes, square_rows, square_cols, dst, dst_pitch_bytes);
  transpose_edges<Vector, kSide>(src, src_pitch_bytes, square_rows, rows, square_cols, cols, dst,
                                 dst_pitch_bytes);
}

}  // namespace

extern const TransposeKernels transpose_kernels_table;
const TransposeKernels transpose_kernels_table{
    .elements_of_1_byte = transpose<Bytes16, 1>,
    .elements_of_2_bytes = transpose<Words8, 2>,
    .elements_of_4_bytes = transpose<DoubleWords4, 4>,
    .elements_of_16_bytes = transpose<Bytes16, 16>,
};

}  // namespace kvops::cpu::KVOPS_ISA
