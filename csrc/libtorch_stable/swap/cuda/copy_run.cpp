// Plans copies and carries them out while more are added. See copy_run.h.
// Planning and launching hide beside the copying: the first copies go out as soon as there are
// some, later ones whenever they fill a table. What the driver copies goes out at the end: it is
// large or rare, and the host may have to wait for pageable memory.
#include "swap/cuda/copy_run.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <utility>

#include "common/cuda/capture.h"
#include "swap/cuda/driver_copies.h"
#include "swap/cuda/host_pace.h"
#include "swap/cuda/kernels/copy_launch.h"
#include "swap/cuda/stream_order.h"

namespace kvops::cuda {
namespace {

// Enough to keep the GPU busy (4 KiB each: 9 us) until the next table is full.
constexpr size_t kFirstCopies = kernels::kFewCopies;
// No launch is quick enough for what is copied there: a quick one, then as many as one takes.
constexpr size_t kFirstWithinDevice = kernels::kQuickCopies;
constexpr int kDeviceCtasPerSm = 2;
constexpr int kMaxDevices = 64;
// Thread blocks of copy_ring for every four multiprocessors that are allowed, the default. They
// just fill the link: more would fill the queues that everybody shares.
constexpr int kRingCtasIn = 14;
constexpr int kRingCtasOut = 7;
// From 9.0 on there are bulk copies, and launches that start before the last one has ended.
constexpr int kRingMajor = 9;

struct DeviceFacts {
  int multiprocessors = 0;
  int compute_major = 0;
  int greatest_priority = 0;
};

DeviceFacts ask_device(const CudaContext& context) {
  DeviceFacts facts;
  const auto attribute = [&context](cudaDeviceAttr which) {
    int value = 0;
    context.check(cudaDeviceGetAttribute(&value, which, context.device()), "device attribute");
    return value;
  };
  facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  facts.compute_major = attribute(cudaDevAttrComputeCapabilityMajor);
  context.check(cudaDeviceGetStreamPriorityRange(nullptr, &facts.greatest_priority),
                "stream priority range");
  return facts;
}

const DeviceFacts& device_facts(const CudaContext& context) {
  static std::mutex mutex;
  static DeviceFacts facts[kMaxDevices];
  const int device = context.device();
  if (device < 0 || device >= kMaxDevices) context.check(cudaErrorInvalidDevice, "swap");
  const std::lock_guard<std::mutex> lock(mutex);
  if (facts[device].multiprocessors == 0) facts[device] = ask_device(context);
  return facts[device];
}

bool is_legacy_stream(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy;
}

size_t sum_of(std::span<const Copy> copies) {
  size_t bytes = 0;
  for (const Copy& copy : copies) bytes += copy.bytes;
  return bytes;
}

}  // namespace

CopyRun::CopyRun(const CudaContext& context, const DriverEntry& driver, const CopyHints& hints,
                 MemoryMap known)
    : context_(context),
      driver_(driver),
      hints_(hints),
      wishes_(swap_wishes()),
      choice_{.allowed = wishes_.paths,
              .has_batch = batch_call_works(driver),
              .has_2d = driver.memcpy_2d_async != nullptr,
              .capturing = is_capturing(context.stream()),
              .on_default_stream = is_legacy_stream(context.stream()),
              .model = &path_model(context.device()),
              .host_pace = host_pace(context.device())},
      memory_(std::move(known)),
      planner_(memory_, context.device()) {
  std::fill(std::begin(list_limits_), std::end(list_limits_), SIZE_MAX / 2);
  list_limits_[static_cast<int>(CopyKind::kToDevice)] = kFirstCopies;
  list_limits_[static_cast<int>(CopyKind::kToHost)] = kFirstCopies;
  list_limits_[static_cast<int>(CopyKind::kWithinDevice)] = kFirstWithinDevice;
}

void CopyRun::add_all(const SwapBlocksBatchParams& tables) {
  for (int64_t i = 0; i < tables.num_copies;) {
    const CopyKind kind = planner_.last_kind();
    const size_t limit = list_limits_[static_cast<int>(kind)];
    const size_t length = planner_.list(kind).size();
    const int64_t next = planner_.add_alike(tables, i, limit + 1 - length);
    added_ += next - i;
    if (planner_.list(kind).size() > limit) {
      go_on(kind);
    } else if (next == i) {
      // It is in other memory than those before it.
      const Copy copy = copy_of(tables, i++);
      if (!copies_nothing(copy)) add(copy);
      continue;
    }
    i = next;
  }
}

// The list is long enough for some of it to go out.
void CopyRun::go_on(CopyKind kind) {
  std::vector<Copy>& list = planner_.list(kind);
  // The last entry may still grow.
  const size_t issued = issue(kind, std::span(list).first(list.size() - 1), /*is_all=*/false);
  list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(issued));
  // Twice as many take twice as long to plan, while those before them are copied.
  const size_t next = kind == CopyKind::kWithinDevice ? kernels::kMostCopies : 2 * issued;
  list_limits_[static_cast<int>(kind)] =
      issued > 0 ? list.size() + std::min(next, kernels::kMostCopies) : 2 * list.size();
}

void CopyRun::finish() {
  for (const CopyKind kind :
       {CopyKind::kWithinDevice, CopyKind::kToDevice, CopyKind::kToHost, CopyKind::kByDriver}) {
    issue(kind, planner_.list(kind), /*is_all=*/true);
  }
  by_batch_or_singly(batch_);
  singly(single_);
  // Last: the host may have to wait for copies of pageable memory.
  singly(planner_.list(CopyKind::kSingly));
  wait_for_pageable_targets();
  note_swap_paths(used_);
}

// The driver promises no longer that they are filled when it returns ("might be synchronous"), but
// who has such memory reads it then: copies that compilers make of pinned memory are pageable.
void CopyRun::wait_for_pageable_targets() {
  if (choice_.capturing) return;
  const std::vector<Copy>& copies = planner_.list(CopyKind::kSingly);
  const bool any = std::any_of(copies.begin(), copies.end(), [this](const Copy& copy) {
    return memory_.at(copy.dst).place == Place::kPageable;
  });
  if (any) context_.check(cudaStreamSynchronize(context_.stream()), "waiting for host memory");
}

// Returns how many copies from the front are done with. Unless these are all, it may be that none
// are, as more have to be seen.
size_t CopyRun::issue(CopyKind kind, std::span<const Copy> copies, bool is_all) {
  const bool over_link = kind == CopyKind::kToDevice || kind == CopyKind::kToHost;
  size_t done = 0;
  while (done < copies.size()) {
    std::span<const Copy> part = copies.subspan(done);
    const size_t rows = over_link ? choice_.rows(part) : 1;
    if (rows >= kLeastRows) {
      if (rows == part.size() && !is_all) return done;
      part = part.first(rows);
      done += rows;
      if (by_2d(kind, part)) continue;
      done -= rows;
    }
    unsigned path = path_for(kind, part, is_all);
    if (path == kLedBatch) {
      size_t& lead_left = lead_left_[static_cast<int>(kind)];
      path = lead_left > 0 ? kSwapKernel : kSwapBatch;
      part = part.first(std::min(part.size(), lead_left > 0 ? lead_left : SIZE_MAX));
      lead_left -= std::min(part.size(), lead_left);
    }
    if (path != kSwapKernel && !is_all) return done;
    if (path == kSwapKernel) {
      by_kernel(kind, part);
    } else {
      std::vector<Copy>& later = path == kSwapBatch ? batch_ : single_;
      later.insert(later.end(), part.begin(), part.end());
    }
    done += part.size();
  }
  return done;
}

// Decided once for each kind: by what was seen of it so far, and how much of the call that was.
unsigned CopyRun::path_for(CopyKind kind, std::span<const Copy> copies, bool is_all) {
  unsigned& path = paths_[static_cast<int>(kind)];
  if (path == 0) {
    const double part_of_all = is_all || hints_.num_copies <= added_
                                   ? 1.0
                                   : static_cast<double>(added_) / hints_.num_copies;
    const auto scale = [part_of_all](size_t n) {
      return static_cast<size_t>(static_cast<double>(n) / part_of_all);
    };
    const size_t all = scale(copies.size());
    const size_t all_bytes = scale(sum_of(copies));
    path = choice_.scattered(kind, all, all_bytes);
    if (path == kLedBatch) {
      const size_t lead = choice_.lead(kind, all, all_bytes).copies;
      lead_left_[static_cast<int>(kind)] = lead;
      lead_is_short_[static_cast<int>(kind)] = 2 * lead <= all;
    }
    if (path == kSwapKernel && choice_.host_pace > 0 && choice_.hangs_on_pace(all, all_bytes)) {
      note_slow_host(context_.device());
    }
  }
  return path;
}

// False if another way is better. Rows are looked at one by one when they are added, but the driver
// looks at all that lies between the first and the last.
bool CopyRun::by_2d(CopyKind kind, std::span<const Copy> rows) {
  if (!choice_.strided(kind, rows.size(), sum_of(rows))) return false;
  const Copy& first = rows.front();
  const Copy& last = rows.back();
  if (!memory_.at(first.src).contains(last.src + last.bytes - 1)) return false;
  if (!memory_.at(first.dst).contains(last.dst + last.bytes - 1)) return false;
  copy_as_2d(driver_, context_.op(), context_.stream(), rows);
  used_ |= kSwapStrided;
  kernel_is_last_ = false;
  return true;
}

void CopyRun::by_kernel(CopyKind kind, std::span<const Copy> copies) {
  used_ |= kSwapKernel;
  using kernels::LaunchStart;
  const DeviceFacts& facts = device_facts(context_);
  const bool has_ring = facts.compute_major >= kRingMajor;
  const bool over_link = kind != CopyKind::kWithinDevice;
  kernels::CopyLaunch launch{.stream = context_.stream(),
                             .over_link = over_link,
                             .max_ctas = facts.multiprocessors * kDeviceCtasPerSm,
                             .priority = 0,
                             .ring_ctas = 0,
                             .start = LaunchStart::kInTurn};
  if (over_link) {
    launch.max_ctas = wishes_.max_sms;
    const int ring_ctas = kind == CopyKind::kToHost ? kRingCtasOut : kRingCtasIn;
    if (has_ring) {
      launch.ring_ctas = std::clamp(wishes_.max_sms * ring_ctas / 4, 1, kernels::kMostRingCtas);
    }
    // What leads a batch is soon done, and all others wait for it: it must not wait for each wave
    // of a kernel that fills the GPU as well. All that the kernel copies alone does: room that it
    // took first would be missing there for the whole of a long swap.
    if (lead_is_short_[static_cast<int>(kind)]) launch.priority = facts.greatest_priority;
  }
  const bool may_be_early = has_ring && !choice_.capturing;
  while (!copies.empty()) {
    if (may_be_early) launch.start = kernel_is_last_ ? LaunchStart::kOverlaps : LaunchStart::kReady;
    size_t launched = 0;
    context_.check(kernels::launch_copies(copies, launch, launched));
    kernel_is_last_ = true;
    copies = copies.subspan(launched);
  }
}

void CopyRun::by_batch_or_singly(std::span<const Copy> copies) {
  if (!copies.empty()) copies = copies.subspan(by_batch(copies));
  singly(copies);
}

// Returns how many copies it has issued.
size_t CopyRun::by_batch(std::span<const Copy> copies) {
  BatchOptions options{.op = context_.op(),
                       .stream = context_.stream(),
                       .any_order = hints_.any_order,
                       .chunk_copies = max_descriptors()};
  BatchResult done{0, 0};
  if (!choice_.on_default_stream) {
    done = copy_by_batch(driver_, options, copies);
  } else {
    // The driver refuses the legacy default stream, which is torch's default.
    SideStream side(context_, context_.stream());
    options.stream = side.stream();
    done = copy_by_batch(driver_, options, copies);
    side.join();
  }
  if (done.copies > 0) used_ |= kSwapBatch;
  // Where all copies that were timed are of such sizes.
  const auto is_paced = [](const Copy& copy) { return copy.bytes >= kPacedBytes; };
  if (done.microseconds_each > 0 && std::all_of(copies.begin(), copies.end(), is_paced)) {
    note_host_pace(context_.device(), done.microseconds_each);
  }
  return done.copies;
}

void CopyRun::singly(std::span<const Copy> copies) {
  if (copies.empty()) return;
  used_ |= kSwapSingle;
  copy_one_by_one(driver_, context_.op(), context_.stream(), copies);
}

}  // namespace kvops::cuda
