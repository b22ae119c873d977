#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/cohort/cohort.h"
#include "client/cohort/prepared_cache.h"
#include "client/federation/federation_session.h"
#include "common/study/study.h"

namespace isoscan {

/// The cases of all of a site's folders that fit a study, by name only.
struct SiteCases {
  std::vector<CaseFiles> files;
  std::vector<bool> held_out;  ///< One per case.
  /// Scans that are no case, since they lack a file for a label or channel; for the site alone.
  std::vector<std::string> left_out;
};

/// Errors: INVALID_ARGUMENT no [[cohort]] in client.toml; those of ListCases and HeldOut.
absl::StatusOr<SiteCases> ListSiteCases(const ClientConfig& config, const Study& study);

/// Where a study's cases are once prepared.
enum class CasePlace {
  kMapped,  ///< In the files of a PreparedCache.
  kMemory,
};

/// Bytes that a study's cases take in memory once prepared, from the headers of their files; room
/// for reading one case and for the scores of the largest is part of it, and of those that are
/// mapped, all. A draft's are read one at a time.
std::int64_t EstimateCohortMemory(const SiteCases& cases, const Study& study, CasePlace place);

/// Ends of the histogram of harmonised intensities.
struct HistogramRange {
  double low = 0;
  double high = 0;
};

/// By the plan alone: the same at all sites, and nothing of a scan is in it. Wide enough for heads,
/// skull-stripped brains and crops; what lies beyond counts into the outermost bins. Nothing for
/// Normalizer::kNone, of which the raw histogram tells all.
std::optional<HistogramRange> HarmonizedRange(HarmonizationPlan::Normalizer normalizer);

/// A case that is not used, and why. `reason` may name files: it is for the site alone.
struct RefusedCase {
  std::int64_t index = 0;  ///< Among the site's cases of this study; what a log may say.
  std::string cohort;
  std::string name;
  bool held_out = false;
  std::string reason;
};

/// A site's cases for one study, ready for the network.
struct StudyCohort {
  std::vector<PreparedCase> training;
  std::vector<PreparedCase> held_out;
  std::vector<RefusedCase> refused;
  std::vector<std::string> missing_labels;  ///< Of the study, that no training case has.
  CohortDeclaration declaration;
};

using CaseObserver = std::function<void(std::int64_t done, std::int64_t total)>;

/// Reads and prepares every case. One that cannot be used (geometry, labels, NaN, a constant image)
/// is put aside with its reason and the rest goes on.
///
/// The declaration's histograms take the study's first channel, every case with the same number of
/// voxels at most (16,384, evenly spread in the file): raw over the 0.5 to 99.5 percentiles in 64
/// bins, harmonised as the network sees it (after resampling) over HarmonizedRange in 64 bins.
///
/// With a `cache`, cases that are there are not prepared again, the others are put there, and all
/// are mapped; a case that cannot be used is prepared each time, to say why. Cases that the cache's
/// disk does not take stay in memory.
///
/// A study whose standard is the sites' mean (HarmonizationPlan::standard is empty) has none before
/// it starts: the cases are read twice, prepared by this site's own mean, and the declaration has
/// what those that are used for training add to the sites' (nothing, where they are fewer than
/// kMinimumCasesOfSum).
///
/// Of a draft the cases are read and prepared one after the other, and none is kept (`training` and
/// `held_out` have their places, without voxels): the declaration has no histogram and no standard,
/// but what the training cases add to the fingerprint, as far as it may leave the site.
///
/// Errors: DATA_LOSS no case is left on one side, with the number and the first reason;
///         CANCELLED; RESOURCE_EXHAUSTED, also where the disk is full and memory cannot hold the
///         rest.
absl::StatusOr<StudyCohort> PrepareStudyCohort(const SiteCases& cases, const Study& study,
                                               const std::stop_token& stop,
                                               const CaseObserver& observe,
                                               PreparedCache* cache = nullptr);

}  // namespace isoscan
