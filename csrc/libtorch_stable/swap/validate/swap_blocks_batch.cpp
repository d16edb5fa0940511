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

// Nothing moves before all entries have been looked at, so the look must be quick: sums that the
// compiler does several of at once. False if something may be wrong, or is only unusual.
bool all_are_usual(const SwapBlocksBatchParams& p, int64_t& total_bytes) {
  uint64_t sizes = 0;   // every bit that is set anywhere
  uint64_t others = 0;  // likewise; a number less one has the highest bit set if it was 0
  uint64_t sum = 0;
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const auto src = static_cast<uint64_t>(p.src_ptrs[i]);
    const auto dst = static_cast<uint64_t>(p.dst_ptrs[i]);
    const auto size = static_cast<uint64_t>(p.sizes[i]);
    sizes |= size;
    others |= src | (src - 1) | dst | (dst - 1);
    sum += size;
  }
  total_bytes = static_cast<int64_t>(sum);
  // No end of a copy and no sum can reach 2^63 then.
  constexpr uint64_t kUsualSize = uint64_t{1} << 40;
  constexpr uint64_t kUsualAddress = uint64_t{1} << 62;
  return sizes < kUsualSize && others < kUsualAddress && p.num_copies < (int64_t{1} << 22);
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

// One by one; the first entry that is wrong, in words. Returns the sum of all sizes.
int64_t check_entries(const SwapBlocksBatchParams& p) {
  int64_t total_bytes = 0;
  for (int64_t i = 0; i < p.num_copies; ++i) {
    if (p.sizes[i] < 0) {
      fail_entry("sizes", i, "must not be negative, got " + std::to_string(p.sizes[i]));
    }
    if (__builtin_add_overflow(total_bytes, p.sizes[i], &total_bytes)) {
      fail({kOp, "sizes"}, "must sum up to less than 2^63 bytes, got more");
    }
    if (p.sizes[i] == 0) continue;
    check_address("src_ptrs", i, p.src_ptrs[i], p.sizes[i]);
    check_address("dst_ptrs", i, p.dst_ptrs[i], p.sizes[i]);
  }
  return total_bytes;
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
  if (!all_are_usual(p, p.total_bytes)) p.total_bytes = check_entries(p);
  return p;
}

}  // namespace kvops
