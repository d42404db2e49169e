// Who is watching: which way a call takes, asked before every op. Plain functions of CPython instead of
// pybind11's, which would cost twice as much as all that is asked.
#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>

#include "bindings/arguments.hpp"

namespace py = pybind11;

namespace glai::bindings {
namespace {

// The values of glai_native.machine.watching.Way.
enum class Way : long { bare, gradient, registered, plain };

struct TorchState {
  PyObject *tensor, *parameter;
  PyObject *modes, *transforms, *tracing, *function_modes, *modes_before_dispatch, *grad_enabled;
  PyObject *forward_ad, *level, *requires_grad, *dispatch, *no_dispatch, *fake_mode;
};

const TorchState& torch_state() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<TorchState> storage;
  return storage
      .call_once_and_store_result([] {
        const py::module_ module = py::module_::import("torch"), c = module.attr("_C");
        const auto of = [](const py::object& object) { return object.inc_ref().ptr(); };
        return TorchState{of(module.attr("Tensor")),
                          of(module.attr("nn").attr("Parameter")),
                          of(c.attr("_len_torch_dispatch_stack")),
                          of(c.attr("_are_functorch_transforms_active")),
                          of(c.attr("_is_tracing")),
                          of(c.attr("_is_torch_function_mode_enabled")),
                          of(module.attr("_ops").attr("_len_torch_dispatch_stack_pre_dispatch")),
                          of(c.attr("is_grad_enabled")),
                          of(py::module_::import("torch.autograd.forward_ad")),
                          PyUnicode_InternFromString("_current_level"),
                          PyUnicode_InternFromString("requires_grad"),
                          PyUnicode_InternFromString("__torch_dispatch__"),
                          of(module.attr("Tensor").attr("__torch_dispatch__")),
                          PyUnicode_InternFromString("fake_mode")};
      })
      .get_stored();
}

py::object owned(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

// What a function without arguments returns, a bool or a count.
bool says_yes(PyObject* function) {
  const py::object answer = owned(PyObject_CallNoArgs(function));
  return answer.ptr() == Py_True || (PyLong_CheckExact(answer.ptr()) && PyLong_AsLong(answer.ptr()) > 0);
}

bool in_forward_mode(const TorchState& t) {
  return PyLong_AsLong(owned(PyObject_GetAttr(t.forward_ad, t.level)).ptr()) >= 0;
}

bool is_watched(const TorchState& t) {
  return says_yes(t.modes) || says_yes(t.tracing) ||
         (says_yes(t.function_modes) && says_yes(t.modes_before_dispatch));
}

Way way_of(PyObject* const* tensors, Py_ssize_t count) {
  const TorchState& t = torch_state();
  if (says_yes(t.transforms) || in_forward_mode(t)) return Way::plain;
  if (is_watched(t)) return Way::registered;
  bool needs_grad = false, has_plain = false, has_fake = false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(tensors[i]));
    const bool plain = type == t.tensor || type == t.parameter;
    if (!plain && PyObject_IsInstance(tensors[i], t.tensor) != 1) continue;  // the checks' business
    has_plain = has_plain || plain;
    if (!plain && owned(PyObject_GetAttr(type, t.dispatch)).ptr() != t.no_dispatch) {
      if (PyObject_HasAttr(tensors[i], t.fake_mode) == 0) return Way::registered;
      has_fake = true;
    }
    needs_grad = needs_grad || owned(PyObject_GetAttr(tensors[i], t.requires_grad)).ptr() == Py_True;
  }
  // Fake and true tensors do not mix outside of their mode: the checks say so better than torch.
  if (has_fake && !has_plain) return Way::registered;
  return needs_grad && says_yes(t.grad_enabled) ? Way::gradient : Way::bare;
}

PyObject* way(PyObject*, PyObject* const* tensors, Py_ssize_t count) {
  try {
    return PyLong_FromLong(static_cast<long>(way_of(tensors, count)));
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
}

PyMethodDef methods[] = {
    {"way", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(way)), METH_FASTCALL,
     "way(*tensors: typing.Any) -> int\n\nWhich way an op on these takes, as a number."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool takes_bare_kernel(PyObject* const* tensors, Py_ssize_t count) {
  return way_of(tensors, count) == Way::bare;
}

void bind_watching(py::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace glai::bindings
