// What the bindings of all stems do with their arguments: from Python's to the core's, then the op.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "bindings/tensor_arg.hpp"
#include "core/dispatch.hpp"

namespace glai::bindings {

inline Execution execution(int threads, std::uintptr_t stream) {
  return {threads < 1 ? 1 : threads, reinterpret_cast<void*>(stream)};
}

// core's CudaProduct as Python makes it; none of a product that does not run on CUDA.
struct CudaProductArg {
  bool tf32;
  std::optional<TensorArg> partial, gate_columns, reference;
};

inline CudaProduct view(const std::optional<CudaProductArg>& cuda, const char* op) {
  if (!cuda) return {};
  return {cuda->tf32, view(cuda->partial, op, "partial"), view(cuda->gate_columns, op, "gate_columns"),
          view(cuda->reference, op, "reference")};
}

template <class Args>
void check_and_run(const char* op, void (*check)(const Args&), void (*OpTable::*entry)(const Args&),
                   const Device& device, const Args& args) {
  check(args);
  const pybind11::gil_scoped_release release;
  run(op, entry, device, args);
}

void bind_gates(pybind11::module_& m);
void bind_gated_linear(pybind11::module_& m);
void bind_gated_matmul(pybind11::module_& m);
void bind_path_matrices(pybind11::module_& m);
void bind_training(pybind11::module_& m);
void bind_watching(pybind11::module_& m);

}  // namespace glai::bindings
