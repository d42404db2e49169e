#include "core/cuda_form.hpp"

#include <algorithm>
#include <cmath>

#include "core/tiling.hpp"

namespace glai {
namespace {

// Cycles of one of an H100's multiprocessors, counted, not measured on a GPU yet. A step is 64 bytes of
// depth, 32 numbers of 16 bits or 16 of 32.
//
// 64 bytes from the second-level cache, at 5.5 TB/s for all.
constexpr double kRowCycles = 2.3;
// Tensor cores, dense: 256 rows by 128 columns read 64 KiB of shared memory a step, at 128 bytes a
// cycle, and a third more goes to begin and add up the sums of each slice.
constexpr double kDenseCycles = 690.0 / (256 * 128);
// A step's barrier, and what the few warps with rows cannot hide.
constexpr double kBarrierCycles = 50.0;
// Listing a path's rows, once for all its depth.
constexpr double kListCycles = 40.0;
// CUDA cores, 128 multiply-adds a cycle, seven in ten of them; the smaller tile of compaction reads
// shared memory twice as often for each.
constexpr double kFmasPerCycle = 90.0;
constexpr double kSmallTile = 2.0;
// What the reference form does besides: its own launches, on all multiprocessors; four instructions per
// sample, path and output to compare norms; a product with one path's weights on CUDA cores.
constexpr double kLaunchCycles = 20e-6 * 1.7e9 * 132;
constexpr double kNormCycles = 4.0 / 128;
// An estimate may be off, and the dense form costs the same for any gates.
constexpr double kWorthwhile = 0.8;

double numbers_per_step(bool tensor_cores) { return tensor_cores ? 32 : 16; }

double steps_of(const GatedShape& s, bool tensor_cores) {
  return std::max(1.0, static_cast<double>(s.d) / numbers_per_step(tensor_cores));
}

double tiles(std::int64_t size, std::int64_t tile) {
  return std::ceil(static_cast<double>(size) / static_cast<double>(tile));
}

double dense_cycles(const GatedShape& s, bool tensor_cores) {
  const GatedMatmulTiling t = gated_matmul_tiling(Form::dense, DType::float32, s.n, s.p, s.c);
  const double sums =
      tiles(s.n, t.rows) * tiles(s.c, t.columns) * static_cast<double>(t.rows * t.columns);
  return sums * (tensor_cores ? kDenseCycles : 16 / kFmasPerCycle);
}

// on: how often a row is gathered.
double compaction_cycles(const GatedShape& s, bool tensor_cores, double on) {
  const GatedMatmulTiling t = gated_matmul_tiling(Form::compaction, DType::float32, s.n, s.p, s.c);
  const double row_tiles = tiles(s.n, t.rows), columns = static_cast<double>(t.columns);
  const double blocks = row_tiles * tiles(s.c, t.columns);
  const double rows = on * static_cast<double>(s.n) / row_tiles;  // of a block
  const double listing = kListCycles / steps_of(s, tensor_cores);
  const double some = std::min(1.0, rows);  // a path without rows is passed over
  if (!tensor_cores) {
    return blocks * (kSmallTile * (rows + 8 * some) * columns * 16 / kFmasPerCycle + listing);
  }
  const double gathers =
      some * std::max(1.0, rows / 64 + 0.5);  // of up to 64 rows, the last one half full
  return blocks * (kRowCycles * (rows + gathers * columns) + gathers * kBarrierCycles + listing);
}

double reference_cycles(const GatedShape& s, bool tensor_cores, double deviation) {
  const auto n = static_cast<double>(s.n), c = static_cast<double>(s.c);
  const double paths = static_cast<double>(std::max<std::int64_t>(s.p, 1));
  const double steps = steps_of(s, tensor_cores),
               norms = deviation > 0 ? n * c * kNormCycles / steps : 0;
  return compaction_cycles(s, tensor_cores, deviation) +
         n * c * numbers_per_step(tensor_cores) / kFmasPerCycle / paths + norms +
         kLaunchCycles / (paths * steps);
}

}  // namespace

CudaFormChoice choose_cuda_form(const GatedShape& s, bool tensor_cores,
                                const std::optional<GateEstimate>& estimate) {
  CudaFormChoice choice{Form::dense, 0.0, 0.0, 0.0};
  if (s.n == 0 || s.c == 0) return choice;
  choice.dense = dense_cycles(s, tensor_cores);
  if (!estimate) return choice;
  choice.compaction = compaction_cycles(s, tensor_cores, estimate->density);
  choice.reference = reference_cycles(s, tensor_cores, estimate->deviation);
  double best = kWorthwhile * choice.dense;
  if (choice.compaction < best) choice.form = Form::compaction, best = kWorthwhile * choice.compaction;
  if (choice.reference < best) choice.form = Form::reference;
  return choice;
}

CudaProductPlan plan_cuda_product(const TensorView& y, std::int64_t n_gates, std::int64_t depth,
                                  bool tf32, const std::optional<GateEstimate>& estimate, Form form) {
  const std::int64_t n = y.shape[0], c = y.shape[1];
  const bool forced = form != Form::automatic;
  if (!forced) {
    const bool tensor_cores = tf32 || y.dtype == DType::float16 || y.dtype == DType::bfloat16;
    form = choose_cuda_form({n, n_gates, depth, c}, tensor_cores, estimate).form;
  }
  CudaProductPlan plan{form, gated_matmul_tiling(form, y.dtype, n, n_gates, c).splits, 0};
  if (form == Form::reference) {
    const ReferenceMemory memory = reference_memory(y.dtype, n_gates, depth, c);
    ++plan.slices;
    plan.reference_words = (forced ? memory.norms : memory.with_norms) / 4;
  }
  return plan;
}

}  // namespace glai
