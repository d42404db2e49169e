// class_sums: the sum of each feature over the samples of each class. Samples are sorted by class once;
// then a block of columns at a time is summed, class after class, in 16 bits, in 32 and in 64.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kClassSumColumns = 256;  // a task's, whose lines of out stay in the cache
constexpr std::int64_t kClassSumSamples = std::int64_t{1} << 20;  // sorted at a time
constexpr std::int64_t kBytesInHalf = 257;                        // 257 * 255 = 2^16 - 1
static_assert(kClassSumSamples * 255 < std::int64_t{1} << 32);

// sums[k] = sum over the rows listed of row[k], for a task's columns.
GLAI_ALWAYS_INLINE void sum_rows(const std::uint8_t* features, std::int64_t stride, std::int64_t columns,
                                 const std::uint32_t* rows, std::int64_t n_rows, std::uint32_t* sums) {
  for (std::int64_t k = 0; k < columns; ++k) sums[k] = 0;
  for (std::int64_t begin = 0; begin < n_rows; begin += kBytesInHalf) {
    const std::int64_t end = n_rows - begin < kBytesInHalf ? n_rows : begin + kBytesInHalf;
    std::uint16_t halves[kClassSumColumns] = {};
    for (std::int64_t r = begin; r < end; ++r) {
      const std::uint8_t* row = features + rows[r] * stride;
      for (std::int64_t k = 0; k < columns; ++k) {
        halves[k] = static_cast<std::uint16_t>(halves[k] + row[k]);
      }
    }
    for (std::int64_t k = 0; k < columns; ++k) sums[k] += halves[k];
  }
}

// Samples [begin, begin + n).
inline void add_class_sums(const ClassSumsArgs& a, std::int64_t begin, std::int64_t n) {
  const std::int64_t m = a.features.shape[1], c = a.out.shape[1];
  const auto* classes = a.classes.as<const std::int64_t>() + begin * a.classes.stride[0];
  const auto* features = a.features.as<const std::uint8_t>() + begin * a.features.stride[0];
  ScratchSizes sizes;
  const auto ends_at = sizes.add<std::uint32_t>(c + 1);
  const auto rows_at = sizes.add<std::uint32_t>(n);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* ends = reinterpret_cast<std::uint32_t*>(memory + ends_at);  // of class k: ends[k] to ends[k + 1]
  auto* rows = reinterpret_cast<std::uint32_t*>(memory + rows_at);
  for (std::int64_t k = 0; k <= c; ++k) ends[k] = 0;
  for (std::int64_t i = 0; i < n; ++i) ++ends[classes[i * a.classes.stride[0]] + 1];
  for (std::int64_t k = 0; k < c; ++k) ends[k + 1] += ends[k];
  for (std::int64_t i = n - 1; i >= 0; --i) {
    rows[--ends[classes[i * a.classes.stride[0]] + 1]] = static_cast<std::uint32_t>(i);
  }
  // Now ends[k + 1] is where class k begins.
  const std::int64_t blocks = (m + kClassSumColumns - 1) / kClassSumColumns;
  parallel_for(
      blocks, static_cast<double>(n) * static_cast<double>(m), a.exec.threads, [&](std::int64_t block) {
        const std::int64_t first = block * kClassSumColumns;
        const std::int64_t columns = m - first < kClassSumColumns ? m - first : kClassSumColumns;
        for (std::int64_t k = 0; k < c; ++k) {
          const std::int64_t from = ends[k + 1], to = k + 1 < c ? ends[k + 2] : n;
          if (from == to) continue;
          std::uint32_t sums[kClassSumColumns];
          sum_rows(features + first, a.features.stride[0], columns, rows + from, to - from, sums);
          std::int64_t* out = a.out.as<std::int64_t>() + first * a.out.stride[0] + k;
          for (std::int64_t i = 0; i < columns; ++i) out[i * a.out.stride[0]] += a.sign * sums[i];
        }
      });
}

inline void class_sums(const ClassSumsArgs& a) {
  const std::int64_t n = a.features.shape[0];
  for (std::int64_t begin = 0; begin < n; begin += kClassSumSamples) {
    add_class_sums(a, begin, n - begin < kClassSumSamples ? n - begin : kClassSumSamples);
  }
}

}  // namespace glai::GLAI_ISA
