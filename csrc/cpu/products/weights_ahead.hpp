// Weights on their way from memory while others are multiplied.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/tiles.hpp"

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

  // How often next will be called: a stretch is as long as that asks for.
  GLAI_ALWAYS_INLINE void spread_over(std::int64_t calls) {
    const std::int64_t values = rows_ * row_ * group_.count;
    share_ = calls < 1 ? values : (values / calls / kLine + 1) * kLine;
  }

  // What to send for in `steps` steps; `otherwise` again and again when nothing is left.
  GLAI_ALWAYS_INLINE Stretch<T> next(std::int64_t steps, const T* otherwise) {
    if (path_ == group_.count || rows_ == 0 || row_ == 0) return {otherwise, 0};
    const T* panel = a_.weight.as<const T>() + group_.paths[path_] * a_.weight.stride[0] + first_;
    if (row_ <= kShortRow) {  // down the rows
      const Stretch<T> down{panel + within_, (rows_ + steps - 1) / steps * row_stride_};
      within_ += kLine;
      if (within_ >= row_) {
        within_ = 0;
        ++path_;
      }
      return down;
    }
    const std::int64_t most = share_ < steps * kLine ? share_ : steps * kLine;
    const T* along = panel + done_ * row_stride_ + within_;
    std::int64_t count = row_ - within_;
    if (count > most) {
      count = most;
      within_ += most;
    } else {
      within_ = 0;
      if (++done_ == rows_) {
        done_ = 0;
        ++path_;
      }
    }
    return {along, (count + steps - 1) / steps};
  }

 private:
  static constexpr std::int64_t kLine = 64 / sizeof(T);
  static constexpr std::int64_t kShortRow = 8 * kLine;
  const GatedMatmulArgs& a_;
  const GateGroup& group_;
  std::int64_t row_stride_, rows_, row_, first_;
  std::int64_t share_ = 0, done_ = 0, within_ = 0;
  int path_ = 0;
};

}  // namespace glai::GLAI_ISA
