#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "client/kernels/bfloat16.h"

#ifdef __CUDACC__
#define ISOSCAN_ANYWHERE __host__ __device__
#else
#define ISOSCAN_ANYWHERE
#endif

namespace isoscan {

// The arithmetic of instance_normalization.cu, for any Block: on a GPU a block of threads, in the
// tests, which need no GPU, a loop. A channel of a sample is cut into pieces, one for each block:
//
//   block.Reduce<Value>(make)   Merged(...) of make(lane, lanes) of all lanes, in a fixed order
//   block.ForEach(count, work)  work(0) ... work(count - 1), each by some lane
//   block.leads()               true in one lane
//
// Statistics are float32, kept as moments about the running mean, which neither large means nor
// many voxels spoil. No order depends on the GPU: the same input gives the same bits.
// Source: docs/references.md#ulyanov2016, #chan1979.

/// Of the values seen so far. Without a constructor, so that it can lie in a block's shared memory.
struct LaneMoments {
  float count;
  float mean;
  float squares;  ///< Sum of squared differences from the mean.
};

ISOSCAN_ANYWHERE inline LaneMoments WithValue(LaneMoments moments, float value) {
  moments.count += 1;
  const float difference = value - moments.mean;
  moments.mean += difference / moments.count;
  moments.squares += difference * (value - moments.mean);
  return moments;
}

ISOSCAN_ANYWHERE inline LaneMoments Merged(const LaneMoments& one, const LaneMoments& other) {
  if (other.count == 0) return one;
  if (one.count == 0) return other;
  const float count = one.count + other.count;
  const float difference = other.mean - one.mean;
  const float share = other.count / count;
  return {count, one.mean + difference * share,
          one.squares + other.squares + difference * difference * one.count * share};
}

/// What the backward pass needs of a channel of a sample.
struct LaneStatistics {
  float mean;
  float inverse_deviation;  ///< 1 / sqrt(variance + epsilon).
};

/// Over the voxels of a channel of a sample, or of a piece of it.
struct LaneGradientSums {
  float inner;    ///< Of the gradient in front of the activation: that of the shift.
  float product;  ///< Of it and the normalised value: that of the scale.
};

ISOSCAN_ANYWHERE inline LaneGradientSums Merged(const LaneGradientSums& one,
                                                const LaneGradientSums& other) {
  return {one.inner + other.inner, one.product + other.product};
}

/// The pieces of a channel, merged in their order.
template <typename Value>
ISOSCAN_ANYWHERE Value MergedPieces(const Value* pieces, std::int64_t count) {
  Value all = pieces[0];
  for (std::int64_t piece = 1; piece < count; ++piece) all = Merged(all, pieces[piece]);
  return all;
}

template <typename Number>
ISOSCAN_ANYWHERE Number FromFloat(float value) {
  if constexpr (std::is_same_v<Number, Bfloat16>) {
    return ToBfloat16(value);
  } else {
    return value;
  }
}

/// The map of a channel of a sample.
struct LaneMap {
  float mean;
  float inverse_deviation;
  float scale;
  float shift;
  float slope;

  ISOSCAN_ANYWHERE float Normalized(float value) const {
    return (value - mean) * inverse_deviation;
  }
  ISOSCAN_ANYWHERE float Activated(float value) const {
    const float mapped = Normalized(value) * scale + shift;
    return mapped > 0 ? mapped : slope * mapped;
  }
  /// The gradient in front of the activation.
  ISOSCAN_ANYWHERE float Inner(float normalized, float outer) const {
    return normalized * scale + shift > 0 ? outer : slope * outer;
  }
};

/// First pass forward: the moments of a piece of `count` values.
template <typename Block, typename Number>
ISOSCAN_ANYWHERE void SumPiece(const Block& block, const Number* values, std::int64_t count,
                               LaneMoments* result) {
  const LaneMoments all = block.template Reduce<LaneMoments>([&](int lane, int lanes) {
    LaneMoments own{};
    for (std::int64_t i = lane; i < count; i += lanes) own = WithValue(own, ToFloat(values[i]));
    return own;
  });
  if (block.leads()) *result = all;
}

/// Second pass forward, by `moments` of all pieces of the channel: maps one of them.
/// `map` has scale, shift and slope.
template <typename Block, typename Number>
ISOSCAN_ANYWHERE void NormalizePiece(const Block& block, const LaneMoments* moments,
                                     std::int64_t pieces, float epsilon, LaneMap map,
                                     const Number* input, std::int64_t count, Number* output,
                                     LaneStatistics* statistics) {
  const LaneMoments all = MergedPieces(moments, pieces);
  map.mean = all.mean;
  map.inverse_deviation = 1.0F / std::sqrt(all.squares / all.count + epsilon);
  block.ForEach(count, [&](std::int64_t i) {
    output[i] = FromFloat<Number>(map.Activated(ToFloat(input[i])));
  });
  if (block.leads()) *statistics = {map.mean, map.inverse_deviation};
}

/// First pass backward; `map` is whole.
template <typename Block, typename Number>
ISOSCAN_ANYWHERE void SumGradientPiece(const Block& block, const LaneMap& map, const Number* input,
                                       const Number* outer, std::int64_t count,
                                       LaneGradientSums* result) {
  const LaneGradientSums all = block.template Reduce<LaneGradientSums>([&](int lane, int lanes) {
    LaneGradientSums own{};
    for (std::int64_t i = lane; i < count; i += lanes) {
      const float normalized = map.Normalized(ToFloat(input[i]));
      const float inner = map.Inner(normalized, ToFloat(outer[i]));
      own.inner += inner;
      own.product += inner * normalized;
    }
    return own;
  });
  if (block.leads()) *result = all;
}

/// Second pass backward, by `sums` of all pieces of the channel, which has `voxels`.
template <typename Block, typename Number>
ISOSCAN_ANYWHERE void GradientPiece(const Block& block, const LaneGradientSums* sums,
                                    std::int64_t pieces, std::int64_t voxels, const LaneMap& map,
                                    const Number* input, const Number* outer, std::int64_t count,
                                    Number* gradient, LaneGradientSums* channel_sums) {
  const LaneGradientSums all = MergedPieces(sums, pieces);
  const float inner_mean = all.inner / static_cast<float>(voxels);
  const float product_mean = all.product / static_cast<float>(voxels);
  const float factor = map.scale * map.inverse_deviation;
  block.ForEach(count, [&](std::int64_t i) {
    const float normalized = map.Normalized(ToFloat(input[i]));
    const float inner = map.Inner(normalized, ToFloat(outer[i]));
    gradient[i] = FromFloat<Number>(factor * (inner - inner_mean - normalized * product_mean));
  });
  if (block.leads()) *channel_sums = all;
}

/// Values that one block takes.
constexpr std::int64_t kLanePiece = std::int64_t{1} << 15;
/// Threads of a block.
constexpr int kLanesOfBlock = 256;

constexpr std::int64_t PiecesOf(std::int64_t voxels) {
  return (voxels + kLanePiece - 1) / kLanePiece;
}

}  // namespace isoscan
