// Weights on their way from memory while others are multiplied.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "cpu/buckets.hpp"

namespace glai::GLAI_ISA {

// The weights of the group that comes next, sent for a few cache lines at a time while this one
// multiplies: all at once they would wait for each other.
template <class T>
class WeightsAhead {
 public:
  GLAI_ALWAYS_INLINE WeightsAhead(const GatedMatmulArgs& a, std::int64_t first, std::int64_t columns,
                                  const GateGroup& group, std::int64_t k, std::int64_t k_count)
      : a_(a), group_(group) {
    const std::int64_t d = a.x.shape[1], real = d - k < k_count ? d - k : k_count;
    // Lines lie along whichever dimension has stride 1.
    const bool by_columns = a.weight.stride[2] == 1;
    row_stride_ = by_columns ? a.weight.stride[1] : a.weight.stride[2];
    rows_ = by_columns ? real : columns;
    row_ = by_columns ? columns : real;
    first_ = k * a.weight.stride[1] + first * a.weight.stride[2];
  }

  // How often send will be called.
  GLAI_ALWAYS_INLINE void spread_over(std::int64_t sends) {
    const std::int64_t rows = rows_ * group_.count;
    rows_per_send_ = sends < 1 ? rows : (rows + sends - 1) / sends;
  }

  GLAI_ALWAYS_INLINE void send() {
    for (std::int64_t i = 0; i < rows_per_send_ && path_ < group_.count; ++i) {
      const T* row = a_.weight.as<const T>() + group_.paths[path_] * a_.weight.stride[0] + first_ +
                     done_ * row_stride_;
      for (std::int64_t j = 0; j < row_; j += 64 / static_cast<std::int64_t>(sizeof(T))) {
        __builtin_prefetch(row + j, 0, 2);
      }
      __builtin_prefetch(row + row_ - 1, 0, 2);
      if (++done_ == rows_) {
        done_ = 0;
        ++path_;
      }
    }
  }

 private:
  const GatedMatmulArgs& a_;
  const GateGroup& group_;
  std::int64_t row_stride_, rows_, row_, first_;
  std::int64_t rows_per_send_ = 0, done_ = 0;
  int path_ = 0;
};

}  // namespace glai::GLAI_ISA
