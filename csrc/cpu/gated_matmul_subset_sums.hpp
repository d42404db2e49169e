// gated_matmul by subset-sum tables ("Four Russians"): gates are taken five at a time. The 32 sums that
// five slices of weights can have are tabulated in the first-level cache; a sample then adds one table
// row for five paths, and multiplies by x once. The cost does not depend on the density.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/panel.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr int kGroupGates = 5;
constexpr int kSubsets = 1 << kGroupGates;
constexpr int kTables = 6;          // groups whose rows a sample adds before its sums go back to memory
constexpr int kSliceVecs = 2;       // a slice of features: so many vectors, held in registers
constexpr int kOutputsPerTask = 4;  // outputs that share what is unpacked from gates and weights
constexpr int kRowsPerSumTask = 256;
constexpr int kGroupsPerPass = 60;  // groups whose patterns are kept, a multiple of kTables

// The gates 5 * group .. 5 * group + 4 of one sample, as a number.
GLAI_ALWAYS_INLINE std::uint8_t subset_of(const std::uint32_t* words, std::int64_t n_words,
                                          std::int64_t group) {
  const std::int64_t bit = group * kGroupGates, word = bit / kWordBits;
  const int shift = static_cast<int>(bit % kWordBits);
  std::uint32_t gates = words[word] >> shift;
  if (shift > kWordBits - kGroupGates && word + 1 < n_words)
    gates |= words[word + 1] << (kWordBits - shift);
  return static_cast<std::uint8_t>(gates & (kSubsets - 1));
}

// table[s, :] = sum of the slices whose bit is set in s; slices past `count` are absent.
template <class T, int V>
GLAI_ALWAYS_INLINE void build_table(const T* slices, int count, T* table) {
  constexpr int width = V * Vec<T>::width;
  for (int v = 0; v < V; ++v) Vec<T>::zero().store(table + v * Vec<T>::width);
  for (int i = 0; i < kGroupGates; ++i) {
    for (int s = 0; s < (1 << i); ++s) {
      const T* from = table + s * width;
      T* to = table + (s + (1 << i)) * width;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Vec<T> sum = Vec<T>::load(from + v * Vec<T>::width);
        // An absent path's bit is never set; its rows only have to be there.
        const Vec<T> slice =
            i < count ? Vec<T>::load(slices + i * width + v * Vec<T>::width) : Vec<T>::zero();
        sum.plus(slice).store(to + v * Vec<T>::width);
      }
    }
  }
}

// sums[n, :] (+)= the rows of the tables that sample n's subsets name.
template <class T, int V, int Tables>
void add_table_rows(const T* tables, const std::uint8_t* subsets, std::int64_t rows, bool fresh,
                    T* sums) {
  constexpr int width = V * Vec<T>::width;
  for (std::int64_t n = 0; n < rows; ++n) {
    T* sum = sums + n * width;
    Vec<T> acc[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[v] = fresh ? Vec<T>::zero() : Vec<T>::load(sum + v * Vec<T>::width);
#pragma GCC unroll 6
    for (int t = 0; t < Tables; ++t) {
      const T* row = tables + (t * kSubsets + subsets[t * kRowsPerSumTask + n]) * width;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[v] = acc[v].plus(Vec<T>::load(row + v * Vec<T>::width));
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[v].store(sum + v * Vec<T>::width);
  }
}

template <class T, int V, int Tables = kTables>
GLAI_ALWAYS_INLINE void run_add_table_rows(int count, const T* tables, const std::uint8_t* subsets,
                                           std::int64_t rows, bool fresh, T* sums) {
  if constexpr (Tables > 1) {
    if (count < Tables)
      return run_add_table_rows<T, V, Tables - 1>(count, tables, subsets, rows, fresh, sums);
  }
  add_table_rows<T, V, Tables>(tables, subsets, rows, fresh, sums);
}

// One slice of features for one task: everything that depends on it but where it lies.
template <class T>
struct SumTask {
  const GatedMatmulArgs& a;
  std::int64_t begin, rows;     // samples
  std::int64_t c0;              // first output
  int outputs;                  // at most kOutputsPerTask
  std::int64_t p0, paths;       // paths of this pass
  const std::uint8_t* subsets;  // [groups, kRowsPerSumTask]
  T* products;                  // [outputs, kRowsPerSumTask, lanes of a vector]
};

template <class T, int V>
void add_slice(const SumTask<T>& task, std::int64_t d0, std::int64_t lanes, bool with_bias) {
  constexpr int width = V * Vec<T>::width;
  const GatedMatmulArgs& a = task.a;
  alignas(64) T slices[kTables * kGroupGates * kOutputsPerTask * width];
  alignas(64) T tables[kTables * kSubsets * width];
  alignas(64) T sums[kOutputsPerTask * kRowsPerSumTask * width];
  const std::int64_t k_stride = a.weight.stride[1];
  const std::int64_t c_stride = a.weight.shape[2] == 1 ? 1 : a.weight.stride[2];
  const std::int64_t features = with_bias ? lanes - 1 : lanes;  // the bias is the slice's last lane
  const std::int64_t groups = (task.paths + kGroupGates - 1) / kGroupGates;

  for (std::int64_t g = 0; g < groups; g += kTables) {
    const int n_tables = static_cast<int>(groups - g < kTables ? groups - g : kTables);
    const std::int64_t first = g * kGroupGates;
    const std::int64_t left = task.paths - first;
    const int count = static_cast<int>(left < n_tables * kGroupGates ? left : n_tables * kGroupGates);
    // slices[output, path, lane]
    constexpr std::int64_t per_output = kTables * kGroupGates * width;
    for (int i = 0; i < count; ++i) {
      const std::int64_t p = task.p0 + first + i;
      const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + d0 * k_stride + task.c0 * c_stride;
      T* out = slices + i * width;
      if (c_stride == 1 && features > 0) {
        pack_transposed(w, k_stride, task.outputs, features, out, per_output);
      } else {
        for (int c = 0; c < task.outputs; ++c) {
          for (std::int64_t k = 0; k < features; ++k)
            out[c * per_output + k] = w[c * c_stride + k * k_stride];
        }
      }
      for (int c = 0; c < task.outputs; ++c) {
        if (with_bias) {
          out[c * per_output + features] = a.bias->as<const T>()[p * a.bias->stride[0] + task.c0 + c];
        }
        for (std::int64_t k = lanes; k < width; ++k) out[c * per_output + k] = T(0);
      }
    }
    for (int c = 0; c < task.outputs; ++c) {
      for (int t = 0; t < n_tables; ++t) {
        const int here = count - t * kGroupGates;
        build_table<T, V>(slices + c * per_output + t * kGroupGates * width,
                          here < kGroupGates ? here : kGroupGates, tables + t * kSubsets * width);
      }
      const std::uint8_t* subsets = task.subsets + g * kRowsPerSumTask;
      T* sum = sums + c * kRowsPerSumTask * width;
      run_add_table_rows<T, V>(n_tables, tables, subsets, task.rows, g == 0, sum);
    }
  }

  // products[output, sample, lane] += x * sums; their lanes are added up once, after the last slice.
  const std::int64_t full = features / Vec<T>::width;
  const int rest = static_cast<int>(features % Vec<T>::width);
  const Tail<T> tail(rest == 0 ? 1 : rest);
  for (std::int64_t n = 0; n < task.rows; ++n) {
    const T* x = a.x.as<const T>() + (task.begin + n) * a.x.stride[0] + d0;
    Vec<T> values[V];
    if (with_bias) {
      T row[width] = {};
      for (std::int64_t k = 0; k < features; ++k) row[k] = x[k];
      row[features] = T(1);
      for (int v = 0; v < V; ++v) values[v] = Vec<T>::load(row + v * Vec<T>::width);
    } else {
      for (int v = 0; v < V; ++v) {
        const T* p = x + v * Vec<T>::width;
        values[v] = v < full                 ? Vec<T>::load(p)
                    : v == full && rest != 0 ? Vec<T>::load(p, tail)
                                             : Vec<T>::zero();
      }
    }
    for (int c = 0; c < task.outputs; ++c) {
      const T* sum = sums + (c * kRowsPerSumTask + n) * width;
      T* product = task.products + (c * kRowsPerSumTask + n) * Vec<T>::width;
      Vec<T> total = Vec<T>::load(product);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        total = total.plus_product(values[v], Vec<T>::load(sum + v * Vec<T>::width));
      }
      total.store(product);
    }
  }
}

template <class T>
void gated_matmul_subset_sums(const GatedMatmulArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.weight.shape[2];
  const std::int64_t w_words = words_per_row(a.n_gates);
  const std::int64_t lanes = d + (a.bias ? 1 : 0);  // the bias is one more feature, whose x is 1
  const std::int64_t row_tasks = (n + kRowsPerSumTask - 1) / kRowsPerSumTask;
  const std::int64_t output_tasks = (c + kOutputsPerTask - 1) / kOutputsPerTask;
  const double work =
      static_cast<double>(n) * static_cast<double>(a.n_gates * c) * static_cast<double>(lanes);

  parallel_for(row_tasks * output_tasks, work, a.exec.threads, [&](std::int64_t index) {
    const std::int64_t begin = index / output_tasks * kRowsPerSumTask;
    const std::int64_t rows = n - begin < kRowsPerSumTask ? n - begin : kRowsPerSumTask;
    const std::int64_t c0 = index % output_tasks * kOutputsPerTask;
    const int outputs = static_cast<int>(c - c0 < kOutputsPerTask ? c - c0 : kOutputsPerTask);
    alignas(64) T products[kOutputsPerTask * kRowsPerSumTask * Vec<T>::width];
    for (std::int64_t i = 0; i < outputs * kRowsPerSumTask * Vec<T>::width; ++i) products[i] = T(0);
    std::uint8_t subsets[kGroupsPerPass * kRowsPerSumTask];
    constexpr std::int64_t paths_per_pass = kGroupsPerPass * kGroupGates;
    for (std::int64_t p0 = 0; p0 < a.n_gates; p0 += paths_per_pass) {
      const std::int64_t paths = a.n_gates - p0 < paths_per_pass ? a.n_gates - p0 : paths_per_pass;
      const std::int64_t groups = (paths + kGroupGates - 1) / kGroupGates;
      const auto* words = a.words.as<const std::uint32_t>() + begin * w_words;
      for (std::int64_t g = 0; g < groups; ++g) {
        for (std::int64_t i = 0; i < rows; ++i) {
          subsets[g * kRowsPerSumTask + i] =
              subset_of(words + i * w_words, w_words, p0 / kGroupGates + g);
        }
      }
      const SumTask<T> task{a, begin, rows, c0, outputs, p0, paths, subsets, products};
      constexpr int width = Vec<T>::width;
      const EvenSplit split((lanes + width - 1) / width, kSliceVecs);
      std::int64_t d0 = 0;
      for (std::int64_t s = 0; s < split.parts; ++s) {
        const int vecs = static_cast<int>(split.size(s));
        const std::int64_t here = lanes - d0 < vecs * width ? lanes - d0 : vecs * width;
        const bool with_bias = a.bias.has_value() && d0 + here == lanes;
        if (vecs == 1) {
          add_slice<T, 1>(task, d0, here, with_bias);
        } else {
          add_slice<T, kSliceVecs>(task, d0, here, with_bias);
        }
        d0 += here;
      }
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < outputs; ++j) {
        const T* product = products + (j * kRowsPerSumTask + i) * Vec<T>::width;
        a.y.as<T>()[(begin + i) * a.y.stride[0] + c0 + j] = Vec<T>::load(product).total();
      }
    }
  });
}

}  // namespace glai::GLAI_ISA
