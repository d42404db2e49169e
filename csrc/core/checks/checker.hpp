// How a tensor is checked, and what is said where it does not fit.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/args.hpp"

namespace glai {

// A dimension by its letter; size < 0 means "whatever it is".
struct Dim {
  const char* name;
  std::int64_t size = -1;
};

// What a kernel needs of the strides. Inputs: unit_stride in the last dimension, or in one of the last
// two (either_unit_stride). Outputs: rows, which may be slices of a larger buffer but must not overlap.
enum class Layout { unit_stride, either_unit_stride, rows, contiguous };

using DTypes = std::initializer_list<DType>;
using Dims = std::initializer_list<Dim>;

extern const DTypes kFloats;
const DTypes& floats_of(const Device& device);

// "float32 [63, 784, 10]"
std::string describe(const TensorView& v);

class Checker {
 public:
  // All tensors of an op must share the device of the first one, named here.
  Checker(const char* op, const char* first, const Device& device);

  void tensor(const char* name, const TensorView& v, DTypes dtypes, Dims dims,
              Layout layout = Layout::unit_stride) const;

  // An output that is read while it is written would give neither the one nor the other.
  void apart(const char* name, const TensorView& out, const char* other_name,
             const TensorView& other) const;

  void words(const char* name, const TensorView& v, Dim n, const char* gate_letter,
             std::int64_t n_gates) const;

 private:
  const char* op_;
  const char* first_;
  Device device_;
};

// The workspace of products that go path by path.
void check_gate_columns(const char* op, const Checker& check, const TensorView& words,
                        std::int64_t n_gates, const CudaProduct& cuda);

}  // namespace glai
