// gated_matmul by buckets, for few outputs: lanes run over features (products/feature_products.hpp).
// The sums of a group's weights are made on the way down the tree of its subsets, each where it is
// multiplied at once, so that panels of features can be long.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/feature_products.hpp"
#include "cpu/products/subset_sums.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Of the weights of a panel that a bucket multiplies: they stay in the first-level cache.
constexpr std::int64_t kFeaturePanelBytes = 24 << 10;
// Of a block's panel of x and its sums: with the weights of a group, in the second-level cache.
constexpr std::int64_t kFeatureBlockBytes = 640 << 10;
constexpr std::int64_t kDenseFeatureRows = 64;      // of a task of a dense product
constexpr std::int64_t kFeatureGroupsPerPass = 64;  // groups whose buckets are kept at a time
// A result of few blocks of samples is summed in parts, each over a share of the groups, so that threads
// have enough to do. Each part of a block adds up lanes once more: about what so many weights per output
// cost.
constexpr std::int64_t kFeatureTasks = 8, kPartWeights = 2048;

// A block of samples of one task.
template <class T>
struct FeatureTask {
  const GatedMatmulArgs& a;
  const T* x;  // of its first sample
  std::int64_t rows;
  T* weights;      // [gates of a group, panel]
  T* weight_sums;  // [gates of a group - 1, panel]: of the subsets on the way to one
  T* base;         // [panel]: weights of the majority, of the reference form
  T* sums;         // [rows, C, folded lanes]
};

// The weights of the next group, sent for path by path where they lie close together.
template <class T>
class NextWeights {
 public:
  GLAI_ALWAYS_INLINE NextWeights(const GatedMatmulArgs& a, const FeaturePanel<T>& panel,
                                 const GateGroup& group)
      : a_(a), panel_(panel), group_(group) {}

  Upcoming<T>& upcoming() {
    const std::int64_t row = a_.weight.stride[1];
    if (upcoming_.lines >= panel_.whole || path_ == group_.count || row > kShortRow) return upcoming_;
    upcoming_.next = a_.weight.as<const T>() + group_.paths[path_++] * a_.weight.stride[0] +
                     panel_.first * Vec<T>::width * row;
    upcoming_.lines = panel_.whole * row * Vec<T>::width * static_cast<std::int64_t>(sizeof(T)) / 64;
    return upcoming_;
  }

 private:
  static constexpr std::int64_t kShortRow = 32;
  const GatedMatmulArgs& a_;
  const FeaturePanel<T>& panel_;
  const GateGroup& group_;
  Upcoming<T> upcoming_;
  int path_ = 0;
};

// What a group does on one panel, while the weights of `next` are sent for.
template <class T>
void multiply_group_by_features(const FeatureTask<T>& t, const FeaturePanel<T>& panel,
                                const GateGroup& group, const Buckets& buckets, const GateGroup& next) {
  const std::int64_t c = t.a.weight.shape[2], x_stride = t.a.x.stride[0];
  const T* x = t.x + panel.first * Vec<T>::width;
  NextWeights<T> ahead(t.a, panel, next);
  const SubsetSums<T> sums{group, occupied_subsets(group.count, buckets),
                           panel.count * c * Vec<T>::width, t.weights, t.weight_sums};
  sums.pack(t.base, [&](std::int32_t p, T* out) { pack_features(t.a, p, panel, out); });
  sums.visit([&](int s, const T* sum) {
    multiply_features<T>({x, x_stride, buckets.rows + buckets.begin[s], panel, sum, c * Vec<T>::width,
                          t.sums, c * Vec<T>::folded, ahead.upcoming()},
                         buckets.begin[s + 1] - buckets.begin[s], c);
  });
}

template <class T>
void gated_matmul_features(const GatedMatmulArgs& a, const GatedMatmulPlan& plan,
                           const PathOrder& paths) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.weight.shape[2];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const int subsets = 1 << plan.group_gates;
  const bool reference = plan.form == Form::reference;
  const std::int64_t vector_bytes = c * lanes * static_cast<std::int64_t>(sizeof(T));
  // How sums are cut is a function of the shape and the plan: an element's order depends on it.
  const std::int64_t vectors = (d + (a.bias ? 1 : 0) + lanes - 1) / lanes;
  const EvenSplit panels(vectors, kFeaturePanelBytes / vector_bytes);
  const std::int64_t sum_size = c * Vec<T>::folded;  // of a sample
  const std::int64_t row_size = (panels.parts == 0 ? 0 : panels.size(0)) * lanes + sum_size;
  const std::int64_t most_rows = kFeatureBlockBytes / (row_size * static_cast<std::int64_t>(sizeof(T)));
  const EvenSplit blocks(n, most_rows < kMaxBlockRows ? most_rows : kMaxBlockRows);
  const std::int64_t groups = (p_count + plan.group_gates - 1) / plan.group_gates;
  const std::int64_t wanted = blocks.parts == 0 ? 1 : (kFeatureTasks + blocks.parts - 1) / blocks.parts;
  const std::int64_t worth = p_count * d / kPartWeights;
  const std::int64_t most_parts = wanted < worth ? wanted : worth;
  // One at least, so that y is written when there are no paths.
  const EvenSplit split(
      groups, most_parts <= 1 ? (groups < 1 ? 1 : groups) : (groups + most_parts - 1) / most_parts);
  const std::int64_t parts = split.parts < 1 ? 1 : split.parts;
  const std::int64_t block_rows = blocks.parts == 0 ? 0 : blocks.size(0);
  const std::int64_t panel_size = (panels.parts == 0 ? 0 : panels.size(0)) * c * lanes;
  const std::int64_t capacity = bucket_capacity(block_rows, subsets, 1);
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);

  T* partial = nullptr;  // [parts, N, C]
  if (parts > 1) {
    ScratchSizes sizes;
    sizes.add<T>(parts * n * c);
    partial = reinterpret_cast<T*>(scratch(Scratch::call, sizes.bytes()));
  }
  parallel_for(blocks.parts * parts, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t part = task % parts, begin = blocks.begin(task / parts);
    const std::int64_t rows = blocks.size(task / parts);
    const std::int64_t first_group = split.parts == 0 ? 0 : split.begin(part);
    const std::int64_t end_group = split.parts == 0 ? 0 : first_group + split.size(part);
    ScratchSizes sizes;
    const auto sums_at = sizes.add<T>(block_rows * sum_size);
    const auto weights_at = sizes.add<T>(plan.group_gates * panel_size);
    const auto sums_of_at = sizes.add<T>((plan.group_gates - 1) * panel_size);
    const auto base_at = sizes.add<T>(reference ? panel_size : 0);
    const auto totals_at = sizes.add<T>(block_rows * c);
    const auto rows_at = sizes.add<std::uint16_t>(kFeatureGroupsPerPass * capacity);
    const auto buckets_at = sizes.add<Buckets>(kFeatureGroupsPerPass);
    const auto groups_at = sizes.add<GateGroup>(kFeatureGroupsPerPass);
    std::byte* own = scratch(Scratch::task, sizes.bytes());
    const FeatureTask<T> t{a,
                           a.x.as<const T>() + begin * a.x.stride[0],
                           rows,
                           reinterpret_cast<T*>(own + weights_at),
                           reinterpret_cast<T*>(own + sums_of_at),
                           reinterpret_cast<T*>(own + base_at),
                           reinterpret_cast<T*>(own + sums_at)};
    auto* lists = reinterpret_cast<std::uint16_t*>(own + rows_at);
    auto* buckets = reinterpret_cast<Buckets*>(own + buckets_at);
    auto* gates = reinterpret_cast<GateGroup*>(own + groups_at);
    for (std::int64_t i = 0; i < rows * sum_size; ++i) t.sums[i] = T(0);
    for (std::int64_t g0 = first_group; g0 < end_group; g0 += kFeatureGroupsPerPass) {
      const std::int64_t left = end_group - g0;
      const std::int64_t here = left < kFeatureGroupsPerPass ? left : kFeatureGroupsPerPass;
      for (std::int64_t g = 0; g < here; ++g) {
        gates[g] = gate_group(g0 + g, plan.group_gates, p_count, reference, paths);
        buckets[g].rows = lists + g * capacity;
        fill_buckets(a.words.as<const std::uint32_t>() + begin * w_words, w_words, gates[g], rows, 1,
                     buckets[g]);
      }
      for (std::int64_t i = 0; i < panels.parts; ++i) {
        const FeaturePanel<T> panel(panels.begin(i), panels.size(i), d, a.bias.has_value());
        const std::int64_t size = panel.count * c * lanes;
        for (std::int64_t j = 0; reference && j < size; ++j) t.base[j] = T(0);
        for (std::int64_t g = 0; g < here; ++g) {
          multiply_group_by_features(t, panel, gates[g], buckets[g], gates[g + 1 < here ? g + 1 : g]);
        }
        if (!reference) continue;
        Upcoming<T> nothing;
        std::uint16_t all_rows[kMaxBlockRows];
        for (std::int64_t r = 0; r < rows; ++r) all_rows[r] = static_cast<std::uint16_t>(r);
        multiply_features<T>({t.x + panel.first * lanes, a.x.stride[0], all_rows, panel, t.base,
                              c * lanes, t.sums, sum_size, nothing},
                             rows, c);
      }
    }
    T* totals = parts > 1 ? partial + (part * n + begin) * c : reinterpret_cast<T*>(own + totals_at);
    add_lanes(t.sums, rows * c, totals);
    for (std::int64_t r = 0; parts == 1 && r < rows; ++r) {
      T* y = a.y.as<T>() + (begin + r) * a.y.stride[0];
      for (std::int64_t j = 0; j < c; ++j) y[j] = totals[r * c + j];
    }
  });
  if (parts == 1) return;
  for (std::int64_t part = 1; part < parts; ++part) {
    for (std::int64_t i = 0; i < n * c; ++i) partial[i] += partial[part * n * c + i];
  }
  for (std::int64_t r = 0; r < n; ++r) {
    T* y = a.y.as<T>() + r * a.y.stride[0];
    for (std::int64_t j = 0; j < c; ++j) y[j] = partial[r * c + j];
  }
}

// The same of one path that all samples have on: a dense product.
template <class T>
void dense_product_by_features(const GatedMatmulArgs& a) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.weight.shape[2];
  const std::int64_t vectors = (d + (a.bias ? 1 : 0) + lanes - 1) / lanes;
  const EvenSplit panels(vectors,
                         kFeaturePanelBytes / (c * lanes * static_cast<std::int64_t>(sizeof(T))));
  const EvenSplit blocks(n, kDenseFeatureRows);
  const auto panel_of = [&](std::int64_t i) {
    return FeaturePanel<T>(panels.begin(i), panels.size(i), d, a.bias.has_value());
  };
  ScratchSizes packed;
  packed.add<T>(vectors * c * lanes);
  T* weights = reinterpret_cast<T*>(scratch(Scratch::weights, packed.bytes()));  // [vectors, C, lanes]
  for (std::int64_t i = 0; i < panels.parts; ++i) {
    pack_features(a, 0, panel_of(i), weights + panels.begin(i) * c * lanes);
  }
  std::uint16_t all_rows[kDenseFeatureRows];
  for (std::int64_t r = 0; r < kDenseFeatureRows; ++r) all_rows[r] = static_cast<std::uint16_t>(r);
  const double work = static_cast<double>(n) * static_cast<double>(c) * static_cast<double>(d + 1);
  parallel_for(blocks.parts, work, a.exec.threads, [&](std::int64_t block) {
    const std::int64_t begin = blocks.begin(block), rows = blocks.size(block);
    const std::int64_t sum_size = c * Vec<T>::folded;
    ScratchSizes sizes;
    const auto sums_at = sizes.add<T>(rows * sum_size);
    const auto totals_at = sizes.add<T>(rows * c);
    std::byte* own = scratch(Scratch::task, sizes.bytes());
    T* sums = reinterpret_cast<T*>(own + sums_at);
    T* totals = reinterpret_cast<T*>(own + totals_at);
    for (std::int64_t i = 0; i < rows * sum_size; ++i) sums[i] = T(0);
    for (std::int64_t i = 0; i < panels.parts; ++i) {
      Upcoming<T> nothing;
      multiply_features<T>(
          {a.x.as<const T>() + begin * a.x.stride[0] + panels.begin(i) * lanes, a.x.stride[0], all_rows,
           panel_of(i), weights + panels.begin(i) * c * lanes, c * lanes, sums, sum_size, nothing},
          rows, c);
    }
    add_lanes(sums, rows * c, totals);
    for (std::int64_t r = 0; r < rows; ++r) {
      T* y = a.y.as<T>() + (begin + r) * a.y.stride[0];
      for (std::int64_t j = 0; j < c; ++j) y[j] = totals[r * c + j];
    }
  });
}

}  // namespace glai::GLAI_ISA
