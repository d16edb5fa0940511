// Finds entries within a warp, for calls of so few requests that each has a lane: nothing is waited
// for but the tables. Used by gather_few.cuh, gather_lanes.cuh and gather_keys.cuh; all lanes call
// everything here.
// Only code that every call comes along is in line.
#pragma once

#include <cstdint>

#include "gather/cuda/kernels/requests.cuh"

namespace kvops::kernels {

inline constexpr int kLaneRequests = 31;  // a lane for each row start

// Whether there are lanes enough, and all sums and products of indices fit into 31 bits.
inline bool lanes_suffice(const GatherTables& t) {
  return t.num_requests <= kLaneRequests && t.positions <= NarrowDivisor::kEnd &&
         t.table_elems <= NarrowDivisor::kEnd;
}

__device__ __forceinline__ int32_t of_lane(int32_t value, uint32_t lane) {
  return __shfl_sync(~0u, value, static_cast<int>(lane));
}

// A load of a table. All start before the first is waited for: as volatile ones they stay where
// they are written, else the compiler moves them to where they are used.
__device__ __forceinline__ int32_t read_index(const int32_t* from) {
  return *static_cast<const volatile int32_t*>(from);
}

// What the tables say of the request that has the lane's number.
struct LaneStarts {
  int32_t row;
  int32_t sequence;
};

// kCached: through the L1, where another thread block may have brought them.
template <bool kCached>
__device__ __forceinline__ LaneStarts read_lane_starts(const GatherTables& t, uint32_t lane) {
  const auto read = [](const int32_t* from) { return kCached ? *from : read_index(from); };
  // Lanes without a row start have one behind all rows.
  LaneStarts own = {t.dst_rows, 0};
  if (lane < static_cast<uint32_t>(t.num_row_starts)) own.row = read(t.row_starts + lane);
  if (t.seq_starts != nullptr && lane < static_cast<uint32_t>(t.num_requests)) {
    own.sequence = read(t.seq_starts + lane);
  }
  return own;
}

// Whether it is the lane's starts that are not sound, as RowStarts::are_sound.
__device__ __forceinline__ bool is_bad(const GatherTables& t, const LaneStarts& own) {
  return own.row < __shfl_up_sync(~0u, own.row, 1) || own.sequence < 0 ||
         static_cast<uint32_t>(own.row) > static_cast<uint32_t>(t.dst_rows);
}

// The row of a lane; rows do not descend from lane to lane.
struct LaneRow {
  int32_t row;
  int32_t first;  // that of lane 0
  int32_t last;   // that of lane 31
  bool exists;    // if not, another's
};

// From `first` on, one for each lane.
__device__ __forceinline__ LaneRow neighbour_row(const GatherTables& t, uint32_t first,
                                                 uint32_t lane) {
  const uint32_t last = static_cast<uint32_t>(t.num_rows) - 1;
  return {static_cast<int32_t>(min(first + lane, last)), static_cast<int32_t>(first),
          static_cast<int32_t>(min(first + 31, last)), first + lane <= last};
}

// Where each lane read a block before it was known which are needed: `num_pages` of each request,
// from its first.
struct EarlyBlocks {
  NarrowDivisor pages = NarrowDivisor(1);
  uint32_t num_pages = 0;  // 0: none, they are more than lanes
  uint32_t num_blocks = 0;
};

__device__ __forceinline__ int32_t read_early_block(const GatherTables& t, const EarlyBlocks& early,
                                                    uint32_t lane) {
  if (lane >= early.num_blocks) return -1;
  const Divided<uint32_t> at = early.pages.divide(lane);
  return read_index(
      t.block_table +
      (at.quotient * static_cast<uint32_t>(t.block_table_stride_elems) + at.remainder));
}

// The request of the lane's row, if starts are sound; ~0u if there is none.
__device__ __forceinline__ uint32_t request_by_starts(const LaneStarts& own, const LaneRow& at) {
  const auto last_up_to = [&own](int32_t row) {
    return static_cast<uint32_t>(__popc(__ballot_sync(~0u, own.row <= row)) - 1);
  };
  uint32_t request = last_up_to(at.first);
  // A warp has rows of one request, most often.
  if (__builtin_expect(request == last_up_to(at.last), true)) return request;
  request = ~0u;
#pragma unroll
  for (uint32_t step = 16; step > 0; step /= 2) {
    if (of_lane(own.row, request + step) <= at.row) request += step;
  }
  return request;
}

// What block_table has to be asked for.
struct LanePosition {
  uint32_t request;
  uint32_t position;  // of the row, in its request's sequence
  uint32_t page;
  bool exists;  // if not, they are 0, and the position is any
};

// `token_request`: what token_to_seq says of the lane's row, if there is one.
__device__ __forceinline__ LanePosition find_position(const GatherTables& t, const LaneStarts& own,
                                                      const LaneRow& at, int32_t token_request) {
  uint32_t request = static_cast<uint32_t>(token_request);
  if (t.token_to_seq == nullptr) request = request_by_starts(own, at);
  const bool has_request = at.exists && request < static_cast<uint32_t>(t.num_requests);
  const uint32_t owner = has_request ? request : 0;
  const int32_t first = of_lane(own.row, owner);
  const int32_t end = of_lane(own.row, owner + 1);
  const uint32_t position =
      static_cast<uint32_t>(of_lane(own.sequence, owner)) + static_cast<uint32_t>(at.row - first);
  const bool exists = has_request && first <= at.row && at.row < end && position < t.positions;
  return {owner, position, t.block_size.narrow_quotient(exists ? position : 0), exists};
}

__device__ __forceinline__ int32_t read_block(const GatherTables& t, const LanePosition& at) {
  return t.block_table[at.request * static_cast<uint32_t>(t.block_table_stride_elems) + at.page];
}

static __device__ __noinline__ Entry find_among_unsound(const GatherTables& t, int32_t row) {
  return find_entry(t, {t.row_starts, t.seq_starts, false}, -1, row);
}

// Of the lane's row. `token_request` as above; `early_block` is of read_early_block if
// `num_early_pages` is not 0.
__device__ __forceinline__ Entry find_by_lanes(const GatherTables& t, const LaneStarts& own,
                                               const LaneRow& row, int32_t token_request,
                                               int32_t early_block, uint32_t num_early_pages,
                                               bool& starts_are_sound) {
  const LanePosition at = find_position(t, own, row, token_request);
  const bool is_early = at.page < num_early_pages;
  int32_t block = -1;
  if (num_early_pages != 0) {
    block = of_lane(early_block, is_early ? at.request * num_early_pages + at.page : 0);
  }
  if (at.exists && !is_early) block = read_block(t, at);
  starts_are_sound = __any_sync(~0u, is_bad(t, own)) == 0;
  const bool found =
      at.exists && static_cast<uint32_t>(block) < static_cast<uint32_t>(t.num_blocks);
  Entry entry = {found ? block : -1, t.block_size.remainder(at.position, at.page)};
  // Several requests may claim a row.
  if (__builtin_expect(!starts_are_sound && t.token_to_seq == nullptr && row.exists, false)) {
    entry = find_among_unsound(t, row.row);
  }
  return entry;
}

// ---- what is wrong in the tables, after the rows have moved

static __device__ __noinline__ void report_lane_row(const GatherTables& t,
                                                    const GatherReports& reports,
                                                    bool starts_are_sound, int32_t row) {
  report_row(t, reports, {t.row_starts, t.seq_starts, starts_are_sound}, row);
}

// Called by one whole block.
static __device__ __noinline__ void report_lane_starts(const GatherTables& t,
                                                       const GatherReports& reports) {
  report_bad_starts(t, reports, {t.row_starts, t.seq_starts, false}, static_cast<int>(threadIdx.x),
                    static_cast<int>(blockDim.x));
}

}  // namespace kvops::kernels
