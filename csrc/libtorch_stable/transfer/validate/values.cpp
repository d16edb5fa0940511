// Values of tables and, in checked mode, of indices. See transfer/validate.h.
// Called between validation and the first write, with what the host can read.
#include <string>

#include "common/checked_mode.h"
#include "common/checks.h"
#include "transfer/validate.h"

namespace kvops {

void check_addresses(const char* op, const char* table_name, const uint64_t* table,
                     int64_t num_layers) {
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (table[layer] != 0) continue;
    const std::string entry = std::string(table_name) + "[" + std::to_string(layer) + "]";
    fail({op, entry.c_str()}, "must be an address, got 0");
  }
}

void check_transfer_indices(const char* op, const int64_t* src_indices, const int64_t* dst_indices,
                            int64_t num_items, const TokenGrid& src, const TokenGrid& dst) {
  check_index_values({op, "src_indices"}, src_indices, num_items, 0, src.num_tokens);
  check_index_values({op, "dst_indices"}, dst_indices, num_items, 0, dst.num_tokens);
}

}  // namespace kvops
