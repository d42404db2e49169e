// Runs every CUDA kernel on the executor, on small shapes, and compares with plain loops in double: what
// the sanitizers watch, and what tests/simt/mutate.py expects to fail. Tensors are heap blocks of
// exactly their size, filled with NaN where nothing is written. Arguments: order (forward, reverse,
// shuffled) and copies (lazy, eager); none: all six.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/checks/check.hpp"
#include "core/dispatch.hpp"
#include "core/gates.hpp"
#include "core/names.hpp"
#include "core/tiling.hpp"
#include "simt/executor.hpp"

namespace glai {
namespace {

int failures = 0;

// A CPU block that counts as one of a GPU, contiguous.
class Tensor {
 public:
  Tensor(DType dtype, std::vector<std::int64_t> shape, std::size_t item) : item_(item) {
    view.dtype = dtype;
    view.device = {DeviceType::cuda, 0};
    view.ndim = static_cast<int>(shape.size());
    std::int64_t stride = 1;
    for (int i = view.ndim - 1; i >= 0; --i) {
      view.shape[i] = shape[i];
      view.stride[i] = stride;
      stride *= shape[i];
    }
    count = stride;
    memory_.reset(new std::byte[count * item]);
    std::memset(memory_.get(), 0xff, count * item);
    view.data = memory_.get();
  }

  double get(std::int64_t i) const {
    switch (view.dtype) {
      case DType::float32: return view.as<const float>()[i];
      case DType::float64: return view.as<const double>()[i];
      case DType::int64: return static_cast<double>(view.as<const std::int64_t>()[i]);
      case DType::boolean:
      case DType::uint8: return view.as<const std::uint8_t>()[i];
      case DType::bfloat16: {
        const std::uint32_t bits = static_cast<std::uint32_t>(view.as<const std::uint16_t>()[i]) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        return value;
      }
      default: return view.as<const std::int32_t>()[i];
    }
  }

  // Small multiples of 1/8 are exact in every type, and so are most of their sums.
  void set(std::int64_t i, double value) {
    switch (view.dtype) {
      case DType::float32: view.as<float>()[i] = static_cast<float>(value); return;
      case DType::float64: view.as<double>()[i] = value; return;
      case DType::boolean: view.as<std::uint8_t>()[i] = value != 0; return;
      case DType::uint8: view.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(value); return;
      case DType::int64: view.as<std::int64_t>()[i] = static_cast<std::int64_t>(value); return;
      default: {
        const auto narrow = static_cast<float>(value);
        std::uint32_t bits;
        std::memcpy(&bits, &narrow, sizeof(bits));
        view.as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
      }
    }
  }

  TensorView view;
  std::int64_t count = 0;

 private:
  std::size_t item_;
  std::unique_ptr<std::byte[]> memory_;
};

std::size_t size_of(DType dtype) {
  return dtype == DType::float64 || dtype == DType::int64 ? 8 : dtype == DType::bfloat16 ? 2 : 4;
}

std::mt19937 random_bits(1);

Tensor floats(DType dtype, std::vector<std::int64_t> shape) {
  Tensor t(dtype, std::move(shape), size_of(dtype));
  for (std::int64_t i = 0; i < t.count; ++i) t.set(i, static_cast<int>(random_bits() % 17) / 8.0 - 1);
  return t;
}

Tensor booleans(std::int64_t n, std::int64_t p) {
  Tensor t(DType::boolean, {n, p}, 1);
  for (std::int64_t i = 0; i < t.count; ++i) t.set(i, random_bits() % 2);
  return t;
}

Tensor words(std::int64_t n, std::int64_t gates) {
  return Tensor(DType::int32, {n, words_per_row(gates)}, 4);
}

template <class Expected>
void compare(const std::string& what, const Tensor& actual, double tolerance, const Expected& expected) {
  for (std::int64_t i = 0; i < actual.count; ++i) {
    const double want = expected(i), got = actual.get(i);
    if (!(std::fabs(got - want) <= tolerance * (1 + std::fabs(want)))) {
      std::printf("%s: element %lld is %g, must be %g\n", what.c_str(), static_cast<long long>(i), got,
                  want);
      ++failures;
      return;
    }
  }
}

Tensor packed(const Tensor& bits) {
  Tensor out = words(bits.view.shape[0], bits.view.shape[1]);
  const PackGatesArgs args{bits.view, out.view, {}};
  check_pack_gates(args);
  kCuda.pack_gates(args);
  return out;
}

void check_gates(std::int64_t n, std::int64_t p) {
  const Tensor bits = booleans(n, p), other = booleans(n, p);
  const Tensor a = packed(bits), b = packed(other);
  Tensor unpacked(DType::boolean, {n, p}, 1), counts(DType::int64, {p}, 8),
      distance(DType::int64, {n}, 8);
  kCuda.unpack_gates({a.view, p, unpacked.view, {}});
  compare("unpack_gates", unpacked, 0, [&](auto i) { return bits.get(i); });
  kCuda.gate_counts({a.view, p, counts.view, {}});
  compare("gate_counts", counts, 0, [&](auto j) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += bits.get(i * p + j);
    return sum;
  });
  kCuda.gate_hamming({a.view, b.view, p, distance.view, {}});
  compare("gate_hamming", distance, 0, [&](auto i) {
    double sum = 0;
    for (std::int64_t j = 0; j < p; ++j) sum += bits.get(i * p + j) != other.get(i * p + j);
    return sum;
  });
  const std::int64_t paths = (p + 1) * p;
  Tensor path_words = words(n, paths), path_bits(DType::boolean, {n, paths}, 1);
  kCuda.path_gates({a.view, p, b.view, p, path_words.view, {}});
  kCuda.unpack_gates({path_words.view, paths, path_bits.view, {}});
  compare("path_gates", path_bits, 0, [&](auto i) {
    const std::int64_t row = i / paths, unit = i % paths / p, inner = i % p;
    return (unit == p || bits.get(row * p + unit) != 0) && other.get(row * p + inner) != 0 ? 1.0 : 0.0;
  });
}

struct Arithmetic {
  const char* name;
  DType dtype;
  bool tf32;
  double tolerance;
};

// Forward and input gradient.
void check_sums_over_paths(const Arithmetic& t, Form form, const std::string& name, const Tensor& bits,
                           const Tensor& gates, const Tensor& x, const Tensor& w, const Tensor& bias,
                           const Tensor& dy) {
  const std::int64_t n = x.view.shape[0], p = w.view.shape[0], d = w.view.shape[1], c = w.view.shape[2];
  const std::string form_and_name = form_name(form) + " " + name;
  const auto on = [&](auto i, auto j) { return bits.get(i * p + j) != 0; };
  const auto partial = [&](std::int64_t columns) {
    const auto sum = sum_dtype(t.dtype);
    return Tensor(sum, {2, n, columns}, size_of(sum));
  };
  const Tensor y_partial = partial(c), dx_partial = partial(d);
  const auto reference = [&](std::int64_t depth, std::int64_t columns) {  // with room for norms
    return Tensor(DType::int32, {reference_memory(t.dtype, p, depth, columns).with_norms / 4}, 4);
  };
  const Tensor y_reference = reference(d, c), dx_reference = reference(c, d);
  const auto told = [&](const Tensor& sums, const Tensor& memory) {
    return CudaProduct{t.tf32, sums.view, std::nullopt, memory.view};
  };
  const Tensor y(t.dtype, {n, c}, size_of(t.dtype)), dx(t.dtype, {n, d}, size_of(t.dtype));
  const GatedMatmulArgs forward{
      x.view, gates.view, p, w.view, bias.view, y.view, form, {}, told(y_partial, y_reference)};
  check_gated_matmul(forward);
  kCuda.gated_matmul(forward);
  compare("gated_matmul " + form_and_name, y, t.tolerance, [&](auto i) {
    double sum = 0;
    for (std::int64_t j = 0; j < p; ++j) {
      if (!on(i / c, j)) continue;
      sum += bias.get(j * c + i % c);
      for (std::int64_t k = 0; k < d; ++k) sum += x.get(i / c * d + k) * w.get((j * d + k) * c + i % c);
    }
    return sum;
  });

  const GatedMatmulInputGradArgs input{dy.view, gates.view, p,  w.view,
                                       dx.view, form,       {}, told(dx_partial, dx_reference)};
  check_gated_matmul_input_grad(input);
  kCuda.gated_matmul_input_grad(input);
  compare("gated_matmul_input_grad " + form_and_name, dx, t.tolerance, [&](auto i) {
    double sum = 0;
    for (std::int64_t j = 0; j < p; ++j) {
      if (!on(i / d, j)) continue;
      for (std::int64_t k = 0; k < c; ++k) sum += dy.get(i / d * c + k) * w.get((j * d + i % d) * c + k);
    }
    return sum;
  });
}

void check_products(const Arithmetic& t, std::int64_t n, std::int64_t p, std::int64_t d,
                    std::int64_t c) {
  const std::string name = std::string(t.name) + " (" + std::to_string(n) + "," + std::to_string(p) +
                           "," + std::to_string(d) + "," + std::to_string(c) + ")";
  const Tensor bits = booleans(n, p), gates = packed(bits);
  const Tensor x = floats(t.dtype, {n, d}), w = floats(t.dtype, {p, d, c});
  const Tensor bias = floats(t.dtype, {p, c}), dy = floats(t.dtype, {n, c});
  const auto on = [&](auto i, auto j) { return bits.get(i * p + j) != 0; };

  const Tensor layer_weight = floats(t.dtype, {p, d}), layer_bias = floats(t.dtype, {p});
  const Tensor fired = words(n, p);
  Tensor fired_bits(DType::boolean, {n, p}, 1);
  const SelectorGatesArgs selector{
      x.view, layer_weight.view, layer_bias.view, fired.view, {}, {t.tf32, std::nullopt, std::nullopt}};
  check_selector_gates(selector);
  kCuda.selector_gates(selector);
  kCuda.unpack_gates({fired.view, p, fired_bits.view, {}});
  compare("selector_gates " + name, fired_bits, 0, [&](auto i) {
    double sum = layer_bias.get(i % p);
    for (std::int64_t k = 0; k < d; ++k) sum += x.get(i / p * d + k) * layer_weight.get(i % p * d + k);
    return sum > 0 ? 1.0 : 0.0;
  });

  const Tensor h(t.dtype, {n, p}, size_of(t.dtype)), masked(t.dtype, {n, p}, size_of(t.dtype));
  const GatedLinearArgs linear{x.view,          gates.view, p,  layer_weight.view,
                               layer_bias.view, h.view,     {}, {t.tf32, std::nullopt, std::nullopt}};
  check_gated_linear(linear);
  kCuda.gated_linear(linear);
  compare("gated_linear " + name, h, t.tolerance, [&](auto i) {
    if (!on(i / p, i % p)) return 0.0;
    double sum = layer_bias.get(i % p);
    for (std::int64_t k = 0; k < d; ++k) sum += x.get(i / p * d + k) * layer_weight.get(i % p * d + k);
    return sum;
  });
  const ApplyGatesArgs apply{h.view, fired.view, p, masked.view, {}};
  check_apply_gates(apply);
  kCuda.apply_gates(apply);
  compare("apply_gates " + name, masked, 0,
          [&](auto i) { return fired_bits.get(i) != 0 ? h.get(i) : 0.0; });

  for (const Form form : {Form::dense, Form::compaction, Form::reference}) {
    check_sums_over_paths(t, form, name, bits, gates, x, w, bias, dy);
  }
  Tensor columns = words(p, n);

  const DType sums = sum_dtype(t.dtype);
  const auto weight_grad = [&](std::int64_t j, std::int64_t k, std::int64_t l) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      if (on(i, j)) sum += (k < d ? x.get(i * d + k) : 1.0) * dy.get(i * c + l);
    }
    return sum;
  };
  for (const int splits : {1, 2}) {
    const Tensor dw(t.dtype, {p, d, c}, size_of(t.dtype)), db(t.dtype, {p, c}, size_of(t.dtype));
    const Tensor partial(sums, {splits, p, d + 1, c}, size_of(sums));
    CudaProduct cuda{t.tf32, std::nullopt, columns.view};
    if (splits > 1) cuda.partial = partial.view;
    const GatedMatmulWeightGradArgs weight{x.view,  gates.view, p,  dy.view, dw.view,
                                           db.view, false,      {}, {},      cuda};
    check_gated_matmul_weight_grad(weight);
    kCuda.gated_matmul_weight_grad(weight);
    compare("gated_matmul_weight_grad " + name, dw, t.tolerance,
            [&](auto i) { return weight_grad(i / c / d, i / c % d, i % c); });
    compare("its bias " + name, db, t.tolerance, [&](auto i) { return weight_grad(i / c, d, i % c); });
  }

  const Tensor kernel(t.dtype, {n, n}, size_of(t.dtype));
  const UnitLayerPair layer{gates.view, gates.view, p};
  const PathKernelArgs symmetric{x.view, x.view,      &layer, 1,
                                 true,   kernel.view, {},     {t.tf32, std::nullopt, std::nullopt}};
  check_path_kernel(symmetric);
  kCuda.path_kernel(symmetric);
  compare("path_kernel " + name, kernel, t.tolerance, [&](auto i) {
    double dot = 1, shared = 1;
    for (std::int64_t k = 0; k < d; ++k) dot += x.get(i / n * d + k) * x.get(i % n * d + k);
    for (std::int64_t j = 0; j < p; ++j) shared += on(i / n, j) && on(i % n, j);
    return dot * shared;
  });

  if (t.dtype == DType::bfloat16) return;
  const std::int64_t width = d + 1, size = p * width;
  const Tensor features(t.dtype, {n, (width + 15) / 16 * 16}, size_of(t.dtype));
  TensorView feature_rows = features.view;
  feature_rows.shape[1] = width;
  Tensor gram(t.dtype, {size, size}, size_of(t.dtype));
  for (std::int64_t i = 0; i < gram.count; ++i) gram.set(i, 0);
  const PathGramArgs args{x.view,       gates.view,   p,
                          std::nullopt, feature_rows, std::nullopt,
                          gram.view,    {},           {t.tf32, std::nullopt, columns.view}};
  check_path_gram(args);
  kCuda.path_gram(args);
  compare("path_gram " + name, gram, t.tolerance, [&](auto i) {
    const std::int64_t r = i / size, s = i % size;
    double sum = 0;
    for (std::int64_t k = 0; k < n && r <= s; ++k) {
      const auto value = [&](std::int64_t f) { return f % width < d ? x.get(k * d + f % width) : 1.0; };
      if (on(k, r / width) && on(k, s / width)) sum += value(r) * value(s);
    }
    return sum;
  });
}

// Features are the first m columns of m + 3: rows begin at multiples of less than 16 bytes, or of 16.
void check_integer_sums(std::int64_t n, std::int64_t m) {
  Tensor rows(DType::uint8, {n, m + 3}, 1), gram(DType::int64, {m, m}, 8);
  for (std::int64_t i = 0; i < rows.count; ++i) rows.set(i, random_bits() % 128);
  for (std::int64_t i = 0; i < gram.count; ++i) gram.set(i, 5);
  TensorView features = rows.view;
  features.shape[1] = m;
  const IntegerGramArgs args{features, -1, gram.view, {}};
  check_integer_gram(args);
  kCuda.integer_gram(args);
  compare("integer_gram " + std::to_string(n) + "x" + std::to_string(m), gram, 0, [&](auto i) {
    double sum = 5;
    for (std::int64_t k = 0; k < n && i / m <= i % m; ++k) {
      sum -= rows.get(k * (m + 3) + i / m) * rows.get(k * (m + 3) + i % m);
    }
    return sum;
  });
}

void check_all() {
  check_integer_sums(130, 141);
  check_integer_sums(333, 33);
  for (const std::int64_t n : {1, 33, 70}) {
    for (const std::int64_t p : {1, 33}) check_gates(n, p);
  }
  // (N, P, D, C): more than one step of depth, one tile of rows, one word of gates; aligned, and not.
  constexpr Arithmetic kArithmetics[] = {{"fp32", DType::float32, false, 1e-5},
                                         {"tf32", DType::float32, true, 1e-5},
                                         {"bf16", DType::bfloat16, false, 1e-2},
                                         {"fp64", DType::float64, false, 1e-12}};
  for (const Arithmetic& t : kArithmetics) {
    check_products(t, 130, 3, 160, 8);
    check_products(t, 20, 9, 24, 72);
    check_products(t, 33, 35, 7, 3);
  }
}

}  // namespace
}  // namespace glai

int main(int argc, char** argv) {
  glai::simt::most_shared_bytes() = 227 * 1024;  // of an H100: blocks of many rows
  using glai::simt::LaneOrder;
  const struct {
    const char* name;
    LaneOrder order;
  } orders[] = {{"forward", LaneOrder::forward},
                {"reverse", LaneOrder::reverse},
                {"shuffled", LaneOrder::shuffled}};
  for (const auto& order : orders) {
    if (argc > 1 && std::strcmp(argv[1], order.name) != 0) continue;
    for (const bool eager : {false, true}) {
      if (argc > 2 && eager != (std::strcmp(argv[2], "eager") == 0)) continue;
      glai::simt::schedule() = {order.order, eager, 1};
      try {
        glai::check_all();
      } catch (const std::exception& error) {
        std::printf("%s\n", error.what());
        return 1;
      }
      std::printf("%s, %s copies: %s\n", order.name, eager ? "eager" : "lazy",
                  glai::failures ? "FAILED" : "good");
      if (glai::failures) return 1;
    }
  }
  return 0;
}
