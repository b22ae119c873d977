#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace isoscan {

/// N4: the slowly varying bias field of the coil, estimated on a coarse copy of the volume and
/// divided out. Source: docs/references.md#tustison2010.
struct N4Plan {
  std::int64_t shrink = 4;       ///< The coarse copy takes every so many voxels, along each axis.
  std::int64_t levels = 4;       ///< The mesh of control points doubles from level to level.
  std::int64_t iterations = 50;  ///< At most, per level.
  double convergence = 1e-3;     ///< A level ends once its field changes by less than this.
  std::int64_t control_points = 4;  ///< Per axis at the first level; cubic B-splines need 4.

  bool operator==(const N4Plan&) const = default;
};

/// How a scan becomes the network's input: declared steps in a fixed order.
///
///   geometry    canonical orientation (LPS)
///   n4          only where declared; fitted under the mask of the volume as stored
///   mask        made of the corrected volume
///   normalize   statistics per volume, never per patch
///   resample
struct HarmonizationPlan {
  enum class Mask { kWhole, kOtsu, kThreshold, kGiven };
  enum class Outside {
    kKeep,  ///< The same map for every voxel; no anatomy is ever erased.
    kZero,  ///< Voxels outside the mask become 0. Only with Mask::kGiven.
  };
  enum class Normalizer {
    kInstance,     ///< y = (x - mean) / sd, both over the mask, applied to every voxel.
    kZScore,       ///< The same with mean and sd over the whole volume, whatever the mask.
    kNyul,         ///< Percentiles brought onto a standard scale.
    kWhiteStripe,  ///< Zero mean and unit sd of normal-appearing white matter.
    kKde,          ///< Divided by the mode of a tissue.
    kFcm,          ///< Divided by the mean of a tissue that fuzzy c-means finds.
    kLsq,          ///< Divided so that the means of all tissues fit those of the study.
    kNone,         ///< Raw intensities: for comparison only.
  };
  enum class Contrast { kT1w, kT2w, kFlair, kPdw };
  enum class Tissue { kCsf, kGreyMatter, kWhiteMatter };
  enum class Bandwidth { kPackage, kScott };  ///< client/harmonization/tissue_mode.h.
  enum class Interpolation { kLinear, kBSpline };

  std::optional<N4Plan> n4;
  Mask mask = Mask::kWhole;
  double threshold = 0.1;  ///< For kThreshold: a fraction of the volume's own range (min to max).
  Outside outside = Outside::kKeep;
  Normalizer normalize = Normalizer::kInstance;
  std::vector<Contrast> contrasts;       ///< One per channel where NeedsContrast(), else empty.
  Tissue tissue = Tissue::kWhiteMatter;  ///< For kFcm.
  Bandwidth bandwidth = Bandwidth::kPackage;  ///< For kKde.
  /// StandardLength() numbers per channel, channel after channel; empty: the mean over the training
  /// cases of all sites, which takes this place once the study has started.
  std::vector<double> standard;
  std::array<double, 3> spacing_mm{0, 0, 0};  ///< z, y, x; 0 keeps the case's own spacing.
  Interpolation interpolation = Interpolation::kLinear;

  bool operator==(const HarmonizationPlan&) const = default;
};

/// Words of study.toml and of the canonical text.
std::string_view ToString(HarmonizationPlan::Mask mask);
std::string_view ToString(HarmonizationPlan::Outside outside);
std::string_view ToString(HarmonizationPlan::Normalizer normalizer);
std::string_view ToString(HarmonizationPlan::Contrast contrast);
std::string_view ToString(HarmonizationPlan::Tissue tissue);
std::string_view ToString(HarmonizationPlan::Bandwidth bandwidth);
std::string_view ToString(HarmonizationPlan::Interpolation interpolation);

/// For people: "N4, then instance normalisation over Otsu's foreground".
std::string InWords(const HarmonizationPlan& plan);

/// What becomes of x' = s x + b, s > 0: nothing is left of it.
constexpr bool RemovesScaleAndBias(HarmonizationPlan::Normalizer normalizer) {
  return normalizer == HarmonizationPlan::Normalizer::kInstance ||
         normalizer == HarmonizationPlan::Normalizer::kZScore ||
         normalizer == HarmonizationPlan::Normalizer::kNyul ||
         normalizer == HarmonizationPlan::Normalizer::kWhiteStripe;
}

/// What becomes of x' = s x, s > 0: nothing is left of it. The default width of kde's kernel does
/// not follow a scale (docs/decisions/0008-kde-bandwidth.md).
constexpr bool RemovesScale(const HarmonizationPlan& plan) {
  return plan.normalize != HarmonizationPlan::Normalizer::kNone &&
         (plan.normalize != HarmonizationPlan::Normalizer::kKde ||
          plan.bandwidth == HarmonizationPlan::Bandwidth::kScott);
}

/// Which peak is white matter depends on the contrast.
constexpr bool NeedsContrast(HarmonizationPlan::Normalizer normalizer) {
  return normalizer == HarmonizationPlan::Normalizer::kWhiteStripe ||
         normalizer == HarmonizationPlan::Normalizer::kKde;
}

/// Numbers per channel that a population's standard has: landmarks of kNyul, tissue means of kLsq;
/// 0: the normaliser looks at one case alone.
constexpr std::size_t StandardLength(HarmonizationPlan::Normalizer normalizer) {
  return normalizer == HarmonizationPlan::Normalizer::kNyul  ? 11
         : normalizer == HarmonizationPlan::Normalizer::kLsq ? 3
                                                             : 0;
}

/// The contrast that a channel's name says, such as "T1w", "t1" or "FLAIR"; nothing for others.
std::optional<HarmonizationPlan::Contrast> ContrastOf(std::string_view channel);

/// The declared steps as one line of JSON: steps in order, keys sorted, no spaces, numbers as short
/// as they can be read back exactly. A parameter that no declared step uses is left out, a default
/// is written: plans that do the same have the same text, also across versions whose defaults
/// differ. docs/wire-format.md has an example.
std::string CanonicalText(const HarmonizationPlan& plan);

/// SHA-256 of the canonical text: the harmonisation digest.
std::string HarmonizationDigest(const HarmonizationPlan& plan);

/// What a file of weights says about the input that they are for: `harmonization` (the canonical
/// text) and `harmonization_sha256` (its digest).
std::map<std::string, std::string> HarmonizationMetadata(const HarmonizationPlan& plan);

/// OK when `metadata` has the two entries of `plan`. `whose` begins the message: "north's update".
/// Errors: INVALID_ARGUMENT naming both digests.
absl::Status CheckHarmonization(const std::string& whose,
                                const std::map<std::string, std::string>& metadata,
                                const HarmonizationPlan& plan);

}  // namespace isoscan
