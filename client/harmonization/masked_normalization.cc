#include "client/harmonization/masked_normalization.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "client/harmonization/foreground.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// Sums are taken over blocks of this many voxels and joined in block order, so that the number of
/// threads does not show in the result.
constexpr std::size_t kBlock = std::size_t{1} << 16;

/// Up to here, waking other threads takes longer than the work.
constexpr std::int64_t kFewBlocks = 4;

/// Partial sums side by side, which the compiler turns into vector instructions.
constexpr std::size_t kLanes = 8;

/// A volume whose standard deviation is below this fraction of |mean| + range is rounding noise.
constexpr double kRelativeFloor = 1e-6;

/// A value that lies on the border between two bins, as round fractions of an integer range do,
/// would fall to either side by rounding once the volume is scaled. Borders are therefore moved up
/// by this fraction of the range: above the rounding of float32, below the steps of a 14-bit
/// scanner.
constexpr float kBorderShift = 3e-5f;

struct Sums {
  double sum = 0;
  double minimum = std::numeric_limits<double>::infinity();
  double maximum = -std::numeric_limits<double>::infinity();
  std::int64_t voxels = 0;
  std::int64_t not_finite = 0;  ///< NaN or infinite, inside the mask or not.
};

std::size_t BlocksOf(std::size_t voxels) { return (voxels + kBlock - 1) / kBlock; }

/// Calls piece(block, first, end) for every block of `voxels` voxels, on all threads.
template <typename Piece>
void ForEachBlock(std::size_t voxels, Piece piece) {
  const auto blocks = static_cast<std::int64_t>(BlocksOf(voxels));
#pragma omp parallel for if (blocks > kFewBlocks)
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::size_t first = static_cast<std::size_t>(block) * kBlock;
    piece(static_cast<std::size_t>(block), first, std::min(first + kBlock, voxels));
  }
}

bool IsFinite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

Sums SumsOfBlock(const float* voxels, const std::uint8_t* mask, std::size_t count) {
  std::array<double, kLanes> sum{};
  std::array<float, kLanes> minimum{};
  std::array<float, kLanes> maximum{};
  std::array<std::int32_t, kLanes> chosen{};
  std::array<std::int32_t, kLanes> not_finite{};
  minimum.fill(std::numeric_limits<float>::infinity());
  maximum.fill(-std::numeric_limits<float>::infinity());
  const auto add = [&](std::size_t lane, std::size_t i) {
    const float value = voxels[i];
    const bool inside = mask[i] != 0;
    const float low = inside ? value : std::numeric_limits<float>::infinity();
    const float high = inside ? value : -std::numeric_limits<float>::infinity();
    sum[lane] += inside ? static_cast<double>(value) : 0.0;
    minimum[lane] = low < minimum[lane] ? low : minimum[lane];
    maximum[lane] = high > maximum[lane] ? high : maximum[lane];
    chosen[lane] += inside ? 1 : 0;
    not_finite[lane] += IsFinite(value) ? 0 : 1;
  };
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (; i < count; ++i) add(0, i);

  Sums result;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    result.sum += sum[lane];
    result.minimum = std::min(result.minimum, static_cast<double>(minimum[lane]));
    result.maximum = std::max(result.maximum, static_cast<double>(maximum[lane]));
    result.voxels += chosen[lane];
    result.not_finite += not_finite[lane];
  }
  return result;
}

Sums SumsOf(const Volume& volume, const Mask& mask) {
  std::vector<Sums> blocks(BlocksOf(volume.voxels.size()));
  ForEachBlock(volume.voxels.size(), [&](std::size_t block, std::size_t first, std::size_t end) {
    blocks[block] = SumsOfBlock(volume.voxels.data() + first, mask.data() + first, end - first);
  });
  Sums total;
  for (const Sums& block : blocks) {
    total.sum += block.sum;
    total.minimum = std::min(total.minimum, block.minimum);
    total.maximum = std::max(total.maximum, block.maximum);
    total.voxels += block.voxels;
    total.not_finite += block.not_finite;
  }
  return total;
}

/// First and second moment about `mean`; the first is what rounding left of it.
struct Deviations {
  double first = 0;
  double second = 0;
};

Deviations DeviationsOfBlock(const float* voxels, const std::uint8_t* mask, std::size_t count,
                             double mean) {
  std::array<double, kLanes> first{};
  std::array<double, kLanes> second{};
  const auto add = [&](std::size_t lane, std::size_t i) {
    const double deviation = mask[i] != 0 ? static_cast<double>(voxels[i]) - mean : 0.0;
    first[lane] += deviation;
    second[lane] += deviation * deviation;
  };
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (; i < count; ++i) add(0, i);

  Deviations result;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    result.first += first[lane];
    result.second += second[lane];
  }
  return result;
}

IntensityStatistics StatisticsFrom(const Sums& sums, const Volume& volume, const Mask& mask) {
  IntensityStatistics statistics;
  statistics.voxels = sums.voxels;
  if (sums.voxels == 0) return statistics;
  const auto count = static_cast<double>(sums.voxels);
  const double mean = sums.sum / count;

  std::vector<Deviations> blocks(BlocksOf(volume.voxels.size()));
  ForEachBlock(volume.voxels.size(), [&](std::size_t block, std::size_t first, std::size_t end) {
    blocks[block] =
        DeviationsOfBlock(volume.voxels.data() + first, mask.data() + first, end - first, mean);
  });
  Deviations total;
  for (const Deviations& block : blocks) {
    total.first += block.first;
    total.second += block.second;
  }
  statistics.mean = mean + total.first / count;
  statistics.standard_deviation =
      std::sqrt(std::max(0.0, total.second / count - total.first / count * total.first / count));
  return statistics;
}

absl::Status CheckVoxels(const Volume& volume, const Sums& sums) {
  if (volume.voxels.empty()) return absl::InvalidArgumentError("the volume has no voxel");
  if (sums.not_finite == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} of {} voxels are NaN or infinite: a mean over them means nothing; set them "
                  "to the value of "
                  "air, or leave the case out",
                  sums.not_finite, volume.voxels.size()));
}

absl::Status ConstantVolume(double value) {
  return absl::InvalidArgumentError(fmt::format(
      "every voxel under the mask has the intensity {:g}: a constant volume cannot be normalised; "
      "look at the scan, it is empty or the mask lies beside it",
      value));
}

/// Voxels above `bin` of a histogram over the volume's own range, which starts at `minimum`.
class RangeBins {
 public:
  RangeBins(const Sums& sums, double bins)
      : minimum_(sums.minimum),
        scale_(bins / (sums.maximum - sums.minimum)),
        shift_(bins * kBorderShift) {}

  /// In [-1, bins): whole numbers are the borders between bins.
  double PositionOf(float value) const {
    return (static_cast<double>(value) - minimum_) * scale_ - shift_;
  }

 private:
  double minimum_;
  double scale_;
  double shift_;
};

Mask OtsuMask(const Volume& volume, const Sums& sums) {
  const RangeBins bins(sums, static_cast<double>(kOtsuBins));
  const auto bin_of = [&bins](float value) {
    return static_cast<std::uint8_t>(
        std::clamp(bins.PositionOf(value), 0.0, static_cast<double>(kOtsuBins - 1)));
  };
  Mask mask(volume.voxels.size());
  std::vector<std::array<std::int32_t, kOtsuBins>> counts(BlocksOf(mask.size()));
  ForEachBlock(mask.size(), [&](std::size_t block, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) {
      mask[i] = bin_of(volume.voxels[i]);
      ++counts[block][mask[i]];
    }
  });
  std::array<std::int64_t, kOtsuBins> histogram{};
  for (const auto& block : counts) {
    for (std::size_t bin = 0; bin < kOtsuBins; ++bin) histogram[bin] += block[bin];
  }
  const std::size_t threshold = OtsuThreshold(histogram);
  for (std::uint8_t& voxel : mask) voxel = voxel > threshold ? 1 : 0;
  KeepLargestComponent(mask, volume.geometry.size);
  FillHoles(mask, volume.geometry.size);
  return mask;
}

Mask ThresholdMask(const Volume& volume, const Sums& sums, double threshold) {
  const RangeBins range(sums, 1.0);
  Mask mask(volume.voxels.size());
  ForEachBlock(mask.size(), [&](std::size_t, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) {
      mask[i] = range.PositionOf(volume.voxels[i]) > threshold ? 1 : 0;
    }
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
  const Mask whole(volume.voxels.size(), 1);
  if (plan.mask == HarmonizationPlan::Mask::kWhole) return whole;

  const Sums sums = SumsOf(volume, whole);
  RETURN_IF_ERROR(CheckVoxels(volume, sums));
  if (!(sums.maximum > sums.minimum)) return ConstantVolume(sums.minimum);
  if (plan.mask == HarmonizationPlan::Mask::kThreshold) {
    return ThresholdMask(volume, sums, plan.threshold);
  }
  return OtsuMask(volume, sums);
}

IntensityStatistics StatisticsOf(const Volume& volume, const Mask& mask) {
  return StatisticsFrom(SumsOf(volume, mask), volume, mask);
}

absl::StatusOr<IntensityStatistics> NormalizeOverMask(Volume& volume, const Mask& mask,
                                                      HarmonizationPlan::Outside outside) {
  if (mask.size() != volume.voxels.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the mask has {} voxels, the volume {}", mask.size(), volume.voxels.size()));
  }
  const Sums sums = SumsOf(volume, mask);
  RETURN_IF_ERROR(CheckVoxels(volume, sums));
  if (sums.voxels == 0) {
    return absl::InvalidArgumentError(
        fmt::format("the mask is empty: none of {} voxels is chosen", mask.size()));
  }
  const IntensityStatistics statistics = StatisticsFrom(sums, volume, mask);
  const double floor = kRelativeFloor * (std::abs(statistics.mean) + (sums.maximum - sums.minimum));
  if (!(statistics.standard_deviation > floor)) return ConstantVolume(statistics.mean);

  const double mean = statistics.mean;
  const double gain = 1 / statistics.standard_deviation;
  const bool zero_outside = outside == HarmonizationPlan::Outside::kZero;
  ForEachBlock(volume.voxels.size(), [&](std::size_t, std::size_t first, std::size_t end) {
    float* voxels = volume.voxels.data();
    for (std::size_t i = first; i < end; ++i) {
      voxels[i] = static_cast<float>((static_cast<double>(voxels[i]) - mean) * gain);
    }
    if (!zero_outside) return;
    for (std::size_t i = first; i < end; ++i) voxels[i] = mask[i] != 0 ? voxels[i] : 0.0f;
  });
  return statistics;
}

absl::Status CheckVoxels(const Volume& volume) {
  return CheckVoxels(volume, SumsOf(volume, Mask(volume.voxels.size(), 1)));
}

}  // namespace isoscan
