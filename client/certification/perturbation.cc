#include "client/certification/perturbation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "client/imaging/resampling.h"

namespace isoscan {
namespace {

constexpr double kReferencePercentile = 0.95;

/// Signal of each voxel -> signal; `map` gets the voxel's index, too.
template <typename Map>
Volume WithSignal(const Volume& scan, double least, Map map) {
  Volume result{.geometry = scan.geometry, .voxels = {}};
  result.voxels.reserve(scan.voxels.size());
  for (std::size_t i = 0; i < scan.voxels.size(); ++i) {
    const double signal = static_cast<double>(scan.voxels[i]) - least;
    result.voxels.push_back(static_cast<float>(least + map(signal, i)));
  }
  return result;
}

/// Coordinates of the voxels along one axis, from -1 to 1; 0 where there is one voxel only.
std::vector<double> CentredCoordinates(std::int64_t size) {
  std::vector<double> coordinates(static_cast<std::size_t>(size), 0.0);
  for (std::int64_t i = 0; size > 1 && i < size; ++i) {
    coordinates[static_cast<std::size_t>(i)] =
        2 * static_cast<double>(i) / static_cast<double>(size - 1) - 1;
  }
  return coordinates;
}

/// signal * (1 + field(u, v, w)) with u, v, w from -1 to 1.
template <typename Field>
Volume WithField(const Volume& scan, double least, Field field) {
  const auto& size = scan.geometry.size;
  const std::array<std::vector<double>, 3> at{
      CentredCoordinates(size[0]), CentredCoordinates(size[1]), CentredCoordinates(size[2])};
  const auto width = static_cast<std::size_t>(size[0]);
  const auto height = static_cast<std::size_t>(size[1]);
  return WithSignal(scan, least, [&](double signal, std::size_t i) {
    return signal *
           (1 + field(at[0][i % width], at[1][i / width % height], at[2][i / width / height]));
  });
}

double ReferenceSignal(const Volume& scan, double least) {
  std::vector<float> values = scan.voxels;
  const auto rank =
      static_cast<std::ptrdiff_t>(kReferencePercentile * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return static_cast<double>(values[static_cast<std::size_t>(rank)]) - least;
}

Volume WithNoise(const Volume& scan, double least, double amount, RandomStream random) {
  const double sd = amount * ReferenceSignal(scan, least);
  std::vector<float> noise(2 * scan.voxels.size());
  random.FillNormal(noise, 1);
  return WithSignal(scan, least, [&](double signal, std::size_t i) {
    return std::hypot(signal + sd * static_cast<double>(noise[2 * i]),
                      sd * static_cast<double>(noise[2 * i + 1]));
  });
}

std::size_t SliceAxis(const Geometry& geometry) {
  const auto& spacing = geometry.spacing_mm;
  std::size_t axis = 2;
  for (std::size_t other : {std::size_t{1}, std::size_t{0}}) {
    // Rounding of a header's spacing must not choose.
    if (spacing[other] > spacing[axis] * (1 + 1e-6)) axis = other;
  }
  return axis;
}

/// Each slice of `grid`, which covers the same extent, as the mean of what it covers of `scan`.
Volume Averaged(const Volume& scan, const Geometry& grid, std::size_t axis) {
  const auto thin = static_cast<double>(scan.geometry.size[axis]);
  const std::int64_t slices = grid.size[axis];
  std::int64_t inner = 1;
  std::int64_t outer = 1;
  for (std::size_t other = 0; other < axis; ++other) inner *= grid.size[other];
  for (std::size_t other = axis + 1; other < 3; ++other) outer *= grid.size[other];
  const double covered = thin / static_cast<double>(slices);

  Volume result{.geometry = grid, .voxels = {}};
  result.voxels.reserve(static_cast<std::size_t>(grid.voxels()));
  std::vector<double> sums(static_cast<std::size_t>(inner));
  for (std::int64_t block = 0; block < outer; ++block) {
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      const double first = covered * static_cast<double>(slice);
      const double last = std::min(first + covered, thin);
      std::fill(sums.begin(), sums.end(), 0.0);
      double total = 0;
      for (auto k = static_cast<std::int64_t>(first); static_cast<double>(k) < last; ++k) {
        const double share =
            std::min(last, static_cast<double>(k + 1)) - std::max(first, static_cast<double>(k));
        total += share;
        const float* from = scan.voxels.data() + (block * scan.geometry.size[axis] + k) * inner;
        for (std::size_t i = 0; i < sums.size(); ++i)
          sums[i] += share * static_cast<double>(from[i]);
      }
      for (const double sum : sums) result.voxels.push_back(static_cast<float>(sum / total));
    }
  }
  return result;
}

Volume WithThickSlices(const Volume& scan, double amount) {
  const std::size_t axis = SliceAxis(scan.geometry);
  std::array<double, 3> spacing{0, 0, 0};
  spacing[axis] = amount * scan.geometry.spacing_mm[axis];
  const Geometry thick = WithSpacing(scan.geometry, spacing);
  if (thick.size == scan.geometry.size) return scan;
  return Resample(Averaged(scan, thick, axis), scan.geometry, ImageInterpolation::kLinear);
}

}  // namespace

Volume Rescaled(const Volume& scan, double scale, double bias) {
  return WithSignal(scan, 0, [&](double value, std::size_t) { return scale * value + bias; });
}

Volume Perturbed(const Volume& scan, Perturbation perturbation, double amount,
                 RandomStream random) {
  if (amount == FactsOf(perturbation).neutral || scan.voxels.empty()) return scan;
  const auto [lowest, highest] = std::minmax_element(scan.voxels.begin(), scan.voxels.end());
  const double least = *lowest;
  const double range = static_cast<double>(*highest) - least;
  switch (perturbation) {
    case Perturbation::kGamma:
      return WithSignal(scan, least, [&](double signal, std::size_t) {
        return range > 0 ? range * std::pow(signal / range, amount) : 0.0;
      });
    case Perturbation::kLinearField:
      return WithField(scan, least,
                       [&](double u, double v, double w) { return amount * (u + v + w) / 3; });
    case Perturbation::kQuadraticField:
      return WithField(scan, least, [&](double u, double v, double w) {
        return amount * (1 - 2 * (u * u + v * v + w * w) / 3);
      });
    case Perturbation::kRicianNoise:
      return WithNoise(scan, least, amount, random);
    case Perturbation::kSliceThickness:
      return WithThickSlices(scan, amount);
    case Perturbation::kNegativeScale:
      return WithSignal(scan, least, [&](double signal, std::size_t) { return range - signal; });
  }
  return scan;
}

}  // namespace isoscan
