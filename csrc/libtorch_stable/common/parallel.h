// Runs a loop body on torch's own thread pool. Used by the thin CPU operators.
// The body must not throw: torch 2.10 to 2.12 lose the message of an exception thrown inside.
// Bodies get ranges [begin, end); small problems run in the calling thread.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "common/stable.h"

namespace kvops::cpu {

template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  static_assert(noexcept(body(int64_t{}, int64_t{})), "mark the loop body noexcept");
  if (count <= 0) return;
  const auto call = [](int64_t begin, int64_t end, void* context) {
    (*static_cast<const Body*>(context))(begin, end);
  };
  void* context = const_cast<void*>(static_cast<const void*>(&body));
  if (torch_parallel_for(0, count, grain, call, context) != 0) {
    throw std::runtime_error("kvops: torch_parallel_for failed");
  }
}

inline int64_t num_threads() {
  uint32_t threads = 1;
  torch_get_num_threads(&threads);
  return threads;
}

}  // namespace kvops::cpu
