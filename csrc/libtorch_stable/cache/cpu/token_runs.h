// Splits a slot mapping into runs: tokens that follow each other in the input and in one page.
// Used by reshape_and_cache. Slots outside of the cache end a run and are skipped.
#pragma once

#include <cstdint>

#include "cache/params.h"

namespace kvops::cpu {

struct TokenRun {
  int64_t token;   // the first one
  int64_t count;   // at least 1
  int64_t block;   // all in this page,
  int64_t offset;  // from here on
};

// Calls body(TokenRun) for each run among the tokens [begin, end), in order.
template <class Body>
void for_each_run(const CacheWriterParams& p, int64_t begin, int64_t end, const Body& body) {
  for (int64_t token = begin; token < end;) {
    const int64_t slot = p.slot_mapping[token];
    int64_t count = 1;
    if (slot >= 0 && slot < p.num_slots) {
      const int64_t offset = slot % p.block_size;
      while (token + count < end && offset + count < p.block_size &&
             p.slot_mapping[token + count] == slot + count) {
        ++count;
      }
      body(TokenRun{token, count, slot / p.block_size, offset});
    }
    token += count;
  }
}

}  // namespace kvops::cpu
