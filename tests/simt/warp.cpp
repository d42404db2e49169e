// Compiled without ThreadSanitizer's instrumentation, like fiber.cpp: reads of shared memory are
// announced.
#include "warp.hpp"

#include <bit>
#include <cstring>
#include <stdexcept>

#include "executor.hpp"
#include "fiber.hpp"

namespace glai::simt {
namespace {

int lane() { return thread_index() % kWarpSize; }

struct Vote {
  bool on;
  std::uint32_t votes;
};

struct Exchange {
  std::uint32_t value;
  int from;
  std::uint32_t got;
};

void exchange(void* const brought[kWarpSize]) {
  for (int i = 0; i < kWarpSize; ++i) {
    auto* mine = static_cast<Exchange*>(brought[i]);
    mine->got = static_cast<const Exchange*>(brought[mine->from])->value;
  }
}

struct MatrixLoad {
  const std::byte* row;
  bool transposed;
  std::uint32_t* to;
};

template <class T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void load_rows(void* const brought[kWarpSize]) {
  const auto load = [&](int i) { return static_cast<const MatrixLoad*>(brought[i]); };
  for (int i = 0; i < kWarpSize; ++i) announce_read(load(i)->row, 16);
  for (int i = 0; i < kWarpSize; ++i) {
    const int g = i / 4, t = i % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto row = [&](int r) { return load(8 * matrix + r)->row; };
      if (load(i)->transposed) {
        const std::uint32_t low = read<std::uint16_t>(row(2 * t) + 2 * g);
        const std::uint32_t high = read<std::uint16_t>(row(2 * t + 1) + 2 * g);
        load(i)->to[matrix] = low | high << 16;
      } else {
        load(i)->to[matrix] = read<std::uint32_t>(row(g) + 4 * t);
      }
    }
  }
}

struct Product {
  MmaType type;
  float* acc;
  const std::uint32_t *a, *b;
};

float half_of(MmaType type, std::uint32_t word, int which) {
  const auto bits = static_cast<std::uint16_t>(word >> (16 * which));
  if (type == MmaType::bf16) return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  _Float16 value;
  std::memcpy(&value, &bits, sizeof(value));
  return static_cast<float>(value);
}

// A tensor core ignores the bits that tf32 lacks.
float tf32_of(std::uint32_t word) { return std::bit_cast<float>(word & 0xffffe000u); }

void multiply(void* const brought[kWarpSize]) {
  const auto* first = static_cast<const Product*>(brought[0]);
  const int depth = first->type == MmaType::tf32 ? 8 : 16;
  float a[16][16], b[16][8];
  for (int i = 0; i < kWarpSize; ++i) {
    const auto* p = static_cast<const Product*>(brought[i]);
    const int g = i / 4, t = i % 4;
    for (int r = 0; r < 4; ++r) {
      const int row = g + 8 * (r % 2);
      if (depth == 8) {
        a[row][t + 4 * (r / 2)] = tf32_of(p->a[r]);
      } else {
        for (int h = 0; h < 2; ++h) a[row][2 * t + h + 8 * (r / 2)] = half_of(p->type, p->a[r], h);
      }
    }
    for (int r = 0; r < 2; ++r) {
      if (depth == 8) {
        b[t + 4 * r][g] = tf32_of(p->b[r]);
      } else {
        for (int h = 0; h < 2; ++h) b[2 * t + h + 8 * r][g] = half_of(p->type, p->b[r], h);
      }
    }
  }
  for (int i = 0; i < kWarpSize; ++i) {
    float* acc = static_cast<const Product*>(brought[i])->acc;
    const int g = i / 4, t = i % 4;
    for (int e = 0; e < 4; ++e) {
      float sum = acc[e];
      for (int k = 0; k < depth; ++k) sum += a[g + 8 * (e / 2)][k] * b[k][2 * t + e % 2];
      acc[e] = sum;
    }
  }
}

struct ByteProduct {
  std::int32_t* acc;
  const std::uint32_t *a, *b;
};

void multiply_bytes(void* const brought[kWarpSize]) {
  const auto of = [&](int i) { return static_cast<const ByteProduct*>(brought[i]); };
  const auto byte = [](std::uint32_t word, int which) {
    return static_cast<std::int32_t>(word >> (8 * which) & 255u);
  };
  for (int i = 0; i < kWarpSize; ++i) {
    const int g = i / 4, t = i % 4;
    for (int e = 0; e < 4; ++e) {
      const int row = g, column = 2 * t + e % 2;
      std::int32_t sum = of(i)->acc[e];
      for (int k = 0; k < 32; ++k) {
        const int lane_k = k % 16 / 4, half = k / 16;
        sum += byte(of(4 * row + lane_k)->a[e / 2 + 2 * half], k % 4) *
               byte(of(4 * column + lane_k)->b[half], k % 4);
      }
      of(i)->acc[e] = sum;
    }
  }
}

}  // namespace

std::uint32_t ballot(bool on) {
  Vote mine{on, 0};
  meet("ballot", nullptr, &mine, [](void* const brought[kWarpSize]) {
    std::uint32_t votes = 0;
    for (int i = 0; i < kWarpSize; ++i) {
      votes |= static_cast<std::uint32_t>(static_cast<const Vote*>(brought[i])->on) << i;
    }
    for (int i = 0; i < kWarpSize; ++i) static_cast<Vote*>(brought[i])->votes = votes;
  });
  return mine.votes;
}

std::uint32_t shuffle(std::uint32_t value, int from) {
  Exchange mine{value, from % kWarpSize, 0};
  meet("shuffle", nullptr, &mine, exchange);
  return mine.got;
}

std::uint32_t shuffle_up(std::uint32_t value, int delta) {
  Exchange mine{value, lane() < delta ? lane() : lane() - delta, 0};
  meet("shuffle_up", nullptr, &mine, exchange);
  return mine.got;
}

void load_matrices(std::uint32_t to[4], const void* row, bool transposed) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
    throw std::logic_error("load_matrices takes rows at multiples of 16 bytes");
  }
  MatrixLoad mine{static_cast<const std::byte*>(row), transposed, to};
  meet(transposed ? "load_matrices_transposed" : "load_matrices", nullptr, &mine, load_rows);
}

void mma(MmaType type, float acc[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
  Product mine{type, acc, a, b};
  // One call in the kernel is one here: nothing near it may branch by lane, or the compiler may double
  // it.
  meet("mma", __builtin_return_address(0), &mine, multiply);
}

void mma_bytes(std::int32_t acc[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
  ByteProduct mine{acc, a, b};
  meet("mma_bytes", __builtin_return_address(0), &mine, multiply_bytes);
}

}  // namespace glai::simt
