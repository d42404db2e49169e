// gated_matmul by buckets: a group of gates at a time, the samples of each subset are gathered and
// multiplied by the sum of the subset's weights, made once per block of rows and panel of features.
// Groups of one gate are compaction; groups of five do in one product what compaction does in five times
// the density.
//
// Reference plus deviation is the same with gates compared to the majority: y = x · (sum of the
// majority's weights) + what deviates, with the sign of the weights turned where the majority is on.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/bucket_products.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/subset_sums.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kGroupsPerPass = 256;  // groups whose buckets are kept at a time
constexpr std::int64_t kMaxPanelRows = 64;    // features of a panel
constexpr std::int64_t kMaxTiles = 16;        // of columns in a task
constexpr std::int64_t kMinBlockRows = 64;
// A result of a few vectors per sample and one block is summed in parts, each over a share of the
// groups, when there are enough of these: two threads then share the sums of weights.
constexpr std::int64_t kGroupParts = 2;
constexpr std::int64_t kPartGroups = 4;  // in a part at least
constexpr std::int64_t kPartVecs = 2;
constexpr std::int64_t kBatchBlocks = 4;  // blocks of samples whose buckets are kept at a time
// Where a group has at most this share of the samples, and weights are far apart, groups come one by
// one. (So the order of a sum, and its last bits, may differ between layouts of equal weights.)
constexpr double kFewRows = 0.15;
// A block of samples is copied panel by panel where a sample is multiplied at least this often.
constexpr double kCopiedUses = 6.0;
// The weights of a group's panels and the sums that are kept of them: in the second-level cache, so that
// panels are long and y is loaded and stored seldom.
constexpr std::int64_t kTableBytes = 160 * 1024;

// Features of a panel whose arrays fill the table; whole cache lines of x where possible.
template <class T>
GLAI_ALWAYS_INLINE std::int64_t panel_rows(int gates, std::int64_t width) {
  if (width == 0) return kMaxPanelRows;
  constexpr std::int64_t line = 64 / sizeof(T);
  const std::int64_t most =
      kTableBytes / (SubsetSums<T>::arrays(gates) * width * static_cast<std::int64_t>(sizeof(T)));
  if (most >= kMaxPanelRows) return kMaxPanelRows;
  return most >= line ? most / line * line : most < 4 ? 4 : most;
}

template <class Kind>
void gated_matmul_buckets(const GatedMatmulArgs& a, const GatedMatmulPlan& plan,
                          const PathOrder& paths) {
  using T = typename Kind::Value;
  using Operand = typename Kind::Operand;
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.weight.shape[2];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const int subsets = 1 << plan.group_gates;
  const std::int64_t groups = (p_count + plan.group_gates - 1) / plan.group_gates;
  const bool reference = plan.form == Form::reference;
  // Narrower tiles and lower blocks for more threads: how the result is cut changes no element's sum.
  const std::int64_t vecs = (c + lanes - 1) / lanes;
  const bool in_parts =
      !reference && vecs <= kPartVecs && n <= kMaxBlockRows && groups >= kGroupParts * kPartGroups;
  const std::int64_t parts = in_parts ? kGroupParts : 1;
  // For which the result has to be cut.
  const std::int64_t threads = (a.exec.threads + parts - 1) / parts;
  std::int64_t most_vecs = kMaxTileVecs;
  while (most_vecs > 2 && EvenSplit(vecs, most_vecs).parts < threads) --most_vecs;
  const EvenSplit tiles(vecs, most_vecs);
  // Several tiles in a task only where one alone would touch a memory page per feature.
  const bool far_apart = (a.weight.stride[2] == 1 || c == 1) &&
                         a.weight.stride[1] * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;
  const std::int64_t share_of_tiles = (tiles.parts + threads - 1) / threads;
  const std::int64_t line_stride = a.weight.stride[2] == 1 ? a.weight.stride[1] : a.weight.stride[2];
  const bool by_groups = line_stride * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes &&
                         !reference && plan.any_on <= kFewRows;
  const std::int64_t most_tiles = by_groups ? kMaxTiles : kMaxTiles / 2;
  const std::int64_t tiles_per_task = !far_apart || share_of_tiles < 1 ? 1
                                      : share_of_tiles < most_tiles    ? share_of_tiles
                                                                       : most_tiles;
  const std::int64_t column_tasks = (tiles.parts + tiles_per_task - 1) / tiles_per_task;
  const std::int64_t most_width = kMaxTileVecs * lanes;
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);
  const double uses = static_cast<double>(groups) * plan.any_on;
  const bool copy_x = reference || by_groups || Kind::kRounds || uses >= kCopiedUses;
  const int quantum = copy_x ? kRowQuantum : 1;  // the copy has the row that fills up buckets
  // The order of a row's sum depends on it, so it is a function of the shape and the plan.
  const std::int64_t k_step =
      panel_rows<T>(plan.group_gates, (vecs < kMaxTileVecs ? vecs : kMaxTileVecs) * lanes);
  std::int64_t block_rows = kMaxBlockRows;
  if (column_tasks < threads && n < kMaxBlockRows * threads) {
    const std::int64_t share = (n + threads - 1) / threads;
    block_rows = share < kMinBlockRows ? kMinBlockRows : share < kMaxBlockRows ? share : kMaxBlockRows;
  }
  const EvenSplit blocks(n, block_rows);
  const std::int64_t most_blocks = kBatchBlocks < a.exec.threads ? a.exec.threads : kBatchBlocks;
  const std::int64_t batch = blocks.parts < most_blocks ? blocks.parts : most_blocks;
  const std::int64_t most_rows = blocks.parts == 0 ? 0 : blocks.size(0);
  const std::int64_t lists = groups < kGroupsPerPass ? groups : kGroupsPerPass;
  const std::int64_t capacity = bucket_capacity(most_rows, subsets, quantum);

  ScratchSizes shared;
  const auto rows_at = shared.add<std::uint16_t>(batch * lists * capacity);
  const auto buckets_at = shared.add<Buckets>(batch * lists);
  const auto groups_at = shared.add<GateGroup>(lists);
  const std::int64_t part_size = (most_rows + 1) * most_width;  // of one tile
  const auto sums_at = shared.add<T>(parts == 1 ? 0 : batch * parts * tiles.parts * part_size);
  std::byte* memory = scratch(Scratch::call, shared.bytes());
  auto* row_lists = reinterpret_cast<std::uint16_t*>(memory + rows_at);
  auto* buckets = reinterpret_cast<Buckets*>(memory + buckets_at);
  auto* gates = reinterpret_cast<GateGroup*>(memory + groups_at);
  T* sums = reinterpret_cast<T*>(memory + sums_at);  // [batch, parts, tiles, part_size]

  // Once at least, so that y is written when there are no paths.
  for (std::int64_t g0 = 0; g0 == 0 || g0 < groups; g0 += kGroupsPerPass) {
    const std::int64_t here = groups - g0 < kGroupsPerPass ? groups - g0 : kGroupsPerPass;
    for (std::int64_t g = 0; g < here; ++g) {
      gates[g] = gate_group(g0 + g, plan.group_gates, p_count, reference, paths);
    }
    for (std::int64_t b0 = 0; b0 < blocks.parts; b0 += batch) {
      const std::int64_t b_count = blocks.parts - b0 < batch ? blocks.parts - b0 : batch;
      parallel_for(b_count * here, work, a.exec.threads, [&](std::int64_t task) {
        const std::int64_t block = b0 + task / here, g = task % here;
        Buckets& sorted = buckets[task];
        sorted.rows = row_lists + task * capacity;
        fill_buckets(a.words.as<const std::uint32_t>() + blocks.begin(block) * w_words, w_words,
                     gates[g], blocks.size(block), quantum, sorted);
      });
      // One task at least, so that y is written when there are no paths.
      const EvenSplit shares(here, here < parts ? 1 : (here + parts - 1) / parts);
      const std::int64_t share_tasks = shares.parts == 0 ? 1 : shares.parts;
      parallel_for(b_count * share_tasks * column_tasks, work, a.exec.threads, [&](std::int64_t task) {
        const std::int64_t b = task / (share_tasks * column_tasks);
        const std::int64_t part = task / column_tasks % share_tasks;
        const std::int64_t begin = blocks.begin(b0 + b), rows = blocks.size(b0 + b);
        ScratchSizes sizes;
        const auto x_at = sizes.add<Operand>((rows + 1) * operand_count<Kind>(k_step));
        const auto y_at = sizes.add<T>(parts == 1 ? tiles_per_task * part_size : 0);
        const auto base_at = sizes.add<T>(tiles_per_task * k_step * most_width);
        const auto table_at =
            sizes.add<T>(SubsetSums<T>::arrays(plan.group_gates) * k_step * most_width);
        const auto panel_at =
            sizes.add<Operand>(Kind::kRounds ? operand_count<Kind>(k_step) * most_width : 0);
        std::byte* own = scratch(Scratch::task, sizes.bytes());
        T* local = parts == 1 ? reinterpret_cast<T*>(own + y_at)
                              : sums + (b * parts + part) * tiles.parts * part_size;
        ColumnTile<T> own_tiles[kMaxTiles];
        std::int64_t tile_count = 0;
        for (std::int64_t i = task % column_tasks * tiles_per_task;
             tile_count < tiles_per_task && i < tiles.parts; ++i, ++tile_count) {
          const std::int64_t first = tiles.begin(i) * lanes, width = tiles.size(i) * lanes;
          const std::int64_t columns = c - first < width ? c - first : width;
          T* tile_y = local + (parts == 1 ? tile_count : i) * part_size;
          own_tiles[tile_count] = {first, columns, width, static_cast<int>(tiles.size(i)), tile_y};
          const T* y = a.y.as<const T>() + begin * a.y.stride[0] + first;
          for (std::int64_t j = 0; j < (rows + 1) * width; ++j) tile_y[j] = T(0);
          for (std::int64_t r = 0; g0 > 0 && part == 0 && r < rows; ++r) {
            for (std::int64_t j = 0; j < columns; ++j) tile_y[r * width + j] = y[r * a.y.stride[0] + j];
          }
        }
        const BucketTask<Kind> t{a,
                                 begin,
                                 rows,
                                 own_tiles,
                                 tile_count,
                                 reinterpret_cast<Operand*>(own + x_at),
                                 reinterpret_cast<T*>(own + table_at),
                                 reinterpret_cast<Operand*>(own + panel_at),
                                 reinterpret_cast<T*>(own + base_at),
                                 k_step,
                                 reference};
        const std::int64_t from = shares.begin(part), at = b * here + from;
        const PassGroups pass{shares.size(part), gates + from, buckets + at};
        if (by_groups) {
          multiply_by_groups(t, pass);
        } else {
          multiply_by_panels(t, pass, copy_x);
        }
        for (std::int64_t i = 0; parts == 1 && i < tile_count; ++i) {
          const ColumnTile<T>& tile = own_tiles[i];
          T* y = a.y.as<T>() + begin * a.y.stride[0] + tile.first;
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t j = 0; j < tile.columns; ++j)
              y[r * a.y.stride[0] + j] = tile.y[r * tile.width + j];
          }
        }
      });
      if (parts == 1) continue;
      parallel_for(b_count * tiles.parts, work, a.exec.threads, [&](std::int64_t task) {
        const std::int64_t b = task / tiles.parts, i = task % tiles.parts;
        const std::int64_t first = tiles.begin(i) * lanes, width = tiles.size(i) * lanes;
        const std::int64_t columns = c - first < width ? c - first : width;
        const T* from = sums + (b * parts * tiles.parts + i) * part_size;
        T* y = a.y.as<T>() + blocks.begin(b0 + b) * a.y.stride[0] + first;
        for (std::int64_t r = 0; r < blocks.size(b0 + b); ++r) {
          for (std::int64_t j = 0; j < columns; ++j) {
            T sum = from[r * width + j];
            for (std::int64_t part = 1; part < share_tasks; ++part) {
              sum += from[part * tiles.parts * part_size + r * width + j];
            }
            y[r * a.y.stride[0] + j] = sum;
          }
        }
      });
    }
  }
}

}  // namespace glai::GLAI_ISA
