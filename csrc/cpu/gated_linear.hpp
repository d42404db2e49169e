// gated_linear: a dense product whose columns are gated where they are written; and gates applied to
// values that are there already, for its gradients.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/gates.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

template <class T>
void gated_linear_of(const GatedLinearArgs& a) {
  const std::int64_t path_stride = a.n_gates == 1 ? 1 : a.u.stride[0];
  dense_product<Exact<T>>(
      a.x, {a.u.as<const T>(), {a.u.stride[1], path_stride}, a.bias ? a.bias->as<const T>() : nullptr},
      a.y, a.exec.threads, {a.words.as<const std::uint32_t>(), words_per_row(a.n_gates), 0});
}

inline void gated_linear(const GatedLinearArgs& a) {
  if (a.x.dtype == DType::float64) return gated_linear_of<double>(a);
  gated_linear_of<float>(a);
}

template <class T>
void apply_gates_of(const ApplyGatesArgs& a) {
  const std::int64_t n = a.values.shape[0], p = a.n_gates;
  const ColumnGates gates{a.words.as<const std::uint32_t>(), words_per_row(p), 0};
  parallel_rows(n, static_cast<double>(n * p), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* values = a.values.as<const T>() + i * a.values.stride[0];
      T* out = a.out.as<T>() + i * a.out.stride[0];
      std::int64_t j = 0;
      for (; j + Vec<T>::width <= p; j += Vec<T>::width) {
        Vec<T>::load(values + j).only(gates.bits(i, j)).store(out + j);
      }
      const Tail<T> tail(static_cast<int>(p - j));
      if (j < p) Vec<T>::load(values + j, tail).only(gates.bits(i, j)).store(out + j, tail);
    }
  });
}

inline void apply_gates(const ApplyGatesArgs& a) {
  if (a.values.dtype == DType::float64) return apply_gates_of<double>(a);
  apply_gates_of<float>(a);
}

}  // namespace glai::GLAI_ISA
