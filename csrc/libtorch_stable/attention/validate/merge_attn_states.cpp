// Contract of merge_attn_states (spec 10): wider than vLLM, every tensor has strides of its own.
// Called by the CPU and CUDA operators. Only last dimensions of outputs must be dense.
#include "attention/validate.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr const char* kOp = "merge_attn_states";

struct Sizes {
  int64_t tokens;
  int64_t heads;
  int64_t head_size;
  int64_t tokens_with_prefix;
};

int64_t tokens_with_prefix(const std::optional<int64_t>& value, int64_t num_tokens) {
  const int64_t tokens = value.value_or(num_tokens);
  if (tokens < 0 || tokens > num_tokens) {
    fail({kOp, "prefill_tokens_with_context"},
         "must be in [0, " + std::to_string(num_tokens) + "], got " + std::to_string(tokens));
  }
  return tokens;
}

void check_devices(const Tensor& output, const OptionalTensor& optional, const char* name) {
  if (optional) check_same_device(kOp, {{output, "output"}, {*optional, name}});
}

void check_at_least(const Tensor& tensor, Arg arg, int64_t dim, int64_t size) {
  if (tensor.size(dim) < size) {
    fail(arg, "must have at least prefill_tokens_with_context = " + std::to_string(size) +
                  " tokens in dimension " + std::to_string(dim) + ", got shape " +
                  shape_text(tensor));
  }
}

void check_prefix(const Tensor& output, const Tensor& lse, const Sizes& n, DType dtype) {
  check_shape(output, {kOp, "prefix_output"}, {kAnySize, n.heads, n.head_size});
  check_at_least(output, {kOp, "prefix_output"}, 0, n.tokens_with_prefix);
  check_dtype(output, {kOp, "prefix_output"}, {dtype});
  check_stride(output, {kOp, "prefix_output"}, 2, 1);
  check_shape(lse, {kOp, "prefix_lse"}, {n.heads, kAnySize});
  check_at_least(lse, {kOp, "prefix_lse"}, 1, n.tokens_with_prefix);
  check_dtype(lse, {kOp, "prefix_lse"}, {DType::kFloat});
}

void check_suffix(const Tensor& output, const Tensor& lse, const Sizes& n, DType dtype) {
  check_shape(output, {kOp, "suffix_output"}, {n.tokens, n.heads, n.head_size});
  check_dtype(output, {kOp, "suffix_output"}, {dtype});
  check_stride(output, {kOp, "suffix_output"}, 2, 1);
  check_shape(lse, {kOp, "suffix_lse"}, {n.heads, n.tokens});
  check_dtype(lse, {kOp, "suffix_lse"}, {DType::kFloat});
}

void check_output(const Tensor& output, bool has_scale, DType dtype) {
  check_stride(output, {kOp, "output"}, 2, 1);
  if (has_scale) {
    check_dtype(output, {kOp, "output"}, {DType::kFloat8E4m3fn, DType::kUInt8});
  } else {
    check_dtype(output, {kOp, "output"}, {dtype});
  }
}

}  // namespace

MergeAttnStatesParams validate_merge_attn_states(
    const Tensor& output, const OptionalTensor& output_lse, const Tensor& prefix_output,
    const Tensor& prefix_lse, const Tensor& suffix_output, const Tensor& suffix_lse,
    const std::optional<int64_t>& prefill_tokens_with_context, const OptionalTensor& output_scale) {
  check_same_device(kOp, {{output, "output"},
                          {prefix_output, "prefix_output"},
                          {prefix_lse, "prefix_lse"},
                          {suffix_output, "suffix_output"},
                          {suffix_lse, "suffix_lse"}});
  check_devices(output, output_lse, "output_lse");
  check_devices(output, output_scale, "output_scale");
  check_dim(output, {kOp, "output"}, 3);
  const DType dtype = check_dtype(prefix_output, {kOp, "prefix_output"},
                                  {DType::kHalf, DType::kBFloat16, DType::kFloat});
  const Sizes n = {output.size(0), output.size(1), output.size(2),
                   tokens_with_prefix(prefill_tokens_with_context, output.size(0))};
  check_output(output, output_scale.has_value(), dtype);
  check_prefix(prefix_output, prefix_lse, n, dtype);
  check_suffix(suffix_output, suffix_lse, n, dtype);
  if (output_lse) {
    check_shape(*output_lse, {kOp, "output_lse"}, {n.heads, n.tokens});
    check_dtype(*output_lse, {kOp, "output_lse"}, {DType::kFloat});
  }
  const auto floats = [](const Tensor& tensor, const char* name) {
    return static_cast<const float*>(readable(tensor, {kOp, name}));
  };
  return {
      .output = writable(output, {kOp, "output"}),
      .output_lse =
          output_lse ? static_cast<float*>(writable(*output_lse, {kOp, "output_lse"})) : nullptr,
      .prefix_output = readable(prefix_output, {kOp, "prefix_output"}),
      .prefix_lse = floats(prefix_lse, "prefix_lse"),
      .suffix_output = readable(suffix_output, {kOp, "suffix_output"}),
      .suffix_lse = floats(suffix_lse, "suffix_lse"),
      .output_scale =
          output_scale ? readable_scale(*output_scale, {kOp, "output_scale"}, 1) : nullptr,
      .num_tokens = n.tokens,
      .num_heads = n.heads,
      .head_size = n.head_size,
      .tokens_with_prefix = n.tokens_with_prefix,
      .output_token_stride = output.stride(0),
      .output_head_stride = output.stride(1),
      .prefix_token_stride = prefix_output.stride(0),
      .prefix_head_stride = prefix_output.stride(1),
      .suffix_token_stride = suffix_output.stride(0),
      .suffix_head_stride = suffix_output.stride(1),
      .output_lse_head_stride = output_lse ? output_lse->stride(0) : 0,
      .output_lse_token_stride = output_lse ? output_lse->stride(1) : 0,
      .prefix_lse_head_stride = prefix_lse.stride(0),
      .prefix_lse_token_stride = prefix_lse.stride(1),
      .suffix_lse_head_stride = suffix_lse.stride(0),
      .suffix_lse_token_stride = suffix_lse.stride(1),
      .dtype = dtype,
  };
}

}  // namespace kvops
