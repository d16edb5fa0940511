// Element types and cache kinds as kernels see them: no torch in here.
// Used by validation (which fills them in) and by every kernel and dispatcher.
// kOther is any dtype that no operator takes; validation never lets it through.
#pragma once

#include <cstdint>

namespace kvops {

enum class DType : uint8_t {
  kUInt8,
  kInt32,
  kInt64,
  kHalf,
  kBFloat16,
  kFloat,
  kFloat8E4m3fn,
  kFloat8E5m2,
  kOther,
};

// How the elements of a cache relate to the tensor they come from or go to.
enum class CacheKind : uint8_t {
  kAuto,      // the same type, copied bit for bit
  kFp8E4m3,   // one byte each, divided by a scale when stored, multiplied by it when loaded
  kFp8E5m2,   // likewise
  kFp8DsMla,  // 656-byte MLA entries (spec: fp8_ds_mla)
  // Spellings that validation resolves; no parameter struct holds them.
  kFp8DsMlaPow2,  // kFp8DsMla with scales that are powers of two
  kNvfp4,         // 4-bit elements and a scale for 16 of them (cache/nvfp4.h), V scales in tiles
  kNvfp4Linear,   // the same, V scales in order
};

}  // namespace kvops
