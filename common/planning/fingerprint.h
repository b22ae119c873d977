#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/planning/decimal_sketch.h"
#include "common/population/population_mean.h"
#include "common/study/study.h"

namespace isoscan {

/// Number, mean and sum of squared deviations from it.
/// Merge() is Chan's: docs/references.md#chan1979. The mean and standard deviation of a union come
/// out to 1e-12 of the larger of the two, whatever the split; the last bits depend on the order.
struct Moments {
  std::int64_t count = 0;
  double mean = 0;
  double squared_deviations = 0;

  void Merge(const Moments& other);
  /// Of the population (divided by count), as nnU-Net's. 0 where there is no value.
  double StandardDeviation() const;

  bool operator==(const Moments&) const = default;
};

/// What one training case adds to its site's fingerprint; axes in tensor order (z, y, x).
struct CaseMeasures {
  std::array<double, 3> spacing_mm{};
  Triple size{};             ///< Voxels, once the empty rim is cropped.
  double relative_size = 1;  ///< Voxels after cropping, as a share of those before; (0, 1].
  /// Per channel, the intensities under any label, in any order; none where the case has no label.
  std::vector<std::span<const float>> foreground;
};

/// Intensities under the labels, of one channel. Every case weighs the same, however many voxels
/// its labels have: it counts as kDrawsPerCase draws of its own distribution.
struct ForegroundIntensities {
  static constexpr std::int64_t kDrawsPerCase = 10'000;

  Moments moments;
  DecimalSketch quantiles{3};

  void Merge(const ForegroundIntensities& other);
  bool operator==(const ForegroundIntensities&) const = default;
};

/// What the planner needs to know of a cohort, and nothing of a single case: a site adds its cases,
/// sends Disclosed(), and the server merges the sites'. Every part but the moments, so everything
/// that a plan depends on, merges to the same bits whatever the split over sites and the order.
/// docs/planning.md says what each part gives away.
struct Fingerprint {
  std::int64_t channels = 0;
  std::int64_t classes = 0;  ///< Labels and background.
  std::int64_t cases = 0;    ///< Training cases; more than are described where sites are small.
  std::array<DecimalSketch, 3> spacing_mm = {DecimalSketch(4), DecimalSketch(4), DecimalSketch(4)};
  std::array<DecimalSketch, 3> size = {DecimalSketch(4), DecimalSketch(4), DecimalSketch(4)};
  /// Spacing times size of each case: what the sizes on a common grid follow from.
  std::array<DecimalSketch, 3> extent_mm = {DecimalSketch(5), DecimalSketch(5), DecimalSketch(5)};
  DecimalSketch relative_size{4};
  std::vector<ForegroundIntensities> intensities;  ///< One per channel.

  /// Of no case yet.
  static Fingerprint Empty(std::int64_t channels, std::int64_t classes);

  /// Cases that the distributions hold.
  std::int64_t described_cases() const { return relative_size.count(); }

  /// Errors: INVALID_ARGUMENT naming the number: spacing not in [0.001, 1000] mm, size not
  ///         in [1, 100000] voxels, relative size not in (0, 1], another number of channels than
  ///         the fingerprint's, an intensity that is NaN or not below 1e12. The fingerprint is then
  ///         as before.
  absl::Status AddCase(const CaseMeasures& measures);

  bool operator==(const Fingerprint&) const = default;
};

/// Every sketch of a fingerprint in a fixed order, for who stores or carries them: spacing, size
/// and extent along z, y and x each, relative size (kSketchesOfGrids so far), the intensities of
/// each channel.
inline constexpr std::size_t kSketchesOfGrids = 10;
std::vector<DecimalSketch*> Sketches(Fingerprint& fingerprint);
std::vector<const DecimalSketch*> Sketches(const Fingerprint& fingerprint);

/// What may leave a site: under kMinimumCasesOfSum training cases their number alone; intensities
/// of a channel only where so many cases have labels.
Fingerprint Disclosed(const Fingerprint& fingerprint);

/// Errors: INVALID_ARGUMENT naming the site and the number: another number of channels or classes,
///         fewer than kMinimumCasesOfSum cases described, distributions of different numbers of
///         cases or with values that AddCase refuses, moments that are not finite. Sketches have
///         been checked by DecimalSketch::FromBuckets.
absl::Status CheckFingerprint(const std::string& site, const Fingerprint& fingerprint,
                              std::int64_t channels, std::int64_t classes);

/// The fingerprint of all sites' cases from what the sites have disclosed, merged in the order of
/// their names.
///
/// Errors: FAILED_PRECONDITION no site has disclosed distributions;
///         those of CheckFingerprint.
absl::StatusOr<Fingerprint> PooledFingerprint(const std::map<std::string, Fingerprint>& sites,
                                              std::int64_t channels, std::int64_t classes);

}  // namespace isoscan
