// selector_gates: the units of a layer that fire, from its input. A task's pre-activations stay in its
// cache, where they become bits.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kSelectorWords = 2;  // of a task's units, most
constexpr std::int64_t kSelectorUnits = kSelectorWords * kWordBits;

template <class T>
void selector_gates_of(const SelectorGatesArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], h = a.weight.shape[0], w = words_per_row(h);
  const std::int64_t unit_stride = h == 1 ? 1 : a.weight.stride[0];
  const DenseWeight<T> weight{a.weight.as<const T>(),
                              {a.weight.stride[1], unit_stride},
                              a.bias ? a.bias->as<const T>() : nullptr};
  const EvenSplit groups(w, kSelectorWords), blocks(n, kDenseRows);
  const double work = static_cast<double>(n) * static_cast<double>(h) * static_cast<double>(d + 1);
  parallel_for(groups.parts * blocks.parts, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t group = task / blocks.parts, block = task % blocks.parts;
    const std::int64_t word = groups.begin(group), end = word + groups.size(group);
    const std::int64_t unit = word * kWordBits;
    const std::int64_t units = end == w ? h - unit : (end - word) * kWordBits;
    const std::int64_t row = blocks.begin(block), rows = blocks.size(block);

    ScratchSizes sizes;
    const auto sums_at = sizes.add<T>(kDenseRows * kSelectorUnits);
    const auto memory_at = sizes.add<std::byte>(dense_bytes<Exact<T>>(kMaxTileVecs));
    std::byte* scratch_block = scratch(Scratch::task, sizes.bytes());
    T* sums = reinterpret_cast<T*>(scratch_block + sums_at);  // [rows, kSelectorUnits]

    for_column_tiles<T>(units, [&](std::int64_t column, int vecs, Tail<T>) {
      const std::int64_t width = vecs * Vec<T>::width;
      dense_block<Exact<T>>(
          {a.x.as<const T>() + row * a.x.stride[0], a.x.stride[0], rows, d, weight.from(unit + column),
           units - column < width ? units - column : width, sums + column, kSelectorUnits},
          scratch_block + memory_at);
    });
    for (std::int64_t i = 0; i < rows; ++i) {
      std::uint32_t* words = a.words.as<std::uint32_t>() + (row + i) * w;
      for (std::int64_t j = word; j < end; ++j) {
        words[j] = positive_word(sums + i * kSelectorUnits + (j - word) * kWordBits);
      }
      // Lanes past the last unit hold anything.
      if (end == w) words[w - 1] &= last_word_mask(h);
    }
  });
}

inline void selector_gates(const SelectorGatesArgs& a) {
  if (a.x.dtype == DType::float64) return selector_gates_of<double>(a);
  selector_gates_of<float>(a);
}

}  // namespace glai::GLAI_ISA
