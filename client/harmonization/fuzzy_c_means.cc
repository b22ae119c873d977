#include "client/harmonization/fuzzy_c_means.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

constexpr int kIterations = 10'000;
constexpr double kStill = 1e-10;  ///< Of the range.

/// How much a value belongs to each class: inversely to its squared distance, in sum 1.
PerTissueClass MembershipsOf(double value, const PerTissueClass& centers, double least_square) {
  PerTissueClass membership;
  double sum = 0;
  for (std::size_t k = 0; k < kTissueClasses; ++k) {
    const double distance = value - centers[k];
    membership[k] = 1 / std::max(distance * distance, least_square);
    sum += membership[k];
  }
  for (double& share : membership) share /= sum;
  return membership;
}

/// Means of the bins, weighted by membership to the power of 1 or 2.
PerTissueClass WeightedMeans(std::span<const IntensityBin> bins, const PerTissueClass& centers,
                             double least_square, bool squared) {
  PerTissueClass weights{};
  PerTissueClass sums{};
  for (const IntensityBin& bin : bins) {
    const PerTissueClass membership = MembershipsOf(bin.mean, centers, least_square);
    for (std::size_t k = 0; k < kTissueClasses; ++k) {
      const double weight =
          static_cast<double>(bin.voxels) * membership[k] * (squared ? membership[k] : 1);
      weights[k] += weight;
      sums[k] += weight * bin.mean;
    }
  }
  for (std::size_t k = 0; k < kTissueClasses; ++k) sums[k] /= weights[k];
  return sums;
}

}  // namespace

PerTissueClass MovedCenters(std::span<const IntensityBin> bins, const PerTissueClass& centers,
                            double least_square) {
  return WeightedMeans(bins, centers, least_square, /*squared=*/true);
}

absl::StatusOr<TissueClasses> FindTissueClasses(const Volume& volume, const Mask& mask) {
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  const std::vector<IntensityBin> bins = BinsOverMask(volume, mask, range);
  if (bins.size() < kTissueClasses) {
    return absl::InvalidArgumentError(
        fmt::format("{} voxels under the mask have {} distinct intensities, from {:g} to {:g}: "
                    "three tissues need at least three",
                    range.voxels, bins.size(), range.minimum, range.maximum));
  }
  const IntensityStatistics statistics = StatisticsOf(volume, mask);
  const double width = range.maximum - range.minimum;
  const double least_square = 1e-30 * width * width;

  TissueClasses classes;
  classes.centers = {statistics.mean - statistics.standard_deviation, statistics.mean,
                     statistics.mean + statistics.standard_deviation};
  double moved = width;
  while (moved > kStill * width) {
    if (classes.iterations == kIterations) {
      return absl::InvalidArgumentError(
          fmt::format("after {} iterations the tissue classes at {:g}, {:g} and {:g} still move: "
                      "the intensities under the mask form no three classes",
                      kIterations, classes.centers[0], classes.centers[1], classes.centers[2]));
    }
    const PerTissueClass next = MovedCenters(bins, classes.centers, least_square);
    moved = 0;
    for (std::size_t k = 0; k < kTissueClasses; ++k) {
      moved = std::max(moved, std::abs(next[k] - classes.centers[k]));
    }
    classes.centers = next;
    ++classes.iterations;
  }
  std::sort(classes.centers.begin(), classes.centers.end());
  classes.means = WeightedMeans(bins, classes.centers, least_square, /*squared=*/false);
  return classes;
}

absl::StatusOr<AffineMap> FitTissueMean(const Volume& volume, const Mask& mask,
                                        HarmonizationPlan::Tissue tissue) {
  ASSIGN_OR_RETURN(const TissueClasses classes, FindTissueClasses(volume, mask));
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  const double mean = classes.means[static_cast<std::size_t>(tissue)];
  RETURN_IF_ERROR(CheckDivisor(mean, range, "the tissue's mean"));
  return AffineMap{.shift = 0, .scale = mean};
}

}  // namespace isoscan
