#include "core/names.hpp"

#include <stdexcept>

namespace glai {

void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

std::string dtype_name(DType dtype) {
  switch (dtype) {
    case DType::boolean: return "bool";
    case DType::uint8: return "uint8";
    case DType::int8: return "int8";
    case DType::int16: return "int16";
    case DType::int32: return "int32";
    case DType::int64: return "int64";
    case DType::float16: return "float16";
    case DType::bfloat16: return "bfloat16";
    case DType::float32: return "float32";
    case DType::float64: return "float64";
    case DType::other: break;
  }
  return "another dtype";
}

std::string device_name(const Device& device) {
  switch (device.type) {
    case DeviceType::cpu: return "cpu";
    case DeviceType::cuda: return "cuda:" + std::to_string(device.index);
    case DeviceType::other: break;
  }
  return "another device";
}

std::string form_name(Form form) {
  switch (form) {
    case Form::compaction: return "compaction";
    case Form::subset_sums: return "subset_sums";
    case Form::reference: return "reference";
    case Form::dense: return "dense";
    case Form::automatic: break;
  }
  return "automatic";
}

Form parse_form(const char* op, const std::string& name) {
  for (const Form form : {Form::compaction, Form::subset_sums, Form::reference, Form::dense}) {
    if (name == form_name(form)) return form;
  }
  fail(std::string(op) +
       ": form must be None, 'compaction', 'subset_sums', 'reference' or 'dense', got '" + name + "'");
}

std::string precision_name(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::tf32: return "tf32";
    case Precision::bf16: return "bf16";
    case Precision::automatic: break;
  }
  return "automatic";
}

Precision parse_precision(const char* op, const std::string& name) {
  for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
    if (name == precision_name(precision)) return precision;
  }
  fail(std::string(op) + ": precision must be None, 'fp32', 'tf32' or 'bf16', got '" + name + "'");
}

}  // namespace glai
