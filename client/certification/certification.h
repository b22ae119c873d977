#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "common/invariance/certificate.h"
#include "common/study/study.h"

namespace isoscan {

/// The model's scores before the softmax, [classes, D, H, W] on the case's grid. They must be
/// computed in float32: bfloat16 rounds every input to three digits, whatever harmonisation did.
using ModelScores = std::function<absl::StatusOr<std::vector<float>>(const PreparedCase& prepared)>;

/// What one map x' = scale * x + bias did to one case, or to several.
struct AffineFinding {
  double scale = 1;
  double bias = 0;  ///< In scaled standard deviations (population, all voxels) of a scan.
  /// The greatest, in standard deviations of the case's logits; infinite where harmonisation
  /// refused the mapped scan.
  double logit_change = 0;
  std::int64_t voxels_changed = 0;  ///< Of another label than without the map.
};

struct PerturbedFinding {
  Perturbation perturbation = Perturbation::kGamma;
  double amount = 0;
  bool usable = true;  ///< False: harmonisation refused the perturbed scan.
  /// Of the voxels that are labelled in the reference or predicted, before or after: those that
  /// are predicted otherwise than before. 0 where there is none.
  double flipped = 0;
  /// Mean over the labels that have one; NaN where none has.
  double dice = std::numeric_limits<double>::quiet_NaN();
};

/// One case, for its own site.
struct CaseFindings {
  std::int64_t voxels = 0;                  ///< In the case's own grid.
  std::vector<AffineFinding> affine;        ///< Scales and, within each, biases, both ascending.
  std::vector<PerturbedFinding> perturbed;  ///< In the order of PerturbationTable.
};

/// Predictions that CertifyCase makes: its unit of progress.
std::int64_t PredictionsPerCase();

/// Called with the number of predictions made for this case.
using PredictionObserver = std::function<void(std::int64_t done)>;

/// Harmonises and predicts a case as it is, under each of kCertifiedScales with each of
/// kCertifiedBiases, and under every perturbation; each perturbed scan is harmonised anew, as if
/// it had come from a scanner so. Every channel is changed alike, with noise of its own.
///
/// Cost: about 50 predictions. Noise depends on the study's seed and `index` (of the case among
///       those of the certificate) alone.
/// Errors: those of PrepareCase for the case itself, those of `score`; CANCELLED.
absl::StatusOr<CaseFindings> CertifyCase(const LoadedCase& loaded, const CaseFiles& files,
                                         const Study& study, std::int64_t index,
                                         const ModelScores& score, const std::stop_token& stop,
                                         const PredictionObserver& observe);

/// Each map over all cases: the greatest change, and the sum of the changed voxels.
std::vector<AffineFinding> OverCases(const std::vector<CaseFindings>& cases);

/// Means and maxima over cases.
InvarianceCertificate Summarize(const std::vector<CaseFindings>& cases);

}  // namespace isoscan
