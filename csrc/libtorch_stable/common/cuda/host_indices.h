// Checked mode on CUDA: index values, copied to the host so that the same checks serve both
// devices. Used by thin CUDA operators only where checked_mode() is on: the copy waits for the
// stream. Raises under graph capture, where nothing can be waited for.
#pragma once

#include <cstdint>
#include <vector>

#include "common/cuda/context.h"

namespace kvops::cuda {

// Copies `bytes` of device memory, in stream order, and waits for them.
void copy_to_host(const CudaContext& context, const char* argument, void* to, const void* from,
                  size_t bytes);

template <class Int>
class HostIndices {
 public:
  // `count` elements from `values` on, gaps between rows included.
  HostIndices(const CudaContext& context, const char* argument, const Int* values, int64_t count)
      : values_(static_cast<size_t>(values != nullptr && count > 0 ? count : 0)) {
    copy_to_host(context, argument, values_.data(), values, values_.size() * sizeof(Int));
  }

  const Int* data() const { return values_.data(); }

 private:
  std::vector<Int> values_;
};

}  // namespace kvops::cuda
