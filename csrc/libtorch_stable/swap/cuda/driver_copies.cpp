// Batched, single and 2-D copies through the driver. See driver_copies.h.
// The driver copies the tables it gets before the call returns: ours live no longer than that.
#include "swap/cuda/driver_copies.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvops::cuda {
namespace {

constexpr size_t kDefaultDescriptors = 512;
constexpr size_t kFirstDescriptors = 32;

// Once it has said so, it is not asked again.
std::atomic<bool> batch_unsupported{false};

std::string address_text(uintptr_t address) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%" PRIxPTR, address);
  return text;
}

std::string copy_text(const Copy& copy) {
  return "entry " + std::to_string(copy.index) + " (" + std::to_string(copy.bytes) +
         " bytes from " + address_text(copy.src) + " to " + address_text(copy.dst) + ")";
}

[[noreturn]] void fail(const DriverEntry& driver, const char* op, const char* call,
                       const std::string& where, CUresult error) {
  throw std::runtime_error(std::string("kvops::") + op + ": " + call + " failed at " + where +
                           ": " + error_text(driver, error));
}

[[noreturn]] void fail_batch(const DriverEntry& driver, const char* op, std::span<const Copy> chunk,
                             size_t at, CUresult error) {
  // The driver says SIZE_MAX when no single copy is to blame.
  const std::string where = at < chunk.size()
                                ? copy_text(chunk[at])
                                : "some entry from " + std::to_string(chunk.front().index) +
                                      " to " + std::to_string(chunk.back().index) +
                                      ", the first being " + copy_text(chunk.front());
  fail(driver, op, "cuMemcpyBatchAsync", where, error);
}

double microseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

// What calls take of the host for each copy, but for the slowest one: that may have had to wait for
// room in the driver's queue, or for a processor.
class Pace {
 public:
  void add(size_t copies, double microseconds) {
    // A call with fewer says nothing: it has its own cost, too.
    if (copies < kLeastTimed) return;
    const auto number = static_cast<double>(copies);
    copies_ += number;
    microseconds_ += microseconds;
    if (microseconds / number <= slowest_microseconds_ / slowest_copies_) return;
    slowest_copies_ = number;
    slowest_microseconds_ = microseconds;
  }

  // 0 if there were too few calls.
  double microseconds_each() const {
    const double copies = copies_ - slowest_copies_;
    return copies >= kLeastTimed ? (microseconds_ - slowest_microseconds_) / copies : 0;
  }

 private:
  static constexpr size_t kLeastTimed = 40;

  double copies_ = 0;
  double microseconds_ = 0;
  double slowest_copies_ = 1;
  double slowest_microseconds_ = 0;
};

// The three tables of one call.
struct Tables {
  std::vector<CUdeviceptr> dsts, srcs;
  std::vector<size_t> sizes;

  explicit Tables(size_t most) : dsts(most), srcs(most), sizes(most) {}

  void fill(std::span<const Copy> chunk) {
    for (size_t i = 0; i < chunk.size(); ++i) {
      dsts[i] = chunk[i].dst;
      srcs[i] = chunk[i].src;
      sizes[i] = chunk[i].bytes;
    }
  }
};

size_t read_max_descriptors() {
  const char* text = std::getenv("KVOPS_SWAP_MAX_DESCRIPTORS");
  const long long number = text != nullptr ? std::atoll(text) : 0;
  return number > 0 ? static_cast<size_t>(number) : kDefaultDescriptors;
}

}  // namespace

size_t max_descriptors() {
  static const size_t number = read_max_descriptors();
  return number;
}

size_t next_chunk(size_t last, size_t chunk_copies) {
  return std::min(last == 0 ? kFirstDescriptors : last + last / 4, chunk_copies);
}

bool batch_call_works(const DriverEntry& driver) {
  return driver.memcpy_batch_async != nullptr && !batch_unsupported.load(std::memory_order_relaxed);
}

BatchResult copy_by_batch(const DriverEntry& driver, const BatchOptions& options,
                          std::span<const Copy> copies) {
  if (!batch_call_works(driver)) return {0, 0};
  // attrs and attrs_idxs have num_attrs entries each (NVIDIA's contract): entry k is the index of
  // the first copy that attribute k is for. One attribute for all copies is therefore {0} and 1,
  // however many copies there are. Enlarging the tables to one entry for each copy, as has been
  // proposed elsewhere, rests on a misreading: the driver looks at the first num_attrs only.
  CUmemcpyAttributes attribute{};
  attribute.srcAccessOrder =
      options.any_order ? CU_MEMCPY_SRC_ACCESS_ORDER_ANY : CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t first_copy = 0;
  Tables tables(std::min(options.chunk_copies, copies.size()));
  size_t done = 0;
  size_t chunk_copies = 0;
  Pace pace;
  while (done < copies.size()) {
    chunk_copies = next_chunk(chunk_copies, options.chunk_copies);
    const auto chunk = copies.subspan(done, std::min(chunk_copies, copies.size() - done));
    const auto start = std::chrono::steady_clock::now();
    tables.fill(chunk);
    size_t failed_at = SIZE_MAX;
    const CUresult error = driver.memcpy_batch_async(tables.dsts.data(), tables.srcs.data(),
                                                     tables.sizes.data(), chunk.size(), &attribute,
                                                     &first_copy, 1, &failed_at, options.stream);
    if (error == CUDA_ERROR_NOT_SUPPORTED) {
      batch_unsupported.store(true, std::memory_order_relaxed);
      return {done, 0};
    }
    if (error != CUDA_SUCCESS) fail_batch(driver, options.op, chunk, failed_at, error);
    done += chunk.size();
    pace.add(chunk.size(), microseconds_since(start));
  }
  return {done, pace.microseconds_each()};
}

size_t rows_of_2d(std::span<const Copy> copies) {
  if (copies.size() < 2) return copies.size();
  const size_t bytes = copies[0].bytes;
  // A distance downwards wraps and is too large.
  const uintptr_t src_pitch = copies[1].src - copies[0].src;
  const uintptr_t dst_pitch = copies[1].dst - copies[0].dst;
  const auto is_pitch = [bytes](uintptr_t pitch) { return bytes <= pitch && pitch <= INT32_MAX; };
  if (!is_pitch(src_pitch) || !is_pitch(dst_pitch)) return 1;
  size_t rows = 1;
  while (rows < copies.size() && copies[rows].bytes == bytes &&
         copies[rows].src - copies[rows - 1].src == src_pitch &&
         copies[rows].dst - copies[rows - 1].dst == dst_pitch) {
    ++rows;
  }
  return rows;
}

void copy_as_2d(const DriverEntry& driver, const char* op, CUstream stream,
                std::span<const Copy> copies) {
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
  copy.srcDevice = copies[0].src;
  copy.dstDevice = copies[0].dst;
  copy.srcPitch = copies[1].src - copies[0].src;
  copy.dstPitch = copies[1].dst - copies[0].dst;
  copy.WidthInBytes = copies[0].bytes;
  copy.Height = copies.size();
  const CUresult error = driver.memcpy_2d_async(&copy, stream);
  if (error == CUDA_SUCCESS) return;
  fail(driver, op, "cuMemcpy2DAsync",
       std::to_string(copies.size()) + " rows, the first being " + copy_text(copies[0]), error);
}

void copy_one_by_one(const DriverEntry& driver, const char* op, CUstream stream,
                     std::span<const Copy> copies) {
  for (const Copy& copy : copies) {
    const CUresult error = driver.memcpy_async(copy.dst, copy.src, copy.bytes, stream);
    if (error != CUDA_SUCCESS) fail(driver, op, "cuMemcpyAsync", copy_text(copy), error);
  }
}

}  // namespace kvops::cuda
