// concat_mla_q on CPU: two copies per (token, head) row, around the cache where it would not help.
// Registered as kvops::concat_mla_q for CPU tensors.
// These are already the best copies the processor has, so there is no kernel per SIMD level.
#include <cstring>

#include "common/parallel.h"
#include "common/streaming.h"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cpu {
namespace {

template <class Copy>
void concat_rows(const ConcatMlaQParams& p, int64_t begin, int64_t end, const Copy& copy) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t token = row / p.heads;
    const int64_t head = row % p.heads;
    char* out = p.q_out + token * p.out_token_stride_bytes + head * p.out_head_stride_bytes;
    copy(out, p.ql_nope + token * p.nope_token_stride_bytes + head * p.nope_head_stride_bytes,
         p.nope_bytes);
    copy(out + p.nope_bytes,
         p.q_pe + token * p.rope_token_stride_bytes + head * p.rope_head_stride_bytes,
         p.rope_bytes);
  }
}

bool is_streamed(const ConcatMlaQParams& p) {
  const int64_t out_bytes = p.tokens * p.heads * (p.nope_bytes + p.rope_bytes);
  return out_bytes >= kStreamingBytes && is_line_aligned(p.q_out) &&
         is_whole_lines(p.nope_bytes | p.rope_bytes | p.out_token_stride_bytes |
                        p.out_head_stride_bytes);
}

}  // namespace

void concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe, Tensor& q_out) {
  const ConcatMlaQParams p = validate_concat_mla_q(ql_nope, q_pe, q_out);
  const bool streamed = is_streamed(p);
  parallel_for(p.tokens * p.heads, 64, [&](int64_t begin, int64_t end) noexcept {
    if (streamed) {
      concat_rows(p, begin, end, stream_lines);
      finish_streaming();
    } else {
      concat_rows(p, begin, end, [](char* to, const char* from, int64_t bytes) {
        std::memcpy(to, from, static_cast<size_t>(bytes));
      });
    }
  });
}

}  // namespace kvops::cpu
