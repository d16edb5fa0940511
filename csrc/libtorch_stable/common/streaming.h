// Stores around the cache, for results larger than what caches keep: an ordinary store first reads
// the line from memory. Used by CPU operators that write whole cache lines.
// Every thread that stored so calls finish_streaming() last: the end of a parallel loop does not
// order such stores.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace kvops::cpu {

// Below this many bytes the caches hold what is written, and the next operator finds it there.
inline constexpr int64_t kStreamingBytes = int64_t{8} << 20;
inline constexpr int64_t kCacheLineBytes = 64;

inline bool is_whole_lines(int64_t bytes) { return bytes % kCacheLineBytes == 0; }
inline bool is_line_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kCacheLineBytes == 0;
}

inline void finish_streaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Whole lines, to the start of a line.
inline void stream_lines(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  constexpr int kVectors = kCacheLineBytes / sizeof(__m128i);
  for (int64_t line = 0; line < bytes; line += kCacheLineBytes) {
    const auto* source = reinterpret_cast<const __m128i*>(from + line);
    auto* target = reinterpret_cast<__m128i*>(to + line);
    __m128i vectors[kVectors];
    for (int i = 0; i < kVectors; ++i) vectors[i] = _mm_loadu_si128(source + i);
    for (int i = 0; i < kVectors; ++i) _mm_stream_si128(target + i, vectors[i]);
  }
#else
  std::memcpy(to, from, static_cast<size_t>(bytes));
#endif
}

}  // namespace kvops::cpu
