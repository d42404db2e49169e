// Tiles on their way from global to shared memory while others are multiplied.
#pragma once

#include "cuda/tiles/primitives.cuh"

namespace glai {

constexpr int kStepBytes = 64;  // of a row's depth that a step takes

// A tile of one operand of a block's product, `kAcross` rows or columns of it by a step of depth, or
// several. kDepthInner: [across][depth], otherwise [depth][across]; rows are padded so that the eight
// rows a matrix load takes, and the lanes of a fragment of words, fall on different banks.
template <class T, int kAcross, bool kDepthInner_, int kDepthBytes = kStepBytes>
struct OperandTile {
  static constexpr bool kDepthInner = kDepthInner_;
  static constexpr int kDepth = kDepthBytes / sizeof(T);
  static constexpr int kChunk = 16 / sizeof(T);
  static constexpr int kRows = kDepthInner ? kAcross : kDepth;
  static constexpr int kWidth = kDepthInner ? kDepth : kAcross;
  static constexpr int kStride = kWidth + (kDepthInner || sizeof(T) <= 2 ? kChunk : 2 * kChunk);
  static constexpr int kElements = kRows * kStride;

  static GLAI_DEVICE int at(int across, int depth) {
    return kDepthInner ? across * kStride + depth : depth * kStride + across;
  }
};

// 16 bytes of a tensor's row, or what it has of them: elements past `valid` count as zero.
template <class T>
struct Chunk {
  const T* from;
  std::int64_t valid;
};

// value, or the nearest to it from 0 to most.
GLAI_DEVICE int clip(std::int64_t value, int most) {
  return value < 0 ? 0 : value < most ? static_cast<int>(value) : most;
}

// The whole tile; source(row, column) gives the chunk that begins there, at a multiple of `granule`
// bytes. Where granule is 0 it is copied element by element, and has landed on return.
template <class Tile, int kThreads, class T, class Source>
GLAI_DEVICE void load_tile(T* tile, int granule, const Source& source) {
  constexpr int kChunksPerRow = Tile::kWidth / Tile::kChunk;
  for (int i = thread_index(); i < Tile::kRows * kChunksPerRow; i += kThreads) {
    const int row = i / kChunksPerRow, column = i % kChunksPerRow * Tile::kChunk;
    const Chunk<T> chunk = source(row, column);
    const int valid = clip(chunk.valid, Tile::kChunk);
    const int bytes = valid * static_cast<int>(sizeof(T));
    T* to = tile + row * Tile::kStride + column;
    if (granule == 16) {
      copy_async<16>(to, chunk.from, bytes);
    } else if (granule == 4) {
      GLAI_UNROLL
      for (int at = 0; at < 16; at += 4) {
        copy_async<4>(reinterpret_cast<std::byte*>(to) + at,
                      reinterpret_cast<const std::byte*>(chunk.from) + at, clip(bytes - at, 4));
      }
    } else {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kChunk; ++e) to[e] = e < valid ? chunk.from[e] : T{};
    }
  }
}

constexpr int kStages = 4;

// load(stage, step), then use(stage, step), for every step in order; loads run kDeep - 1 steps ahead.
// One barrier a step: behind it a step's tiles have landed for all threads, and no thread reads the
// stage that is loaded next.
template <int kDeep = kStages, class Load, class Use>
GLAI_DEVICE void pipeline(std::int64_t steps, const Load& load, const Use& use) {
  for (int step = 0; step < kDeep - 1; ++step) {
    if (step < steps) load(step, step);
    commit_copies();
  }
  int stage = 0, free_stage = kDeep - 1;
  for (std::int64_t step = 0; step < steps; ++step) {
    wait_copies<kDeep - 2>();
    sync_block();
    const std::int64_t next = step + kDeep - 1;
    if (next < steps) load(free_stage, next);
    commit_copies();
    use(stage, step);
    free_stage = stage;
    stage = stage + 1 < kDeep ? stage + 1 : 0;
  }
}

}  // namespace glai
