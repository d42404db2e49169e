// What makes the extension's own bindings and checks run CUDA kernels on the executor: every tensor of
// the CPU counts as one of a GPU, and the only table is that of CUDA.
#include "bindings/dlpack.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/dispatch.hpp"
#include "simt/executor.hpp"

namespace glai {

Device bindings::device_of(const TensorArg& tensor) {
  static PyObject* const is_cpu = PyUnicode_InternFromString("is_cpu");
  const bool cpu = attribute(tensor, is_cpu).ptr() == Py_True;
  return {cpu ? DeviceType::cuda : DeviceType::other, 0};
}

Device bindings::device_of(std::int32_t dlpack_type, std::int32_t) {
  return {dlpack_type == dlpack::cpu ? DeviceType::cuda : DeviceType::other, 0};
}

const OpTable& op_table(const char*, const Device&) { return kCuda; }

std::vector<std::string> cpu_isas() { return {}; }
std::string cpu_isa() { return "executor"; }
void force_cpu_isa(const std::string&) {}
CudaStatus cuda_status() { return {true, true, ""}; }

}  // namespace glai

// order: 0 forward, 1 reverse, 2 shuffled; shared_bytes: what a block's shared memory may take.
extern "C" __attribute__((visibility("default"))) void glai_simt_schedule(int order, int eager_copies,
                                                                          std::uint64_t seed,
                                                                          std::uint64_t shared_bytes) {
  glai::simt::schedule() = {static_cast<glai::simt::LaneOrder>(order), eager_copies != 0, seed};
  glai::simt::most_shared_bytes() = shared_bytes;
}
