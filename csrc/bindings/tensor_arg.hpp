// From a torch.Tensor to a TensorView, without libtorch, so that one build serves every torch version:
// by DLPack where torch has its C interface (from 2.10 on), otherwise by attributes read through Python.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "core/tensor.hpp"

namespace glai::bindings {

// What a signature says: any object goes in, view() says by op and name when it is not a tensor.
class TensorArg : public pybind11::object {
 public:
  PYBIND11_OBJECT_DEFAULT(TensorArg, object, [](PyObject* o) { return o != nullptr; })
};

// An attribute, or what a method without arguments returns; names are interned strings.
inline pybind11::object attribute(pybind11::handle object, PyObject* name) {
  PyObject* value = PyObject_GetAttr(object.ptr(), name);
  if (value == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(value);
}
inline pybind11::object call(pybind11::handle object, PyObject* method) {
  PyObject* value = PyObject_CallMethodNoArgs(object.ptr(), method);
  if (value == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(value);
}

// Whose kernels a tensor's memory is for. Alone in its source file: the tests' executor, which runs CUDA
// kernels on memory of the CPU, links another.
Device device_of(const TensorArg& tensor);
Device device_of(std::int32_t dlpack_type, std::int32_t index);

TensorView view(const TensorArg& tensor, const char* op, const char* name);
std::optional<TensorView> view(const std::optional<TensorArg>& tensor, const char* op, const char* name);

}  // namespace glai::bindings

namespace pybind11::detail {
template <>
struct handle_type_name<glai::bindings::TensorArg> {
  static constexpr auto name = const_name("torch.Tensor");
};
}  // namespace pybind11::detail
