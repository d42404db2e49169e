// The subsets of a group's gates in an order in which sums are shared. A chain is a run of subsets each
// of which lacks one gate of the one before: sums over the samples of all of them so far belong to every
// gate that is still on, so a chain is summed in one go, and a gate is credited where it goes off, the
// last ones at the end. All subsets of k gates are covered by k choose k/2 chains, which is the fewest
// (de Bruijn, van Ebbenhorst Tengbergen and Kruyswijk, On the set of divisors of a number, 1951).
#pragma once

#include <array>
#include <cstdint>

#include "cpu/products/buckets.hpp"

namespace glai::GLAI_ISA {

struct ChainStep {
  std::uint8_t subset;
  bool begins;            // a chain: no sums from before
  std::uint8_t credited;  // gates, as bits: what is summed so far goes to them
  std::uint8_t first;     // those of them that nothing went to before
};

// Every subset but the empty one, once.
struct SubsetChains {
  ChainStep steps[kMaxSubsets - 1];
  int count;
};

// By brackets: a gate that is on closes, one that is off opens. A chain goes from all that is not
// matched on to all of it off, the last gate first; what is matched stays.
constexpr SubsetChains subset_chains(int gates) {
  SubsetChains chains{};
  unsigned seen = 0;
  for (unsigned top = (1u << gates) - 1; top > 0; --top) {
    int unmatched[kMaxGroupGates] = {}, count = 0, open = 0;
    for (int i = 0; i < gates; ++i) {
      if ((top >> i & 1u) == 0) {
        ++open;
      } else if (open > 0) {
        --open;
      } else {
        unmatched[count++] = i;
      }
    }
    if (open > 0) continue;  // not the first of its chain
    bool begins = true;
    for (unsigned subset = top; subset != 0; begins = false) {
      const unsigned next = count == 0 ? 0 : subset & ~(1u << unmatched[--count]);
      const unsigned credited = subset & ~next;
      chains.steps[chains.count++] = {static_cast<std::uint8_t>(subset), begins,
                                      static_cast<std::uint8_t>(credited),
                                      static_cast<std::uint8_t>(credited & ~seen)};
      seen |= credited;
      subset = next;
    }
  }
  return chains;
}

constexpr std::array<SubsetChains, kMaxGroupGates + 1> kSubsetChains = [] {
  std::array<SubsetChains, kMaxGroupGates + 1> chains{};
  for (int gates = 1; gates <= kMaxGroupGates; ++gates) chains[gates] = subset_chains(gates);
  return chains;
}();

}  // namespace glai::GLAI_ISA
