// Copies by the driver: many with one call, one by one, or as the rows of one 2-D copy. Every
// return code is looked at; a failure throws std::runtime_error with the entry, its addresses and
// its size. Called by copy_run. A context must be current, and the stream belong to it.
#pragma once

#include <span>

#include "swap/cuda/copy.h"
#include "swap/cuda/driver_entry.h"

namespace kvops::cuda {

// How many copies one batch call gets at most: KVOPS_SWAP_MAX_DESCRIPTORS if that is a positive
// number. A driver (580.159) has crashed on 51,828 in one call; hundreds are enough, see below.
size_t max_descriptors();

// False if the driver has no batch call, or has said that it does not support it.
bool batch_call_works(const DriverEntry& driver);

struct BatchOptions {
  const char* op;
  CUstream stream;      // not the legacy default stream, and not capturing: the driver refuses
  bool any_order;       // sources may be read before earlier work of the stream is done
  size_t chunk_copies;  // at most this many for each call
};

// How many copies the next call gets, after one with `last` (0: it is the first). The driver takes
// nearly as long to accept a copy of 32 KiB as the link takes to move it, and nothing moves before
// a call has returned: so the first call is small, and each is ready when the one before it is
// done.
size_t next_chunk(size_t last, size_t chunk_copies);

struct BatchResult {
  // How many have been issued: fewer than all only if the driver does not support the batch call,
  // and then nothing of the others has begun.
  size_t copies;
  // Of the host for each, as a rule; 0 if they were too few to say.
  double microseconds_each;
};

// Copies that are independent of each other.
BatchResult copy_by_batch(const DriverEntry& driver, const BatchOptions& options,
                          std::span<const Copy> copies);

// How many copies at the front of the list are rows of one 2-D copy: of one size, at constant
// distances that are no smaller. 1 for any single copy; 0 for an empty list.
size_t rows_of_2d(std::span<const Copy> copies);

// Copies that rows_of_2d has counted, each end within one allocation, by one call.
void copy_as_2d(const DriverEntry& driver, const char* op, CUstream stream,
                std::span<const Copy> copies);

// In order, each after the one before.
void copy_one_by_one(const DriverEntry& driver, const char* op, CUstream stream,
                     std::span<const Copy> copies);

}  // namespace kvops::cuda
