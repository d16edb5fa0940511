// Puts copies into tables. Called by copy_launch.cpp; no CUDA, so that tests can look at tables.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "swap/cuda/copy.h"
#include "swap/cuda/kernels/copy_table.h"

namespace kvops::kernels {

// Copies of any size, one table after the other.
class BlockFiller {
 public:
  BlockFiller(std::span<const cuda::Copy> copies, uint32_t piece_bytes)
      : rest_(copies), piece_bytes_(piece_bytes) {}

  // False if nothing was left.
  bool fill(BlockTable& table) {
    table.num_entries = 0;
    table.num_pieces = 0;
    while (!rest_.empty() && table.num_entries < BlockTable::kCapacity) {
      const cuda::Copy& copy = rest_.front();
      const auto bytes =
          static_cast<uint32_t>(std::min<size_t>(copy.bytes - done_bytes_, kMaxEntryBytes));
      table.entries[table.num_entries++] = {copy.src + done_bytes_, copy.dst + done_bytes_, bytes,
                                            table.num_pieces};
      table.num_pieces += (bytes + piece_bytes_ - 1) / piece_bytes_;
      done_bytes_ += bytes;
      if (done_bytes_ == copy.bytes) {
        rest_ = rest_.subspan(1);
        done_bytes_ = 0;
      }
    }
    return table.num_entries > 0;
  }

 private:
  std::span<const cuda::Copy> rest_;
  uint32_t piece_bytes_;
  size_t done_bytes_ = 0;  // of the first of the rest
};

// How a run of copies fits into one RowTable: the first `count` of them, 0 if none do.
struct RowFit {
  size_t count = 0;
  uint64_t src = UINT64_MAX;  // lowest addresses
  uint64_t dst = UINT64_MAX;
  uint32_t step_bits = 0;
  bool is_near = false;  // 16 bits are enough for all steps
};

// Finds it copy by copy.
class RowFitter {
 public:
  explicit RowFitter(const cuda::Copy& first) : first_(first) {}

  // Takes copies from where it is up to this one; stops at one that is no row like the first.
  void go_on(std::span<const cuda::Copy> copies, size_t end) {
    while (fit_.count < end && copies[fit_.count].bytes == first_.bytes) {
      const cuda::Copy& copy = copies[fit_.count];
      if ((copy.src | copy.dst) % kUnitBytes != 0) break;
      fit_.src = std::min<uint64_t>(fit_.src, copy.src);
      fit_.dst = std::min<uint64_t>(fit_.dst, copy.dst);
      last_src_ = std::max<uint64_t>(last_src_, copy.src);
      last_dst_ = std::max<uint64_t>(last_dst_, copy.dst);
      distance_bits_ |= (copy.src ^ first_.src) | (copy.dst ^ first_.dst);
      ++fit_.count;
    }
  }

  RowFit fit() const {
    RowFit fit = fit_;
    if (fit.count == 0) return fit;
    fit.step_bits = static_cast<uint32_t>(std::min(std::countr_zero(distance_bits_), 31));
    const uint64_t reach = std::max(last_src_ - fit.src, last_dst_ - fit.dst) >> fit.step_bits;
    fit.is_near = reach <= UINT16_MAX;
    // Farther apart than 32 bits of steps: rare, and BlockTable takes them.
    if (reach > UINT32_MAX) fit.count = 0;
    return fit;
  }

 private:
  const cuda::Copy& first_;
  RowFit fit_;
  uint64_t last_src_ = 0;
  uint64_t last_dst_ = 0;
  uint64_t distance_bits_ = 0;  // set where addresses differ, or differ from whole units
};

inline RowFit fit_rows(std::span<const cuda::Copy> copies) {
  const cuda::Copy& first = copies.front();
  if (first.bytes > kMaxEntryBytes || first.bytes % kUnitBytes != 0) return {};
  RowFitter fitter(first);
  fitter.go_on(copies, std::min<size_t>(copies.size(), LargeRowTable::kCapacity));
  const RowFit fit = fitter.fit();
  if (!fit.is_near || fit.count < LargeRowTable::kCapacity) return fit;
  fitter.go_on(copies, std::min<size_t>(copies.size(), LargeNearTable::kCapacity));
  const RowFit longer = fitter.fit();
  return longer.is_near ? longer : fit;
}

static_assert(int64_t{LargeNearTable::kCapacity} * (kMaxEntryBytes / kUnitBytes / kRowUnits) <
              NarrowDivisor::kEnd);

template <class Table>
Table fill_rows(std::span<const cuda::Copy> copies, const RowFit& fit) {
  const auto units = static_cast<uint32_t>(copies.front().bytes / kUnitBytes);
  const uint32_t rows = (units + kRowUnits - 1) / kRowUnits;
  const auto num_rows = static_cast<uint32_t>(rows * fit.count);
  Table table{.src = fit.src,
              .dst = fit.dst,
              .by_rows_per_entry = NarrowDivisor(rows),
              .num_rows = num_rows,
              .rows_per_entry = rows,
              .units_per_entry = units,
              .step_bits = fit.step_bits,
              .num_entries = static_cast<uint32_t>(fit.count),
              .is_early = 0,
              .ring = {},
              .entries = {}};
  table.ring.pieces =
      static_cast<uint32_t>((copies.front().bytes + kRingPieceBytes - 1) / kRingPieceBytes);
  using Steps = typename Table::Steps;
  for (size_t i = 0; i < fit.count; ++i) {
    table.entries[i] = {static_cast<Steps>((copies[i].src - fit.src) >> fit.step_bits),
                        static_cast<Steps>((copies[i].dst - fit.dst) >> fit.step_bits)};
  }
  return table;
}

// For so many thread blocks, at most kMostRingCtas.
template <uint32_t kEntries, class Steps>
void set_steps(RowTable<kEntries, Steps>& table, uint32_t ctas) {
  const uint32_t pieces = table.ring.pieces;
  table.ring.by_pieces = ((1u << kRingShift) - 1) / pieces + 1;
  table.ring.step_entries = ctas / pieces;
  table.ring.step_pieces = ctas % pieces;
  const uint32_t ahead = (ring_pieces_ahead(ctas) + pieces - 1) / pieces;
  table.ring.last_entries = table.num_entries > ahead ? table.num_entries - ahead : 0;
}
inline void set_steps(BlockTable&, uint32_t) {}

}  // namespace kvops::kernels
