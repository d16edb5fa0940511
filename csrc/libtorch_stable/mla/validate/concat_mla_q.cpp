// Contract of concat_mla_q (spec 6.4, wider than vLLM: any widths, any dtype).
// Called by cpu::concat_mla_q and cuda::concat_mla_q.
#include "common/checks.h"
#include "mla/validate.h"

namespace kvops {

ConcatMlaQParams validate_concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe,
                                       const Tensor& q_out) {
  constexpr const char* kOp = "concat_mla_q";
  check_same_device(kOp, {{ql_nope, "ql_nope"}, {q_pe, "q_pe"}, {q_out, "q_out"}});
  check_dim(ql_nope, {kOp, "ql_nope"}, 3);
  const int64_t tokens = ql_nope.size(0);
  const int64_t heads = ql_nope.size(1);
  check_shape(q_pe, {kOp, "q_pe"}, {tokens, heads, kAnySize});
  check_shape(q_out, {kOp, "q_out"}, {tokens, heads, ql_nope.size(2) + q_pe.size(2)});
  const DType dtype =
      check_dtype(ql_nope, {kOp, "ql_nope"}, {DType::kHalf, DType::kBFloat16, DType::kFloat});
  check_dtype(q_pe, {kOp, "q_pe"}, {dtype});
  check_dtype(q_out, {kOp, "q_out"}, {dtype});
  check_stride(ql_nope, {kOp, "ql_nope"}, 2, 1);
  check_stride(q_pe, {kOp, "q_pe"}, 2, 1);
  check_stride(q_out, {kOp, "q_out"}, 2, 1);
  const int64_t bytes = element_bytes(dtype);
  return {
      .ql_nope = static_cast<const char*>(readable(ql_nope, {kOp, "ql_nope"})),
      .q_pe = static_cast<const char*>(readable(q_pe, {kOp, "q_pe"})),
      .q_out = static_cast<char*>(writable(q_out, {kOp, "q_out"})),
      .tokens = tokens,
      .heads = heads,
      .nope_bytes = ql_nope.size(2) * bytes,
      .rope_bytes = q_pe.size(2) * bytes,
      .nope_token_stride_bytes = ql_nope.stride(0) * bytes,
      .nope_head_stride_bytes = ql_nope.stride(1) * bytes,
      .rope_token_stride_bytes = q_pe.stride(0) * bytes,
      .rope_head_stride_bytes = q_pe.stride(1) * bytes,
      .out_token_stride_bytes = q_out.stride(0) * bytes,
      .out_head_stride_bytes = q_out.stride(1) * bytes,
  };
}

}  // namespace kvops
