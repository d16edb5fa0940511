// concat_mla_q on CPU: two copies per (token, head) row.
// Registered as kvops::concat_mla_q for CPU tensors.
// memcpy is already the best the processor has, so there is no kernel per SIMD level.
#include <cstring>

#include "common/parallel.h"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cpu {

void concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe, Tensor& q_out) {
  const ConcatMlaQParams p = validate_concat_mla_q(ql_nope, q_pe, q_out);
  parallel_for(p.tokens * p.heads, 64, [&p](int64_t begin, int64_t end) noexcept {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t token = row / p.heads;
      const int64_t head = row % p.heads;
      char* out = p.q_out + token * p.out_token_stride_bytes + head * p.out_head_stride_bytes;
      std::memcpy(out,
                  p.ql_nope + token * p.nope_token_stride_bytes + head * p.nope_head_stride_bytes,
                  static_cast<size_t>(p.nope_bytes));
      std::memcpy(out + p.nope_bytes,
                  p.q_pe + token * p.rope_token_stride_bytes + head * p.rope_head_stride_bytes,
                  static_cast<size_t>(p.rope_bytes));
    }
  });
}

}  // namespace kvops::cpu
