// The driver layer of the swaps behind C functions, for tests that load it through ctypes without
// torch, a CUDA runtime or a GPU. Errors become messages.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "common/cuda/driver.h"
#include "swap/cuda/block_order.h"
#include "swap/cuda/copy_plan.h"
#include "swap/cuda/driver_copies.h"
#include "swap/cuda/host_pace.h"
#include "swap/cuda/path_choice.h"

#define HARNESS extern "C" __attribute__((visibility("default")))

namespace kvops::cuda {

// Instead of common/cuda/driver.cpp, which needs the runtime's headers.
void* driver_library() {
  static void* const library = dlopen(std::getenv("KVOPS_LIBCUDA"), RTLD_NOW | RTLD_LOCAL);
  return library;
}

}  // namespace kvops::cuda

namespace {

using kvops::cuda::Copy;

std::vector<Copy> copies_of(const int64_t* srcs, const int64_t* dsts, const int64_t* sizes,
                            int64_t count) {
  std::vector<Copy> copies(static_cast<size_t>(count));
  for (size_t i = 0; i < copies.size(); ++i) {
    copies[i] = {.src = static_cast<uintptr_t>(srcs[i]),
                 .dst = static_cast<uintptr_t>(dsts[i]),
                 .bytes = static_cast<size_t>(sizes[i]),
                 .index = static_cast<int64_t>(i)};
  }
  return copies;
}

// Batch first, single copies for what it leaves, as CopyRun does; returns what the batch did.
int64_t copy_all(const std::vector<Copy>& copies, const kvops::cuda::BatchOptions& options) {
  const kvops::cuda::DriverEntry* driver = kvops::cuda::driver_entry();
  if (driver == nullptr) throw std::runtime_error("no driver");
  const size_t done = kvops::cuda::copy_by_batch(*driver, options, copies).copies;
  kvops::cuda::copy_one_by_one(*driver, options.op, options.stream,
                               std::span(copies).subspan(done));
  return static_cast<int64_t>(done);
}

constexpr CUstream no_stream = nullptr;

}  // namespace

HARNESS int harness_has_driver() { return kvops::cuda::driver_entry() != nullptr; }

HARNESS int64_t harness_max_descriptors() {
  return static_cast<int64_t>(kvops::cuda::max_descriptors());
}

// How many copies the batch call did; -1 and a message if something was raised.
HARNESS int64_t harness_copy(const int64_t* srcs, const int64_t* dsts, const int64_t* sizes,
                             int64_t count, int any_order, int64_t chunk_copies, void* stream,
                             char* message, size_t message_bytes) {
  try {
    return copy_all(copies_of(srcs, dsts, sizes, count),
                    {.op = "swap_blocks_batch",
                     .stream = static_cast<CUstream>(stream),
                     .any_order = any_order != 0,
                     .chunk_copies = static_cast<size_t>(chunk_copies)});
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    return -1;
  }
}

// Threads that all make their first call at once; how many of them used the batch call.
HARNESS int harness_race(int threads) {
  std::atomic<int> waiting{threads};
  std::atomic<int> by_batch{0};
  const auto work = [&] {
    const int64_t number = 42;
    int64_t copied = 0;
    const Copy copy{.src = reinterpret_cast<uintptr_t>(&number),
                    .dst = reinterpret_cast<uintptr_t>(&copied),
                    .bytes = sizeof(number),
                    .index = 0};
    --waiting;
    while (waiting.load() > 0) {
    }
    const int64_t done = copy_all(
        {copy}, {.op = "race", .stream = no_stream, .any_order = false, .chunk_copies = 1});
    if (done == 1 && copied == number) ++by_batch;
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i) pool.emplace_back(work);
  for (std::thread& thread : pool) thread.join();
  return by_batch.load();
}

// Fills rows of (list, src, dst, bytes, index); the number of rows, or -1.
HARNESS int64_t harness_plan(const int64_t* srcs, const int64_t* dsts, const int64_t* sizes,
                             int64_t count, int device, int64_t* rows, int64_t most_rows) {
  kvops::cuda::MemoryMap memory("swap_blocks_batch", kvops::cuda::driver_entry());
  kvops::cuda::CopyPlanner planner(memory, device);
  for (const Copy& copy : copies_of(srcs, dsts, sizes, count)) planner.add(copy);
  int64_t written = 0;
  for (int list_index = 0; list_index < kvops::cuda::kNumCopyKinds; ++list_index) {
    for (const Copy& copy : planner.list(static_cast<kvops::cuda::CopyKind>(list_index))) {
      if (written == most_rows) return -1;
      const int64_t row[] = {list_index, static_cast<int64_t>(copy.src),
                             static_cast<int64_t>(copy.dst), static_cast<int64_t>(copy.bytes),
                             copy.index};
      std::memcpy(rows + 5 * written++, row, sizeof(row));
    }
  }
  return written;
}

// Whether tables that are planned many at once, where that can be, become the plan of one by one.
HARNESS int harness_plans_alike(const int64_t* srcs, const int64_t* dsts, const int64_t* sizes,
                                int64_t count, int device, int64_t most) {
  const kvops::SwapBlocksBatchParams tables{srcs, dsts, sizes, count, /*total_bytes=*/0};
  kvops::cuda::MemoryMap memory("swap_blocks_batch", kvops::cuda::driver_entry());
  kvops::cuda::CopyPlanner at_once(memory, device);
  kvops::cuda::CopyPlanner one_by_one(memory, device);
  for (int64_t i = 0; i < count; ++i) {
    const Copy copy = kvops::cuda::copy_of(tables, i);
    if (!kvops::cuda::copies_nothing(copy)) one_by_one.add(copy);
  }
  for (int64_t i = 0; i < count;) {
    const int64_t next = at_once.add_alike(tables, i, static_cast<size_t>(most));
    const Copy copy = kvops::cuda::copy_of(tables, i);
    if (next == i && !kvops::cuda::copies_nothing(copy)) at_once.add(copy);
    i = std::max(next, i + 1);
  }
  const auto same = [](const Copy& a, const Copy& b) {
    return a.src == b.src && a.dst == b.dst && a.bytes == b.bytes && a.index == b.index;
  };
  for (int list_index = 0; list_index < kvops::cuda::kNumCopyKinds; ++list_index) {
    const auto kind = static_cast<kvops::cuda::CopyKind>(list_index);
    if (!std::ranges::equal(at_once.list(kind), one_by_one.list(kind), same)) return 0;
  }
  return 1;
}

// How many copies of the front are rows of a 2-D copy, which is made if there are two; -1 if it was
// raised.
HARNESS int64_t harness_copy_2d(const int64_t* srcs, const int64_t* dsts, const int64_t* sizes,
                                int64_t count, char* message, size_t message_bytes) {
  try {
    const std::vector<Copy> copies = copies_of(srcs, dsts, sizes, count);
    const size_t rows = kvops::cuda::rows_of_2d(copies);
    if (rows > 1) {
      kvops::cuda::copy_as_2d(*kvops::cuda::driver_entry(), "swap_blocks_batch", no_stream,
                              std::span(copies).first(rows));
    }
    return static_cast<int64_t>(rows);
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    return -1;
  }
}

// The bit of the path; for rows 0 if they are not best as one copy.
HARNESS unsigned harness_choose(unsigned allowed, int has_batch, int capturing,
                                int on_default_stream, int kind, int strided, int64_t copies,
                                int64_t bytes, double host_pace) {
  const kvops::cuda::PathChoice choice{.allowed = allowed,
                                       .has_batch = has_batch != 0,
                                       .has_2d = true,
                                       .capturing = capturing != 0,
                                       .on_default_stream = on_default_stream != 0,
                                       .model = &kvops::cuda::path_model(0),
                                       .host_pace = host_pace};
  const auto which = static_cast<kvops::cuda::CopyKind>(kind);
  const auto number = static_cast<size_t>(copies);
  const auto sum = static_cast<size_t>(bytes);
  if (strided == 0) return choice.scattered(which, number, sum);
  return choice.strided(which, number, sum) ? unsigned{kvops::kSwapStrided} : 0u;
}

// How many of the first copies the kernel would take of a led batch; 0 if there can be none.
HARNESS int64_t harness_lead(int kind, int64_t copies, int64_t bytes, double host_pace) {
  const kvops::cuda::PathChoice choice{.allowed = kvops::kSwapAnyPath,
                                       .has_batch = true,
                                       .has_2d = true,
                                       .capturing = false,
                                       .on_default_stream = false,
                                       .model = &kvops::cuda::path_model(0),
                                       .host_pace = host_pace};
  const auto lead = choice.lead(static_cast<kvops::cuda::CopyKind>(kind),
                                static_cast<size_t>(copies), static_cast<size_t>(bytes));
  return static_cast<int64_t>(lead.copies);
}

// What is known of the host's pace, after such a measurement if it is above 0.
HARNESS double harness_host_pace(double measured) {
  if (measured > 0) kvops::cuda::note_host_pace(0, measured);
  return kvops::cuda::host_pace(0);
}
HARNESS void harness_note_slow_host() { kvops::cuda::note_slow_host(0); }

HARNESS int harness_order_is_free(int64_t src, int64_t dst, const int64_t* mapping, int64_t count,
                                  int64_t block_bytes) {
  return kvops::cuda::block_order_is_free({.src = reinterpret_cast<const char*>(src),
                                           .dst = reinterpret_cast<char*>(dst),
                                           .mapping = mapping,
                                           .mapping_row_stride_elems = 2,
                                           .mapping_column_stride_elems = 1,
                                           .num_copies = count,
                                           .block_bytes = block_bytes});
}
