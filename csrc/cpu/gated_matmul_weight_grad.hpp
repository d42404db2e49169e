// Masked gradient accumulation by buckets: a group of gates at a time, the outer products of the samples
// of each subset are summed once, in registers, and the sums of a path's subsets make its gradient.
// Groups of one gate are compaction. A task owns a slice of features of one group, so no two tasks write
// the same element and the sum over samples always runs in the same order.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/gated_matmul.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/outer_products.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kGradFeatures = 128;  // features per task
constexpr std::int64_t kGradFeaturesFarApart = 512;
constexpr std::int64_t kMaxPackedBytes = 4 << 20;  // of an operand; larger ones are read where they lie
constexpr std::int64_t kCopiedValues = 16384;      // of a task, where all gates are on
// With at most this many outputs the features may be the vector lanes instead.
constexpr std::int64_t kMaxOutputsAcross = 32;

// Lanes used of those paid for, when n columns are covered by whole vectors.
template <class T>
GLAI_ALWAYS_INLINE double lane_use(std::int64_t n) {
  constexpr std::int64_t width = Vec<T>::width;
  return static_cast<double>(n) / static_cast<double>((n + width - 1) / width * width);
}

// With few outputs most lanes of a vector of outputs are empty: vectors run along the features then, and
// the small result is transposed once per path.
template <class T>
GLAI_ALWAYS_INLINE bool features_across(std::int64_t d, std::int64_t c) {
  return c <= kMaxOutputsAcross && lane_use<T>(c) < 0.8 * lane_use<T>(d);
}

// Rows this far apart share few sets of the caches and evict each other while a tile walks down.
template <class T>
GLAI_ALWAYS_INLINE bool rows_collide(std::int64_t stride) {
  return stride * static_cast<std::int64_t>(sizeof(T)) % 512 == 0;
}

// One slice of features of one group, for one block of samples.
template <class T>
struct GradTask {
  const GatedMatmulWeightGradArgs& a;
  Rows<T> x, dy;        // of the block; x from the slice's first feature on
  std::int64_t d0, dn;  // features
  const GateGroup& group;
  const Buckets& buckets;
  bool first;  // block of samples
};

template <class Kind>
GLAI_ALWAYS_INLINE void add_gradients(const GradTask<typename Kind::Value>& t, bool across) {
  using T = typename Kind::Value;
  using Operand = typename Kind::Operand;
  constexpr bool paired = Kind::kValues == 2;
  const GatedMatmulWeightGradArgs& a = t.a;
  const std::int64_t c = a.dy.shape[1], dw_stride = a.dw.stride[1];
  const int gates = t.group.count;
  const bool add = a.accumulate || !t.first;
  const std::int64_t rows = t.buckets.begin[1 << gates];
  const std::int64_t b_bytes = rows * c * static_cast<std::int64_t>(sizeof(T));
  const bool packed =
      !paired && !across && c > kMaxTileVecs * Vec<T>::width && b_bytes <= kMaxPackedBytes;
  const bool far_apart = dw_stride * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  constexpr std::int64_t tile = kMaxOuterTileVecs * Vec<T>::width;
  ScratchSizes sizes;
  const auto sums_at = sizes.add<T>(tile << gates);
  const auto across_at = sizes.add<T>(across ? gates * c * t.dn : 0);
  const auto a_at = sizes.add<T>(packed && far_apart ? rows * outer_tile_rows(kMaxTileVecs) : 0);
  const auto b_at = sizes.add<T>(packed ? rows * (c + Vec<T>::width) : 0);
  const std::int64_t pairs = paired ? most_row_pairs(rows, 1 << gates) : 0;
  const std::int64_t most_a = across ? c : t.dn;
  const auto pairs_at =
      sizes.add<Operand>(pairs * (most_a + kMaxTileVecs * Vec<T>::width + 1) + Vec<T>::width);
  std::byte* memory = scratch(Scratch::task, sizes.bytes());
  T* sums = reinterpret_cast<T*>(memory + sums_at);
  const auto add_all = [&](const OuterProducts<T>& products) {
    if constexpr (paired) {
      add_paired_outer_products(products, reinterpret_cast<Operand*>(memory + pairs_at));
    } else {
      add_outer_products(products);
    }
  };
  T* transposed = reinterpret_cast<T*>(memory + across_at);  // [gates, c, dn]
  GradTile<T> tiles[kMaxGroupGates];
  if (a.db && t.d0 == 0) {
    const T one = T(1);
    for (int i = 0; i < gates; ++i) {
      tiles[i] = {a.db->as<T>() + t.group.paths[i] * a.db->stride[0], 0, add};
    }
    add_all({{&one, 0}, 1, t.dy, c, t.buckets, gates, sums, tiles});
  }
  T* dw[kMaxGroupGates];
  for (int i = 0; i < gates; ++i) {
    dw[i] = a.dw.as<T>() + t.group.paths[i] * a.dw.stride[0] + t.d0 * dw_stride;
    tiles[i] = across ? GradTile<T>{transposed + i * c * t.dn, t.dn, false}
                      : GradTile<T>{dw[i], dw_stride, add};
  }
  if (!across) {
    const OuterProducts<T> products{t.x, t.dn, t.dy, c, t.buckets, gates, sums, tiles};
    if (!packed) return add_all(products);
    T* packed_a = far_apart ? reinterpret_cast<T*>(memory + a_at) : nullptr;
    return add_packed_outer_products<T>(products, {packed_a, reinterpret_cast<T*>(memory + b_at)});
  }
  add_all({t.dy, c, t.x, t.dn, t.buckets, gates, sums, tiles});
  for (int i = 0; i < gates; ++i) {
    const T* from = transposed + i * c * t.dn;
    if (!add) {
      pack_transposed(from, t.dn, t.dn, c, dw[i], dw_stride);
      continue;
    }
    for (std::int64_t k = 0; k < t.dn; ++k) {
      for (std::int64_t j = 0; j < c; ++j) dw[i][k * dw_stride + j] += from[j * t.dn + k];
    }
  }
}

template <class Kind>
void gated_matmul_weight_grad_buckets(const GatedMatmulWeightGradArgs& a, int group_gates) {
  using T = typename Kind::Value;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const bool across = features_across<T>(d, c);
  const std::int64_t groups = (p_count + group_gates - 1) / group_gates;
  // One slice at least, so that the bias gradient is written when D is 0.
  const bool far_apart = a.dw.stride[1] * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  const EvenSplit slices(d == 0 ? 1 : d, far_apart ? kGradFeaturesFarApart : kGradFeatures);
  const EvenSplit blocks(n, kMaxBlockRows);
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);
  const std::int64_t rows_most = blocks.parts == 0 ? 0 : blocks.size(0);
  const std::int64_t capacity = bucket_capacity(rows_most, 1 << group_gates, 1);
  // Rounded numbers are copied once per block; pairs are of a bucket's samples.
  const bool copy_dy = Kind::kRounds && Kind::kValues == 1;
  const bool copy_x = (copy_dy || rows_collide<T>(a.x.stride[0])) && d > 0;
  constexpr std::int64_t line = 64 / sizeof(T);
  const std::int64_t copy_stride = (d + line - 1) / line * line + line;

  ScratchSizes sizes;
  const auto rows_at = sizes.add<std::uint16_t>(groups * capacity);
  const auto buckets_at = sizes.add<Buckets>(groups);
  const auto groups_at = sizes.add<GateGroup>(groups);
  const auto x_at = sizes.add<T>(copy_x ? rows_most * copy_stride : 0);
  const auto dy_at = sizes.add<T>(copy_dy ? rows_most * c : 0);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* row_lists = reinterpret_cast<std::uint16_t*>(memory + rows_at);
  auto* buckets = reinterpret_cast<Buckets*>(memory + buckets_at);
  auto* gate_groups = reinterpret_cast<GateGroup*>(memory + groups_at);
  T* x_copy = reinterpret_cast<T*>(memory + x_at);
  T* dy_copy = reinterpret_cast<T*>(memory + dy_at);

  // Once at least, so that the result is written when there are no samples.
  for (std::int64_t block = 0; block == 0 || block < blocks.parts; ++block) {
    const std::int64_t rows = blocks.parts == 0 ? 0 : blocks.size(block);
    const std::int64_t begin = blocks.parts == 0 ? 0 : blocks.begin(block);
    const T* x = a.x.as<const T>() + begin * a.x.stride[0];
    const T* dy = a.dy.as<const T>() + begin * a.dy.stride[0];
    parallel_for(groups, work, a.exec.threads, [&](std::int64_t g) {
      GateGroup& group = gate_groups[g];
      const std::int64_t p0 = g * group_gates, left = p_count - p0;
      group.flipped = 0;
      group.count = static_cast<int>(left < group_gates ? left : group_gates);
      for (int i = 0; i < group.count; ++i) group.paths[i] = static_cast<std::int32_t>(p0 + i);
      buckets[g].rows = row_lists + g * capacity;
      fill_buckets(a.words.as<const std::uint32_t>() + begin * w_words, w_words, group, rows, 1,
                   buckets[g]);
      if (!(copy_x || copy_dy) || rows == 0) return;
      const EvenSplit parts(rows, (rows + groups - 1) / groups);
      if (g >= parts.parts) return;
      for (std::int64_t r = parts.begin(g); r < parts.begin(g) + parts.size(g); ++r) {
        const auto copy = [](const T* from, std::int64_t count, T* to) {
          for (std::int64_t i = 0; i < count; ++i)
            to[i] = Kind::kValues == 1 ? as_operand<Kind>(from[i]) : from[i];
        };
        if (copy_x) copy(x + r * a.x.stride[0], d, x_copy + r * copy_stride);
        if (copy_dy) copy(dy + r * a.dy.stride[0], c, dy_copy + r * c);
      }
    });
    const std::int64_t x_stride = copy_x ? copy_stride : a.x.stride[0];
    parallel_for(groups * slices.parts, work, a.exec.threads, [&](std::int64_t task) {
      const std::int64_t slice = task / groups, g = task % groups;
      const std::int64_t d0 = slices.begin(slice), dn = d == 0 ? 0 : slices.size(slice);
      add_gradients<Kind>({a,
                           {(copy_x ? x_copy : x) + d0, x_stride},
                           {copy_dy ? dy_copy : dy, copy_dy ? c : a.dy.stride[0]},
                           d0,
                           dn,
                           gate_groups[g],
                           buckets[g],
                           block == 0},
                          across);
    });
  }
}

// One path's share of gates that are all on: words of one gate [N], every one set.
GLAI_ALWAYS_INLINE TensorView all_on_words(std::uint32_t* words, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) words[i] = 1u;
  TensorView view;
  view.data = words;
  view.ndim = 2;
  view.shape[0] = n;
  view.shape[1] = view.stride[0] = view.stride[1] = 1;
  return view;
}

// All gates on: one product, copied to all paths.
template <class Kind>
void gated_matmul_weight_grad_all_on(const GatedMatmulWeightGradArgs& a) {
  using T = typename Kind::Value;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  ScratchSizes sizes;
  const auto dw_at = sizes.add<T>(d * c);
  const auto db_at = sizes.add<T>(c);
  const auto words_at = sizes.add<std::uint32_t>(n);
  std::byte* memory = scratch(Scratch::plan, sizes.bytes());
  GatedMatmulWeightGradArgs one = a;
  one.n_gates = 1;
  one.words = all_on_words(reinterpret_cast<std::uint32_t*>(memory + words_at), n);
  one.accumulate = false;
  one.dw.data = memory + dw_at;
  one.dw.shape[0] = 1;
  one.dw.stride[0] = d * c;
  one.dw.stride[1] = c;
  if (one.db) {
    one.db->data = memory + db_at;
    one.db->shape[0] = 1;
    one.db->stride[0] = c;
  }
  gated_matmul_weight_grad_buckets<Kind>(one, 1);
  const T* dw = reinterpret_cast<const T*>(memory + dw_at);
  const T* db = reinterpret_cast<const T*>(memory + db_at);
  const EvenSplit tasks(a.n_gates, (kCopiedValues + d * c) / (d * c + 1));
  parallel_for(
      tasks.parts, 0.25 * static_cast<double>(a.n_gates * d) * static_cast<double>(c), a.exec.threads,
      [&](std::int64_t task) {
        const bool flat = a.dw.stride[1] == c;
        const std::int64_t rows = flat ? 1 : d, columns = flat ? d * c : c;
        const auto copy = [&](const T* from, std::int64_t count, T* out) {
          if (a.accumulate) {
            for (std::int64_t j = 0; j < count; ++j) out[j] += from[j];
          } else {
            for (std::int64_t j = 0; j < count; ++j) out[j] = from[j];
          }
        };
        for (std::int64_t p = tasks.begin(task); p < tasks.begin(task) + tasks.size(task); ++p) {
          for (std::int64_t k = 0; k < rows; ++k) {
            copy(dw + k * columns, columns, a.dw.as<T>() + p * a.dw.stride[0] + k * a.dw.stride[1]);
          }
          if (a.db) copy(db, c, a.db->as<T>() + p * a.db->stride[0]);
        }
      });
}

template <class Kind>
void gated_matmul_weight_grad_of(const GatedMatmulWeightGradArgs& a) {
  const double density = density_of(a.words, a.n_gates);
  if (density >= 1.0 && a.form == Form::automatic) return gated_matmul_weight_grad_all_on<Kind>(a);
  const GatedShape shape{a.x.shape[0], a.n_gates, a.x.shape[1], a.dy.shape[1]};
  const GatedMatmulPlan plan = plan_gated_matmul_weight_grad(shape, density, a.form);
  gated_matmul_weight_grad_buckets<Kind>(a, plan.group_gates);
}

template <class Bf16>
void gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_weight_grad_of<Exact<double>>(a);
  if (a.precision == Precision::bf16) return gated_matmul_weight_grad_of<Bf16>(a);
  return gated_matmul_weight_grad_of<Exact<float>>(a);
}

}  // namespace glai::GLAI_ISA
