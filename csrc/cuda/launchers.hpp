// The launchers that the CUDA op table names; one per op, in the .cu file of its family.
#pragma once

#include "core/args.hpp"

namespace glai {

void launch_pack_gates(const PackGatesArgs& args);
void launch_unpack_gates(const UnpackGatesArgs& args);
void launch_gate_counts(const GateCountsArgs& args);
void launch_gate_hamming(const GateHammingArgs& args);
void launch_path_gates(const PathGatesArgs& args);

}  // namespace glai
