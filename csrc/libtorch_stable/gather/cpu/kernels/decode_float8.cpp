// Float8 to float, half and bfloat16: the loops behind the dequantising gathers.
// Called through gather_kernels() (gather/cpu/kernels.h); compiled once per SIMD level.
// A byte and a scale have one result, so a call with one scale converts 256 values and looks up
// the rest: at least as fast as converting each with AVX2, and equal at every level by nature.
#include "common/float_convert.h"
#include "gather/cpu/kernels.h"
#include "gather/params.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace kvops::cpu::KVOPS_ISA {
namespace {

// A processor's NaN keeps sign and payload of an operand; a GPU has one NaN only.
static inline float with_canonical_nan(float x) {
  return (float_bits(x) & 0x7fffffffu) > 0x7f800000u ? bits_float(0x7fffffffu) : x;
}

template <class From, class T>
void convert(T* __restrict dst, const From* __restrict src, int64_t count, float scale) {
  for (int64_t i = 0; i < count; ++i) {
    const float product = to_float(src[i]) * scale;
    if constexpr (sizeof(T) == sizeof(float)) {
      dst[i] = with_canonical_nan(product);
    } else {
      dst[i] = from_float<T>(product);
    }
  }
}

template <class Fp8>
void fill_table_from(DecodeTable& table, DType dtype, float scale) {
  Fp8 bytes[256];
  for (int i = 0; i < 256; ++i) bytes[i].bits = static_cast<uint8_t>(i);
  void* const values = table.words;
  switch (dtype) {
    case DType::kHalf:
      return convert(static_cast<half_t*>(values), bytes, 256, scale);
    case DType::kBFloat16:
      return convert(static_cast<bfloat16_t*>(values), bytes, 256, scale);
    default:
      return convert(static_cast<float*>(values), bytes, 256, scale);
  }
}

void fill_table(DecodeTable& table, CacheKind kind, DType dtype, float scale) {
  if (kind == CacheKind::kFp8E4m3) {
    fill_table_from<e4m3_t>(table, dtype, scale);
  } else {
    fill_table_from<e5m2_t>(table, dtype, scale);
  }
}

template <class Word>
void look_up(Word* __restrict dst, const uint8_t* __restrict src, int64_t count,
             const Word* __restrict table) {
  for (int64_t i = 0; i < count; ++i) dst[i] = table[src[i]];
}

#if defined(__AVX512BW__)

// The table lies in eight registers of 32 values; two of them serve one permutation by 6 bits of
// the byte, and its upper two bits choose among the four results.
int64_t look_up_by_32(uint16_t* dst, const uint8_t* src, int64_t count, const uint16_t* table) {
  __m512i part[8];
  for (int i = 0; i < 8; ++i) part[i] = _mm512_loadu_si512(table + 32 * i);
  const __m512i bit6 = _mm512_set1_epi16(64);
  const __m512i bit7 = _mm512_set1_epi16(128);
  int64_t done = 0;
  for (; done + 32 <= count; done += 32) {
    const void* from = src + done;
    const __m512i byte =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
    const __mmask32 has_bit6 = _mm512_test_epi16_mask(byte, bit6);
    const __mmask32 has_bit7 = _mm512_test_epi16_mask(byte, bit7);
    const __m512i low =
        _mm512_mask_blend_epi16(has_bit6, _mm512_permutex2var_epi16(part[0], byte, part[1]),
                                _mm512_permutex2var_epi16(part[2], byte, part[3]));
    const __m512i high =
        _mm512_mask_blend_epi16(has_bit6, _mm512_permutex2var_epi16(part[4], byte, part[5]),
                                _mm512_permutex2var_epi16(part[6], byte, part[7]));
    _mm512_storeu_si512(dst + done, _mm512_mask_blend_epi16(has_bit7, low, high));
  }
  return done;
}

#else

int64_t look_up_by_32(uint16_t*, const uint8_t*, int64_t, const uint16_t*) { return 0; }

#endif

void decode_to_2_bytes(void* dst, const void* src, int64_t count, const DecodeTable& table) {
  uint16_t* const to = static_cast<uint16_t*>(dst);
  const uint8_t* const from = static_cast<const uint8_t*>(src);
  const void* const table_start = table.words;
  const uint16_t* const values = static_cast<const uint16_t*>(table_start);
  const int64_t done = look_up_by_32(to, from, count, values);
  look_up(to + done, from + done, count - done, values);
}

void decode_to_4_bytes(void* dst, const void* src, int64_t count, const DecodeTable& table) {
  look_up(static_cast<uint32_t*>(dst), static_cast<const uint8_t*>(src), count, table.words);
}

// Scales differ from tile to tile, so the table gives the unscaled values: bfloat16 holds every
// e4m3 value exactly.
void upconvert_ds_mla(void* dst, const void* src, int64_t entries, const DecodeTable& table) {
  constexpr int64_t kTiles = kDsMlaLatentElems / kTileElems;
  for (int64_t i = 0; i < entries; ++i) {
    bfloat16_t* const row = static_cast<bfloat16_t*>(dst) + i * kDsMlaRowElems;
    const char* const entry = static_cast<const char*>(src) + i * kDsMlaEntryBytes;
    float scales[kTiles];  // an entry may start at any address
    __builtin_memcpy(scales, entry + kDsMlaLatentElems, sizeof(scales));
    bfloat16_t unscaled[kDsMlaLatentElems];
    decode_to_2_bytes(unscaled, entry, kDsMlaLatentElems, table);
    for (int64_t tile = 0; tile < kTiles; ++tile) {
      const int64_t first = tile * kTileElems;
      convert(row + first, unscaled + first, kTileElems, scales[tile]);
    }
    __builtin_memcpy(row + kDsMlaLatentElems, entry + kDsMlaRopeByte,
                     kDsMlaRopeElems * sizeof(bfloat16_t));
  }
}

}  // namespace

extern const GatherKernels gather_kernels_table = {
    .fill_table = fill_table,
    .decode_to_2_bytes = decode_to_2_bytes,
    .decode_to_4_bytes = decode_to_4_bytes,
    .upconvert_ds_mla = upconvert_ds_mla,
};

}  // namespace kvops::cpu::KVOPS_ISA
