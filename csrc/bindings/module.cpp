// glai_native._native: arguments in, checks called, GIL released, op run. No arithmetic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arguments.hpp"
#include "core/dispatch.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {
namespace {

void bind_build(py::module_& m) {
  m.def("version", [] { return GLAI_VERSION; });
  m.def("openmp", [] {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
  });
  m.def("cpu_isas", &cpu_isas);
  m.def("cpu_isa", &cpu_isa);
  m.def(
      "force_cpu_isa", [](const StringArg& name) { force_cpu_isa(text(name, "force_cpu_isa", "name")); },
      "name"_a);
  m.def("cuda_status", [] {
    const CudaStatus status = cuda_status();
    return py::make_tuple(status.compiled, status.available, status.reason);
  });
}

}  // namespace
}  // namespace glai::bindings

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of glai_native; call them through glai_native.ops.";
  glai::bindings::bind_build(m);
  glai::bindings::bind_gates(m);
  glai::bindings::bind_gated_linear(m);
  glai::bindings::bind_gated_matmul(m);
  glai::bindings::bind_integer_sums(m);
  glai::bindings::bind_path_matrices(m);
  glai::bindings::bind_structure(m);
  glai::bindings::bind_training(m);
  glai::bindings::bind_watching(m);
}
