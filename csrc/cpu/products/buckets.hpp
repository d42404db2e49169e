// Samples sorted by which gates of a group they have on. A group is a few gates taken together; the
// samples with the same subset of them on make a bucket, and all that these paths do for a bucket is one
// product with the sum of their weights. With one gate a group, a bucket is the rows that have the path
// on: compaction.
#pragma once

#include <cstdint>

#include "core/gates.hpp"
#include "core/plan.hpp"

namespace glai::GLAI_ISA {

constexpr int kMaxSubsets = 1 << kMaxGroupGates;
constexpr std::int64_t kMaxBlockRows = 1024;  // samples of a block; a row's number fits 16 bits

// The gates of one group, by path number.
struct GateGroup {
  std::int32_t paths[kMaxGroupGates];
  int count;
  std::uint32_t flipped;  // gates whose off state counts as on (reference form)
};

// Group g of groups of `gates` paths, in the order of the plan.
GLAI_ALWAYS_INLINE GateGroup gate_group(std::int64_t g, int gates, std::int64_t n_paths, bool reference,
                                        const PathOrder& paths) {
  const std::int64_t first = g * gates, left = n_paths - first;
  GateGroup group{{}, static_cast<int>(left < gates ? left : gates), 0};
  for (int i = 0; i < group.count; ++i) {
    group.paths[i] = paths.order[first + i];
    if (reference && paths.majority[group.paths[i]] != 0) group.flipped |= 1u << i;
  }
  return group;
}

// Rows of subset s: rows[begin[s]] to rows[begin[s + 1]], s >= 1, ascending. Rows without any gate on
// are left out.
struct Buckets {
  std::uint16_t* rows;  // [bucket_capacity]
  std::uint16_t begin[kMaxSubsets + 1];
};

// Elements of Buckets::rows: rows without any gate on land past the end while they are sorted.
GLAI_ALWAYS_INLINE constexpr std::int64_t bucket_capacity(std::int64_t rows, int subsets, int quantum) {
  return rows + 1 + (quantum - 1) * subsets;
}

// The subset of each of the rows [0, count).
GLAI_ALWAYS_INLINE void find_subsets(const std::uint32_t* words, std::int64_t n_words,
                                     const GateGroup& group, std::int64_t count, std::uint8_t* subset) {
  const std::int32_t first = group.paths[0];
  const int shift = first % kWordBits;
  bool adjacent = true;
  for (int i = 1; i < group.count; ++i) adjacent = adjacent && group.paths[i] == first + i;
  const std::uint32_t* column = words + first / kWordBits;
  const std::uint32_t mask = (1u << group.count) - 1u, flipped = group.flipped;
  if (adjacent && shift + group.count <= kWordBits) {
    for (std::int64_t r = 0; r < count; ++r) {
      subset[r] = static_cast<std::uint8_t>((column[r * n_words] >> shift & mask) ^ flipped);
    }
  } else if (adjacent) {
    for (std::int64_t r = 0; r < count; ++r) {
      const std::uint64_t both = column[r * n_words] | std::uint64_t{column[r * n_words + 1]}
                                                           << kWordBits;
      subset[r] =
          static_cast<std::uint8_t>((static_cast<std::uint32_t>(both >> shift) & mask) ^ flipped);
    }
  } else {
    for (std::int64_t r = 0; r < count; ++r) subset[r] = static_cast<std::uint8_t>(flipped);
    for (int i = 0; i < group.count; ++i) {
      column = words + group.paths[i] / kWordBits;
      const int bit = group.paths[i] % kWordBits;
      for (std::int64_t r = 0; r < count; ++r) {
        subset[r] = static_cast<std::uint8_t>(subset[r] ^ ((column[r * n_words] >> bit & 1u) << i));
      }
    }
  }
}

// Sorts the rows [0, count) of one group. Each bucket is filled up to a multiple of `quantum` rows with
// the number of the row past the last. Branch-free where it depends on the gates: their pattern is what
// a branch predictor cannot learn.
GLAI_ALWAYS_INLINE void fill_buckets(const std::uint32_t* words, std::int64_t n_words,
                                     const GateGroup& group, std::int64_t count, int quantum,
                                     Buckets& buckets) {
  const auto fill_up = [&](int begin, int rows) {
    const int filled = (rows + quantum - 1) / quantum * quantum;
    for (int r = rows; r < filled; ++r) buckets.rows[begin + r] = static_cast<std::uint16_t>(count);
    return static_cast<std::uint16_t>(begin + filled);
  };
  if (group.count == 1) {
    const std::uint32_t* column = words + group.paths[0] / kWordBits;
    const int bit = group.paths[0] % kWordBits;
    std::uint16_t active = 0;
    for (std::int64_t r = 0; r < count; ++r) {
      buckets.rows[active] = static_cast<std::uint16_t>(r);
      active = static_cast<std::uint16_t>(active + ((column[r * n_words] >> bit ^ group.flipped) & 1u));
    }
    buckets.begin[1] = 0;
    buckets.begin[2] = fill_up(0, active);
    return;
  }
  const int subsets = 1 << group.count;
  std::uint8_t subset[kMaxBlockRows];
  find_subsets(words, n_words, group, count, subset);
  // Two counters each, so that equal neighbours do not wait for each other.
  std::uint16_t place[kMaxSubsets] = {}, odd[kMaxSubsets] = {};
  std::int64_t r = 0;
  for (; r + 2 <= count; r += 2) {
    ++place[subset[r]];
    ++odd[subset[r + 1]];
  }
  if (r < count) ++place[subset[r]];
  std::uint16_t sum = 0;
  for (int s = 1; s < subsets; ++s) {
    buckets.begin[s] = sum;
    sum = fill_up(sum, place[s] + odd[s]);
    place[s] = buckets.begin[s];
  }
  buckets.begin[subsets] = sum;
  place[0] = sum;
  for (r = 0; r < count; ++r) {
    const int s = subset[r];
    buckets.rows[place[s]] = static_cast<std::uint16_t>(r);
    place[s] = static_cast<std::uint16_t>(place[s] + (s != 0));
  }
}

}  // namespace glai::GLAI_ISA
