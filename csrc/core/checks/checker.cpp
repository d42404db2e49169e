#include "core/checks/checker.hpp"

#include "core/gates.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {
namespace {

std::string describe(DTypes dtypes, Dims dims) {
  std::string text;
  std::size_t i = 0;
  for (const DType dtype : dtypes) {
    if (i > 0) text += i + 1 == dtypes.size() ? " or " : ", ";
    text += dtype_name(dtype);
    ++i;
  }
  text += " [";
  i = 0;
  for (const Dim& dim : dims) {
    if (i++ > 0) text += ", ";
    text += dim.name;
    if (dim.size >= 0) text += "=" + std::to_string(dim.size);
  }
  return text + "]";
}

bool has_layout(const TensorView& v, Layout layout) {
  if (is_empty(v)) return true;
  if (layout == Layout::either_unit_stride) {
    for (int i = v.ndim - 2; i < v.ndim; ++i) {
      if (v.shape[i] == 1 || v.stride[i] == 1) return true;
    }
    return false;
  }
  std::int64_t inner = 1;  // elements from one step of the dimension to the next, at least
  for (int i = v.ndim - 1; i >= 0; --i) {
    if (v.shape[i] != 1) {
      const bool exact = layout != Layout::rows || i == v.ndim - 1;
      if (exact ? v.stride[i] != inner : v.stride[i] < inner) return false;
      inner = v.stride[i] * v.shape[i];
    }
    if (layout == Layout::unit_stride) return true;
  }
  return true;
}

const char* layout_demand(Layout layout) {
  switch (layout) {
    case Layout::unit_stride: return "have stride 1 in its last dimension";
    case Layout::either_unit_stride: return "have stride 1 in one of its last two dimensions";
    case Layout::rows: return "have stride 1 in its last dimension and rows that do not overlap";
    case Layout::contiguous: break;
  }
  return "be contiguous";
}

std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16: return 2;
    case DType::boolean:
    case DType::uint8:
    case DType::int8: return 1;
    default: return 4;
  }
}

// From the first byte of dimension `first` and those within it to past the last one.
std::int64_t extent(const TensorView& v, int first) {
  std::int64_t last = 0;
  for (int i = first; i < v.ndim; ++i) last += (v.shape[i] - 1) * v.stride[i];
  return (last + 1) * item_size(v.dtype);
}

// Whether two tensors have a byte in common. Slices of one buffer's columns have none, though each
// begins before the other ends: rows that are equally far apart are compared by what they take of a row.
bool share_memory(const TensorView& a, const TensorView& b) {
  if (is_empty(a) || is_empty(b)) return false;
  const auto at = reinterpret_cast<std::uintptr_t>(a.data),
             other = reinterpret_cast<std::uintptr_t>(b.data);
  const auto length = static_cast<std::uintptr_t>(extent(a, 0));
  const auto other_length = static_cast<std::uintptr_t>(extent(b, 0));
  if (at >= other + other_length || other >= at + length) return false;
  if (a.ndim < 2 || b.ndim < 2) return true;
  const std::int64_t row = a.stride[0] * item_size(a.dtype);
  if (row <= 0 || row != b.stride[0] * item_size(b.dtype)) return true;
  const std::int64_t width = extent(a, 1), other_width = extent(b, 1);
  if (width > row || other_width > row) return true;
  std::int64_t shift = static_cast<std::int64_t>(other - at) % row;
  if (shift < 0) shift += row;
  return shift < width || shift + other_width > row;
}

const DTypes kCudaFloats = {DType::float32, DType::float64, DType::float16, DType::bfloat16};

}  // namespace

const DTypes kFloats = {DType::float32, DType::float64};

const DTypes& floats_of(const Device& device) {
  return device.type == DeviceType::cuda ? kCudaFloats : kFloats;
}

std::string describe(const TensorView& v) {
  std::string text = dtype_name(v.dtype) + " [";
  for (int i = 0; i < v.ndim; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(v.shape[i]);
  }
  return text + "]";
}

Checker::Checker(const char* op, const char* first, const Device& device)
    : op_(op), first_(first), device_(device) {
  if (device.type == DeviceType::other) {
    fail(std::string(op) + ": " + first + " must be on cpu or cuda, got another kind of device");
  }
}

void Checker::tensor(const char* name, const TensorView& v, DTypes dtypes, Dims dims,
                     Layout layout) const {
  bool good = v.ndim == static_cast<int>(dims.size());
  bool dtype_good = false;
  for (const DType dtype : dtypes) dtype_good = dtype_good || v.dtype == dtype;
  int i = 0;
  for (const Dim& dim : dims) {
    good = good && (dim.size < 0 || v.shape[i] == dim.size);
    ++i;
  }
  if (!good || !dtype_good) {
    fail(std::string(op_) + ": " + name + " must be " + describe(dtypes, dims) + ", got " + describe(v));
  }
  if (!(v.device == device_)) {
    fail(std::string(op_) + ": " + name + " must be on " + device_name(device_) + " like " + first_ +
         ", got " + device_name(v.device));
  }
  if (reinterpret_cast<std::uintptr_t>(v.data) % item_size(v.dtype) != 0) {
    fail(std::string(op_) + ": " + name +
         " must begin at a multiple of its numbers' size, pass a copy made with " + name + ".clone()");
  }
  if (!has_layout(v, layout)) {
    fail(std::string(op_) + ": " + name + " must " + layout_demand(layout) + ", pass a copy made with " +
         name + ".contiguous()");
  }
}

void Checker::apart(std::initializer_list<Named> written, std::initializer_list<Named> read) const {
  for (const Named* one = written.begin(); one != written.end(); ++one) {
    const auto refuse_shared = [&](const Named& other) {
      if (one->view == nullptr || other.view == nullptr) return;
      if (share_memory(*one->view, *other.view)) {
        fail(std::string(op_) + ": " + one->name + " must not share memory with " + other.name);
      }
    };
    for (const Named& other : read) refuse_shared(other);
    for (const Named* other = one + 1; other != written.end(); ++other) refuse_shared(*other);
  }
}

void Checker::sizes(std::initializer_list<Dim> sizes) const {
  for (const Dim& size : sizes) {
    const std::string got = ", got " + std::to_string(size.size);
    if (size.size < 0) fail(std::string(op_) + ": " + size.name + " must be >= 0" + got);
    if (size.size > kMaxSize)
      fail(std::string(op_) + ": " + size.name + " must be less than 2**31" + got);
  }
}

void Checker::words(const char* name, const TensorView& v, Dim n, const char* gate_letter,
                    std::int64_t n_gates) const {
  sizes({{"n_gates", n_gates}});
  const std::string w = std::string("ceil(") + gate_letter + "/32)";
  tensor(name, v, {DType::int32}, {n, {w.c_str(), words_per_row(n_gates)}}, Layout::contiguous);
}

void check_order(const char* op, const TensorView& order, const TensorView& targets, std::int64_t n,
                 std::int64_t c) {
  const bool classes = targets.dtype == DType::int64;
  for (std::int64_t i = 0; i < order.shape[0]; ++i) {
    const std::int64_t id = order.as<const std::int64_t>()[i];
    if (id < 0 || id >= n) {
      fail(std::string(op) + ": order must be samples in [0, N=" + std::to_string(n) + "), got " +
           std::to_string(id));
    }
    const std::int64_t target = classes ? targets.as<const std::int64_t>()[id * targets.stride[0]] : 0;
    if (target < 0 || target >= c) {
      fail(std::string(op) + ": targets must be classes in [0, C=" + std::to_string(c) + "), got " +
           std::to_string(target));
    }
  }
}

void check_gate_columns(const char* op, const Checker& check, const TensorView& words,
                        std::int64_t n_gates, const CudaProduct& cuda) {
  if (words.device.type != DeviceType::cuda) return;
  if (!cuda.gate_columns) fail(std::string(op) + ": gate_columns must come with tensors on cuda");
  check.tensor("gate_columns", *cuda.gate_columns, {DType::int32},
               {{"P", n_gates}, {"ceil(N/32)", words_per_row(words.shape[0])}}, Layout::contiguous);
}

}  // namespace glai
