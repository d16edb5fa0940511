// What a transfer does with a tensor: only what is written must not overlap itself or be shared.
#pragma once

namespace kvops {

enum class Access { kRead, kWritten };

}  // namespace kvops
