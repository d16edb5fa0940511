// Copies by the driver: many with one call, or one by one. Every return code is looked at; a
// failure throws std::runtime_error with the entry, its addresses and its size.
// Called by run_plan. A context must be current, and the stream belong to it.
#pragma once

#include <span>

#include "swap/cuda/copy.h"
#include "swap/cuda/driver_entry.h"

namespace kvops::cuda {

// How many copies one batch call gets: KVOPS_SWAP_MAX_DESCRIPTORS if that is a positive number.
// A driver (580.159) has crashed on 51,828 in one call; more than thousands gain nothing.
size_t max_descriptors();

struct BatchOptions {
  const char* op;
  CUstream stream;      // not the legacy default stream, and not capturing: the driver refuses
  bool any_order;       // sources may be read before earlier work of the stream is done
  size_t chunk_copies;  // at most this many for each call
};

// Copies that are independent of each other. Returns how many of them it has issued: fewer than all
// only if the driver does not support the batch call, and then nothing of the others has begun.
size_t copy_by_batch(const DriverEntry& driver, const BatchOptions& options,
                     std::span<const Copy> copies);

// In order, each after the one before.
void copy_one_by_one(const DriverEntry& driver, const char* op, CUstream stream,
                     std::span<const Copy> copies);

}  // namespace kvops::cuda
