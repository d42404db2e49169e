// The sums of weights of a group's subsets, each made where it is multiplied at once: on the way down
// the tree in which a subset is above those with one more gate, higher than its highest. As many sums
// are kept as the group has gates, not as it has subsets, so that panels of features can be long.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"
#include "cpu/products/buckets.hpp"

namespace glai::GLAI_ISA {

// out[i] = a[i] + b[i], whole vectors.
template <class T>
GLAI_ALWAYS_INLINE void add_arrays(const T* a, const T* b, std::int64_t count, T* out) {
  for (std::int64_t i = 0; i < count; i += Vec<T>::width) {
    Vec<T>::load(a + i).plus(Vec<T>::load(b + i)).store(out + i);
  }
}

// The subsets that hold rows, as bits.
GLAI_ALWAYS_INLINE std::uint32_t occupied_subsets(int gates, const Buckets& buckets) {
  std::uint32_t occupied = 0;
  for (int s = 1; s < 1 << gates; ++s) {
    occupied |= std::uint32_t{buckets.begin[s + 1] > buckets.begin[s]} << s;
  }
  return occupied;
}

template <class T>
struct SubsetSums {
  const GateGroup& group;
  std::uint32_t occupied;
  std::int64_t size;  // of a path's weights, in whole vectors
  T* weights;         // [gates, size]
  T* sums;            // [gates - 1, size]

  static constexpr std::int64_t arrays(int gates) { return 2 * gates - 1; }

  // Weights of each path that a row has on: pack(path, out). Those of gates whose off state counts as on
  // are added to `base`, and their sign is turned.
  template <class Pack>
  GLAI_ALWAYS_INLINE void pack(T* base, const Pack& pack) const {
    constexpr std::uint32_t kSubsetsWith[] = {0xaaaaaaaau, 0xccccccccu, 0xf0f0f0f0u, 0xff00ff00u,
                                              0xffff0000u};
    for (int i = 0; i < group.count; ++i) {
      T* out = weights + i * size;
      const bool flipped = (group.flipped >> i & 1u) != 0;
      if (!flipped && (occupied & kSubsetsWith[i]) == 0) continue;
      pack(group.paths[i], out);
      if (!flipped) continue;
      add_arrays(base, out, size, base);
      for (std::int64_t j = 0; j < size; ++j) out[j] = -out[j];
    }
  }

  // use(subset, sum of its weights) for each subset that holds rows.
  template <class Use>
  GLAI_ALWAYS_INLINE void visit(const Use& use) const {
    for (int i = 0; i < group.count; ++i) visit(1 << i, i, weights + i * size, sums, use);
  }

 private:
  // The subset, whose highest gate is `top`, then those below it in the tree; their sums go to `more`.
  template <class Use>
  void visit(int subset, int top, const T* sum, T* more, const Use& use) const {
    constexpr std::uint32_t kBelow[] = {0x55555555u, 0x11111111u, 0x01010101u, 0x00010001u, 1u};
    if ((occupied >> subset & kBelow[top]) == 0) return;
    if ((occupied >> subset & 1u) != 0) use(subset, sum);
    for (int i = top + 1; i < group.count; ++i) {
      const int with = subset | 1 << i;
      if ((occupied >> with & kBelow[i]) == 0) continue;
      add_arrays(sum, weights + i * size, size, more);
      visit(with, i, more, more + size, use);
    }
  }
};

}  // namespace glai::GLAI_ISA
