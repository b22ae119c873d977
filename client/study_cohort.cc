#include "client/study_cohort.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "client/cohort/case_fingerprint.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

constexpr std::size_t kHistogramBins = 64;
constexpr std::size_t kSampledVoxels = 16'384;

/// At most kSampledVoxels of `values`, evenly spread, behind what is in `sample`.
void AppendSample(std::span<const float> values, std::vector<float>& sample) {
  const std::size_t stride = std::max<std::size_t>(1, values.size() / kSampledVoxels);
  for (std::size_t index = 0; index < values.size(); index += stride) {
    sample.push_back(values[index]);
  }
}

float Percentile(std::vector<float>& sample, double fraction) {
  const auto rank =
      static_cast<std::ptrdiff_t>(fraction * static_cast<double>(sample.size() - 1) + 0.5);
  std::nth_element(sample.begin(), sample.begin() + rank, sample.end());
  return sample[static_cast<std::size_t>(rank)];
}

IntensityHistogram Count(const std::vector<float>& sample, const HistogramRange& range) {
  IntensityHistogram histogram{
      .low = range.low, .high = range.high, .counts = std::vector<std::int64_t>(kHistogramBins)};
  const double bins_per_unit = static_cast<double>(kHistogramBins) / (range.high - range.low);
  for (const float value : sample) {
    const double bin = std::floor((static_cast<double>(value) - range.low) * bins_per_unit);
    ++histogram.counts[static_cast<std::size_t>(
        std::clamp(bin, 0.0, static_cast<double>(kHistogramBins - 1)))];
  }
  return histogram;
}

IntensityHistogram RawHistogram(std::vector<float>& sample) {
  if (sample.empty()) return {};
  const double low = static_cast<double>(Percentile(sample, 0.005));
  const double high = static_cast<double>(Percentile(sample, 0.995));
  return Count(sample, {low, high > low ? high : low + 1});
}

IntensityHistogram HarmonizedHistogram(const std::vector<float>& sample,
                                       HarmonizationPlan::Normalizer normalizer) {
  const std::optional<HistogramRange> range = HarmonizedRange(normalizer);
  return range.has_value() ? Count(sample, *range) : IntensityHistogram();
}

/// Voxels of a case of this geometry at the plan's spacing.
double PreparedVoxels(const Geometry& stored, const Study& study) {
  const Geometry geometry = CanonicalGeometry(stored);
  double voxels = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double wanted = study.harmonization.spacing_mm[2 - axis];
    const double scale = wanted > 0 ? geometry.spacing_mm[axis] / wanted : 1;
    voxels *= std::max(1.0, std::round(static_cast<double>(geometry.size[axis]) * scale));
  }
  return voxels;
}

/// A case of a draft: that it can be prepared, and what it adds to the fingerprint.
absl::StatusOr<PreparedCase> MeasureCase(const CaseFiles& files, const Study& study, bool held_out,
                                         Fingerprint& fingerprint) {
  ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(files, study));
  RETURN_IF_ERROR(PrepareCase(loaded, files, study).status());
  if (held_out) return PreparedCase();
  if (const absl::Status added = AddToFingerprint(loaded, fingerprint); !added.ok()) {
    return absl::Status(added.code(), fmt::format("case {} has {}, which no plan can be made from",
                                                  files.name, std::string(added.message())));
  }
  return PreparedCase();
}

absl::StatusOr<PreparedCase> ReadCase(const CaseFiles& files, const Study& study,
                                      PreparedCache* cache, std::vector<float>& raw,
                                      std::vector<float>& harmonized) {
  std::optional<CachedCase> found;
  if (cache != nullptr) found = cache->Find(files, study);
  if (!found.has_value()) {
    ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(files, study));
    found.emplace();
    ASSIGN_OR_RETURN(found->prepared, PrepareCase(loaded, files, study));
    AppendSample(loaded.channels.front().voxels, found->stored_sample);
    if (cache != nullptr) found = cache->Keep(files, study, *std::move(found));
  }
  PreparedCase& prepared = found->prepared;
  if (prepared.digest.empty()) prepared.digest = TrainingDigest(prepared);
  raw.insert(raw.end(), found->stored_sample.begin(), found->stored_sample.end());
  AppendSample(std::span<const float>(prepared.image).first(prepared.labels.size()), harmonized);
  return std::move(prepared);
}

/// What a case adds to the study's standard, channel after channel.
absl::StatusOr<std::vector<double>> StandardOfCase(const LoadedCase& loaded, const CaseFiles& files,
                                                   const Study& study) {
  std::optional<Mask> given;
  if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) given = loaded.mask;
  std::vector<double> standard;
  for (std::size_t channel = 0; channel < loaded.channels.size(); ++channel) {
    const auto own = StandardOf(loaded.channels[channel], study.harmonization, given);
    if (!own.ok()) {
      return absl::Status(own.status().code(),
                          fmt::format("case {}, {}: {}", files.name, study.channels[channel],
                                      std::string(own.status().message())));
    }
    standard.insert(standard.end(), own->begin(), own->end());
  }
  return standard;
}

/// What each training case adds to the study's standard; empty for held-out cases and for those
/// that have none, of which the preparation tells why.
absl::StatusOr<std::vector<std::vector<double>>> StandardsOfTraining(const SiteCases& cases,
                                                                     const Study& study,
                                                                     const std::stop_token& stop) {
  std::vector<std::vector<double>> standards(cases.files.size());
  bool any = false;
  absl::Status first;
  for (std::size_t index = 0; index < cases.files.size(); ++index) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    if (cases.held_out[index]) continue;
    const CaseFiles& files = cases.files[index];
    const absl::StatusOr<LoadedCase> loaded = LoadCase(files, study);
    if (absl::IsResourceExhausted(loaded.status())) return loaded.status();
    auto standard = loaded.ok() ? StandardOfCase(*loaded, files, study)
                                : absl::StatusOr<std::vector<double>>(loaded.status());
    first.Update(standard.status());
    if (!standard.ok()) continue;
    standards[index] = *std::move(standard);
    any = true;
  }
  if (any) return standards;
  return absl::DataLossError(
      fmt::format("no training case has what '{}' takes the sites' mean of, the first because {}; "
                  "`isoscan-client inspect` lists them all",
                  ToString(study.harmonization.normalize),
                  first.ok() ? "all cases are held out" : std::string(first.message())));
}

CaseSum SumOf(const std::vector<std::vector<double>>& standards) {
  CaseSum sum;
  for (const std::vector<double>& standard : standards) {
    if (!standard.empty()) AddCase(standard, sum);
  }
  return sum;
}

/// The rest of a cohort, from `first` on, would have to be in memory.
absl::Status CheckMemoryOfRest(const SiteCases& cases, std::size_t first, const Study& study) {
  const auto from = static_cast<std::ptrdiff_t>(first);
  const SiteCases rest{.files = {cases.files.begin() + from, cases.files.end()},
                       .held_out = {cases.held_out.begin() + from, cases.held_out.end()},
                       .left_out = {}};
  return CheckMemory(
      fmt::format(
          "the disk takes no more prepared cases, and the last {} of study {} in memory: that",
          rest.files.size(), study.name),
      EstimateCohortMemory(rest, study, CasePlace::kMemory));
}

/// Marks in `seen` which labels a case has.
void NoteLabels(const PreparedCase& prepared, std::vector<bool>& seen) {
  std::uint8_t last = 0;
  for (const std::uint8_t label : prepared.labels) {
    if (label == last) continue;
    last = label;
    seen[label] = true;
  }
}

absl::Status CheckSides(const StudyCohort& cohort, std::size_t cases) {
  if (!cohort.training.empty() && !cohort.held_out.empty()) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "no {} case is left: {} of {} cases cannot be used, the first because {}; `isoscan-client "
      "inspect` lists them all",
      cohort.training.empty() ? "training" : "held-out", cohort.refused.size(), cases,
      cohort.refused.empty() ? "of an unknown reason" : cohort.refused.front().reason));
}

}  // namespace

std::optional<HistogramRange> HarmonizedRange(HarmonizationPlan::Normalizer normalizer) {
  using Normalizer = HarmonizationPlan::Normalizer;
  switch (normalizer) {
    case Normalizer::kInstance:
    case Normalizer::kZScore:
      return HistogramRange{-4, 6};  // In standard deviations.
    case Normalizer::kWhiteStripe:
      return HistogramRange{-80, 80};  // In those of white matter alone, which are small.
    case Normalizer::kNyul:
      return HistogramRange{-20, 120};  // The landmarks lie from 1 to 100.
    case Normalizer::kKde:
    case Normalizer::kFcm:
    case Normalizer::kLsq:
      return HistogramRange{0, 5};  // In units of a tissue's mean.
    case Normalizer::kNone:
      return std::nullopt;
  }
  return std::nullopt;
}

absl::StatusOr<SiteCases> ListSiteCases(const ClientConfig& config, const Study& study) {
  if (config.cohorts.empty()) {
    return absl::InvalidArgumentError(
        "client.toml names no folder of MRI; add one: [[cohort]] and folder = \"/path\"");
  }
  SiteCases cases;
  for (const CohortFolder& folder : config.cohorts) {
    ASSIGN_OR_RETURN(std::vector<CaseFiles> found,
                     ListCases(folder, study, &cases.left_out, {.threads = AvailableCores()}));
    std::move(found.begin(), found.end(), std::back_inserter(cases.files));
  }
  ASSIGN_OR_RETURN(cases.held_out, HeldOut(cases.files, study.held_out, config.held_out_cases));
  return cases;
}

std::int64_t EstimateCohortMemory(const SiteCases& cases, const Study& study, CasePlace place) {
  const auto channels = static_cast<double>(study.channels.size());
  const auto classes = static_cast<double>(study.classes());
  double total = 0;
  double largest = 0;
  for (const CaseFiles& files : cases.files) {
    // What cannot be read is refused later, and takes no memory.
    const absl::StatusOr<Geometry> geometry =
        files.series.empty() ? ReadGeometry(files.images.front(), files.geometry)
                             : files.series.front().geometry;
    if (!geometry.ok()) continue;
    const auto stored = static_cast<double>(geometry->voxels());
    const double prepared = PreparedVoxels(*geometry, study);
    if (!study.planning.has_value() && place == CasePlace::kMemory) {
      total += prepared * (4 * channels + 1) + stored;
    }
    // Reading: channels and labels as floats, twice, while they are brought into LPS. To and from
    // the cache: all of it as floats, beside the case itself. Scoring: the classes' scores, on both
    // grids at most, and the Gaussian's sum.
    largest =
        std::max({largest, stored * 8 * (channels + 1), 4 * (channels + 1) * prepared + 4 * stored,
                  4 * (classes + 1) * (prepared + stored)});
  }
  // A sum that no machine has, and that an integer may not hold.
  constexpr double kTooMuch = 1e18;
  return std::llround(std::min(total + largest, kTooMuch));
}

absl::StatusOr<StudyCohort> PrepareStudyCohort(const SiteCases& cases, const Study& declared,
                                               const std::stop_token& stop,
                                               const CaseObserver& observe, PreparedCache* cache) {
  StudyCohort cohort;
  Study study = declared;
  std::vector<std::vector<double>> standards;
  if (StandardLength(study.harmonization.normalize) > 0 && study.harmonization.standard.empty()) {
    ASSIGN_OR_RETURN(standards, StandardsOfTraining(cases, study, stop));
    // This site's own mean, until the sites' is known.
    const CaseSum own = SumOf(standards);
    study.harmonization.standard = own.sum;
    for (double& value : study.harmonization.standard) value /= static_cast<double>(own.cases);
  }
  Fingerprint fingerprint =
      Fingerprint::Empty(static_cast<std::int64_t>(study.channels.size()), study.classes());
  std::vector<float> raw;
  std::vector<float> harmonized;
  std::vector<bool> labels_seen(256);
  bool cache_was_full = false;
  const auto total = static_cast<std::int64_t>(cases.files.size());
  for (std::int64_t index = 0; index < total; ++index) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    const CaseFiles& files = cases.files[static_cast<std::size_t>(index)];
    const bool held_out = cases.held_out[static_cast<std::size_t>(index)];
    absl::StatusOr<PreparedCase> prepared = study.planning.has_value()
                                                ? MeasureCase(files, study, held_out, fingerprint)
                                                : ReadCase(files, study, cache, raw, harmonized);
    if (absl::IsResourceExhausted(prepared.status())) return prepared.status();
    if (cache != nullptr && cache->full() && !std::exchange(cache_was_full, true)) {
      RETURN_IF_ERROR(CheckMemoryOfRest(cases, static_cast<std::size_t>(index), study));
    }
    if (prepared.ok()) {
      if (!held_out) NoteLabels(*prepared, labels_seen);
      (held_out ? cohort.held_out : cohort.training).push_back(*std::move(prepared));
    } else {
      if (!standards.empty()) standards[static_cast<std::size_t>(index)].clear();
      cohort.refused.push_back({.index = index,
                                .cohort = files.cohort,
                                .name = files.name,
                                .held_out = held_out,
                                .reason = std::string(prepared.status().message())});
    }
    observe(index + 1, total);
  }
  RETURN_IF_ERROR(CheckSides(cohort, cases.files.size()));
  for (std::size_t label = 0; label < study.labels.size() && !study.planning.has_value(); ++label) {
    if (!labels_seen[label + 1]) cohort.missing_labels.push_back(study.labels[label]);
  }
  CohortDeclaration& declaration = cohort.declaration;
  declaration.training_cases = static_cast<std::int64_t>(cohort.training.size());
  declaration.held_out_cases = static_cast<std::int64_t>(cohort.held_out.size());
  declaration.refused_cases = static_cast<std::int64_t>(cohort.refused.size());
  if (study.planning.has_value()) {
    declaration.fingerprint = Disclosed(fingerprint);
    return cohort;
  }
  declaration.raw = RawHistogram(raw);
  declaration.harmonized = HarmonizedHistogram(harmonized, study.harmonization.normalize);
  declaration.standard = Disclosed(SumOf(standards));
  return cohort;
}

}  // namespace isoscan
