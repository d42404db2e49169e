// What the bindings of all stems do with their arguments: from Python's to the core's, then the op.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/tensor_arg.hpp"
#include "core/dispatch.hpp"

namespace glai::bindings {

// What a signature says; any object goes in, as for TensorArg.
#define GLAI_ARGUMENT(Name)                                                         \
  class Name : public pybind11::object {                                            \
   public:                                                                          \
    PYBIND11_OBJECT_DEFAULT(Name, object, [](PyObject* o) { return o != nullptr; }) \
  }
GLAI_ARGUMENT(IntArg);
GLAI_ARGUMENT(FloatArg);
GLAI_ARGUMENT(BoolArg);
GLAI_ARGUMENT(StringArg);
GLAI_ARGUMENT(OptionalStringArg);
GLAI_ARGUMENT(TensorsArg);
GLAI_ARGUMENT(IntsArg);
GLAI_ARGUMENT(EstimateArg);
GLAI_ARGUMENT(OptionalCudaProductArg);
#undef GLAI_ARGUMENT

std::int64_t integer(const IntArg& value, const char* op, const char* name);
double number(const FloatArg& value, const char* op, const char* name);
bool flag(const BoolArg& value, const char* op, const char* name);
std::string text(const StringArg& value, const char* op, const char* name);
std::optional<std::string> text(const OptionalStringArg& value, const char* op, const char* name);
std::vector<TensorView> views(const TensorsArg& tensors, const char* op, const char* name);
std::vector<std::int64_t> integers(const IntsArg& values, const char* op, const char* name);

// Threads of any number; kernels get at most kMostThreads.
Execution execution(const char* op, const IntArg& threads, const IntArg& stream);
Execution execution(const char* op, const IntArg& threads);

// core's CudaProduct as Python makes it; none of a product that does not run on CUDA.
struct CudaProductArg {
  bool tf32;
  std::optional<TensorArg> partial, gate_columns, reference;
};
CudaProduct view(const OptionalCudaProductArg& cuda, const char* op);

template <class Args>
void check_and_run(const char* op, void (*check)(const Args&), void (*OpTable::*entry)(const Args&),
                   const Device& device, const Args& args) {
  check(args);
  const pybind11::gil_scoped_release release;
  run(op, entry, device, args);
}

// Whether an op on these takes the bare kernel: nobody watches or asks for a gradient. None counts for
// nothing.
bool takes_bare_kernel(PyObject* const* tensors, Py_ssize_t count);

void bind_gates(pybind11::module_& m);
void bind_gated_linear(pybind11::module_& m);
void bind_gated_matmul(pybind11::module_& m);
void bind_integer_sums(pybind11::module_& m);
void bind_path_matrices(pybind11::module_& m);
void bind_structure(pybind11::module_& m);
void bind_training(pybind11::module_& m);
void bind_watching(pybind11::module_& m);

}  // namespace glai::bindings

namespace pybind11::detail {
#define GLAI_TYPE_NAME(Name, text)                 \
  template <>                                      \
  struct handle_type_name<glai::bindings::Name> {  \
    static constexpr auto name = const_name(text); \
  }
GLAI_TYPE_NAME(IntArg, "int");
GLAI_TYPE_NAME(FloatArg, "float");
GLAI_TYPE_NAME(BoolArg, "bool");
GLAI_TYPE_NAME(StringArg, "str");
GLAI_TYPE_NAME(OptionalStringArg, "str | None");
GLAI_TYPE_NAME(TensorsArg, "collections.abc.Sequence[torch.Tensor]");
GLAI_TYPE_NAME(IntsArg, "collections.abc.Sequence[int]");
GLAI_TYPE_NAME(EstimateArg, "tuple[float, float] | None");
GLAI_TYPE_NAME(OptionalCudaProductArg, "CudaProduct | None");
#undef GLAI_TYPE_NAME
}  // namespace pybind11::detail
