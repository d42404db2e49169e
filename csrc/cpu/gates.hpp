// Gate bits on the CPU: packing, unpacking, counting, comparing, and the path product.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/parallel.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kRowsPerGateTask = 256;

template <class RowRange>
GLAI_ALWAYS_INLINE void parallel_rows(std::int64_t n_rows, double work, int threads,
                                      const RowRange& rows) {
  const std::int64_t n_tasks = (n_rows + kRowsPerGateTask - 1) / kRowsPerGateTask;
  parallel_for(n_tasks, work, threads, [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerGateTask;
    const std::int64_t end = begin + kRowsPerGateTask < n_rows ? begin + kRowsPerGateTask : n_rows;
    rows(begin, end);
  });
}

template <class T>
void pack_gates_of(const PackGatesArgs& a) {
  const std::int64_t n = a.bits.shape[0], p = a.bits.shape[1], w = words_per_row(p);
  parallel_rows(n, static_cast<double>(n * p), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* row = a.bits.as<const T>() + i * a.bits.stride[0];
      std::uint32_t* words = a.words.as<std::uint32_t>() + i * w;
      const std::int64_t full = p / kWordBits;
      for (std::int64_t j = 0; j < full; ++j) words[j] = positive_word(row + j * kWordBits);
      if (full < w) {
        std::uint32_t word = 0;
        for (std::int64_t b = 0; b < p - full * kWordBits; ++b) {
          word |= static_cast<std::uint32_t>(row[full * kWordBits + b] > T(0)) << b;
        }
        words[full] = word;
      }
    }
  });
}

inline void pack_gates(const PackGatesArgs& a) {
  switch (a.bits.dtype) {
    case DType::float32: return pack_gates_of<float>(a);
    case DType::float64: return pack_gates_of<double>(a);
    default: return pack_gates_of<std::uint8_t>(a);  // bool
  }
}

inline void unpack_gates(const UnpackGatesArgs& a) {
  const std::int64_t n = a.words.shape[0], p = a.n_gates, w = words_per_row(p);
  parallel_rows(n, static_cast<double>(n * p), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t* words = a.words.as<const std::uint32_t>() + i * w;
      std::uint8_t* bits = a.bits.as<std::uint8_t>() + i * p;
      for (std::int64_t j = 0; j < p; ++j) bits[j] = words[j / kWordBits] >> (j % kWordBits) & 1u;
    }
  });
}

inline void gate_counts(const GateCountsArgs& a) {
  const std::int64_t n = a.words.shape[0], p = a.n_gates, w = words_per_row(p);
  parallel_for(w, static_cast<double>(n * p), a.exec.threads, [&](std::int64_t j) {
    const std::uint32_t* words = a.words.as<const std::uint32_t>() + j;
    std::int64_t* counts = a.counts.as<std::int64_t>() + j * kWordBits;
    std::int64_t column[kWordBits] = {};
    // Lanes of 32 bits hold any count of a block of rows; wider sums are taken once a block.
    constexpr std::int64_t kBlock = std::int64_t{1} << 30;
    for (std::int64_t begin = 0; begin < n; begin += kBlock) {
      const std::int64_t end = begin + kBlock < n ? begin + kBlock : n;
      std::uint32_t block[kWordBits] = {};
      for (std::int64_t i = begin; i < end; ++i) {
        const std::uint32_t word = words[i * w];
        for (int b = 0; b < kWordBits; ++b) block[b] += word >> b & 1u;
      }
      for (int b = 0; b < kWordBits; ++b) column[b] += block[b];
    }
    for (int b = 0; b < kWordBits && j * kWordBits + b < p; ++b) counts[b] = column[b];
  });
}

inline void gate_hamming(const GateHammingArgs& a) {
  const std::int64_t n = a.words_a.shape[0], w = words_per_row(a.n_gates);
  parallel_rows(n, static_cast<double>(n * w), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t* wa = a.words_a.as<const std::uint32_t>() + i * w;
      const std::uint32_t* wb = a.words_b.as<const std::uint32_t>() + i * w;
      std::int64_t distance = 0;
      for (std::int64_t j = 0; j < w; ++j) distance += __builtin_popcount(wa[j] ^ wb[j]);
      a.distance.as<std::int64_t>()[i] = distance;
    }
  });
}

// Appends bits to a row of words, least significant first.
class BitWriter {
 public:
  GLAI_ALWAYS_INLINE explicit BitWriter(std::uint32_t* words) : out_(words) {}

  // The low `count` bits of `bits`, count <= 32; bits above count must be zero.
  GLAI_ALWAYS_INLINE void append(std::uint32_t bits, int count) {
    pending_ |= static_cast<std::uint64_t>(bits) << used_;
    used_ += count;
    if (used_ >= kWordBits) {
      *out_++ = static_cast<std::uint32_t>(pending_);
      pending_ >>= kWordBits;
      used_ -= kWordBits;
    }
  }

  GLAI_ALWAYS_INLINE void flush() {
    if (used_ > 0) *out_ = static_cast<std::uint32_t>(pending_);
  }

 private:
  std::uint32_t* out_;
  std::uint64_t pending_ = 0;
  int used_ = 0;
};

// The last layer's gates: its units' bits as they are, and the always-on unit's behind them.
GLAI_ALWAYS_INLINE void append_always_on(const std::uint32_t* units, std::int64_t n_units, bool on,
                                         std::uint32_t* words) {
  const std::int64_t w_unit = words_per_row(n_units), w = words_per_row(n_units + 1);
  for (std::int64_t j = 0; j < w; ++j) words[j] = on && j < w_unit ? units[j] : 0u;
  if (on) words[n_units / kWordBits] |= 1u << (n_units % kWordBits);
}

inline void path_gates(const PathGatesArgs& a) {
  const std::int64_t n = a.unit_words.shape[0];
  const std::int64_t w_unit = words_per_row(a.n_units), w_inner = words_per_row(a.n_inner);
  const std::int64_t n_paths = (a.n_units + 1) * a.n_inner, w = words_per_row(n_paths);
  parallel_rows(n, static_cast<double>(n * w), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t* units = a.unit_words.as<const std::uint32_t>() + i * w_unit;
      const std::uint32_t* inner = a.inner_words.as<const std::uint32_t>() + i * w_inner;
      if (a.n_inner == 1) {
        append_always_on(units, a.n_units, (inner[0] & 1u) != 0, a.words.as<std::uint32_t>() + i * w);
        continue;
      }
      BitWriter writer(a.words.as<std::uint32_t>() + i * w);
      for (std::int64_t u = 0; u <= a.n_units; ++u) {
        // The always-on unit is the last of its layer.
        const bool on = u == a.n_units || (units[u / kWordBits] >> (u % kWordBits) & 1u) != 0;
        for (std::int64_t j = 0; j < w_inner; ++j) {
          const std::int64_t left = a.n_inner - j * kWordBits;
          writer.append(on ? inner[j] : 0u, left < kWordBits ? static_cast<int>(left) : kWordBits);
        }
      }
      writer.flush();
    }
  });
}

}  // namespace glai::GLAI_ISA
