// integer_gram on CUDA: a block owns a tile of the upper triangle and sums the products of its columns
// in 32 bits, which hold those of kMostSamples; a launch takes no more, and adds to the 64 bits of the
// result.
#include <algorithm>

#include "core/args.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/byte_tile.cuh"
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/pairs.cuh"

namespace glai {
namespace {

constexpr std::int64_t kMostSamples = std::int64_t{1} << 17;
static_assert(kMostSamples * 127 * 127 < std::int64_t{1} << 31);

using Tile = ByteTile<2, 4>;
constexpr int kTile = Tile::kRows;
static_assert(Tile::kColumns == kTile);
using Operand = OperandTile<std::uint8_t, kTile, false>;
constexpr std::size_t kSharedBytes = kStages * 2 * Operand::kElements;

struct IntegerGramProduct {
  std::int64_t n, m;
  const std::uint8_t* features;
  std::int64_t stride;
  int granule;  // copy_granule of the rows
  std::int64_t sign;
  std::int64_t* out;
  std::int64_t out_stride;
};

GLAI_KERNEL(Tile::kThreads)
integer_gram_kernel(IntegerGramProduct q) {
  const Pair place = pair_of(block_index());
  const std::int64_t row = place.low * kTile, column = place.high * kTile;
  const auto stage_a = [](int stage) {
    return reinterpret_cast<std::uint8_t*>(shared_memory()) + 2 * stage * Operand::kElements;
  };
  const auto stage_b = [&](int stage) { return stage_a(stage) + Operand::kElements; };
  const auto load = [&](std::uint8_t* to, std::int64_t first, std::int64_t step) {
    load_tile<Operand, Tile::kThreads>(to, q.granule, [&](int i, int k) -> Chunk<std::uint8_t> {
      const std::int64_t sample = step * Operand::kDepth + i, at = first + k;
      return {q.features + sample * q.stride + at, sample < q.n ? q.m - at : 0};
    });
  };
  Tile tile = {};
  pipeline((q.n + Operand::kDepth - 1) / Operand::kDepth,
           [&](int stage, std::int64_t step) {
             load(stage_a(stage), row, step);
             load(stage_b(stage), column, step);
           },
           [&](int stage, std::int64_t) {
             tile.template multiply<Operand, Operand>(stage_a(stage), stage_b(stage));
           });
  GLAI_UNROLL
  for (int i = 0; i < Tile::kSums; ++i) {
    const std::int64_t r = row + Tile::row(i), c = column + Tile::column(i);
    if (c < q.m && r <= c) q.out[r * q.out_stride + c] += q.sign * tile.sum(i);
  }
}

}  // namespace

void launch_integer_gram(const IntegerGramArgs& a) {
  IntegerGramProduct q = {};
  q.m = a.features.shape[1];
  q.stride = a.features.stride[0];
  q.sign = a.sign;
  q.out = a.out.as<std::int64_t>();
  q.out_stride = a.out.stride[0];
  const std::int64_t samples = a.features.shape[0];
  for (std::int64_t begin = 0; begin < samples; begin += kMostSamples) {
    q.n = std::min(kMostSamples, samples - begin);
    q.features = a.features.as<const std::uint8_t>() + begin * q.stride;
    q.granule = copy_granule(q.features, {q.stride});
    launch({"integer_gram", a.features.device.index, a.exec.stream, pairs((q.m + kTile - 1) / kTile),
            Tile::kThreads, kSharedBytes},
           integer_gram_kernel, q);
  }
}

}  // namespace glai
