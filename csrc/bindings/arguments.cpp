#include "bindings/arguments.hpp"

#include <algorithm>
#include <string>

namespace py = pybind11;

namespace glai::bindings {
namespace {

// More than processors of one machine: a thread each would be all that is left to ask for.
constexpr std::int64_t kMostThreads = 1024;

[[noreturn]] void refuse(const char* op, const char* name, const char* must_be, py::handle got) {
  throw py::type_error(std::string(op) + ": " + name + " must be " + must_be + ", got " +
                       Py_TYPE(got.ptr())->tp_name);
}

std::int64_t integer_of(py::handle value, const char* op, const char* name) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    refuse(op, name, "an int", value);
  }
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0) {
    throw py::value_error(std::string(op) + ": " + name + " must fit 64 bits, got an int that does not");
  }
  return number;
}

// The items of a list or a tuple.
py::object items_of(py::handle value, const char* op, const char* name, const char* must_be) {
  if (!PyList_Check(value.ptr()) && !PyTuple_Check(value.ptr())) refuse(op, name, must_be, value);
  return py::reinterpret_borrow<py::object>(value);
}

std::string place(const char* name, std::size_t i) {
  return std::string(name) + "[" + std::to_string(i) + "]";
}

}  // namespace

std::int64_t integer(const IntArg& value, const char* op, const char* name) {
  return integer_of(value, op, name);
}

double number(const FloatArg& value, const char* op, const char* name) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    refuse(op, name, "a float", value);
  }
  return number;
}

bool flag(const BoolArg& value, const char* op, const char* name) {
  if (!PyBool_Check(value.ptr())) refuse(op, name, "a bool", value);
  return value.ptr() == Py_True;
}

std::string text(const StringArg& value, const char* op, const char* name) {
  if (!py::isinstance<py::str>(value)) refuse(op, name, "a str", value);
  return value.cast<std::string>();
}

std::optional<std::string> text(const OptionalStringArg& value, const char* op, const char* name) {
  if (value.is_none()) return std::nullopt;
  if (!py::isinstance<py::str>(value)) refuse(op, name, "None or a str", value);
  return value.cast<std::string>();
}

std::vector<TensorView> views(const TensorsArg& tensors, const char* op, const char* name) {
  std::vector<TensorView> views;
  for (const py::handle tensor : items_of(tensors, op, name, "a list of tensors")) {
    const std::string at = place(name, views.size());
    views.push_back(view(py::reinterpret_borrow<TensorArg>(tensor), op, at.c_str()));
  }
  return views;
}

std::vector<std::int64_t> integers(const IntsArg& values, const char* op, const char* name) {
  std::vector<std::int64_t> integers;
  for (const py::handle value : items_of(values, op, name, "a list of ints")) {
    integers.push_back(integer_of(value, op, place(name, integers.size()).c_str()));
  }
  return integers;
}

Execution execution(const char* op, const IntArg& threads) {
  const std::int64_t count = integer(threads, op, "threads");
  return {static_cast<int>(std::clamp<std::int64_t>(count, 1, kMostThreads)), nullptr};
}

Execution execution(const char* op, const IntArg& threads, const IntArg& stream) {
  Execution exec = execution(op, threads);
  exec.stream = reinterpret_cast<void*>(integer(stream, op, "stream"));
  return exec;
}

CudaProduct view(const OptionalCudaProductArg& cuda, const char* op) {
  if (cuda.is_none()) return {};
  if (!py::isinstance<CudaProductArg>(cuda)) refuse(op, "cuda", "None or a CudaProduct", cuda);
  const auto& product = cuda.cast<const CudaProductArg&>();
  return {product.tf32, view(product.partial, op, "partial"),
          view(product.gate_columns, op, "gate_columns"), view(product.reference, op, "reference")};
}

}  // namespace glai::bindings
