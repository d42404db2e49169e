// integer_gram: sums of products of bytes, of the upper triangle alone. Bytes are packed once, four
// samples of a column beside each other; then blocks of the result are summed in 32 bits, a slice of
// samples at a time, whose columns stay in the first-level cache while rows pass, and added to the 64
// bits of the result, whose memory has been sent for.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dot_tile.hpp"

namespace glai::GLAI_ISA {

// A strip is as many columns as a vector; a block is the square of the result that a task sums.
constexpr std::int64_t kGramStrip = ByteSums::width;
constexpr std::int64_t kGramRows = GramDot::kRows, kGramVecs = GramDot::kVecs;  // of a tile
constexpr std::int64_t kGramBlock = kGramStrip < 16 ? 128 : 192;
constexpr std::int64_t kGramBlockStrips = kGramBlock / kGramStrip;
static_assert(kGramStrip % kGramRows == 0 && kGramBlockStrips % kGramVecs == 0);
constexpr std::int64_t kGramSquare = kGramVecs * kGramStrip;  // rows that are as many as its columns
constexpr std::int64_t kGramSent = 4;  // tiles whose elements of the result are on their way
constexpr std::int64_t kGramTile = kGramRows * kGramVecs * kGramStrip;  // elements
constexpr std::int64_t kGramDepth = kDotDepth<GramDot>;
// Steps of a slice of 512 samples.
constexpr std::int64_t kGramSlice = 512 / kGramDepth;
// Samples of a pass: 32 bits hold their products, of at most 127 * 127; and bytes that are packed.
constexpr std::int64_t kGramMostSamples = std::int64_t{1} << 17;
static_assert(kGramMostSamples * 127 * 127 < std::int64_t{1} << 31);
constexpr std::int64_t kGramPackedBytes = std::int64_t{1} << 26;
constexpr std::int64_t kGramPackedSamples = 64;  // by a task

// The samples of a pass, packed: [strips, steps, kQuads, kGramStrip, 4], columns and samples that are
// not there 0; and the sum of each column.
struct PackedBytes {
  std::int64_t columns, strips, steps;
  std::uint8_t* bytes;
  std::int32_t* sums;

  GLAI_ALWAYS_INLINE std::int64_t strip_bytes() const { return steps * kGramDepth * kGramStrip; }
  GLAI_ALWAYS_INLINE std::uint8_t* strip(std::int64_t s) const { return bytes + s * strip_bytes(); }
};

// Samples [begin, end) of all columns; of n that there are.
GLAI_ALWAYS_INLINE void pack_samples(const std::uint8_t* features, std::int64_t stride, std::int64_t n,
                                     std::int64_t begin, std::int64_t end, const PackedBytes& to) {
  for (std::int64_t s = 0; s < to.strips; ++s) {
    const std::int64_t first = s * kGramStrip;
    const std::int64_t columns = to.columns - first < kGramStrip ? to.columns - first : kGramStrip;
    std::uint8_t* quad = to.strip(s) + begin * kGramStrip;
    for (std::int64_t sample = begin; sample < end; sample += 4, quad += 4 * kGramStrip) {
      const std::uint8_t* row = features + sample * stride + first;
      if (columns == kGramStrip && sample + 4 <= n) {
        interleave_rows(row, stride, quad);
        continue;
      }
      for (std::int64_t c = 0; c < kGramStrip; ++c) {
        for (std::int64_t i = 0; i < 4; ++i) {
          quad[4 * c + i] = c < columns && sample + i < n ? row[i * stride + c] : std::uint8_t{0};
        }
      }
    }
  }
}

// One task: block (row, column) of the result, of a pass.
class ByteGramBlock {
 public:
  GLAI_ALWAYS_INLINE ByteGramBlock(const IntegerGramArgs& a, const PackedBytes& packed, std::int64_t row,
                                   std::int64_t column)
      : a_(a), packed_(packed), row_(row * kGramBlock), column_(column * kGramBlockStrips) {
    ScratchSizes sizes;
    const auto sums_at = sizes.add<std::int32_t>(kGramBlock * kGramBlock);
    const auto shifted_at =
        sizes.add<std::uint8_t>(GramDot::kOffset == 0 ? 0 : kSliceBytes * kGramBlockStrips);
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
  static constexpr std::int64_t kSliceBytes = kGramSlice * kGramDepth * kGramStrip;  // of a strip

  GLAI_ALWAYS_INLINE void add_slice(std::int64_t begin, std::int64_t steps, bool last) {
    const std::int64_t at = begin * kGramDepth * kGramStrip;
    const std::int64_t end =
        packed_.strips - column_ < kGramBlockStrips ? packed_.strips : column_ + kGramBlockStrips;
    const std::int64_t rows = packed_.columns - row_ < kGramBlock ? packed_.columns : row_ + kGramBlock;
    const std::uint8_t* columns = packed_.strip(column_) + at;
    std::int64_t step = packed_.strip_bytes();
    if constexpr (GramDot::kOffset != 0) {
      const std::int64_t bytes = steps * kGramDepth * kGramStrip;
      for (std::int64_t j = 0; j < end - column_; ++j) {
        for (std::int64_t k = 0; k < bytes; ++k) {
          shifted_[j * bytes + k] = static_cast<std::uint8_t>(columns[j * step + k] - GramDot::kOffset);
        }
      }
      columns = shifted_;
      step = bytes;
    }
    std::int32_t* sums = sums_;
    Sent sent[kGramSent] = {};
    std::int64_t n_sent = 0;
    // Columns of a tile stay in the first-level cache while a square of rows passes. Strips left of the
    // diagonal are left out.
    for (std::int64_t square = row_; square < rows; square += kGramSquare) {
      for (std::int64_t j = column_; j < end; j += kGramVecs) {
        const std::int64_t to = end - j < kGramVecs ? end : j + kGramVecs;
        for (std::int64_t row = square;
             row < square + kGramSquare && row < rows && row < to * kGramStrip; row += kGramRows) {
          const std::int64_t strip = row / kGramStrip, from = strip > j ? strip : j;
          const DotOperands operands{packed_.strip(strip) + at + 4 * (row % kGramStrip),
                                     4,
                                     4 * kGramStrip,
                                     columns + (from - column_) * step,
                                     step,
                                     steps};
          if (last) {
            add_products(to - from, operands, begin > 0, sums, SendFor{a_, row, from, to});
            Sent& first = sent[n_sent++ % kGramSent];
            if (first.sums != nullptr) add_tile(first);
            first = {row, from, to, sums};
          } else {
            add_products(to - from, operands, begin > 0, sums, Uninterrupted{});
          }
          sums += kGramTile;
        }
      }
    }
    for (const Sent& of : sent) {
      if (of.sums != nullptr) add_tile(of);
    }
  }

  // A tile of sums whose elements of the result have been sent for.
  struct Sent {
    std::int64_t row, from, to;
    const std::int32_t* sums;
  };

  // Rows of a large result lie in memory: they are sent for while tiles before them are added to it, and
  // a few at a time: as many as a wide tile has would hold up the loads of its operands.
  struct SendFor {
    static constexpr int kParts = kGramStrip < 16 ? 1 : GramDot::kRows;
    const IntegerGramArgs& a;
    std::int64_t row, from, to;

    GLAI_ALWAYS_INLINE void operator()(int part) const {
      asm volatile("");  // GCC drops calls of a function that does nothing but prefetch
      constexpr std::int64_t rows = kGramRows / kParts;
      const std::int64_t* out = a.out.as<const std::int64_t>() + (row + part * rows) * a.out.stride[0];
      for (std::int64_t i = 0; i < rows; ++i, out += a.out.stride[0]) {
        for (std::int64_t j = from * kGramStrip; j < to * kGramStrip; j += 8) {
          __builtin_prefetch(out + j, 1, 3);
        }
        __builtin_prefetch(out + to * kGramStrip - 1, 1, 3);  // rows need not begin with a cache line
      }
    }
  };

  template <int Vecs = GramDot::kVecs, class Meanwhile>
  GLAI_ALWAYS_INLINE static void add_products(std::int64_t vecs, const DotOperands& of, bool added_to,
                                              std::int32_t* sums, const Meanwhile& meanwhile) {
    if constexpr (Vecs > 1) {
      if (vecs < Vecs) return add_products<Vecs - 1>(vecs, of, added_to, sums, meanwhile);
    }
    dot_tile<GramDot, GramDot::kRows, Vecs>(of, added_to, sums, meanwhile);
  }

  GLAI_ALWAYS_INLINE void add_tile(const Sent& of) const {
    const std::int64_t m = packed_.columns, column = of.from * kGramStrip;
    const std::int64_t width = (of.to - of.from) * kGramStrip;
    const std::int64_t end = m - column < width ? m - column : width;
    const std::int32_t* sums = of.sums;
    for (std::int64_t i = of.row; i < of.row + kGramRows && i < m; ++i, sums += width) {
      const std::int64_t owed =
          GramDot::kOffset == 0 ? 0 : std::int64_t{GramDot::kOffset} * packed_.sums[i];
      std::int64_t* out = a_.out.as<std::int64_t>() + i * a_.out.stride[0] + column;
      if (i <= column && end == kGramSquare) {
        add_row(sums, owed, 0, kGramSquare, out);
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
  const std::int64_t row_, column_;  // the first row, the first strip
  std::int32_t* sums_;               // of kGramBlock * kGramBlock elements, tile by tile
  std::uint8_t* shifted_;            // the columns of a slice, less kOffset
};

// Samples [begin, begin + n).
inline void add_gram(const IntegerGramArgs& a, std::int64_t begin, std::int64_t n) {
  const std::int64_t stride = a.features.stride[0];
  const auto* features = a.features.as<const std::uint8_t>() + begin * stride;
  PackedBytes packed;
  packed.columns = a.features.shape[1];
  packed.strips = (packed.columns + kGramStrip - 1) / kGramStrip;
  packed.steps = (n + kGramDepth - 1) / kGramDepth;
  ScratchSizes sizes;
  const auto bytes_at = sizes.add<std::uint8_t>(packed.strips * packed.strip_bytes());
  const auto sums_at = sizes.add<std::int32_t>(packed.strips * kGramStrip);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  packed.bytes = reinterpret_cast<std::uint8_t*>(memory + bytes_at);
  packed.sums = reinterpret_cast<std::int32_t*>(memory + sums_at);
  const double size = static_cast<double>(packed.columns), work = static_cast<double>(n) * size;
  const std::int64_t samples = packed.steps * kGramDepth;
  parallel_for((samples + kGramPackedSamples - 1) / kGramPackedSamples, work, a.exec.threads,
               [&](std::int64_t task) {
                 const std::int64_t first = task * kGramPackedSamples;
                 pack_samples(
                     features, stride, n, first,
                     samples - first < kGramPackedSamples ? samples : first + kGramPackedSamples,
                     packed);
               });
  if constexpr (GramDot::kOffset != 0) {
    parallel_for(packed.strips, work, a.exec.threads, [&](std::int64_t s) {
      constexpr std::uint8_t ones[4] = {1, 1, 1, 1};
      dot_tile<GramDot, 1, 1>({ones, 0, 0, packed.strip(s), 0, packed.steps}, false,
                              packed.sums + s * kGramStrip);
    });
  }
  // Blocks on the diagonal, which are half the work, come last.
  const std::int64_t blocks = (packed.strips + kGramBlockStrips - 1) / kGramBlockStrips;
  const std::int64_t off_diagonal = blocks * (blocks - 1) / 2;
  parallel_for(off_diagonal + blocks, work * size, a.exec.threads, [&](std::int64_t task) {
    std::int64_t row = 0, column = task - off_diagonal;
    if (task < off_diagonal) {
      while (task >= blocks - 1 - row) task -= blocks - 1 - row++;
      column = row + 1 + task;
    } else {
      row = column;
    }
    ByteGramBlock(a, packed, row, column).add();
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
