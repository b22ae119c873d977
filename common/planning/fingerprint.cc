#include "common/planning/fingerprint.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <utility>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

struct Range {
  double lowest;
  double highest;

  bool Holds(double value) const { return value >= lowest && value <= highest; }  // Never NaN.
};

// Wider than any scanner's, and narrow enough that no sum or product of a planner overflows.
constexpr Range kSpacingMm = {1e-3, 1e3};
constexpr Range kSize = {1, 1e5};
constexpr Range kExtentMm = {kSpacingMm.lowest * kSize.lowest, kSpacingMm.highest* kSize.highest};
constexpr Range kRelativeSize = {DecimalSketch::kSmallest, 1};
constexpr std::int64_t kMaximumCases = 1'000'000'000;
constexpr std::array<const char*, 3> kAxes = {"z", "y", "x"};

// Of at least one value: two passes, so that a large mean costs no digits.
Moments MomentsOf(std::span<const float> values) {
  Moments moments{.count = static_cast<std::int64_t>(values.size())};
  for (const float value : values) moments.mean += static_cast<double>(value);
  moments.mean /= static_cast<double>(values.size());
  for (const float value : values) {
    const double deviation = static_cast<double>(value) - moments.mean;
    moments.squared_deviations += deviation * deviation;
  }
  return moments;
}

// One case as kDrawsPerCase draws: its moments scaled, and evenly spaced ranks of its values.
ForegroundIntensities EqualShare(std::span<const float> values) {
  constexpr std::int64_t kDraws = ForegroundIntensities::kDrawsPerCase;
  ForegroundIntensities share;
  share.moments = MomentsOf(values);
  share.moments.squared_deviations *=
      static_cast<double>(kDraws) / static_cast<double>(share.moments.count);
  share.moments.count = kDraws;

  DecimalSketch all(share.quantiles.digits());
  for (const float value : values) all.Add(static_cast<double>(value));
  // Draw i has the rank floor((i + 1/2) / kDraws * count).
  const auto draws_below = [&](std::int64_t rank) {
    return (2 * rank * kDraws + all.count() - 1) / (2 * all.count());
  };
  std::int64_t rank = 0;
  for (const auto& [key, count] : all.buckets()) {
    const std::int64_t draws = draws_below(rank + count) - draws_below(rank);
    if (draws > 0) share.quantiles.Add(all.ValueOf(key), draws);
    rank += count;
  }
  return share;
}

absl::Status CheckMeasures(const CaseMeasures& measures, std::int64_t channels) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (!kSpacingMm.Holds(measures.spacing_mm[axis])) {
      return absl::InvalidArgumentError(
          fmt::format("a spacing of {} mm along {}", measures.spacing_mm[axis], kAxes[axis]));
    }
    if (!kSize.Holds(static_cast<double>(measures.size[axis]))) {
      return absl::InvalidArgumentError(
          fmt::format("a size of {} voxels along {}", measures.size[axis], kAxes[axis]));
    }
  }
  if (!kRelativeSize.Holds(measures.relative_size)) {
    return absl::InvalidArgumentError(
        fmt::format("a relative size of {} after cropping", measures.relative_size));
  }
  if (static_cast<std::int64_t>(measures.foreground.size()) != channels) {
    return absl::InvalidArgumentError(fmt::format("a case of {} channels, the cohort has {}",
                                                  measures.foreground.size(), channels));
  }
  for (const std::span<const float> intensities : measures.foreground) {
    for (const float intensity : intensities) {
      if (!DecimalSketch::Holds(static_cast<double>(intensity))) {
        return absl::InvalidArgumentError(fmt::format("an intensity of {}", intensity));
      }
    }
  }
  return absl::OkStatus();
}

void Merge(const Fingerprint& other, Fingerprint& fingerprint) {
  fingerprint.cases += other.cases;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    fingerprint.spacing_mm[axis].Merge(other.spacing_mm[axis]);
    fingerprint.size[axis].Merge(other.size[axis]);
    fingerprint.extent_mm[axis].Merge(other.extent_mm[axis]);
  }
  fingerprint.relative_size.Merge(other.relative_size);
  for (std::size_t channel = 0; channel < other.intensities.size(); ++channel) {
    fingerprint.intensities[channel].Merge(other.intensities[channel]);
  }
}

template <typename Sketch, typename Owner>
std::vector<Sketch*> SketchesOf(Owner& fingerprint) {
  std::vector<Sketch*> sketches;
  for (auto* const triple : {&fingerprint.spacing_mm, &fingerprint.size, &fingerprint.extent_mm}) {
    for (Sketch& sketch : *triple) sketches.push_back(&sketch);
  }
  sketches.push_back(&fingerprint.relative_size);
  for (auto& channel : fingerprint.intensities) sketches.push_back(&channel.quantiles);
  return sketches;
}

absl::Status CheckSketch(const std::string& site, const DecimalSketch& sketch,
                         std::int64_t described, const Range& range) {
  if (sketch.count() != described) {
    return absl::InvalidArgumentError(fmt::format(
        "{} declared a distribution of {} cases, expected {}", site, sketch.count(), described));
  }
  if (described == 0) return absl::OkStatus();
  const double lowest = sketch.ValueAt(0);
  const double highest = sketch.ValueAt(described - 1);
  if (range.Holds(lowest) && range.Holds(highest)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} declared a distribution from {} to {}, allowed are {} to {}", site, lowest,
                  highest, range.lowest, range.highest));
}

absl::Status CheckIntensities(const std::string& site, const ForegroundIntensities& intensities,
                              std::int64_t cases) {
  constexpr std::int64_t kDraws = ForegroundIntensities::kDrawsPerCase;
  const std::int64_t draws = intensities.quantiles.count();
  const Moments& moments = intensities.moments;
  const bool enough = draws >= kMinimumCasesOfSum * kDraws || draws == 0;
  if (draws % kDraws != 0 || !enough || draws > cases * kDraws || moments.count != draws) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared intensities of {} draws and moments of {}; of {} cases, {} each "
                    "are expected from none or from {} at least",
                    site, draws, moments.count, cases, kDraws, kMinimumCasesOfSum));
  }
  if (!DecimalSketch::Holds(moments.mean) || !std::isfinite(moments.squared_deviations) ||
      moments.squared_deviations < 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared intensities with mean {} and squared deviations {}", site,
                    moments.mean, moments.squared_deviations));
  }
  return absl::OkStatus();
}

}  // namespace

void Moments::Merge(const Moments& other) {
  if (other.count == 0) return;
  const auto both = static_cast<double>(count + other.count);
  const double share = static_cast<double>(other.count) / both;
  const double difference = other.mean - mean;
  mean += difference * share;
  squared_deviations +=
      other.squared_deviations + difference * difference * share * static_cast<double>(count);
  count += other.count;
}

double Moments::StandardDeviation() const {
  return count == 0 ? 0 : std::sqrt(squared_deviations / static_cast<double>(count));
}

void ForegroundIntensities::Merge(const ForegroundIntensities& other) {
  moments.Merge(other.moments);
  quantiles.Merge(other.quantiles);
}

Fingerprint Fingerprint::Empty(std::int64_t channels, std::int64_t classes) {
  Fingerprint fingerprint;
  fingerprint.channels = channels;
  fingerprint.classes = classes;
  fingerprint.intensities.resize(static_cast<std::size_t>(channels));
  return fingerprint;
}

absl::Status Fingerprint::AddCase(const CaseMeasures& measures) {
  RETURN_IF_ERROR(CheckMeasures(measures, channels));
  ++cases;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto voxels = static_cast<double>(measures.size[axis]);
    spacing_mm[axis].Add(measures.spacing_mm[axis]);
    size[axis].Add(voxels);
    extent_mm[axis].Add(voxels * measures.spacing_mm[axis]);
  }
  relative_size.Add(measures.relative_size);
  for (std::size_t channel = 0; channel < intensities.size(); ++channel) {
    if (measures.foreground[channel].empty()) continue;
    intensities[channel].Merge(EqualShare(measures.foreground[channel]));
  }
  return absl::OkStatus();
}

std::vector<DecimalSketch*> Sketches(Fingerprint& fingerprint) {
  return SketchesOf<DecimalSketch>(fingerprint);
}

std::vector<const DecimalSketch*> Sketches(const Fingerprint& fingerprint) {
  return SketchesOf<const DecimalSketch>(fingerprint);
}

Fingerprint Disclosed(const Fingerprint& fingerprint) {
  if (fingerprint.cases < kMinimumCasesOfSum) {
    Fingerprint count = Fingerprint::Empty(fingerprint.channels, fingerprint.classes);
    count.cases = fingerprint.cases;
    return count;
  }
  Fingerprint disclosed = fingerprint;
  for (ForegroundIntensities& intensities : disclosed.intensities) {
    if (intensities.moments.count < kMinimumCasesOfSum * ForegroundIntensities::kDrawsPerCase) {
      intensities = {};
    }
  }
  return disclosed;
}

absl::Status CheckFingerprint(const std::string& site, const Fingerprint& fingerprint,
                              std::int64_t channels, std::int64_t classes) {
  if (fingerprint.channels != channels || fingerprint.classes != classes ||
      static_cast<std::int64_t>(fingerprint.intensities.size()) != channels) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared a cohort of {} channels ({} with intensities) and {} classes, "
                    "expected {} and {}",
                    site, fingerprint.channels, fingerprint.intensities.size(), fingerprint.classes,
                    channels, classes));
  }
  const std::int64_t described = fingerprint.described_cases();
  if (fingerprint.cases < 0 || fingerprint.cases > kMaximumCases ||
      described != (fingerprint.cases < kMinimumCasesOfSum ? 0 : fingerprint.cases)) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared distributions of {} of its {} training cases; {} or more are "
                    "described, all of them, and fewer must not leave a site",
                    site, described, fingerprint.cases, kMinimumCasesOfSum));
  }
  for (std::size_t axis = 0; axis < 3; ++axis) {
    RETURN_IF_ERROR(CheckSketch(site, fingerprint.spacing_mm[axis], described, kSpacingMm));
    RETURN_IF_ERROR(CheckSketch(site, fingerprint.size[axis], described, kSize));
    RETURN_IF_ERROR(CheckSketch(site, fingerprint.extent_mm[axis], described, kExtentMm));
  }
  RETURN_IF_ERROR(CheckSketch(site, fingerprint.relative_size, described, kRelativeSize));
  for (const ForegroundIntensities& intensities : fingerprint.intensities) {
    RETURN_IF_ERROR(CheckIntensities(site, intensities, described));
  }
  return absl::OkStatus();
}

absl::StatusOr<Fingerprint> PooledFingerprint(const std::map<std::string, Fingerprint>& sites,
                                              std::int64_t channels, std::int64_t classes) {
  Fingerprint pooled = Fingerprint::Empty(channels, classes);
  for (const auto& [site, fingerprint] : sites) {
    RETURN_IF_ERROR(CheckFingerprint(site, fingerprint, channels, classes));
    Merge(fingerprint, pooled);
  }
  if (pooled.described_cases() == 0) {
    return absl::FailedPreconditionError(
        fmt::format("none of {} sites has the {} training cases that a share in the plan needs: "
                    "give the network in the study",
                    sites.size(), kMinimumCasesOfSum));
  }
  return pooled;
}

}  // namespace isoscan
