// Masked gradient accumulation by buckets: a group of gates at a time, the outer products of the samples
// of each subset are summed once, in registers, and go to all paths of the subset.
// Groups of one gate are compaction. A task owns a slice of features of one group, so no two tasks write
// the same element and the sum over samples always runs in the same order.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/outer_products.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kGradFeatures = 128;  // features per task, where they are not the lanes
constexpr std::int64_t kGradFeaturesFarApart = 512;
constexpr std::int64_t kGradTasks = 4;  // for each of several threads
// Rows of x that lie on more memory than this miss the translations of their pages' addresses: a task's
// features of all samples are copied side by side, if that many groups read them.
constexpr std::int64_t kSpreadBytes = 192 << 10;
constexpr std::int64_t kCopiedGroups = 3;
constexpr std::int64_t kMaxPackedBytes = 4 << 20;  // of an operand; larger ones are read where they lie
// With at most this many outputs the features may be the vector lanes instead.
constexpr std::int64_t kMaxOutputsAcross = 32;

// With few outputs most lanes of a vector of outputs are empty: vectors run along the features then, and
// the small result is transposed, which an eighth fewer vectors pay for.
template <class T>
GLAI_ALWAYS_INLINE bool features_across(std::int64_t d, std::int64_t c) {
  constexpr std::int64_t width = Vec<T>::width;
  const std::int64_t along_features = (d + width - 1) / width * c;
  const std::int64_t along_outputs = (c + width - 1) / width * d;
  return c <= kMaxOutputsAcross && 8 * along_features <= 7 * along_outputs;
}

// Rows this far apart share few sets of the caches and evict each other while a tile walks down.
template <class T>
GLAI_ALWAYS_INLINE bool rows_collide(std::int64_t stride) {
  return stride * static_cast<std::int64_t>(sizeof(T)) % 512 == 0;
}

// One slice of features, for one block of samples.
template <class T, class Write>
struct GradSlice {
  const GatedMatmulWeightGradArgs& a;
  bool across;
  int most_vecs;              // of a tile
  Rows<T> x, dy;              // of the block; x from the slice's first feature on
  std::int64_t panel_rows;    // x lies in panels of so many rows (OuterProducts); 0: as a matrix
  std::int64_t d0, dn, rows;  // features, samples
  Write write;
};

// What a task works in.
template <class Kind>
struct GradMemory {
  using T = typename Kind::Value;
  using Operand = typename Kind::Operand;
  T *x, *totals, *a, *b;
  Operand* pairs;

  // rows, features: of the task, as many as there may be; copied: x is.
  GLAI_ALWAYS_INLINE GradMemory(const GatedMatmulWeightGradArgs& of, std::int64_t rows,
                                std::int64_t features, bool across, int group_gates, bool copied) {
    constexpr std::int64_t lanes = Vec<T>::width, tile = kMaxOuterTileVecs * lanes;
    constexpr bool paired = Kind::kValues == 2;
    const std::int64_t c = of.dy.shape[1];
    const bool packed = !paired && !across;
    const std::int64_t most = paired ? most_row_pairs(rows, 1 << group_gates) : 0;
    ScratchSizes sizes;
    const auto x_at = sizes.add<T>(copied ? rows * (features + 2 * lanes) : 0);
    const auto totals_at = sizes.add<T>(tile * (group_gates + (across ? 1 : 0)));
    const auto a_at = sizes.add<T>(packed ? rows * outer_tile_rows(1) : 0);
    // Of the largest bucket that is packed: a block may have more rows than that.
    const std::int64_t most_packed = packs(of, 1) ? kMaxPackedBytes / (c * sizeof(T)) : 0;
    const auto b_at = sizes.add<T>(packed ? (rows < most_packed ? rows : most_packed) * (c + lanes) : 0);
    const auto pairs_at =
        sizes.add<Operand>(most * ((across ? c : features) + kMaxTileVecs * lanes + 1) + lanes);
    std::byte* memory = scratch(Scratch::task, sizes.bytes());
    x = reinterpret_cast<T*>(memory + x_at);
    totals = reinterpret_cast<T*>(memory + totals_at);
    a = reinterpret_cast<T*>(memory + a_at);
    b = reinterpret_cast<T*>(memory + b_at);
    pairs = reinterpret_cast<Operand*>(memory + pairs_at);
  }

  // Whether dy is copied in the order in which tiles read it.
  static GLAI_ALWAYS_INLINE bool packs(const GatedMatmulWeightGradArgs& of, std::int64_t rows) {
    const std::int64_t c = of.dy.shape[1];
    return c > kMaxTileVecs * Vec<T>::width &&
           rows * c * static_cast<std::int64_t>(sizeof(T)) <= kMaxPackedBytes;
  }
};

// What the samples add to the gradients of a group.
template <class Kind, class Write>
GLAI_ALWAYS_INLINE void add_gradients(const GradSlice<typename Kind::Value, Write>& t,
                                      const GateGroup& group, const Buckets& buckets,
                                      const GradMemory<Kind>& memory) {
  using T = typename Kind::Value;
  const GatedMatmulWeightGradArgs& a = t.a;
  const std::int64_t c = a.dy.shape[1], dw_stride = a.dw.stride[1];
  const int gates = group.count;
  const auto add_all = [&](const OuterProducts<T, Write>& products) {
    if constexpr (Kind::kValues == 2) {
      add_paired_outer_products(products, t.most_vecs, memory.pairs);
    } else {
      add_outer_products(products, t.most_vecs);
    }
  };
  T* outs[kMaxGroupGates];
  if (a.db && t.d0 == 0) {
    const T one = T(1);
    for (int i = 0; i < gates; ++i) outs[i] = a.db->as<T>() + group.paths[i] * a.db->stride[0];
    add_all({{&one, 0}, 1, 0, t.dy, c, buckets, gates, outs, 0, false, t.write, memory.totals});
  }
  for (int i = 0; i < gates; ++i) {
    outs[i] = a.dw.as<T>() + group.paths[i] * a.dw.stride[0] + t.d0 * dw_stride;
  }
  if (t.across) {
    return add_all(
        {t.dy, c, 0, t.x, t.dn, buckets, gates, outs, dw_stride, true, t.write, memory.totals});
  }
  const OuterProducts<T, Write> products{t.x,   t.dn, t.panel_rows, t.dy,  c,       buckets,
                                         gates, outs, dw_stride,    false, t.write, memory.totals};
  if (Kind::kValues == 2 || !GradMemory<Kind>::packs(a, buckets.begin[1 << gates])) {
    return add_all(products);
  }
  const bool far_apart = dw_stride * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  add_packed_outer_products<T>(products, t.most_vecs,
                               {far_apart && t.panel_rows == 0 ? memory.a : nullptr, memory.b});
}

// The features of all samples of a block, side by side in whole vectors, or in panels.
template <class Kind, class Write>
GLAI_ALWAYS_INLINE void copy_features(GradSlice<typename Kind::Value, Write>& t,
                                      typename Kind::Value* copy, bool in_panels) {
  using T = typename Kind::Value;
  constexpr std::int64_t lanes = Vec<T>::width;
  const auto copy_rows = [&](std::int64_t first, std::int64_t columns, std::int64_t width, T* to) {
    const Tail<T> tail(static_cast<int>((columns + lanes - 1) % lanes + 1));
    const std::int64_t last = (columns - 1) / lanes * lanes;
    for (std::int64_t r = 0; r < t.rows; ++r, to += width) {
      const T* from = t.x.data + r * t.x.stride + first;
      for (std::int64_t j = 0; j < last; j += lanes) Vec<T>::load(from + j).store(to + j);
      const auto rest = Vec<T>::load(from + last, tail);
      if (last + lanes <= width) {
        rest.store(to + last);
      } else {
        rest.store(to + last, tail);
      }
    }
    if constexpr (Kind::kRounds && Kind::kValues == 1) {
      for (T* value = to - t.rows * width; value < to; ++value) *value = as_operand<Kind>(*value);
    }
  };
  if (t.across || !in_panels) {
    // A vector more, so that rows do not collide.
    const std::int64_t width = (t.dn + lanes - 1) / lanes * lanes + (t.across ? 0 : lanes);
    copy_rows(0, t.dn, width, copy);
    t.x = {copy, width};
    return;
  }
  const EvenSplit panels = outer_panels<T>(t.dn, t.a.dy.shape[1], t.most_vecs);
  for (std::int64_t i = 0; i < panels.parts; ++i) {
    copy_rows(panels.begin(i), panels.size(i), panels.size(i), copy + panels.begin(i) * t.rows);
  }
  t.x = {copy, 0};
  t.panel_rows = t.rows;
}

// update: takes the gradient instead of dw, whose place says which part it is; of one block of samples,
// without db. Null: dw is written, or added to.
template <class Kind, class Write = WriteGradient<typename Kind::Value>>
void gated_matmul_weight_grad_buckets(const GatedMatmulWeightGradArgs& a, int group_gates,
                                      const Write* update = nullptr) {
  using T = typename Kind::Value;
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const std::int64_t groups = (p_count + group_gates - 1) / group_gates;
  const EvenSplit blocks(n, kMaxBlockRows);
  const std::int64_t rows_most = blocks.parts == 0 ? 0 : blocks.size(0);
  const bool across = features_across<T>(d, c);
  const int most_vecs = across ? outer_tile_vecs(c) : kMaxTileVecs;
  // Rounded numbers are copied once; pairs are of a bucket's samples.
  const bool rounded = Kind::kRounds && Kind::kValues == 1;
  const bool far_apart = a.dw.stride[1] * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  const bool spread = rows_most * a.x.stride[0] * static_cast<std::int64_t>(sizeof(T)) > kSpreadBytes;
  const bool copy_x =
      rounded || (!far_apart && ((spread && groups >= kCopiedGroups) || rows_collide<T>(a.x.stride[0])));
  // Slices of whole tiles; one at least, so that the bias gradient is written when D is 0.
  const std::int64_t tile = across ? most_vecs * lanes : outer_tile_rows(widest_tile<T>(c, most_vecs));
  const EvenSplit slices(d == 0 ? 1 : (d + tile - 1) / tile,
                         across ? 1 : (far_apart ? kGradFeaturesFarApart : kGradFeatures) / tile);
  // Fewer tasks copy features less often; how the result is cut changes no element's sum.
  const std::int64_t tasks = a.exec.threads <= 1 ? 1 : kGradTasks * a.exec.threads;
  const EvenSplit shares(groups, (groups * slices.parts + tasks - 1) / tasks);
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);
  const std::int64_t capacity = bucket_capacity(rows_most, 1 << group_gates, 1);

  ScratchSizes sizes;
  const auto rows_at = sizes.add<std::uint16_t>(groups * capacity);
  const auto buckets_at = sizes.add<Buckets>(groups);
  const auto groups_at = sizes.add<GateGroup>(groups);
  const auto dy_at = sizes.add<T>(rounded ? rows_most * c : 0);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* row_lists = reinterpret_cast<std::uint16_t*>(memory + rows_at);
  auto* buckets = reinterpret_cast<Buckets*>(memory + buckets_at);
  auto* gate_groups = reinterpret_cast<GateGroup*>(memory + groups_at);
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
      if (!rounded || rows == 0) return;
      const EvenSplit parts(rows, (rows + groups - 1) / groups);
      for (std::int64_t r = g; g < parts.parts && r < rows; r += parts.parts) {
        for (std::int64_t j = 0; j < c; ++j) {
          const T value = dy[r * a.dy.stride[0] + j];
          if constexpr (Kind::kValues == 1) dy_copy[r * c + j] = as_operand<Kind>(value);
        }
      }
    });
    parallel_for(slices.parts * shares.parts, work, a.exec.threads, [&](std::int64_t task) {
      const std::int64_t slice = task / shares.parts, share = task % shares.parts;
      const std::int64_t d0 = slices.begin(slice) * tile, left = d - d0;
      const std::int64_t dn = slices.size(slice) * tile < left ? slices.size(slice) * tile : left;
      const Write write = [&] {
        if constexpr (std::is_same_v<Write, WriteGradient<T>>) {
          return Write{a.accumulate || block > 0};
        } else {
          return *update;
        }
      }();
      GradSlice<T, Write> of{a,
                             across,
                             most_vecs,
                             {x + d0, a.x.stride[0]},
                             {rounded ? dy_copy : dy, rounded ? c : a.dy.stride[0]},
                             0,
                             d0,
                             dn,
                             rows,
                             write};
      const GradMemory<Kind> own(a, rows, slices.size(0) * tile, across, group_gates, copy_x);
      if (copy_x && dn > 0) copy_features<Kind>(of, own.x, spread && Kind::kValues == 1);
      for (std::int64_t g = shares.begin(share); g < shares.begin(share) + shares.size(share); ++g) {
        add_gradients<Kind>(of, gate_groups[g], buckets[g], own);
      }
    });
  }
}

}  // namespace glai::GLAI_ISA
