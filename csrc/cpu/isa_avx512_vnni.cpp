// Sums of bytes alone, compiled for AVX-512 with VNNI, which processors without BF16 have too (Cascade
// Lake, Ice Lake). CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_avx512_vnni

// The vocabulary before the loops that speak it.
#include "cpu/simd/avx512.hpp"

#include "core/dispatch.hpp"
#include "cpu/integer_features.hpp"
#include "cpu/integer_gram.hpp"

namespace glai {
void integer_gram_vnni(const IntegerGramArgs& a) { GLAI_ISA::integer_gram(a); }
void integer_features_vnni(const IntegerFeaturesArgs& a) { GLAI_ISA::integer_features(a); }
}  // namespace glai
