// Writes tokens into nvfp4 pages on CPU.
// Called by cpu::reshape_and_cache_flash with validated parameters.
#pragma once

#include "cache/params.h"

namespace kvops::cpu {

void write_nvfp4_pages(const Nvfp4WriterParams& params);

}  // namespace kvops::cpu
