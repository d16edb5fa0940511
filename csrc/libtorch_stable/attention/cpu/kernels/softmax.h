// From raw logits to weights exp(logit - max), for one head and the slots of one partition.
// Called by attend.h. Slots that are not tokens get weight 0, whatever garbage they hold.
// A NaN logit is no maximum; it makes the sum NaN, and so the result.
#pragma once

#include "attention/cpu/kernels/pages.h"
#include "attention/cpu/kernels/simd.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr float kNoLogit = -3.40282347e+38f;  // -FLT_MAX: what block sparsity gives hidden tokens

struct SoftmaxState {
  float max_logit;
  float exp_sum;
};

// Slots are padded to whole vectors.
inline int64_t padded_slots(int64_t slots) { return (slots + kLanes - 1) / kLanes * kLanes; }

inline void hide(float* logits, int64_t begin, int64_t end) {
  for (int64_t slot = begin; slot < end; ++slot) logits[slot] = -__builtin_inff();
}

// Only the first and the last page may be partly outside.
inline void hide_outside(const Pages& pages, int64_t block_size, float* logits) {
  const int64_t slots = pages.count * block_size;
  hide(logits, slots, padded_slots(slots));
  if (pages.count == 0) return;
  hide(logits, 0, pages.page[0].begin);
  hide(logits, slots - block_size + pages.page[pages.count - 1].end, slots);
}

// distances: of every slot to the newest token, not positive; null without ALiBi.
inline SoftmaxState softmax_weights(const Pages& pages, int64_t block_size, float scale,
                                    float slope, const float* distances, float* logits) {
  using Vector = Floats<kLanes>;
  const int64_t slots = padded_slots(pages.count * block_size);
  // The padding may hold anything: it is hidden afterwards.
  for (int64_t i = 0; i < slots; i += kLanes) {
    Vector logit = load<kLanes>(logits + i) * scale;
    if (distances != nullptr) logit += load<kLanes>(distances + i) * slope;
    store(logits + i, logit);
  }
  hide_outside(pages, block_size, logits);
  Vector largest = broadcast<kLanes>(kNoLogit);
  for (int64_t i = 0; i < slots; i += kLanes) {
    const Vector logit = load<kLanes>(logits + i);
    largest = select<Vector>(logit > largest, logit, largest);
  }
  const float max_logit = max_lanes<kLanes>(largest);
  Vector sum = {};
  for (int64_t i = 0; i < slots; i += kLanes) {
    const Vector weight = exp_nonpositive<kLanes>(load<kLanes>(logits + i) - max_logit);
    store(logits + i, weight);
    sum += weight;
  }
  // Hidden tokens count only where nothing else is seen; they have no value then either.
  const float hidden = max_logit == kNoLogit ? static_cast<float>(pages.hidden_tokens) : 0.0f;
  return {max_logit, sum_lanes<kLanes>(sum) + hidden};
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
