// What dtypes, devices, forms and precisions are called, in arguments and in sentences.
#pragma once

#include <string>

#include "core/args.hpp"

namespace glai {

// Throws std::invalid_argument; Python: ValueError.
[[noreturn]] void fail(const std::string& sentence);

std::string dtype_name(DType dtype);
std::string device_name(const Device& device);

// "compaction" -> Form::compaction; throws for names that are no form. Which of them an op takes is
// checked with its tensors.
Form parse_form(const char* op, const std::string& name);
std::string form_name(Form form);

// "bf16" -> Precision::bf16; throws for names that are none. Whether tensors may take it is checked with
// them.
Precision parse_precision(const char* op, const std::string& name);
std::string precision_name(Precision precision);

}  // namespace glai
