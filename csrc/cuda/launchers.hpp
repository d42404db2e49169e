// The launchers that the CUDA op table names; one per op, in the .cu file of its stem.
#pragma once

#include "core/args.hpp"

namespace glai {

void launch_pack_gates(const PackGatesArgs& args);

}  // namespace glai
