#include "client/harmonization/tissue_mode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// exp(-z^2 / 2) is 0 in double beyond.
constexpr double kVanishes = 39;

/// The share of intensities, from below, that the peak is looked for in.
double ShareOf(Contrast contrast) {
  return contrast == Contrast::kT1w ? 0.96 : contrast == Contrast::kPdw ? 0.99 : 1.0;
}

double PlaceOf(const IntensityRange& range, std::size_t point) {
  constexpr auto kLast = static_cast<double>(kDensityPoints - 1);
  return range.minimum + static_cast<double>(point) * ((range.maximum - range.minimum) / kLast);
}

std::size_t PeakOf(const std::vector<double>& density, Contrast contrast) {
  const auto highest = static_cast<std::size_t>(
      std::distance(density.begin(), std::max_element(density.begin(), density.end())));
  if (contrast == Contrast::kT2w || contrast == Contrast::kFlair) return highest;
  std::vector<std::size_t> peaks;
  for (std::size_t i = 1; i + 1 < density.size(); ++i) {
    if (density[i] > density[i - 1] && density[i] > density[i + 1]) peaks.push_back(i);
  }
  if (peaks.empty()) return highest;
  return contrast == Contrast::kT1w ? peaks.back() : peaks.front();
}

}  // namespace

std::vector<double> KernelDensity(std::span<const IntensityBin> bins, const IntensityRange& range,
                                  Bandwidth bandwidth) {
  double sum = 0;
  double voxels = 0;
  for (const IntensityBin& bin : bins) {
    sum += bin.mean * static_cast<double>(bin.voxels);
    voxels += static_cast<double>(bin.voxels);
  }
  const double mean = sum / voxels;
  double squares = 0;
  for (const IntensityBin& bin : bins) {
    squares += (bin.mean - mean) * (bin.mean - mean) * static_cast<double>(bin.voxels);
  }
  const double factor =
      bandwidth == Bandwidth::kScott ? std::pow(voxels, -0.2) : std::abs(range.maximum) / 80;
  const double width = std::sqrt(squares / (voxels - 1)) * factor;

  std::vector<double> density(kDensityPoints);
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t point = 0; point < kDensityPoints; ++point) {
    const double place = PlaceOf(range, point);
    double total = 0;
    for (const IntensityBin& bin : bins) {
      const double z = (bin.mean - place) / width;
      if (std::abs(z) < kVanishes)
        total += static_cast<double>(bin.voxels) * std::exp(-0.5 * z * z);
    }
    density[point] = total / (voxels * width * std::sqrt(2 * std::numbers::pi));
  }
  return density;
}

absl::StatusOr<double> TissueMode(const Volume& volume, const Mask& mask, Contrast contrast,
                                  Bandwidth bandwidth) {
  ASSIGN_OR_RETURN(IntensityRange range, RangeOverMask(volume, mask));
  if (const double share = ShareOf(contrast); share < 1) {
    const double limit = QuantilesOverMask(volume, mask, range, {{share}}).front();
    ASSIGN_OR_RETURN(range, RangeOverMask(volume, mask, limit));
  }
  const std::vector<double> density =
      KernelDensity(BinsOverMask(volume, mask, range), range, bandwidth);
  return PlaceOf(range, PeakOf(density, contrast));
}

absl::StatusOr<AffineMap> FitTissueMode(const Volume& volume, const Mask& mask, Contrast contrast,
                                        Bandwidth bandwidth) {
  ASSIGN_OR_RETURN(const double mode, TissueMode(volume, mask, contrast, bandwidth));
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  RETURN_IF_ERROR(CheckDivisor(mode, range, "the tissue's mode"));
  return AffineMap{.shift = 0, .scale = mode};
}

}  // namespace isoscan
