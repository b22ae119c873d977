#include "client/intake/mask_advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"

#include "client/harmonization/masked_normalization.h"
#include "client/imaging/orientation.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {
namespace {

/// Every n-th voxel of each axis, canonical.
Volume Thinned(const Volume& volume, const Geometry& canonical, std::int64_t n) {
  Volume thinned;
  thinned.geometry = canonical;
  for (std::int64_t& size : thinned.geometry.size) size = (size + n - 1) / n;
  thinned.voxels.reserve(static_cast<std::size_t>(thinned.geometry.voxels()));
  const CanonicalWalk walk = CanonicalWalkOf(volume.geometry);
  for (std::int64_t z = 0; z < canonical.size[2]; z += n) {
    for (std::int64_t y = 0; y < canonical.size[1]; y += n) {
      const std::int64_t row = walk.first + z * walk.step[2] + y * walk.step[1];
      for (std::int64_t x = 0; x < canonical.size[0]; x += n) {
        thinned.voxels.push_back(volume.voxels[static_cast<std::size_t>(row + x * walk.step[0])]);
      }
    }
  }
  return thinned;
}

std::optional<MaskShare> ShareOf(const Volume& thinned, const Geometry& canonical, std::int64_t n,
                                 const LabelSlices& labels, HarmonizationPlan::Mask kind) {
  HarmonizationPlan plan;
  plan.mask = kind;
  const absl::StatusOr<Mask> mask = MakeMask(thinned, plan);
  if (!mask.ok()) return std::nullopt;
  std::int64_t labelled = 0;
  std::int64_t held = 0;
  std::int64_t chosen = 0;
  auto voxel = mask->begin();
  std::vector<std::uint8_t> slice;
  for (std::int64_t z = 0; z < canonical.size[2]; z += n) {
    labels.Read(z, slice);
    for (std::int64_t y = 0; y < canonical.size[1]; y += n) {
      const std::int64_t row = y * canonical.size[0];
      for (std::int64_t x = 0; x < canonical.size[0]; x += n, ++voxel) {
        chosen += *voxel != 0 ? 1 : 0;
        if (slice[static_cast<std::size_t>(row + x)] == 0) continue;
        ++labelled;
        held += *voxel != 0 ? 1 : 0;
      }
    }
  }
  if (labelled == 0) return std::nullopt;
  return MaskShare{.labelled = static_cast<double>(held) / static_cast<double>(labelled),
                   .all = static_cast<double>(chosen) / static_cast<double>(mask->size())};
}

MaskAdvice::Held HeldOf(std::vector<double> shares) {
  MaskAdvice::Held held;
  if (shares.empty()) return held;
  std::sort(shares.begin(), shares.end());
  held.median = shares[shares.size() / 2];
  held.least = shares.front();
  held.below_half =
      std::count_if(shares.begin(), shares.end(), [](double share) { return share < 0.5; });
  return held;
}

}  // namespace

std::int64_t MaskStride(const Geometry& canonical) {
  constexpr std::int64_t kLargestWhole = std::int64_t{1} << 24;
  constexpr std::int64_t kLargestThinned = std::int64_t{1} << 22;
  if (canonical.voxels() <= kLargestWhole) return 1;
  std::int64_t n = 2;
  while (canonical.voxels() / (n * n * n) > kLargestThinned) ++n;
  return n;
}

void MeasureMasks(CaseSight& sight, Volume volume, const LabelSlices& labels) {
  const Geometry canonical = CanonicalGeometry(volume.geometry);
  const std::int64_t n = MaskStride(canonical);
  const Volume thinned = n == 1 ? ToCanonical(std::move(volume)) : Thinned(volume, canonical, n);
  volume = Volume();  // Making a mask takes as much as a volume again.
  sight.otsu = ShareOf(thinned, canonical, n, labels, HarmonizationPlan::Mask::kOtsu);
  sight.threshold = ShareOf(thinned, canonical, n, labels, HarmonizationPlan::Mask::kThreshold);
}

MaskAdvice AdviseMask(const std::vector<const CaseSight*>& cases) {
  MaskAdvice advice;
  std::vector<double> otsu;
  std::vector<double> threshold;
  for (const CaseSight* sight : cases) {
    if (sight->images.empty() || !sight->images.front().read) continue;
    const Extent extent = sight->images.front().extent;
    advice.crops += extent == Extent::kCrop ? 1 : 0;
    advice.in_air += extent == Extent::kInAir ? 1 : 0;
    advice.skull_stripped += extent == Extent::kSkullStripped ? 1 : 0;
    if (sight->otsu.has_value()) otsu.push_back(sight->otsu->labelled);
    if (sight->threshold.has_value()) threshold.push_back(sight->threshold->labelled);
  }
  const std::int64_t read = advice.crops + advice.in_air + advice.skull_stripped;
  if (read == 0) return advice;
  advice.labelled = static_cast<std::int64_t>(otsu.size());
  advice.otsu = HeldOf(std::move(otsu));
  advice.threshold = HeldOf(std::move(threshold));

  const std::string held =
      advice.labelled == 0
          ? std::string("no label tells what a mask would cut")
          : fmt::format(
                "otsu holds {:.1f} % of the labelled voxels in the median case and {:.1f} % "
                "in the worst, threshold {:.1f} and {:.1f} %",
                100 * advice.otsu.median, 100 * advice.otsu.least, 100 * advice.threshold.median,
                100 * advice.threshold.least);
  if (2 * advice.crops >= read) {
    advice.mask = "whole";
    advice.reason = fmt::format(
        "tissue reaches the border in {} of {} cases, so that there is no "
        "air to leave out; {}",
        advice.crops, read, held);
    return advice;
  }
  // A mask that holds nearly all labelled voxels in nearly every case; otsu first, since it follows
  // each volume's own histogram.
  const auto holds = [&advice](const MaskAdvice::Held& mask) {
    return advice.labelled == 0 || (mask.median >= 0.99 && 20 * mask.below_half <= advice.labelled);
  };
  advice.mask = holds(advice.otsu) ? "otsu" : holds(advice.threshold) ? "threshold" : "whole";
  const bool stripped = 2 * advice.skull_stripped >= read;
  advice.reason = fmt::format(
      "{} of {} cases are {}; {}", stripped ? advice.skull_stripped : advice.in_air, read,
      stripped ? "skull-stripped or cut out: one exact value all around" : "surrounded by air",
      held);
  return advice;
}

}  // namespace isoscan
