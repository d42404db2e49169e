// What host code needs to know of CUDA, without a CUDA header.
#pragma once

#include <string>

namespace glai {

// Empty when a device can be used, otherwise why not; never throws.
std::string cuda_unavailable_reason();

}  // namespace glai
