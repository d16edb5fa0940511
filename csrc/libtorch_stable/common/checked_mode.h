// Checked mode (kvops.checked(), KVOPS_CHECKED=1): index values are looked at before the first
// byte is written, and a bad one raises. Without it, bad indices are skipped.
// A property of the calling thread; set from Python through kvops_set_checked.
#pragma once

#include <cstdint>
#include <string>

#include "common/checks.h"

namespace kvops {

bool checked_mode();
void set_checked_mode(bool on);

// In checked mode: every values[i] must be in [low, high), else a RuntimeError names index and
// value. Does nothing otherwise.
template <class Int>
void check_index_values(Arg arg, const Int* values, int64_t count, int64_t low, int64_t high) {
  if (!checked_mode()) return;
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] < low || values[i] >= high) {
      const std::string name = std::string(arg.name) + "[" + std::to_string(i) + "]";
      fail({arg.op, name.c_str()}, "must be in [" + std::to_string(low) + ", " +
                                       std::to_string(high) + "), got " +
                                       std::to_string(values[i]));
    }
  }
}

// Slots: -1 is padding, anything else below 0 is a mistake.
inline void check_slots(Arg arg, const int64_t* slots, int64_t count, int64_t num_slots) {
  check_index_values(arg, slots, count, -1, num_slots);
}

}  // namespace kvops
