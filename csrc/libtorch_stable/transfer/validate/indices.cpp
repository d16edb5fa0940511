// Checked mode of the transfers. See transfer/validate.h.
// Called between validation and the first write, with indices that the host can read.
#include "common/checked_mode.h"
#include "transfer/validate.h"

namespace kvops {

void check_transfer_indices(const char* op, const int64_t* src_indices, const int64_t* dst_indices,
                            int64_t num_items, const TokenGrid& src, const TokenGrid& dst) {
  check_index_values({op, "src_indices"}, src_indices, num_items, 0, src.num_tokens);
  check_index_values({op, "dst_indices"}, dst_indices, num_items, 0, dst.num_tokens);
}

}  // namespace kvops
