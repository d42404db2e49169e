// How a tensor is checked, and what is said where it does not fit.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "core/args.hpp"

namespace glai {

// A dimension by its letter; size < 0 means "whatever it is".
struct Dim {
  const char* name;
  std::int64_t size = -1;
};

// A tensor by its name, for those that must lie apart; one that is not there lies apart from all.
struct Named {
  Named(const char* tensor_name, const TensorView& tensor) : name(tensor_name), view(&tensor) {}
  Named(const char* tensor_name, const std::optional<TensorView>& tensor)
      : name(tensor_name), view(tensor ? &*tensor : nullptr) {}

  const char* name;
  const TensorView* view;
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

  // What is written, workspace too, shares no memory with what is read nor with each other: read while
  // it is written a tensor would give neither the one nor the other.
  void apart(std::initializer_list<Named> written, std::initializer_list<Named> read) const;

  // Sizes of what a sample has: 0 to kMaxSize.
  void sizes(std::initializer_list<Dim> sizes) const;

  void words(const char* name, const TensorView& v, Dim n, const char* gate_letter,
             std::int64_t n_gates) const;

 private:
  const char* op_;
  const char* first_;
  Device device_;
};

// The values of a training loop's order: samples in [0, N), whose targets are in [0, C) where they are
// classes.
void check_order(const char* op, const TensorView& order, const TensorView& targets, std::int64_t n,
                 std::int64_t c);

// The workspace of products that go path by path.
void check_gate_columns(const char* op, const Checker& check, const TensorView& words,
                        std::int64_t n_gates, const CudaProduct& cuda);

}  // namespace glai
