#include "client/harmonization/masked_normalization.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "client/harmonization/foreground.h"
#include "client/kernels/vector_clones.h"
#include "common/status/status_macros.h"
#include <omp.h>

namespace isoscan {
namespace {

/// Sums are taken over blocks of this many voxels and joined in block order, so that the number of
/// threads does not show in the result.
constexpr std::size_t kBlock = std::size_t{1} << 16;

/// Up to here, waking other threads takes longer than the work.
constexpr std::size_t kFewBlocks = 4;

/// Voxels that are worked on at a time, in plain loops that the compiler turns into vector
/// instructions; what lies between two loops stays in the first cache.
constexpr std::size_t kChunk = 256;

/// Sums run over lanes side by side, since the compiler would not change the order of a sum by
/// itself.
constexpr std::size_t kLanes = 8;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));

/// A float as an integer of the same order. NaN lies beyond the infinities.
constexpr std::int32_t OrderOf(float value) {
  const auto bits = std::bit_cast<std::int32_t>(value);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
constexpr float ValueOf(std::int32_t order) {
  return std::bit_cast<float>(order ^ ((order >> 31) & 0x7fffffff));
}
constexpr std::int32_t kInfinity = OrderOf(std::numeric_limits<float>::infinity());

/// A volume whose standard deviation is below this fraction of |mean| + range is rounding noise.
constexpr double kRelativeFloor = 1e-6;

/// Voxels that the provisional mean is taken from.
constexpr std::size_t kProvisional = 1024;

/// Below this share of the second moment about the provisional mean, the variance has lost digits
/// to it, and the moments are taken again about the true mean.
constexpr double kLeastVarianceShare = 0.01;

/// A value that lies on the border between two bins, as round fractions of an integer range do,
/// would fall to either side by rounding once the volume is scaled. Borders are therefore moved up
/// by this fraction of the range: above the rounding of float32, below the steps of a 14-bit
/// scanner.
constexpr float kBorderShift = 3e-5f;

std::size_t BlocksOf(std::size_t voxels) { return (voxels + kBlock - 1) / kBlock; }

/// Passes over a volume alternate between the two: what one has read last is still in the cache.
enum class Order { kForwards, kBackwards };

/// Calls piece(block, first, end) for every block of `voxels` voxels. A thread has the same blocks
/// in every pass, so that they need not come from another core's cache.
template <typename Piece>
void ForEachBlock(std::size_t voxels, Order order, Piece piece) {
  const std::size_t blocks = BlocksOf(voxels);
#pragma omp parallel if (blocks > kFewBlocks)
  {
    const auto threads = static_cast<std::size_t>(omp_get_num_threads());
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const std::size_t first_block = blocks * thread / threads;
    const std::size_t end_block = blocks * (thread + 1) / threads;
    for (std::size_t turn = first_block; turn < end_block; ++turn) {
      const std::size_t block =
          order == Order::kForwards ? turn : first_block + end_block - 1 - turn;
      const std::size_t first = block * kBlock;
      piece(block, first, std::min(first + kBlock, voxels));
    }
  }
}

/// The voxels that statistics are taken of: those of a mask, or all, for which one block of ones
/// stands in place of a mask of the volume's size.
class Chosen {
 public:
  Chosen() : ones_(kBlock, 1) {}
  explicit Chosen(const Mask& mask) : mask_(mask.data()) {}

  /// The mask of the block that begins at voxel `first`.
  const std::uint8_t* Block(std::size_t first) const {
    return mask_ != nullptr ? mask_ + first : ones_.data();
  }
  bool Holds(std::size_t voxel) const { return mask_ == nullptr || mask_[voxel] != 0; }

 private:
  const std::uint8_t* mask_ = nullptr;
  Mask ones_;
};

/// The voxels after the last whole chunk of a block, filled up with zeros that are not chosen.
struct LastChunk {
  std::array<float, kChunk> voxels{};
  std::array<std::uint8_t, kChunk> mask{};

  LastChunk(const float* block, const std::uint8_t* block_mask, std::size_t count) {
    const std::size_t rest = count % kChunk;
    std::copy(block + count - rest, block + count, voxels.begin());
    std::copy(block_mask + count - rest, block_mask + count, mask.begin());
  }
};

/// Number of chosen voxels, and the sums of their first and second powers about `shift`.
struct Moments {
  double shift = 0;
  double first = 0;
  double second = 0;
  std::int64_t voxels = 0;
  bool finite = true;  ///< No voxel is NaN or infinite, chosen or not.

  double count() const { return static_cast<double>(voxels); }
  double mean() const { return shift + first / count(); }
  double variance() const {
    return std::max(0.0, second / count() - first / count() * first / count());
  }
};

ISOSCAN_VECTOR_CLONES
Moments MomentsOfBlock(const float* voxels, const std::uint8_t* mask, std::size_t count,
                       double shift) {
  const LastChunk last(voxels, mask, count);
  Moments result;
  std::int32_t greatest = 0;
  std::array<Doubles, 2> first{};
  std::array<Doubles, 2> second{};
  for (std::size_t i = 0; i < count; i += kChunk) {
    const bool whole = i + kChunk <= count;
    const float* const values = whole ? voxels + i : last.voxels.data();
    const std::uint8_t* const inside = whole ? mask + i : last.mask.data();
    std::int32_t chosen = 0;
    std::array<double, kChunk> deviation;
    for (std::size_t k = 0; k < kChunk; ++k) {
      const std::int32_t magnitude = std::bit_cast<std::int32_t>(values[k]) & 0x7fffffff;
      greatest = magnitude > greatest ? magnitude : greatest;
    }
    for (std::size_t k = 0; k < kChunk; ++k) {
      const double from_shift = static_cast<double>(values[k]) - shift;
      deviation[k] = std::bit_cast<double>(std::bit_cast<std::int64_t>(from_shift) &
                                           -std::int64_t{inside[k] != 0});
    }
    for (std::size_t k = 0; k < kChunk; ++k) chosen += inside[k] != 0;
    for (std::size_t k = 0; k < kChunk; k += 2 * kLanes) {
      for (std::size_t half = 0; half < 2; ++half) {
        Doubles lanes;
        std::memcpy(&lanes, deviation.data() + k + half * kLanes, sizeof(lanes));
        first[half] += lanes;
        second[half] += lanes * lanes;
      }
    }
    result.voxels += chosen;
  }
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      result.first += first[half][lane];
      result.second += second[half][lane];
    }
  }
  result.finite = greatest < kInfinity;
  return result;
}

Moments MomentsAbout(double shift, const Volume& volume, const Chosen& chosen) {
  std::vector<Moments> blocks(BlocksOf(volume.voxels.size()));
  ForEachBlock(volume.voxels.size(), Order::kBackwards,
               [&](std::size_t block, std::size_t first, std::size_t end) {
                 blocks[block] = MomentsOfBlock(volume.voxels.data() + first, chosen.Block(first),
                                                end - first, shift);
               });
  Moments total;
  total.shift = shift;
  for (const Moments& block : blocks) {
    total.voxels += block.voxels;
    total.first += block.first;
    total.second += block.second;
    total.finite = total.finite && block.finite;
  }
  return total;
}

/// The mean of some chosen voxels all over the volume; 0 when none is among them.
double ProvisionalMean(const Volume& volume, const Chosen& chosen) {
  const std::size_t stride = volume.voxels.size() / kProvisional + 1;
  double sum = 0;
  double count = 0;
  for (std::size_t i = stride / 2; i < volume.voxels.size(); i += stride) {
    if (!chosen.Holds(i) || !std::isfinite(volume.voxels[i])) continue;
    sum += volume.voxels[i];
    ++count;
  }
  return count == 0 ? 0 : sum / count;
}

/// Moments in one pass over the volume, as exact as two: about a mean that is nearly the true one,
/// nothing cancels. Where the guess was bad, a second pass takes the mean that the first one found.
Moments MomentsOf(const Volume& volume, const Chosen& chosen) {
  const Moments moments = MomentsAbout(ProvisionalMean(volume, chosen), volume, chosen);
  if (moments.voxels == 0) return moments;
  if (moments.variance() >= kLeastVarianceShare * moments.second / moments.count()) return moments;
  return MomentsAbout(moments.mean(), volume, chosen);
}

/// Smallest and largest chosen voxel. Where all are chosen, it is not finite if any voxel is not.
struct Range {
  std::int32_t minimum_order = std::numeric_limits<std::int32_t>::max();
  std::int32_t maximum_order = std::numeric_limits<std::int32_t>::min();

  float minimum() const { return ValueOf(minimum_order); }
  float maximum() const { return ValueOf(maximum_order); }
  bool finite() const { return minimum_order > ~kInfinity && maximum_order < kInfinity; }
  double width() const { return static_cast<double>(maximum()) - static_cast<double>(minimum()); }
  void Add(const Range& other) {
    minimum_order = std::min(minimum_order, other.minimum_order);
    maximum_order = std::max(maximum_order, other.maximum_order);
  }
};

ISOSCAN_VECTOR_CLONES
Range RangeOfBlock(const float* voxels, const std::uint8_t* mask, std::size_t count) {
  Range range;
  std::int32_t minimum = range.minimum_order;
  std::int32_t maximum = range.maximum_order;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t order = OrderOf(voxels[i]);
    const std::int32_t outside = std::int32_t{mask[i] != 0} - 1;  // All bits, or none.
    const std::int32_t low = (order & ~outside) | (range.minimum_order & outside);
    const std::int32_t high = (order & ~outside) | (range.maximum_order & outside);
    minimum = low < minimum ? low : minimum;
    maximum = high > maximum ? high : maximum;
  }
  return {.minimum_order = minimum, .maximum_order = maximum};
}

Range RangeOf(const Volume& volume, const Chosen& chosen) {
  std::vector<Range> blocks(BlocksOf(volume.voxels.size()));
  ForEachBlock(volume.voxels.size(), Order::kBackwards,
               [&](std::size_t block, std::size_t first, std::size_t end) {
                 blocks[block] =
                     RangeOfBlock(volume.voxels.data() + first, chosen.Block(first), end - first);
               });
  Range total;
  for (const Range& block : blocks) total.Add(block);
  return total;
}

/// True when the chosen voxels differ by no more than rounding.
bool IsConstant(const Moments& moments, const Volume& volume, const Chosen& chosen) {
  const double deviation = std::sqrt(moments.variance());
  // n values of deviation sd lie within sd * sqrt(2 n), so that the range need hardly ever be
  // known.
  const double widest = deviation * std::sqrt(2 * moments.count()) * 1.001;
  const double mean = std::abs(moments.mean());
  if (deviation > kRelativeFloor * (mean + widest)) return false;
  return !(deviation > kRelativeFloor * (mean + RangeOf(volume, chosen).width()));
}

absl::Status CheckVoxels(const Volume& volume, bool finite) {
  if (volume.voxels.empty()) return absl::InvalidArgumentError("the volume has no voxel");
  if (finite) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} of {} voxels are NaN or infinite: a mean over them means nothing; set them "
                  "to the value of "
                  "air, or leave the case out",
                  std::count_if(volume.voxels.begin(), volume.voxels.end(),
                                [](float voxel) { return !std::isfinite(voxel); }),
                  volume.voxels.size()));
}

absl::Status ConstantVolume(double value) {
  return absl::InvalidArgumentError(fmt::format(
      "every voxel under the mask has the intensity {:g}: a constant volume cannot be normalised; "
      "look at the scan, it is empty or the mask lies beside it",
      value));
}

/// y = (x - mean) * gain, in double.
ISOSCAN_VECTOR_CLONES
void MapBlock(float* voxels, std::size_t count, double mean, double gain) {
  for (std::size_t i = 0; i < count; ++i) {
    voxels[i] = static_cast<float>((static_cast<double>(voxels[i]) - mean) * gain);
  }
}

ISOSCAN_VECTOR_CLONES
void ZeroOutside(float* voxels, const std::uint8_t* mask, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) voxels[i] = mask[i] != 0 ? voxels[i] : 0.0f;
}

IntensityStatistics StatisticsFrom(const Moments& moments) {
  if (moments.voxels == 0) return {};
  return {.mean = moments.mean(),
          .standard_deviation = std::sqrt(moments.variance()),
          .voxels = moments.voxels};
}

absl::StatusOr<IntensityStatistics> NormalizeOver(const Chosen& chosen, Volume& volume,
                                                  HarmonizationPlan::Outside outside) {
  const Moments moments = MomentsOf(volume, chosen);
  RETURN_IF_ERROR(CheckVoxels(volume, moments.finite));
  if (moments.voxels == 0) {
    return absl::InvalidArgumentError(
        fmt::format("the mask is empty: none of {} voxels is chosen", volume.voxels.size()));
  }
  if (IsConstant(moments, volume, chosen)) return ConstantVolume(moments.mean());

  const IntensityStatistics statistics = StatisticsFrom(moments);
  const double gain = 1 / statistics.standard_deviation;
  ForEachBlock(volume.voxels.size(), Order::kForwards,
               [&](std::size_t, std::size_t first, std::size_t end) {
                 float* voxels = volume.voxels.data() + first;
                 MapBlock(voxels, end - first, statistics.mean, gain);
                 if (outside == HarmonizationPlan::Outside::kZero) {
                   ZeroOutside(voxels, chosen.Block(first), end - first);
                 }
               });
  return statistics;
}

/// The place of a value in a histogram over the volume's own range: whole numbers are the borders
/// between bins.
struct RangeBins {
  double minimum = 0;
  double scale = 1;
  double shift = 0;

  RangeBins(const Range& range, double bins)
      : minimum(range.minimum()), scale(bins / range.width()), shift(bins * kBorderShift) {}
};

ISOSCAN_VECTOR_CLONES
void BinsOfBlock(const float* voxels, std::size_t count, const RangeBins bins,
                 std::uint8_t* result) {
  constexpr double kLast = kOtsuBins - 1;
  for (std::size_t i = 0; i < count; ++i) {
    const double position =
        (static_cast<double>(voxels[i]) - bins.minimum) * bins.scale - bins.shift;
    const double positive = position > 0 ? position : 0;
    result[i] =
        static_cast<std::uint8_t>(static_cast<std::int32_t>(positive < kLast ? positive : kLast));
  }
}

/// Counts side by side: neighbouring voxels often share a bin, and a count that has just been
/// written takes long to read.
struct Histogram {
  std::array<std::array<std::int32_t, kOtsuBins>, 4> counts{};

  void Add(const std::uint8_t* bins, std::size_t count) {
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
      for (std::size_t lane = 0; lane < 4; ++lane) ++counts[lane][bins[i + lane]];
    }
    for (; i < count; ++i) ++counts[0][bins[i]];
  }
};

ISOSCAN_VECTOR_CLONES
void MaskAbove(std::uint8_t threshold, std::uint8_t* bins, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) bins[i] = bins[i] > threshold ? 1 : 0;
}

Mask OtsuMask(const Volume& volume, const Range& range) {
  const RangeBins bins(range, static_cast<double>(kOtsuBins));
  Mask mask(volume.voxels.size());
  std::vector<Histogram> blocks(BlocksOf(mask.size()));
  ForEachBlock(mask.size(), Order::kForwards,
               [&](std::size_t block, std::size_t first, std::size_t end) {
                 BinsOfBlock(volume.voxels.data() + first, end - first, bins, mask.data() + first);
                 blocks[block].Add(mask.data() + first, end - first);
               });
  std::array<std::int64_t, kOtsuBins> histogram{};
  for (const Histogram& block : blocks) {
    for (const auto& counts : block.counts) {
      for (std::size_t bin = 0; bin < kOtsuBins; ++bin) histogram[bin] += counts[bin];
    }
  }
  const auto threshold = static_cast<std::uint8_t>(OtsuThreshold(histogram));
  ForEachBlock(mask.size(), Order::kForwards, [&](std::size_t, std::size_t first, std::size_t end) {
    MaskAbove(threshold, mask.data() + first, end - first);
  });
  KeepLargestComponent(mask, volume.geometry.size);
  FillHoles(mask, volume.geometry.size);
  return mask;
}

ISOSCAN_VECTOR_CLONES
void ThresholdBlock(const float* voxels, std::size_t count, const RangeBins bins, double threshold,
                    std::uint8_t* mask) {
  for (std::size_t i = 0; i < count; ++i) {
    const double position =
        (static_cast<double>(voxels[i]) - bins.minimum) * bins.scale - bins.shift;
    mask[i] = position > threshold ? 1 : 0;
  }
}

Mask ThresholdMask(const Volume& volume, const Range& range, double threshold) {
  const RangeBins bins(range, 1.0);
  Mask mask(volume.voxels.size());
  ForEachBlock(mask.size(), Order::kForwards, [&](std::size_t, std::size_t first, std::size_t end) {
    ThresholdBlock(volume.voxels.data() + first, end - first, bins, threshold, mask.data() + first);
  });
  return mask;
}

absl::Status CheckGiven(const Volume& volume, const std::optional<Mask>& given) {
  if (!given.has_value() || given->empty()) {
    return absl::InvalidArgumentError(
        "the study normalises over a given mask, and this case has none: add the mask file, or "
        "choose mask = \"whole\" or \"otsu\" in the study");
  }
  if (given->size() != volume.voxels.size()) {
    return absl::InvalidArgumentError(fmt::format("the given mask has {} voxels, the volume {}",
                                                  given->size(), volume.voxels.size()));
  }
  if (std::none_of(given->begin(), given->end(), [](std::uint8_t voxel) { return voxel != 0; })) {
    return absl::InvalidArgumentError(
        fmt::format("the given mask is empty: none of its {} voxels is set", given->size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Mask> MakeMask(const Volume& volume, const HarmonizationPlan& plan,
                              const std::optional<Mask>& given) {
  if (plan.mask == HarmonizationPlan::Mask::kGiven) {
    RETURN_IF_ERROR(CheckGiven(volume, given));
    return *given;
  }
  if (plan.mask == HarmonizationPlan::Mask::kWhole) return Mask(volume.voxels.size(), 1);

  const Range range = RangeOf(volume, Chosen());
  RETURN_IF_ERROR(CheckVoxels(volume, range.finite()));
  if (!(range.maximum() > range.minimum())) return ConstantVolume(range.minimum());
  if (plan.mask == HarmonizationPlan::Mask::kThreshold) {
    return ThresholdMask(volume, range, plan.threshold);
  }
  return OtsuMask(volume, range);
}

IntensityStatistics StatisticsOf(const Volume& volume, const Mask& mask) {
  return StatisticsFrom(MomentsOf(volume, Chosen(mask)));
}

absl::StatusOr<IntensityStatistics> NormalizeOverMask(Volume& volume, const Mask& mask,
                                                      HarmonizationPlan::Outside outside) {
  if (mask.size() != volume.voxels.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the mask has {} voxels, the volume {}", mask.size(), volume.voxels.size()));
  }
  return NormalizeOver(Chosen(mask), volume, outside);
}

absl::StatusOr<IntensityStatistics> NormalizeWhole(Volume& volume) {
  return NormalizeOver(Chosen(), volume, HarmonizationPlan::Outside::kKeep);
}

absl::Status CheckVoxels(const Volume& volume) {
  return CheckVoxels(volume, RangeOf(volume, Chosen()).finite());
}

}  // namespace isoscan
