#include "client/kernels/dice_cross_entropy.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

#include "client/kernels/elementary.h"
#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

constexpr double kSmooth = 1e-5;
constexpr double kSmallestDenominator = 1e-8;
/// What a thread takes at a time, and what of it is in work at once.
constexpr std::int64_t kPiece = 8192;
constexpr std::int64_t kBlock = 64;

/// Of one class of a sample, or of a piece of it.
struct ClassSums {
  double probability = 0;
  double truth = 0;
  double common = 0;  ///< Of the probability where the label is this class.

  void Add(const ClassSums& other) {
    probability += other.probability;
    truth += other.truth;
    common += other.common;
  }
};

/// The Dice term's gradient with respect to a class' probability: slope * truth + offset.
struct DiceGradient {
  float slope = 0;
  float offset = 0;
};

/// Up to kBlock voxels of all classes, the scores as probabilities.
struct Block {
  const std::uint8_t* labels;
  std::int64_t count;
  float* probabilities;  ///< [classes][kBlock]
};

/// Fills block.probabilities with the softmax; returns the sum of -log p of the labels.
template <typename Number>
[[gnu::always_inline]] inline double Softmax(const DiceCrossEntropyPlan& plan, const Number* scores,
                                             const Block& block) {
  float largest[kBlock];
  float sum[kBlock];
  float of_label[kBlock];
  for (std::int64_t i = 0; i < kBlock; ++i) {
    sum[i] = 0;
    of_label[i] = 0;
  }
  for (std::int64_t c = 0; c < plan.classes; ++c) {
    float* const row = block.probabilities + c * kBlock;
    const Number* const from = scores + c * plan.voxels;
    for (std::int64_t i = 0; i < block.count; ++i) row[i] = ToFloat(from[i]);
    for (std::int64_t i = 0; i < block.count; ++i) {
      largest[i] = c == 0 || row[i] > largest[i] ? row[i] : largest[i];
    }
  }
  for (std::int64_t c = 0; c < plan.classes; ++c) {
    float* const row = block.probabilities + c * kBlock;
    for (std::int64_t i = 0; i < block.count; ++i) {
      const float below = row[i] - largest[i];
      of_label[i] = block.labels[i] == c ? below : of_label[i];
      row[i] = ExponentialOfNegative(below);
      sum[i] += row[i];
    }
  }
  double cross_entropy = 0;
  float terms[kBlock];
  for (std::int64_t i = 0; i < block.count; ++i) {
    const bool is_class = block.labels[i] < plan.classes;
    terms[i] = is_class ? LogarithmFromOne(sum[i]) - of_label[i] : 0;
    sum[i] = 1.0F / sum[i];
  }
  for (std::int64_t i = 0; i < block.count; ++i) cross_entropy += static_cast<double>(terms[i]);
  for (std::int64_t c = 0; c < plan.classes; ++c) {
    float* const row = block.probabilities + c * kBlock;
    for (std::int64_t i = 0; i < block.count; ++i) row[i] *= sum[i];
  }
  return cross_entropy;
}

/// Adds a block's class sums; in float over the block, which is short.
[[gnu::always_inline]] inline void AddBlock(const DiceCrossEntropyPlan& plan, const Block& block,
                                            ClassSums* sums) {
  for (std::int64_t c = 0; c < plan.classes; ++c) {
    constexpr std::int64_t kLanes = 16;
    float probability[kLanes] = {};
    float common[kLanes] = {};
    float truth[kLanes] = {};
    const float* const row = block.probabilities + c * kBlock;
    for (std::int64_t start = 0; start < block.count; start += kLanes) {
      const std::int64_t lanes = std::min(kLanes, block.count - start);
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const float value = row[start + lane];
        const float is = block.labels[start + lane] == c ? 1.0F : 0.0F;
        probability[lane] += value;
        common[lane] += is * value;
        truth[lane] += is;
      }
    }
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      sums[c].probability += static_cast<double>(probability[lane]);
      sums[c].common += static_cast<double>(common[lane]);
      sums[c].truth += static_cast<double>(truth[lane]);
    }
  }
}

/// What a piece of a sample is read by.
struct Piece {
  std::int64_t sample;
  std::int64_t first;
  std::int64_t count;
};

template <typename Number>
[[gnu::always_inline]] inline double SumPieceOf(const DiceCrossEntropyPlan& plan,
                                                const Number* scores, const std::uint8_t* labels,
                                                const Piece& piece, float* scratch,
                                                ClassSums* sums) {
  double cross_entropy = 0;
  for (std::int64_t start = 0; start < piece.count; start += kBlock) {
    const std::int64_t at = piece.first + start;
    const Block block{.labels = labels + piece.sample * plan.voxels + at,
                      .count = std::min(kBlock, piece.count - start),
                      .probabilities = scratch};
    cross_entropy += Softmax(plan, scores + piece.sample * plan.classes * plan.voxels + at, block);
    AddBlock(plan, block, sums);
  }
  return cross_entropy;
}

template <typename Number>
[[gnu::always_inline]] inline void WritePieceOf(const DiceCrossEntropyPlan& plan,
                                                const Number* scores, const std::uint8_t* labels,
                                                const Piece& piece, const DiceGradient* dice,
                                                float share, float weight, float* scratch,
                                                Number* gradient) {
  for (std::int64_t start = 0; start < piece.count; start += kBlock) {
    const std::int64_t at = piece.first + start;
    const std::int64_t offset = piece.sample * plan.classes * plan.voxels + at;
    const Block block{.labels = labels + piece.sample * plan.voxels + at,
                      .count = std::min(kBlock, piece.count - start),
                      .probabilities = scratch};
    Softmax(plan, scores + offset, block);
    // Through the softmax: dp_j/dz_i = p_i (delta_ij - p_j). Cross entropy adds share (p - g).
    float mean[kBlock] = {};
    for (std::int64_t c = 0; c < plan.classes; ++c) {
      const DiceGradient of_class = dice[c];
      const float* const row = block.probabilities + c * kBlock;
      for (std::int64_t i = 0; i < block.count; ++i) {
        const float outer = (block.labels[i] == c ? of_class.slope : 0.0F) + of_class.offset;
        mean[i] += outer * row[i];
      }
    }
    for (std::int64_t c = 0; c < plan.classes; ++c) {
      const DiceGradient of_class = dice[c];
      const float* const row = block.probabilities + c * kBlock;
      Number* const to = gradient + offset + c * plan.voxels;
      for (std::int64_t i = 0; i < block.count; ++i) {
        const bool is = block.labels[i] == c;
        const float known = block.labels[i] < plan.classes ? share : 0.0F;
        const float outer = (is ? of_class.slope : 0.0F) + of_class.offset;
        const float value = weight * (row[i] * (outer - mean[i] + known) - (is ? share : 0.0F));
        if constexpr (std::is_same_v<Number, Bfloat16>) {
          to[i] = ToBfloat16(value);
        } else {
          to[i] = value;
        }
      }
    }
  }
}

// target_clones takes no templates: one function per type.
ISOSCAN_VECTOR_CLONES double SumPiece(const DiceCrossEntropyPlan& plan, const float* scores,
                                      const std::uint8_t* labels, const Piece& piece,
                                      float* scratch, ClassSums* sums) {
  return SumPieceOf(plan, scores, labels, piece, scratch, sums);
}
ISOSCAN_VECTOR_CLONES double SumPiece(const DiceCrossEntropyPlan& plan, const Bfloat16* scores,
                                      const std::uint8_t* labels, const Piece& piece,
                                      float* scratch, ClassSums* sums) {
  return SumPieceOf(plan, scores, labels, piece, scratch, sums);
}
ISOSCAN_VECTOR_CLONES void WritePiece(const DiceCrossEntropyPlan& plan, const float* scores,
                                      const std::uint8_t* labels, const Piece& piece,
                                      const DiceGradient* dice, float share, float weight,
                                      float* scratch, float* gradient) {
  WritePieceOf(plan, scores, labels, piece, dice, share, weight, scratch, gradient);
}
ISOSCAN_VECTOR_CLONES void WritePiece(const DiceCrossEntropyPlan& plan, const Bfloat16* scores,
                                      const std::uint8_t* labels, const Piece& piece,
                                      const DiceGradient* dice, float share, float weight,
                                      float* scratch, Bfloat16* gradient) {
  WritePieceOf(plan, scores, labels, piece, dice, share, weight, scratch, gradient);
}

}  // namespace

template <typename Number>
double DiceCrossEntropyLoss(const DiceCrossEntropyPlan& plan, const Number* scores,
                            const std::uint8_t* labels, double weight, Number* gradient,
                            const Parallel& parallel) {
  const std::int64_t pieces_of_sample = (plan.voxels + kPiece - 1) / kPiece;
  const std::int64_t pieces = plan.samples * pieces_of_sample;
  const auto piece_of = [&](std::int64_t item) {
    const std::int64_t first = item % pieces_of_sample * kPiece;
    return Piece{.sample = item / pieces_of_sample,
                 .first = first,
                 .count = std::min(kPiece, plan.voxels - first)};
  };
  const auto classes = static_cast<std::size_t>(plan.classes);
  std::vector<ClassSums> sums(static_cast<std::size_t>(pieces) * classes);
  std::vector<double> cross_entropy(static_cast<std::size_t>(pieces));
  parallel.run(pieces, [&](std::int64_t item) {
    std::vector<float> scratch(classes * kBlock);
    cross_entropy[static_cast<std::size_t>(item)] =
        SumPiece(plan, scores, labels, piece_of(item), scratch.data(),
                 &sums[static_cast<std::size_t>(item) * classes]);
  });

  const auto all_voxels = static_cast<double>(plan.samples * plan.voxels);
  const auto labels_scored = static_cast<double>(plan.samples * (plan.classes - 1));
  double entropy = 0;
  for (const double part : cross_entropy) entropy += part;
  double dice_sum = 0;
  std::vector<DiceGradient> dice(static_cast<std::size_t>(plan.samples) * classes);
  for (std::int64_t sample = 0; sample < plan.samples; ++sample) {
    for (std::size_t c = 1; c < classes; ++c) {
      ClassSums total;
      for (std::int64_t piece = 0; piece < pieces_of_sample; ++piece) {
        total.Add(sums[static_cast<std::size_t>(sample * pieces_of_sample + piece) * classes + c]);
      }
      const double numerator = 2 * total.common + kSmooth;
      const double denominator =
          std::max(total.probability + total.truth + kSmooth, kSmallestDenominator);
      dice_sum += numerator / denominator;
      dice[static_cast<std::size_t>(sample) * classes + c] = {
          .slope = static_cast<float>(-2 / (labels_scored * denominator)),
          .offset = static_cast<float>(numerator / (labels_scored * denominator * denominator))};
    }
  }
  if (gradient != nullptr) {
    parallel.run(pieces, [&](std::int64_t item) {
      const Piece piece = piece_of(item);
      std::vector<float> scratch(classes * kBlock);
      WritePiece(
          plan, scores, labels, piece, &dice[static_cast<std::size_t>(piece.sample) * classes],
          static_cast<float>(1 / all_voxels), static_cast<float>(weight), scratch.data(), gradient);
    });
  }
  return entropy / all_voxels - dice_sum / labels_scored;
}

template double DiceCrossEntropyLoss(const DiceCrossEntropyPlan&, const float*, const std::uint8_t*,
                                     double, float*, const Parallel&);
template double DiceCrossEntropyLoss(const DiceCrossEntropyPlan&, const Bfloat16*,
                                     const std::uint8_t*, double, Bfloat16*, const Parallel&);

}  // namespace isoscan
