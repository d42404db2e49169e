// path_gram on CUDA: a block owns a tile of the matrix of one pair of paths p <= q, and sums over the
// samples that have both on. The matrix of a pair is symmetric: tiles above its diagonal are computed,
// and mirrored.
#include <algorithm>

#include "core/args.hpp"
#include "cuda/gathered_product.cuh"
#include "cuda/launchers.hpp"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/mma_tile.cuh"
#include "cuda/tiles/pairs.cuh"

namespace glai {
namespace {

constexpr int kTile = 64;

// out[(p,d),(q,e)] += sum_n g[n,p] g[n,q] weighted[n,d] features[n,e] where (p,d) <= (q,e)
template <class T>
struct GramProduct {
  std::int64_t n, width;  // D+1
  const T *weighted, *features;
  std::int64_t stride;           // of both
  int granule;                   // copy_granule of the rows of both
  const std::uint32_t* columns;  // [P, ceil(N/32)]
  T* out;
  std::int64_t out_stride;
};

// x~ = (x, 1), and s x~ where there are sample weights.
template <class T>
GLAI_KERNEL(256)
path_gram_features_kernel(const T* x, std::int64_t x_stride, const T* sample_weight,
                          std::int64_t weight_stride, std::int64_t n, std::int64_t width, T* features,
                          T* weighted, std::int64_t stride) {
  for (std::int64_t i = block_index() * 256 + thread_index(); i < n * width; i += block_count() * 256) {
    const std::int64_t row = i / width, column = i % width;
    const T value = column < width - 1 ? x[row * x_stride + column] : T(1);
    features[row * stride + column] = value;
    if (weighted != nullptr)
      weighted[row * stride + column] = sample_weight[row * weight_stride] * value;
  }
}

template <class Tile>
GLAI_KERNEL(Tile::kThreads)
path_gram_kernel(GramProduct<typename Tile::T> q) {
  using T = typename Tile::T;
  static_assert(Tile::kRows == kTile && 16 * Tile::kUnits == kTile);
  const std::int64_t side = (q.width + kTile - 1) / kTile, tiles = side * (side + 1) / 2;
  const Pair path = pair_of(block_index() / tiles), place = pair_of(block_index() % tiles);
  const std::int64_t n_words = words_per_row(q.n);
  const std::uint32_t* low = q.columns + path.low * n_words;
  const std::uint32_t* high = q.columns + path.high * n_words;

  Tile tile = {};
  const bool any = GatheredProduct<Tile>::add(
      tile, 0, words_per_row(q.n), [&](std::int64_t word) { return low[word] & high[word]; },
      SampleRows<T>{q.weighted, q.stride, place.low * kTile, q.width, q.granule},
      SampleRows<T>{q.features, q.stride, place.high * kTile, q.width, q.granule}, [](const T*) {});
  if (!any) return;
  T* out = q.out + path.low * q.width * q.out_stride + path.high * q.width;
  GLAI_UNROLL
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      const std::int64_t d = place.low * kTile + Tile::row(e);
      const std::int64_t f = place.high * kTile + 16 * unit + Tile::column(e);
      if (f >= q.width || d > f) continue;
      out[d * q.out_stride + f] += tile.sum(unit, e);
      if (path.low < path.high && d < f) out[f * q.out_stride + d] += tile.sum(unit, e);
    }
  }
}

template <class Tile>
void launch_product(const PathGramArgs& a) {
  using T = typename Tile::T;
  const std::int64_t n = a.x.shape[0], width = a.x.shape[1] + 1;
  const int device = a.x.device.index;
  T* weighted = a.weighted ? a.weighted->as<T>() : nullptr;
  const std::int64_t blocks = (n * width + 255) / 256;
  launch({"path_gram", device, a.exec.stream, blocks < 65536 ? blocks : 65536, 256},
         path_gram_features_kernel<T>, a.x.as<const T>(), a.x.stride[0],
         a.sample_weight ? a.sample_weight->as<const T>() : nullptr,
         a.sample_weight ? a.sample_weight->stride[0] : 0, n, width, a.features.as<T>(), weighted,
         a.features.stride[0]);
  GramProduct<T> q = {};
  q.n = n;
  q.width = width;
  q.features = a.features.as<const T>();
  q.weighted = weighted != nullptr ? weighted : q.features;
  q.stride = a.features.stride[0];
  q.granule = std::min(copy_granule(q.features, {q.stride}), copy_granule(q.weighted, {q.stride}));
  q.columns = a.cuda.gate_columns->as<const std::uint32_t>();
  q.out = a.out.as<T>();
  q.out_stride = a.out.stride[0];
  launch({"path_gram", device, a.exec.stream, pairs(a.n_gates) * pairs((width + kTile - 1) / kTile),
          Tile::kThreads, GatheredProduct<Tile>::kSharedBytes},
         path_gram_kernel<Tile>, q);
}

}  // namespace

void launch_path_gram(const PathGramArgs& a) {
  launch_gate_columns("path_gram", a.words, a.n_gates, *a.cuda.gate_columns, a.exec);
  if (a.x.dtype == DType::float64) return launch_product<FmaTile<double, 4, 4>>(a);
  a.cuda.tf32 ? launch_product<MmaTile<float, 1, 4>>(a) : launch_product<FmaTile<float, 4, 4>>(a);
}

}  // namespace glai
