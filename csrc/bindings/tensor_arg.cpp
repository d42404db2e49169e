#include "bindings/tensor_arg.hpp"

#include <pybind11/gil_safe_call_once.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "bindings/dlpack.hpp"
#include "core/sizes.hpp"

namespace py = pybind11;

namespace glai::bindings {
namespace {

struct Torch {
  py::object tensor_type, parameter_type;
  const dlpack::ExchangeApi* exchange;                 // null: this torch has none
  std::array<std::pair<PyObject*, DType>, 10> dtypes;  // torch never frees its dtypes
  PyObject *dtype, *shape, *stride, *data_ptr, *is_neg, *layout, *strided;
};

const dlpack::ExchangeApi* exchange_api(const py::object& tensor_type) {
  const py::object capsule = py::getattr(tensor_type, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api = static_cast<const dlpack::ExchangeApi*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->major == dlpack::kMajorVersion && api->view_of_object != nullptr ? api : nullptr;
}

const Torch& torch() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> storage;
  return storage
      .call_once_and_store_result([] {
        const py::module_ module = py::module_::import("torch");
        const auto dtype = [&](const char* name) { return module.attr(name).ptr(); };
        const auto intern = [](const char* name) { return PyUnicode_InternFromString(name); };
        return Torch{module.attr("Tensor"),
                     module.attr("nn").attr("Parameter"),
                     exchange_api(module.attr("Tensor")),
                     {{{dtype("float32"), DType::float32},
                       {dtype("int32"), DType::int32},
                       {dtype("float64"), DType::float64},
                       {dtype("bool"), DType::boolean},
                       {dtype("int64"), DType::int64},
                       {dtype("uint8"), DType::uint8},
                       {dtype("int8"), DType::int8},
                       {dtype("int16"), DType::int16},
                       {dtype("float16"), DType::float16},
                       {dtype("bfloat16"), DType::bfloat16}}},
                     intern("dtype"),
                     intern("shape"),
                     intern("stride"),
                     intern("data_ptr"),
                     intern("is_neg"),
                     intern("layout"),
                     py::object(module.attr("strided")).release().ptr()};
      })
      .get_stored();
}

void copy_sizes(const py::object& sizes, std::int64_t* out, int ndim) {
  for (int i = 0; i < ndim; ++i) out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), i));
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

DType dtype_of(const dlpack::Tensor& tensor) {
  if (tensor.lanes != 1) return DType::other;
  switch (tensor.type_code) {
    case dlpack::floating:
      return tensor.bits == 32   ? DType::float32
             : tensor.bits == 64 ? DType::float64
             : tensor.bits == 16 ? DType::float16
                                 : DType::other;
    case dlpack::integer:
      return tensor.bits == 32   ? DType::int32
             : tensor.bits == 64 ? DType::int64
             : tensor.bits == 16 ? DType::int16
             : tensor.bits == 8  ? DType::int8
                                 : DType::other;
    case dlpack::unsigned_integer: return tensor.bits == 8 ? DType::uint8 : DType::other;
    case dlpack::bfloat: return tensor.bits == 16 ? DType::bfloat16 : DType::other;
    case dlpack::boolean: return DType::boolean;
    default: return DType::other;
  }
}

// False where DLPack cannot tell, or has something to tell that attributes say better.
bool view_by_dlpack(const TensorArg& tensor, TensorView& v) {
  const Torch& t = torch();
  PyTypeObject* type = Py_TYPE(tensor.ptr());
  const bool plain = type == reinterpret_cast<PyTypeObject*>(t.tensor_type.ptr()) ||
                     type == reinterpret_cast<PyTypeObject*>(t.parameter_type.ptr());
  if (t.exchange == nullptr || !plain) return false;
  dlpack::Tensor d;
  if (t.exchange->view_of_object(tensor.ptr(), &d) != 0) {
    PyErr_Clear();
    return false;
  }
  if (d.data == nullptr || d.ndim > kMaxDims) return false;
  v.data = static_cast<char*>(d.data) + d.byte_offset;
  v.dtype = dtype_of(d);
  v.device = device_of(d.device_type, d.device_id);
  v.ndim = d.ndim;
  for (int i = 0; i < d.ndim; ++i) {
    v.shape[i] = d.shape[i];
    v.stride[i] = d.strides[i];
  }
  return true;
}

TensorView view_by_attributes(const TensorArg& tensor, const char* op, const char* name) {
  const Torch& t = torch();
  TensorView v;
  const py::object dtype = attribute(tensor, t.dtype);
  for (const auto& [object, known] : t.dtypes) {
    if (object == dtype.ptr()) {
      v.dtype = known;
      break;
    }
  }
  v.device = device_of(tensor);
  const py::object shape = attribute(tensor, t.shape);
  const auto ndim = PyTuple_GET_SIZE(shape.ptr());
  if (ndim > kMaxDims) {
    throw py::value_error(std::string(op) + ": " + name + " must have at most " +
                          std::to_string(kMaxDims) + " dimensions, got " + std::to_string(ndim));
  }
  v.ndim = static_cast<int>(ndim);
  copy_sizes(shape, v.shape, v.ndim);
  try {
    copy_sizes(call(tensor, t.stride), v.stride, v.ndim);
    v.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(call(tensor, t.data_ptr)));
  } catch (const py::error_already_set&) {
    if (attribute(tensor, t.layout).ptr() == t.strided) {
      throw py::value_error(
          std::string(op) + ": " + name +
          " must have memory of its own, got a tensor that torch traces or transforms");
    }
    // Sparse and other layouts have neither.
    throw py::value_error(std::string(op) + ": " + name + " must be a dense tensor, pass " + name +
                          ".to_dense()");
  }
  bool empty = false;
  for (int i = 0; i < v.ndim; ++i) empty = empty || v.shape[i] == 0;
  if (v.data == nullptr && !empty && v.device.type != DeviceType::other) {
    throw py::value_error(std::string(op) + ": " + name +
                          " must have memory of its own, got a fake, distributed or freed tensor");
  }
  return v;
}

// See TensorView::stride.
void settle_strides(TensorView& v) {
  if (is_empty(v)) {
    std::int64_t stride = 1;
    for (int i = v.ndim - 1; i >= 0; --i) {
      v.stride[i] = stride;
      stride = product_of(stride, v.shape[i] == 0 ? 1 : v.shape[i]);
    }
    return;
  }
  for (int i = v.ndim - 1; i >= 0; --i) {
    if (v.shape[i] == 1) {
      v.stride[i] = i + 1 == v.ndim ? 1 : std::max<std::int64_t>(v.shape[i + 1] * v.stride[i + 1], 1);
    }
  }
}

}  // namespace

TensorView view(const TensorArg& tensor, const char* op, const char* name) {
  const Torch& t = torch();
  if (!py::isinstance(tensor, t.tensor_type)) {
    throw py::type_error(std::string(op) + ": " + name + " must be a torch.Tensor, got " +
                         Py_TYPE(tensor.ptr())->tp_name);
  }
  TensorView v;
  if (!view_by_dlpack(tensor, v)) v = view_by_attributes(tensor, op, name);
  // A lazily negated view shares memory that holds the opposite signs.
  if (call(tensor, t.is_neg).ptr() == Py_True) {
    throw py::value_error(std::string(op) + ": " + name + " is a lazily negated view, pass " + name +
                          ".resolve_neg()");
  }
  settle_strides(v);
  return v;
}

std::optional<TensorView> view(const std::optional<TensorArg>& tensor, const char* op,
                               const char* name) {
  if (!tensor) return std::nullopt;
  return view(*tensor, op, name);
}

}  // namespace glai::bindings
