// integer_gram: sums of products of bytes, of the upper triangle alone. Bytes are packed once, four
// samples of a column beside each other; then blocks of the result are summed in 32 bits, a slice of
// samples at a time whose panels stay in the first-level cache, and added to the 64 bits of the result
// while its memory has been sent for.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dot_tile.hpp"

namespace glai::GLAI_ISA {

// A panel is as many columns as a tile is wide; a block is the square of the result that a task sums.
constexpr std::int64_t kGramPanel = kDotColumns<GramDot>;
constexpr std::int64_t kGramBlockPanels = kGramPanel < 48 ? 128 / kGramPanel : 192 / kGramPanel;
constexpr std::int64_t kGramBlock = kGramBlockPanels * kGramPanel;
constexpr std::int64_t kGramTiles = kGramPanel / GramDot::kRows;  // of rows, in a panel
static_assert(kGramTiles * GramDot::kRows == kGramPanel);
constexpr std::int64_t kGramDepth = kDotDepth<GramDot>;
// Steps of a slice of 512 samples.
constexpr std::int64_t kGramSlice = 512 / kGramDepth;
// Samples of a pass: 32 bits hold their products, of at most 127 * 127; and bytes that are packed.
constexpr std::int64_t kGramMostSamples = std::int64_t{1} << 17;
static_assert(kGramMostSamples * 127 * 127 < std::int64_t{1} << 31);
constexpr std::int64_t kGramPackedBytes = std::int64_t{1} << 26;

// The samples of a pass, packed: [panels, steps, kQuads, kGramPanel, 4], columns and samples that are
// not there 0; and the sum of each column.
struct PackedBytes {
  std::int64_t columns, panels, steps;
  std::uint8_t* bytes;
  std::int32_t* sums;

  GLAI_ALWAYS_INLINE std::uint8_t* panel(std::int64_t p) const {
    return bytes + p * steps * kGramDepth * kGramPanel;
  }
};

GLAI_ALWAYS_INLINE void pack_panel(const std::uint8_t* features, std::int64_t stride, std::int64_t n,
                                   std::int64_t p, const PackedBytes& to) {
  constexpr std::int64_t line = 4 * kGramPanel;
  const std::int64_t first = p * kGramPanel;
  const std::int64_t columns = to.columns - first < kGramPanel ? to.columns - first : kGramPanel;
  std::uint8_t* quads = to.panel(p);
  for (std::int64_t begin = 0; begin < to.steps * kGramDepth; begin += 4) {
    std::uint8_t* quad = quads + begin / 4 * line;
    if (columns == kGramPanel && begin + 4 <= n) {
      const std::uint8_t* row = features + begin * stride + first;
      for (std::int64_t c = 0; c < kGramPanel; ++c) {
        quad[4 * c] = row[c];
        quad[4 * c + 1] = row[c + stride];
        quad[4 * c + 2] = row[c + 2 * stride];
        quad[4 * c + 3] = row[c + 3 * stride];
      }
      continue;
    }
    for (std::int64_t c = 0; c < kGramPanel; ++c) {
      for (std::int64_t s = 0; s < 4; ++s) {
        const bool there = c < columns && begin + s < n;
        quad[4 * c + s] = there ? features[(begin + s) * stride + first + c] : std::uint8_t{0};
      }
    }
  }
  if constexpr (GramDot::kOffset != 0) {
    constexpr std::uint8_t ones[4] = {1, 1, 1, 1};
    dot_tile<GramDot, 1>({ones, 0, 0, quads, to.steps}, false, to.sums + first);
  }
}

// One task: block (row, column) of the result, of a pass.
class ByteGramBlock {
 public:
  GLAI_ALWAYS_INLINE ByteGramBlock(const IntegerGramArgs& a, const PackedBytes& packed, std::int64_t row,
                                   std::int64_t column)
      : a_(a), packed_(packed), row_(row * kGramBlockPanels), column_(column * kGramBlockPanels) {
    ScratchSizes sizes;
    const auto sums_at = sizes.add<std::int32_t>(kGramBlock * kGramBlock);
    const auto shifted_at =
        sizes.add<std::uint8_t>(GramDot::kOffset == 0 ? 0 : kSliceBytes * kGramBlockPanels);
    std::byte* memory = scratch(Scratch::task, sizes.bytes());
    sums_ = reinterpret_cast<std::int32_t*>(memory + sums_at);
    shifted_ = reinterpret_cast<std::uint8_t*>(memory + shifted_at);
  }

  GLAI_ALWAYS_INLINE void add() {
    for (std::int64_t begin = 0; begin < packed_.steps; begin += kGramSlice) {
      const std::int64_t left = packed_.steps - begin;
      add_slice(begin, left < kGramSlice ? left : kGramSlice, left <= kGramSlice);
    }
  }

 private:
  static constexpr std::int64_t kSliceBytes = kGramSlice * kGramDepth * kGramPanel;

  GLAI_ALWAYS_INLINE std::int64_t panels_from(std::int64_t panel) const {
    return packed_.panels - panel < kGramBlockPanels ? packed_.panels - panel : kGramBlockPanels;
  }

  GLAI_ALWAYS_INLINE void add_slice(std::int64_t begin, std::int64_t steps, bool last) {
    const std::int64_t at = begin * kGramDepth * kGramPanel, rows = panels_from(row_),
                       columns = panels_from(column_);
    if constexpr (GramDot::kOffset != 0) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const std::uint8_t* from = packed_.panel(column_ + j) + at;
        std::uint8_t* to = shifted_ + j * kSliceBytes;
        for (std::int64_t k = 0; k < steps * kGramDepth * kGramPanel; ++k) {
          to[k] = static_cast<std::uint8_t>(from[k] - GramDot::kOffset);
        }
      }
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::uint8_t* row = packed_.panel(row_ + i) + at;
      for (std::int64_t j = row_ == column_ ? i : 0; j < columns; ++j) {
        const std::uint8_t* column =
            GramDot::kOffset != 0 ? shifted_ + j * kSliceBytes : packed_.panel(column_ + j) + at;
        std::int32_t* sums = sums_ + (i * kGramBlockPanels + j) * kGramPanel * kGramPanel;
        for (std::int64_t tile = 0; tile < kGramTiles; ++tile) {
          const std::int64_t first = (row_ + i) * kGramPanel + tile * GramDot::kRows;
          if (last) send_for(first, (column_ + j + 1) * kGramPanel);
          dot_tile<GramDot, GramDot::kRows>(
              {row + 4 * tile * GramDot::kRows, 4, 4 * kGramPanel, column, steps}, begin > 0, sums);
          if (last) add_tile(first, (column_ + j) * kGramPanel, sums);
          sums += GramDot::kRows * kGramPanel;
        }
      }
    }
  }

  // Rows of a large result lie in memory: they are sent for before they are added to.
  GLAI_ALWAYS_INLINE void send_for(std::int64_t row, std::int64_t column) const {
    const std::int64_t* out = a_.out.as<const std::int64_t>() + row * a_.out.stride[0] + column;
    for (std::int64_t i = 0; i < GramDot::kRows; ++i) {
      for (std::int64_t j = 0; j < kGramPanel; j += 8) {
        __builtin_prefetch(out + i * a_.out.stride[0] + j, 1, 3);
      }
    }
  }

  GLAI_ALWAYS_INLINE void add_tile(std::int64_t row, std::int64_t column,
                                   const std::int32_t* sums) const {
    const std::int64_t m = packed_.columns;
    const std::int64_t end = m - column < kGramPanel ? m - column : kGramPanel;
    for (std::int64_t i = row; i < row + GramDot::kRows && i < m; ++i, sums += kGramPanel) {
      const std::int64_t owed =
          GramDot::kOffset == 0 ? 0 : std::int64_t{GramDot::kOffset} * packed_.sums[i];
      std::int64_t* out = a_.out.as<std::int64_t>() + i * a_.out.stride[0] + column;
      if (i <= column && end == kGramPanel) {
        add_row(sums, owed, 0, kGramPanel, out);
      } else {
        add_row(sums, owed, i > column ? i - column : 0, end, out);
      }
    }
  }

  GLAI_ALWAYS_INLINE void add_row(const std::int32_t* sums, std::int64_t owed, std::int64_t begin,
                                  std::int64_t end, std::int64_t* out) const {
    if (a_.sign > 0) {
      for (std::int64_t j = begin; j < end; ++j) out[j] += sums[j] + owed;
    } else {
      for (std::int64_t j = begin; j < end; ++j) out[j] -= sums[j] + owed;
    }
  }

  const IntegerGramArgs& a_;
  const PackedBytes& packed_;
  const std::int64_t row_, column_;  // panels
  std::int32_t* sums_;               // [kGramBlock, kGramBlock], tile by tile
  std::uint8_t* shifted_;            // the columns' panels of a slice, less kOffset
};

// Samples [begin, begin + n).
inline void add_gram(const IntegerGramArgs& a, std::int64_t begin, std::int64_t n) {
  const auto* features = a.features.as<const std::uint8_t>() + begin * a.features.stride[0];
  PackedBytes packed;
  packed.columns = a.features.shape[1];
  packed.panels = (packed.columns + kGramPanel - 1) / kGramPanel;
  packed.steps = (n + kGramDepth - 1) / kGramDepth;
  ScratchSizes sizes;
  const auto bytes_at = sizes.add<std::uint8_t>(packed.panels * kGramPanel * packed.steps * kGramDepth);
  const auto sums_at = sizes.add<std::int32_t>(packed.panels * kGramPanel);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  packed.bytes = reinterpret_cast<std::uint8_t*>(memory + bytes_at);
  packed.sums = reinterpret_cast<std::int32_t*>(memory + sums_at);
  const std::int64_t blocks = (packed.panels + kGramBlockPanels - 1) / kGramBlockPanels;
  const double size = static_cast<double>(packed.columns), work = static_cast<double>(n) * size;
  parallel_for(blocks, work, a.exec.threads, [&](std::int64_t block) {
    const std::int64_t first = block * kGramBlockPanels;
    for (std::int64_t p = first; p < first + kGramBlockPanels && p < packed.panels; ++p) {
      pack_panel(features, a.features.stride[0], n, p, packed);
    }
  });
  parallel_for(blocks * (blocks + 1) / 2, work * size, a.exec.threads, [&](std::int64_t task) {
    std::int64_t row = 0;
    while (task >= blocks - row) task -= blocks - row++;
    ByteGramBlock(a, packed, row, row + task).add();
  });
}

inline void integer_gram(const IntegerGramArgs& a) {
  const std::int64_t n = a.features.shape[0], m = a.features.shape[1];
  std::int64_t pass = kGramPackedBytes / m / (kGramSlice * kGramDepth) * (kGramSlice * kGramDepth);
  if (pass < kGramSlice * kGramDepth) pass = kGramSlice * kGramDepth;
  if (pass > kGramMostSamples) pass = kGramMostSamples;
  for (std::int64_t begin = 0; begin < n; begin += pass) {
    add_gram(a, begin, n - begin < pass ? n - begin : pass);
  }
}

}  // namespace glai::GLAI_ISA
