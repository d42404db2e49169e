#include "core/model_output.hpp"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "core/dispatch.hpp"
#include "core/gates.hpp"
#include "core/sizes.hpp"

namespace glai {
namespace {

// A matrix that passes from one op to the next.
struct Matrix {
  std::unique_ptr<std::byte[]> memory;
  TensorView view;
};

TensorView matrix_view(DType dtype, std::int64_t rows, std::int64_t columns) {
  TensorView v;
  v.dtype = dtype;
  v.ndim = 2;
  v.shape[0] = rows;
  v.shape[1] = columns;
  v.stride[0] = columns;
  v.stride[1] = 1;
  return v;
}

Matrix new_matrix(DType dtype, std::int64_t rows, std::int64_t columns) {
  const std::int64_t item = dtype == DType::float64 ? sizeof(double) : sizeof(float);
  const auto bytes = static_cast<std::size_t>(product_of(rows, columns, item));
  Matrix m{std::make_unique_for_overwrite<std::byte[]>(bytes), matrix_view(dtype, rows, columns)};
  m.view.data = m.memory.get();
  return m;
}

Matrix new_gates(std::int64_t n, std::int64_t n_gates) {
  return new_matrix(DType::int32, n, words_per_row(n_gates));
}

Matrix all_on(std::int64_t n, std::int64_t n_gates) {
  Matrix gates = new_gates(n, n_gates);
  const std::int64_t w = words_per_row(n_gates);
  for (std::int64_t i = 0; i < n * w; ++i) {
    gates.view.as<std::uint32_t>()[i] = i % w == w - 1 ? last_word_mask(n_gates) : ~0u;
  }
  return gates;
}

TensorView transposed(TensorView v) {
  std::swap(v.shape[0], v.shape[1]);
  std::swap(v.stride[0], v.stride[1]);
  return v;
}

class Model {
 public:
  explicit Model(const ModelOutputArgs& args)
      : a_(args), ops_(op_table("model_output", args.x.device)), n_(args.x.shape[0]) {}

  void run() const {
    const Matrix own = a_.projection ? project() : Matrix{};
    const TensorView z = a_.projection ? own.view : a_.x;
    std::int64_t n_paths = 0;
    const Matrix gates = path_gates(unit_gates(z), n_paths);
    if (a_.directions) return add_directions(z, gates.view, n_paths);
    ops_.gated_matmul({z, gates.view, n_paths, a_.weight, a_.bias, a_.y, Form::automatic, a_.exec});
  }

 private:
  // x * weight^T + bias, weight [outputs, D]
  Matrix linear(const TensorView& x, const TensorView& weight,
                const std::optional<TensorView>& bias) const {
    const std::int64_t outputs = weight.shape[0];
    Matrix y = new_matrix(x.dtype, n_, outputs);
    const Matrix gates = all_on(n_, outputs);
    gated_linear(x, gates.view, outputs, weight, bias, y.view);
    return y;
  }

  void gated_linear(const TensorView& x, const TensorView& words, std::int64_t n_gates,
                    const TensorView& u, const std::optional<TensorView>& bias,
                    const TensorView& y) const {
    ops_.gated_linear({x, words, n_gates, u, bias, y, a_.exec});
  }

  Matrix project() const { return a_.x.dtype == DType::float64 ? project<double>() : project<float>(); }

  template <class T>
  Matrix project() const {
    const ProjectionArgs& p = *a_.projection;
    const double scale = p.scale.dtype == DType::float64 ? *p.scale.as<const double>()
                                                         : double{*p.scale.as<const float>()};
    const std::int64_t features = a_.x.shape[1];
    Matrix centred = new_matrix(a_.x.dtype, n_, features);
    for (std::int64_t i = 0; i < n_; ++i) {
      const T* row = a_.x.as<const T>() + i * a_.x.stride[0];
      for (std::int64_t j = 0; j < features; ++j) {
        centred.view.as<T>()[i * features + j] = row[j] - p.mean.as<const T>()[j];
      }
    }
    Matrix z =
        p.rotation ? linear(centred.view, transposed(*p.rotation), std::nullopt) : std::move(centred);
    for (std::int64_t i = 0; i < n_ * z.view.shape[1]; ++i) z.view.as<T>()[i] *= static_cast<T>(scale);
    return z;
  }

  std::vector<Matrix> unit_gates(const TensorView& z) const {
    std::vector<Matrix> gates;
    Matrix activation;
    const TensorView* input = &z;
    for (std::int64_t l = 0; l < a_.n_layers; ++l) {
      const SelectorLayer& layer = a_.layers[l];
      gates.push_back(new_gates(n_, layer.weight.shape[0]));
      const TensorView& words = gates.back().view;
      if (l + 1 == a_.n_layers) {
        ops_.selector_gates({*input, layer.weight, layer.bias, words, a_.exec});
        break;
      }
      activation = linear(*input, layer.weight, layer.bias);
      ops_.pack_gates({activation.view, words, a_.exec});
      relu(activation.view);
      input = &activation.view;
    }
    return gates;
  }

  static void relu(const TensorView& v) {
    const auto clamp = [&](auto* values) {
      for (std::int64_t i = 0; i < v.shape[0] * v.shape[1]; ++i) {
        if (values[i] < 0) values[i] = 0;  // NaN stays
      }
    };
    v.dtype == DType::float64 ? clamp(v.as<double>()) : clamp(v.as<float>());
  }

  Matrix path_gates(const std::vector<Matrix>& units, std::int64_t& n_paths) const {
    n_paths = 1;
    Matrix paths = all_on(n_, 1);
    for (std::size_t l = units.size(); l-- > 0;) {
      const std::int64_t n_units = a_.layers[l].weight.shape[0], n_inner = n_paths;
      n_paths *= n_units + 1;
      Matrix outer = new_gates(n_, n_paths);
      ops_.path_gates({units[l].view, n_units, paths.view, n_inner, outer.view, a_.exec});
      paths = std::move(outer);
    }
    return paths;
  }

  // y = constant_bias + z * constant_weight + (g * (z * u^T + beta)) * V
  void add_directions(const TensorView& z, const TensorView& gates, std::int64_t n_paths) const {
    const DirectionsArgs& d = *a_.directions;
    const Matrix hidden = new_matrix(z.dtype, n_, n_paths);
    gated_linear(z, gates, n_paths, a_.weight, a_.bias, hidden.view);
    const Matrix constant = linear(z, transposed(d.constant_weight), d.constant_bias);
    const std::int64_t outputs = a_.y.shape[1];
    const Matrix on = all_on(n_, outputs);
    gated_linear(hidden.view, on.view, outputs, transposed(d.directions), std::nullopt, a_.y);
    const auto add = [&](auto* y, const auto* values) {
      for (std::int64_t i = 0; i < n_; ++i, y += a_.y.stride[0], values += outputs) {
        for (std::int64_t j = 0; j < outputs; ++j) y[j] += values[j];
      }
    };
    z.dtype == DType::float64 ? add(a_.y.as<double>(), constant.view.as<const double>())
                              : add(a_.y.as<float>(), constant.view.as<const float>());
  }

  const ModelOutputArgs& a_;
  const OpTable& ops_;
  std::int64_t n_;
};

}  // namespace

void model_output(const ModelOutputArgs& args) {
  if (!is_empty(args.y)) Model(args).run();
}

}  // namespace glai
