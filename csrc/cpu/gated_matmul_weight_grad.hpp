// Masked gradient accumulation by buckets: a group of gates at a time, the outer products of the samples
// of each subset are summed once, in registers, and the sums of a path's subsets make its gradient.
// Groups of one gate are compaction. A task owns a slice of features of one group, so no two tasks write
// the same element and the sum over samples always runs in the same order.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/buckets.hpp"
#include "cpu/gated_matmul.hpp"
#include "cpu/panel.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

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

// Where the gradient of one path goes, one tile at a time.
template <class T>
struct GradTile {
  T* out;
  std::int64_t stride;
  bool add;  // to what is there
};

// out[path, i, :] (+)= sum over the subsets that hold the path of sums[subset, i, :], for M x V vectors;
// sums are used up.
template <class T>
GLAI_ALWAYS_INLINE void fold_subsets(T* sums, int gates, int m, int vecs, Tail<T> tail,
                                     const GradTile<T>* tiles) {
  constexpr int width = Vec<T>::width;
  const std::int64_t size = static_cast<std::int64_t>(m) * vecs * width;
  for (int i = 0; i < m; ++i) {
    for (int v = 0; v < vecs; ++v) {
      T* line = sums + (i * vecs + v) * width;
      for (int g = gates - 1; g >= 0; --g) {
        const int half = 1 << g;
        Vec<T> total = Vec<T>::load(line + half * size);
        for (int s = 1; s < half; ++s) {
          const Vec<T> with = Vec<T>::load(line + (half + s) * size);
          total = total.plus(with);
          Vec<T>::load(line + s * size).plus(with).store(line + s * size);
        }
        T* out = tiles[g].out + i * tiles[g].stride + v * width;
        if (v == vecs - 1) {
          if (tiles[g].add) total = total.plus(Vec<T>::load(out, tail));
          total.store(out, tail);
        } else {
          if (tiles[g].add) total = total.plus(Vec<T>::load(out));
          total.store(out);
        }
      }
    }
  }
}

// One operand of outer products: rows of T, a stride apart, read from a first column on.
template <class T>
struct Rows {
  const T* data;  // row 0, at the first column
  std::int64_t stride;
};

// Copies `count` columns of the rows listed, one row after another, `width` apart and filled up with
// zeros.
template <class T>
GLAI_ALWAYS_INLINE void pack_rows(const Rows<T>& from, const std::uint16_t* list, std::int64_t rows,
                                  std::int64_t first, std::int64_t count, std::int64_t width, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t whole = count / lanes * lanes;
  const Tail<T> rest(static_cast<int>(count - whole));
  const Tail<T> room(static_cast<int>(width - whole < lanes ? width - whole : lanes));
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* line = from.data + list[r] * from.stride + first;
    for (std::int64_t j = 0; j < whole; j += lanes) Vec<T>::load(line + j).store(out + j);
    if (whole < width) Vec<T>::load(line + whole, rest).store(out + whole, room);
    out += width;
  }
}

// The gradients of a group's paths: out[i, j] (+)= sum over a path's samples of a[sample, i] * b[sample,
// j].
template <class T>
struct OuterProducts {
  Rows<T> a;
  std::int64_t na;
  Rows<T> b;
  std::int64_t nb;
  const Buckets& buckets;
  int gates;
  T* sums;                  // [subsets, tile]
  const GradTile<T>* outs;  // per path
};

// The tile of rows [i, i + m) and the vectors from `column` on; a and b start there.
template <class T, bool GatherA, bool GatherB>
GLAI_ALWAYS_INLINE void add_outer_tile(const OuterProducts<T>& t, std::int64_t i, int m,
                                       std::int64_t column, int vecs, Tail<T> tail, const Rows<T>& a,
                                       const Rows<T>& b) {
  const std::int64_t width = vecs * Vec<T>::width;
  const auto tile_of = [&](int s, int end, T* out, std::int64_t stride, bool whole, bool add) {
    const std::int64_t begin = t.buckets.begin[s];
    return OuterTile<T>{GatherA ? a.data : a.data + begin * a.stride,
                        a.stride,
                        GatherB ? b.data : b.data + begin * b.stride,
                        b.stride,
                        t.buckets.rows + begin,
                        t.buckets.begin[end] - begin,
                        tail,
                        out,
                        stride,
                        whole,
                        add};
  };
  if (t.gates == 1) {
    const GradTile<T>& one = t.outs[0];
    return run_outer_tile<T, GatherA, GatherB>(
        m, vecs, tile_of(1, 2, one.out + i * one.stride + column, one.stride, false, one.add));
  }
  for (int s = 1; s < 1 << t.gates; ++s) {
    run_outer_tile<T, GatherA, GatherB>(m, vecs,
                                        tile_of(s, s + 1, t.sums + s * m * width, 0, true, false));
  }
  GradTile<T> tiles[kMaxGroupGates];
  for (int p = 0; p < t.gates; ++p) {
    tiles[p] = {t.outs[p].out + i * t.outs[p].stride + column, t.outs[p].stride, t.outs[p].add};
  }
  fold_subsets<T>(t.sums, t.gates, m, vecs, tail, tiles);
}

// Operands read where they lie.
template <class T>
GLAI_ALWAYS_INLINE void add_outer_products(const OuterProducts<T>& t) {
  for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
    const EvenSplit groups(t.na, outer_tile_rows(vecs));
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t i = groups.begin(g);
      add_outer_tile<T, true, true>(t, i, static_cast<int>(groups.size(g)), column, vecs, tail,
                                    {t.a.data + i, t.a.stride}, {t.b.data + column, t.b.stride});
    }
  });
}

// The same for wide results: b, and a where it is read often, copied in the order in which tiles read
// them.
template <class T>
struct PackedOperands {
  T* a;  // [rows, a tile's], or null: as it lies
  T* b;  // [nb in whole vectors, rows]
};

template <class T>
GLAI_ALWAYS_INLINE void add_packed_outer_products(const OuterProducts<T>& t,
                                                  const PackedOperands<T>& packed) {
  const std::int64_t rows = t.buckets.begin[1 << t.gates];
  const std::uint16_t* list = t.buckets.rows;
  for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T>) {
    const std::int64_t width = vecs * Vec<T>::width, left = t.nb - column;
    pack_rows(t.b, list, rows, column, left < width ? left : width, width, packed.b + column * rows);
  });
  const auto b_of = [&](std::int64_t column, int vecs) {
    return Rows<T>{packed.b + column * rows, vecs * Vec<T>::width};
  };
  if (packed.a == nullptr) {
    return for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
      const EvenSplit groups(t.na, outer_tile_rows(vecs));
      for (std::int64_t g = 0; g < groups.parts; ++g) {
        const std::int64_t i = groups.begin(g);
        add_outer_tile<T, true, false>(t, i, static_cast<int>(groups.size(g)), column, vecs, tail,
                                       {t.a.data + i, t.a.stride}, b_of(column, vecs));
      }
    });
  }
  // Along the rows of the result, so that memory is written in order.
  const EvenSplit groups(t.na, outer_tile_rows(kMaxTileVecs));
  for (std::int64_t g = 0; g < groups.parts; ++g) {
    const std::int64_t i = groups.begin(g), m = groups.size(g);
    pack_rows(t.a, list, rows, i, m, m, packed.a);
    for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
      add_outer_tile<T, false, false>(t, i, static_cast<int>(m), column, vecs, tail, {packed.a, m},
                                      b_of(column, vecs));
    });
  }
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

template <class T>
GLAI_ALWAYS_INLINE void add_gradients(const GradTask<T>& t, bool across) {
  const GatedMatmulWeightGradArgs& a = t.a;
  const std::int64_t c = a.dy.shape[1], dw_stride = a.dw.stride[1];
  const int gates = t.group.count;
  const bool add = a.accumulate || !t.first;
  const std::int64_t rows = t.buckets.begin[1 << gates];
  const std::int64_t b_bytes = rows * c * static_cast<std::int64_t>(sizeof(T));
  const bool packed = !across && c > kMaxTileVecs * Vec<T>::width && b_bytes <= kMaxPackedBytes;
  const bool far_apart = dw_stride * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  constexpr std::int64_t tile = kMaxOuterTileVecs * Vec<T>::width;
  ScratchSizes sizes;
  const auto sums_at = sizes.add<T>(tile << gates);
  const auto across_at = sizes.add<T>(across ? gates * c * t.dn : 0);
  const auto a_at = sizes.add<T>(packed && far_apart ? rows * outer_tile_rows(kMaxTileVecs) : 0);
  const auto b_at = sizes.add<T>(packed ? rows * (c + Vec<T>::width) : 0);
  std::byte* memory = scratch(Scratch::task, sizes.bytes());
  T* sums = reinterpret_cast<T*>(memory + sums_at);
  T* transposed = reinterpret_cast<T*>(memory + across_at);  // [gates, c, dn]
  GradTile<T> tiles[kMaxGroupGates];
  if (a.db && t.d0 == 0) {
    const T one = T(1);
    for (int i = 0; i < gates; ++i) {
      tiles[i] = {a.db->as<T>() + t.group.paths[i] * a.db->stride[0], 0, add};
    }
    add_outer_products<T>({{&one, 0}, 1, t.dy, c, t.buckets, gates, sums, tiles});
  }
  T* dw[kMaxGroupGates];
  for (int i = 0; i < gates; ++i) {
    dw[i] = a.dw.as<T>() + t.group.paths[i] * a.dw.stride[0] + t.d0 * dw_stride;
    tiles[i] = across ? GradTile<T>{transposed + i * c * t.dn, t.dn, false}
                      : GradTile<T>{dw[i], dw_stride, add};
  }
  if (!across) {
    const OuterProducts<T> products{t.x, t.dn, t.dy, c, t.buckets, gates, sums, tiles};
    if (!packed) return add_outer_products<T>(products);
    T* packed_a = far_apart ? reinterpret_cast<T*>(memory + a_at) : nullptr;
    return add_packed_outer_products<T>(products, {packed_a, reinterpret_cast<T*>(memory + b_at)});
  }
  add_outer_products<T>({t.dy, c, t.x, t.dn, t.buckets, gates, sums, tiles});
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

template <class T>
void gated_matmul_weight_grad_buckets(const GatedMatmulWeightGradArgs& a, int group_gates) {
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
  const bool copy_x = rows_collide<T>(a.x.stride[0]) && d > 0;
  constexpr std::int64_t line = 64 / sizeof(T);
  const std::int64_t copy_stride = (d + line - 1) / line * line + line;

  ScratchSizes sizes;
  const auto rows_at = sizes.add<std::uint16_t>(groups * capacity);
  const auto buckets_at = sizes.add<Buckets>(groups);
  const auto groups_at = sizes.add<GateGroup>(groups);
  const auto x_at = sizes.add<T>(copy_x ? rows_most * copy_stride : 0);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* row_lists = reinterpret_cast<std::uint16_t*>(memory + rows_at);
  auto* buckets = reinterpret_cast<Buckets*>(memory + buckets_at);
  auto* gate_groups = reinterpret_cast<GateGroup*>(memory + groups_at);
  T* x_copy = reinterpret_cast<T*>(memory + x_at);

  // Once at least, so that the result is written when there are no samples.
  for (std::int64_t block = 0; block == 0 || block < blocks.parts; ++block) {
    const std::int64_t rows = blocks.parts == 0 ? 0 : blocks.size(block);
    const std::int64_t begin = blocks.parts == 0 ? 0 : blocks.begin(block);
    const T* x = a.x.as<const T>() + begin * a.x.stride[0];
    parallel_for(groups, work, a.exec.threads, [&](std::int64_t g) {
      GateGroup& group = gate_groups[g];
      const std::int64_t p0 = g * group_gates, left = p_count - p0;
      group.flipped = 0;
      group.count = static_cast<int>(left < group_gates ? left : group_gates);
      for (int i = 0; i < group.count; ++i) group.paths[i] = static_cast<std::int32_t>(p0 + i);
      buckets[g].rows = row_lists + g * capacity;
      fill_buckets(a.words.as<const std::uint32_t>() + begin * w_words, w_words, group, rows, 1,
                   buckets[g]);
      if (!copy_x || rows == 0) return;
      const EvenSplit parts(rows, (rows + groups - 1) / groups);
      if (g >= parts.parts) return;
      for (std::int64_t r = parts.begin(g); r < parts.begin(g) + parts.size(g); ++r) {
        for (std::int64_t i = 0; i < d; ++i) x_copy[r * copy_stride + i] = x[r * a.x.stride[0] + i];
      }
    });
    const std::int64_t x_stride = copy_x ? copy_stride : a.x.stride[0];
    parallel_for(groups * slices.parts, work, a.exec.threads, [&](std::int64_t task) {
      const std::int64_t slice = task / groups, g = task % groups;
      const std::int64_t d0 = slices.begin(slice), dn = d == 0 ? 0 : slices.size(slice);
      add_gradients<T>({a,
                        {(copy_x ? x_copy : x) + d0, x_stride},
                        {a.dy.as<const T>() + begin * a.dy.stride[0], a.dy.stride[0]},
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
template <class T>
void gated_matmul_weight_grad_all_on(const GatedMatmulWeightGradArgs& a) {
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
  gated_matmul_weight_grad_buckets<T>(one, 1);
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

template <class T>
void gated_matmul_weight_grad_of(const GatedMatmulWeightGradArgs& a) {
  const double density = density_of(a.words, a.n_gates);
  if (density >= 1.0 && a.form == Form::automatic) return gated_matmul_weight_grad_all_on<T>(a);
  const GatedShape shape{a.x.shape[0], a.n_gates, a.x.shape[1], a.dy.shape[1]};
  const GatedMatmulPlan plan = plan_gated_matmul_weight_grad(shape, density, a.form);
  gated_matmul_weight_grad_buckets<T>(a, plan.group_gates);
}

inline void gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_weight_grad_of<double>(a);
  return gated_matmul_weight_grad_of<float>(a);
}

}  // namespace glai::GLAI_ISA
