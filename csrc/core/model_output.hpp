// model_output: what a whole model makes of raw x, in one call. It has no kernel of its own: the ops'
// kernels run one after another. For few samples on the CPU, where calls cost more than they
// compute.
#pragma once

#include "core/args.hpp"

namespace glai {

void model_output(const ModelOutputArgs& args);

}  // namespace glai
