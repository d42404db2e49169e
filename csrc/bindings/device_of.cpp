#include "bindings/dlpack.hpp"
#include "bindings/tensor_arg.hpp"

namespace py = pybind11;

namespace glai::bindings {

Device device_of(const TensorArg& tensor) {
  static PyObject* const is_cpu = PyUnicode_InternFromString("is_cpu");
  static PyObject* const is_cuda = PyUnicode_InternFromString("is_cuda");
  static PyObject* const get_device = PyUnicode_InternFromString("get_device");
  if (attribute(tensor, is_cpu).ptr() == Py_True) return {DeviceType::cpu, 0};
  if (attribute(tensor, is_cuda).ptr() == Py_True) {
    return {DeviceType::cuda, py::cast<int>(call(tensor, get_device))};
  }
  return {DeviceType::other, 0};
}

Device device_of(std::int32_t dlpack_type, std::int32_t index) {
  if (dlpack_type == dlpack::cpu) return {DeviceType::cpu, 0};
  return {dlpack_type == dlpack::cuda ? DeviceType::cuda : DeviceType::other, index};
}

}  // namespace glai::bindings
