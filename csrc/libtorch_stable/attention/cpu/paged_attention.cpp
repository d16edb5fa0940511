// Paged attention on CPU: attention over partitions of 512 tokens, then their combination.
// Called by paged_attention_v1 and _v2. Partitions do not depend on the number of threads or on
// the other sequences of the batch, so neither does a single bit of the result.
#include <algorithm>
#include <memory>
#include <vector>

#include "attention/cpu/kernels.h"
#include "attention/ops.h"
#include "attention/validate.h"
#include "common/checked_mode.h"
#include "common/parallel.h"

namespace kvops::cpu {
namespace {

// Tokens that a thread attends to for the price of waking it.
constexpr int64_t kGrainTokens = 512;

int64_t sequence_tokens(const PagedAttentionParams& p, int64_t seq) {
  return std::clamp<int64_t>(p.seq_lens[seq], 0, p.max_tokens);
}

int64_t partitions_of(int64_t tokens) { return (tokens + kPartitionTokens - 1) / kPartitionTokens; }

HeadUnits head_units(const PagedAttentionParams& p) {
  const int64_t group = p.num_heads / p.num_kv_heads;
  // Under block sparsity every head has blocks of its own.
  const int64_t most = p.sparse.active ? 1 : kMaxUnitHeads;
  const int64_t per_kv_head = std::max<int64_t>(1, (group + most - 1) / most);
  const int64_t heads = (group + per_kv_head - 1) / per_kv_head;
  return {per_kv_head, heads};
}

// first[s] is the index of sequence s's first partition among those of the batch.
std::vector<int64_t> first_partitions(const PagedAttentionParams& p) {
  std::vector<int64_t> first(p.num_seqs + 1, 0);
  for (int64_t seq = 0; seq < p.num_seqs; ++seq) {
    first[seq + 1] = first[seq] + partitions_of(sequence_tokens(p, seq));
  }
  return first;
}

// Results of all partitions of the batch, before they are combined.
struct Partials {
  std::vector<int64_t> first;
  std::unique_ptr<float[]> max_logits;       // [partitions, num_heads]
  std::unique_ptr<float[]> exp_sums;         // [partitions, num_heads]
  std::unique_ptr<float[]> weighted_values;  // [partitions, num_heads, head_size]

  explicit Partials(const PagedAttentionParams& p) : first(first_partitions(p)) {
    const size_t rows = static_cast<size_t>(first.back() * p.num_heads);
    max_logits = std::make_unique_for_overwrite<float[]>(rows);
    exp_sums = std::make_unique_for_overwrite<float[]>(rows);
    weighted_values = std::make_unique_for_overwrite<float[]>(rows * p.head_size);
  }
};

void attend(const PagedAttentionParams& p, const Partials& partials) {
  const HeadUnits units = head_units(p);
  const int64_t units_per_partition = units.per_kv_head * p.num_kv_heads;
  const int64_t count = partials.first.back() * units_per_partition;
  const PagedAttentionKernels& kernels = paged_attention_kernels();
  const int64_t tokens = std::max<int64_t>(1, std::min(p.max_tokens, kPartitionTokens));
  parallel_for(count, kGrainTokens / tokens, [&](int64_t begin, int64_t end) noexcept {
    const auto& first = partials.first;
    int64_t seq = std::upper_bound(first.begin(), first.end(), begin / units_per_partition) -
                  first.begin() - 1;
    while (begin < end) {
      const int64_t index = begin / units_per_partition;
      while (first[seq + 1] <= index) ++seq;
      const int64_t row = index * p.num_heads;
      const int64_t run_end = std::min(end, (index + 1) * units_per_partition);
      kernels.attend_partition(
          p, {
                 .seq = seq,
                 .seq_len = sequence_tokens(p, seq),
                 .partition = index - first[seq],
                 .units = units,
                 .unit_begin = begin - index * units_per_partition,
                 .unit_end = run_end - index * units_per_partition,
                 .max_logits = partials.max_logits.get() + row,
                 .exp_sums = partials.exp_sums.get() + row,
                 .weighted_values = partials.weighted_values.get() + row * p.head_size,
             });
      begin = run_end;
    }
  });
}

// Version 2's scratch: entries of partitions past the end of a sequence keep their bytes.
void record_partitions(const PagedAttentionParams& p, const CombineTask& task) {
  const int64_t to = (task.seq * p.num_heads + task.head) * p.scratch_partitions;
  for (int64_t i = 0; i < task.partitions; ++i) {
    p.exp_sums[to + i] = task.exp_sums[i * p.num_heads];
    p.max_logits[to + i] = task.max_logits[i * p.num_heads];
  }
}

void combine(const PagedAttentionParams& p, const Partials& partials) {
  const PagedAttentionKernels& kernels = paged_attention_kernels();
  parallel_for(p.num_seqs * p.num_heads, 64, [&](int64_t begin, int64_t end) noexcept {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t seq = row / p.num_heads;
      const int64_t head = row % p.num_heads;
      const int64_t from = partials.first[seq] * p.num_heads + head;
      const CombineTask task = {
          .seq = seq,
          .head = head,
          .partitions = partials.first[seq + 1] - partials.first[seq],
          .max_logits = partials.max_logits.get() + from,
          .exp_sums = partials.exp_sums.get() + from,
          .weighted_values = partials.weighted_values.get() + from * p.head_size,
      };
      kernels.combine_partitions(p, task);
      if (p.exp_sums != nullptr) record_partitions(p, task);
    }
  });
}

}  // namespace

void paged_attention(const char* op, const PagedAttentionParams& p, const Tensor&) {
  if (checked_mode()) check_paged_attention_indices(op, p);
  const Partials partials(p);
  attend(p, partials);
  combine(p, partials);
}

}  // namespace kvops::cpu
