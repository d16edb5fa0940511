// Contract of swap_blocks_batch (spec 12.1, stricter than vLLM: every entry of the tables).
// Called by cpu::swap_blocks_batch.
// Whether memory is behind an address, and how much, cannot be seen: that is the caller's promise.
#include <string>

#include "common/checks.h"
#include "swap/validate.h"

namespace kvops {
namespace {

constexpr const char* kOp = "swap_blocks_batch";

const int64_t* readable_column(const Tensor& tensor, const char* name, int64_t length) {
  const Arg arg{kOp, name};
  if (!tensor.is_cpu()) fail(arg, "must be on cpu, got another device");
  check_shape(tensor, arg, {length});
  return readable_int64(tensor, arg);
}

bool address_is_good(int64_t address, int64_t size) {
  return (address != 0) & (static_cast<uint64_t>(address) <= ~static_cast<uint64_t>(size));
}

// A size of 0 copies nothing, whatever the addresses.
bool entry_is_good(const SwapBlocksBatchParams& p, int64_t i) {
  const int64_t size = p.sizes[i];
  const bool reachable =
      address_is_good(p.src_ptrs[i], size) & address_is_good(p.dst_ptrs[i], size);
  return (size >= 0) & (reachable | (size == 0));
}

[[noreturn]] void fail_entry(const char* name, int64_t index, const std::string& what) {
  const std::string entry = std::string(name) + "[" + std::to_string(index) + "]";
  fail({kOp, entry.c_str()}, what);
}

void check_address(const char* name, int64_t index, int64_t address, int64_t size) {
  if (address == 0) {
    fail_entry(name, index,
               "must not be null when sizes[" + std::to_string(index) +
                   "] is positive, got 0 for " + std::to_string(size) + " bytes");
  }
  if (static_cast<uint64_t>(address) > UINT64_MAX - static_cast<uint64_t>(size)) {
    fail_entry(name, index,
               "must leave room for sizes[" + std::to_string(index) +
                   "] bytes in the address space, got " + std::to_string(address) + " for " +
                   std::to_string(size) + " bytes");
  }
}

// The first entry that is wrong, in words.
[[noreturn]] void fail_bad_entry(const SwapBlocksBatchParams& p) {
  int64_t total_bytes = 0;
  for (int64_t i = 0; i < p.num_copies; ++i) {
    if (p.sizes[i] < 0) {
      fail_entry("sizes", i, "must not be negative, got " + std::to_string(p.sizes[i]));
    }
    if (__builtin_add_overflow(total_bytes, p.sizes[i], &total_bytes)) break;
    if (p.sizes[i] == 0) continue;
    check_address("src_ptrs", i, p.src_ptrs[i], p.sizes[i]);
    check_address("dst_ptrs", i, p.dst_ptrs[i], p.sizes[i]);
  }
  fail({kOp, "sizes"}, "must sum up to less than 2^63 bytes, got more");
}

}  // namespace

SwapBlocksBatchParams validate_swap_blocks_batch(const Tensor& src_ptrs, const Tensor& dst_ptrs,
                                                 const Tensor& sizes) {
  check_dim(src_ptrs, {kOp, "src_ptrs"}, 1);
  const int64_t num_copies = src_ptrs.size(0);
  SwapBlocksBatchParams p = {
      .src_ptrs = readable_column(src_ptrs, "src_ptrs", num_copies),
      .dst_ptrs = readable_column(dst_ptrs, "dst_ptrs", num_copies),
      .sizes = readable_column(sizes, "sizes", num_copies),
      .num_copies = num_copies,
      .total_bytes = 0,
  };
  // Nothing moves before all entries have been looked at, so the look must be quick: what is wrong,
  // and where, is found out after something is.
  bool good = true;
  for (int64_t i = 0; i < num_copies; ++i) {
    good &= entry_is_good(p, i);
    // Wraps where the sum does; sizes are below 2^63, so it shows at once.
    p.total_bytes = static_cast<int64_t>(static_cast<uint64_t>(p.total_bytes) +
                                         static_cast<uint64_t>(p.sizes[i]));
    good &= p.total_bytes >= 0;
  }
  if (!good) fail_bad_entry(p);
  return p;
}

}  // namespace kvops
