// What the samples of a bucket do: x times the summed weights of the bucket's paths, a panel of features
// and a tile of columns at a time.
#pragma once

#include <utility>

#include "core/args.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/subset_sums.hpp"
#include "cpu/products/tiles.hpp"
#include "cpu/products/weights_ahead.hpp"

namespace glai::GLAI_ISA {

// Rows of weights further apart than this fall on a memory page each.
constexpr std::int64_t kFarApartBytes = 2048;
constexpr int kRowQuantum =
    4;  // buckets are filled up to a multiple of this many rows, where they are filled up

// A tile of columns of one block of samples.
template <class T>
struct ColumnTile {
  std::int64_t first, columns, width;  // outputs, and the lanes that hold them
  int vecs;
  T* y;  // [rows + 1, width]
};

// A block of samples times the tiles of columns of a task: what the steps below share.
template <class Kind>
struct BucketTask {
  using T = typename Kind::Value;
  const GatedMatmulArgs& a;
  std::int64_t begin, rows;  // samples
  const ColumnTile<T>* tiles;
  std::int64_t tile_count;
  typename Kind::Operand* x_copy;  // [rows + 1, operands of k_count], the last row to fill up buckets
  T* table;                        // [SubsetSums::arrays, k_count, width]
  typename Kind::Operand* panel;   // [operands of k_count, width], where operands are rounded
  T* base;                         // [tiles, k_step, widest tile]: weights of the majority
  std::int64_t k_step;             // features of a panel
  bool reference;
};

// The groups of one pass, sorted for a block.
struct PassGroups {
  std::int64_t count;
  const GateGroup* gates;
  const Buckets* buckets;
};

// One step of features of all samples of a block.
template <class Kind>
struct PanelStep {
  std::int64_t k_count;
  const typename Kind::Operand* x;  // [rows, operands of k_count]
  std::int64_t x_stride;
};

// The weights of the majority for tile i of the task.
template <class Kind>
GLAI_ALWAYS_INLINE typename Kind::Value* base_of(const BucketTask<Kind>& t, std::int64_t i) {
  return t.base + i * t.k_step * kMaxTileVecs * Vec<typename Kind::Value>::width;
}

// x[row, k .. k + k_count) of one sample, one more feature of ones at the end where there is a bias; the
// row past the last is zero.
template <class Kind>
GLAI_ALWAYS_INLINE void pack_sample(const BucketTask<Kind>& t, std::int64_t row, std::int64_t k,
                                    std::int64_t k_count) {
  using T = typename Kind::Value;
  const GatedMatmulArgs& a = t.a;
  const std::int64_t d = a.x.shape[1];
  const std::int64_t real = d - k < k_count ? d - k : k_count;
  const std::int64_t count = operand_count<Kind>(k_count);
  auto* out = t.x_copy + row * count;
  if (row == t.rows) {
    for (std::int64_t j = 0; j < count; ++j) out[j] = {};
    return;
  }
  const T* x = a.x.as<const T>() + (t.begin + row) * a.x.stride[0] + k;
  pack_operands<Kind>(x, real, real < k_count, out);
}

// The weights [k_count, width] of one path, lanes past the last column zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_weights(const GatedMatmulArgs& a, const ColumnTile<T>& t, std::int64_t p,
                                     std::int64_t k, std::int64_t k_count, T* out) {
  const std::int64_t d = a.x.shape[1];
  const std::int64_t real = d - k < k_count ? d - k : k_count;
  const std::int64_t k_stride = a.weight.stride[1];
  const std::int64_t column_stride = a.weight.shape[2] == 1 ? 1 : a.weight.stride[2];
  const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + k * k_stride + t.first * column_stride;
  if (t.columns < t.width && (column_stride != 1 || real < k_count)) {
    for (std::int64_t i = 0; i < k_count * t.width; ++i) out[i] = T(0);
  }
  if (column_stride != 1) {
    pack_transposed(w, column_stride, real, t.columns, out, t.width);
  } else if (t.columns == t.width) {
    for (std::int64_t i = 0; i < real; ++i) {
      for (std::int64_t v = 0; v < t.vecs; ++v) {
        Vec<T>::load(w + i * k_stride + v * Vec<T>::width).store(out + i * t.width + v * Vec<T>::width);
      }
    }
  } else {
    const Tail<T> tail(static_cast<int>(t.columns - (t.vecs - 1) * Vec<T>::width));
    for (std::int64_t i = 0; i < real; ++i) {
      for (std::int64_t v = 0; v < t.vecs - 1; ++v) {
        Vec<T>::load(w + i * k_stride + v * Vec<T>::width).store(out + i * t.width + v * Vec<T>::width);
      }
      const std::int64_t last = (t.vecs - 1) * Vec<T>::width;
      Vec<T>::load(w + i * k_stride + last, tail).store(out + i * t.width + last);
    }
  }
  if (real < k_count) {
    const T* bias = a.bias->as<const T>() + p * a.bias->stride[0] + t.first;
    for (std::int64_t j = 0; j < t.columns; ++j) out[real * t.width + j] = bias[j];
  }
}

// y[rows, :] += x[rows, :] · panel for the rows listed.
template <class Kind, int V>
void multiply_rows(const ColumnTile<typename Kind::Value>& t, const PanelStep<Kind>& step,
                   const std::uint16_t* rows, std::int64_t count, const typename Kind::Operand* panel,
                   std::int64_t panel_stride, WeightsAhead<typename Kind::Value>* ahead) {
  using Operand = typename Kind::Operand;
  constexpr int most = gather_tile_rows(V);
  GatherTile<Operand> tile{
      step.x, step.x_stride, rows, panel, panel_stride, operand_count<Kind>(step.k_count), t.y, t.width};
  for (; count >= most; count -= most, tile.rows += most) {
    if (ahead == nullptr) {
      gather_tile<Operand, most, V>(tile);
    } else {
      tile.ahead = ahead->next(tile.k, t.y);
      gather_tile<Operand, most, V, true>(tile);
    }
  }
  if (count == 0) return;
  if (count == kRowQuantum) return gather_tile<Operand, kRowQuantum, V>(tile);
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRest[])(const GatherTile<Operand>&) = {gather_tile<Operand, M + 1, V>...};
    kRest[count - 1](tile);
  }(std::make_integer_sequence<int, most - 1>{});
}

template <class Kind, int V = 1>
GLAI_ALWAYS_INLINE void run_multiply_rows(const ColumnTile<typename Kind::Value>& t,
                                          const PanelStep<Kind>& step, const std::uint16_t* rows,
                                          std::int64_t count, const typename Kind::Operand* panel,
                                          std::int64_t panel_stride,
                                          WeightsAhead<typename Kind::Value>* ahead = nullptr) {
  if constexpr (V < kMaxTileVecs) {
    if (t.vecs > V)
      return run_multiply_rows<Kind, V + 1>(t, step, rows, count, panel, panel_stride, ahead);
  }
  multiply_rows<Kind, V>(t, step, rows, count, panel, panel_stride, ahead);
}

// The same for sums of weights [k_count, width], which are rounded where operands are.
template <class Kind>
GLAI_ALWAYS_INLINE void multiply_rows_by_sums(const BucketTask<Kind>& t,
                                              const ColumnTile<typename Kind::Value>& tile,
                                              const PanelStep<Kind>& step, const std::uint16_t* rows,
                                              std::int64_t count, const typename Kind::Value* sums,
                                              WeightsAhead<typename Kind::Value>* ahead = nullptr) {
  if constexpr (Kind::kRounds) {
    if (count == 0) return;
    pack_panel<Kind>(sums, step.k_count, tile.width, t.panel);
    run_multiply_rows(tile, step, rows, count, t.panel, tile.width, ahead);
  } else {
    run_multiply_rows(tile, step, rows, count, sums, tile.width, ahead);
  }
}

// What a group does on one panel of features, while the panel of `next` from feature next_k on is sent
// for. Columns come innermost, so that the weights are read along their rows: a tile alone would touch a
// memory page per feature and come back to each for the next tile.
template <class Kind>
GLAI_ALWAYS_INLINE void multiply_group(const BucketTask<Kind>& t, const PassGroups& pass, std::int64_t g,
                                       std::int64_t k, const PanelStep<Kind>& step, std::int64_t next,
                                       std::int64_t next_k) {
  using T = typename Kind::Value;
  const GatedMatmulArgs& a = t.a;
  const GateGroup& group = pass.gates[g];
  const Buckets& buckets = pass.buckets[g];
  const bool close = (a.weight.stride[2] == 1 || a.weight.shape[2] == 1) &&
                     a.weight.stride[1] * static_cast<std::int64_t>(sizeof(T)) < kFarApartBytes;
  const std::uint32_t occupied = occupied_subsets(group.count, buckets);
  const ColumnTile<T>& last = t.tiles[t.tile_count - 1];
  WeightsAhead<T> ahead(a, t.tiles[0].first, last.first + last.columns - t.tiles[0].first,
                        pass.gates[next], next_k, t.k_step);
  ahead.spread_over(t.tile_count * buckets.begin[1 << group.count] / gather_tile_rows(t.tiles[0].vecs));
  for (std::int64_t i = 0; i < t.tile_count; ++i) {
    const ColumnTile<T>& tile = t.tiles[i];
    // A panel of a single path is used where it lies when its rows are whole vectors, close together.
    if constexpr (!Kind::kRounds) {
      if (group.count == 1 && !t.reference && close && tile.columns == tile.width &&
          k + step.k_count <= a.x.shape[1]) {
        const T* w = a.weight.as<const T>() + group.paths[0] * a.weight.stride[0] +
                     k * a.weight.stride[1] + tile.first;
        run_multiply_rows(tile, step, buckets.rows, buckets.begin[2], w, a.weight.stride[1], &ahead);
        continue;
      }
    }
    const std::int64_t size = step.k_count * tile.width;
    const SubsetSums<T> sums{group, occupied, size, t.table, t.table + group.count * size};
    sums.pack(base_of(t, i),
              [&](std::int32_t p, T* out) { pack_weights(a, tile, p, k, step.k_count, out); });
    sums.visit([&](int s, const T* sum) {
      multiply_rows_by_sums(t, tile, step, buckets.rows + buckets.begin[s],
                            buckets.begin[s + 1] - buckets.begin[s], sum, &ahead);
    });
  }
}

// What all samples of a block do on the columns of a task, for the groups of one pass: panel by panel,
// so that x is copied once per panel.
template <class Kind>
GLAI_ALWAYS_INLINE void multiply_by_panels(const BucketTask<Kind>& t, const PassGroups& pass,
                                           bool copy_x) {
  using T = typename Kind::Value;
  const GatedMatmulArgs& a = t.a;
  const std::int64_t d = a.x.shape[1], features = d + (a.bias ? 1 : 0);
  std::uint16_t all_rows[kMaxBlockRows];
  for (std::int64_t r = 0; r < t.rows; ++r) all_rows[r] = static_cast<std::uint16_t>(r);
  for (std::int64_t k = 0; k < features; k += t.k_step) {
    const std::int64_t k_count = features - k < t.k_step ? features - k : t.k_step;
    // The bias's feature is in the copy only, and so are rounded values.
    const bool copied = copy_x || Kind::kRounds || k + k_count > d;
    for (std::int64_t r = 0; copied && r <= t.rows; ++r) pack_sample(t, r, k, k_count);
    PanelStep<Kind> step{k_count, t.x_copy, operand_count<Kind>(k_count)};
    if constexpr (!Kind::kRounds) {
      if (!copied) {
        step.x = a.x.as<const T>() + t.begin * a.x.stride[0] + k;
        step.x_stride = a.x.stride[0];
      }
    }
    for (std::int64_t i = 0; t.reference && i < t.tile_count; ++i) {
      for (std::int64_t j = 0; j < k_count * t.tiles[i].width; ++j) base_of(t, i)[j] = T(0);
    }
    for (std::int64_t g = 0; g < pass.count; ++g) {
      multiply_group(t, pass, g, k, step, g + 1 < pass.count ? g + 1 : g, k);
    }
    for (std::int64_t i = 0; t.reference && i < t.tile_count; ++i) {
      multiply_rows_by_sums(t, t.tiles[i], step, all_rows, t.rows, base_of(t, i));
    }
  }
}

// The same group by group: memory is read in order, and the few rows of y stay in cache that one group
// adds to.
template <class Kind>
GLAI_ALWAYS_INLINE void multiply_by_groups(const BucketTask<Kind>& t, const PassGroups& pass) {
  const std::int64_t features = t.a.x.shape[1] + (t.a.bias ? 1 : 0);
  for (std::int64_t g = 0; g < pass.count; ++g) {
    const Buckets& buckets = pass.buckets[g];
    const int rows = buckets.begin[1 << pass.gates[g].count];
    for (std::int64_t k = 0; k < features; k += t.k_step) {
      const bool last = k + t.k_step >= features;
      const std::int64_t k_count = last ? features - k : t.k_step;
      for (int i = 0; i < rows; ++i) pack_sample(t, buckets.rows[i], k, k_count);
      multiply_group(t, pass, g, k, {k_count, t.x_copy, operand_count<Kind>(k_count)},
                     last && g + 1 < pass.count ? g + 1 : g, last ? 0 : k + t.k_step);
    }
  }
}

}  // namespace glai::GLAI_ISA
