#include "core/dispatch.hpp"

#include <atomic>
#include <cstdlib>

#include "core/names.hpp"

namespace glai {
namespace {

struct Isa {
  const char* name;
  const OpTable* table;
  bool (*supported)();
  bool (*pays)() = [] { return true; };
};

#ifdef GLAI_X86
bool supports_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool supports_avx512_vnni() { return supports_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool supports_avx512_bf16() {
  return supports_avx512_vnni() && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

// A dot product of bfloat16 does two multiply-adds a lane. Family 6, model 207, issues a quarter as many
// as float32 multiply-adds (1.34 against 5.4 billion a second in a loop of nothing else): half the
// arithmetic. On Zen 4 products of bfloat16 took 1.8 to 2 times less than of float32 (DESIGN, section
// 5); not with these loops.
bool dot_products_pay() { return __builtin_cpu_is("amd"); }
#endif

constexpr Isa kIsas[] = {
    {"generic", &kCpuGeneric, [] { return true; }},
#ifdef GLAI_X86
    {"avx2", &kCpuAvx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {"avx512", &kCpuAvx512, supports_avx512},
    {"avx512_vnni", &kCpuAvx512Vnni, supports_avx512_vnni},
    {"avx512_bf16", &kCpuAvx512Bf16, supports_avx512_bf16},
    {"avx512_bf16_dot", &kCpuAvx512Bf16Dot, supports_avx512_bf16, dot_products_pay},
#endif
};

const Isa& find_isa(const std::string& name) {
  std::string known;
  for (const Isa& isa : kIsas) {
    if (!isa.supported()) continue;
    if (name == isa.name) return isa;
    known += (known.empty() ? "" : ", ") + std::string(isa.name);
  }
  throw std::invalid_argument("GLAI_CPU_ISA: must be one of " + known + " on this machine, got '" +
                              name + "'");
}

// The last that pays, unless one is asked for.
const Isa& default_isa() {
  const char* forced = std::getenv("GLAI_CPU_ISA");
  if (forced != nullptr && *forced != '\0') return find_isa(forced);
  const Isa* best = &kIsas[0];
  for (const Isa& isa : kIsas) {
    if (isa.supported() && isa.pays()) best = &isa;
  }
  return *best;
}

std::atomic<const Isa*>& current_isa() {
  static std::atomic<const Isa*> isa{&default_isa()};
  return isa;
}

}  // namespace

std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) {
    if (isa.supported()) names.emplace_back(isa.name);
  }
  return names;
}

std::string cpu_isa() { return current_isa().load()->name; }

void force_cpu_isa(const std::string& name) { current_isa().store(&find_isa(name)); }

CudaStatus cuda_status() {
#ifdef GLAI_CUDA_COMPILED
  const std::string reason = cuda_unavailable_reason();
  return {true, reason.empty(), reason};
#else
  return {false, false, GLAI_CUDA_OFF_REASON};
#endif
}

const OpTable& op_table(const char* op, const Device& device) {
  if (device.type == DeviceType::cpu) return *current_isa().load()->table;
#ifdef GLAI_CUDA_COMPILED
  if (device.type == DeviceType::cuda) return kCuda;
#endif
  throw std::invalid_argument(std::string(op) + ": tensors are on " + device_name(device) +
                              ", but this build has no CUDA kernels: " + cuda_status().reason);
}

}  // namespace glai
