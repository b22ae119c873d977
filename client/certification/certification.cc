#include "client/certification/certification.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "client/certification/perturbation.h"
#include "client/evaluation/overlap.h"
#include "client/imaging/score_labels.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// Population standard deviation, in two passes.
double DeviationOf(const std::vector<float>& values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  const double mean = sum / count;
  double squares = 0;
  for (const float value : values) {
    const double deviation = static_cast<double>(value) - mean;
    squares += deviation * deviation;
  }
  return std::sqrt(squares / count);
}

struct Prediction {
  std::vector<float> scores;
  LabelMap labels;
};

double FlippedShare(const LabelMap& reference, const LabelMap& before, const LabelMap& after) {
  std::int64_t labelled = 0;
  std::int64_t flipped = 0;
  for (std::size_t i = 0; i < reference.voxels.size(); ++i) {
    labelled += (reference.voxels[i] | before.voxels[i] | after.voxels[i]) != 0 ? 1 : 0;
    flipped += before.voxels[i] != after.voxels[i] ? 1 : 0;
  }
  return labelled == 0 ? 0 : static_cast<double>(flipped) / static_cast<double>(labelled);
}

/// One case under the eyes of one model.
class Certification {
 public:
  Certification(const LoadedCase& loaded, const CaseFiles& files, const Study& study,
                std::int64_t index, const ModelScores& score)
      : loaded_(loaded), files_(files), study_(study), index_(index), score_(score) {}

  /// The case with each channel's volume -> change(volume, its index).
  template <typename Change>
  absl::StatusOr<Prediction> Predict(Change change) const {
    LoadedCase changed = loaded_;
    for (std::size_t c = 0; c < changed.channels.size(); ++c) {
      changed.channels[c] = change(loaded_.channels[c], c);
    }
    ASSIGN_OR_RETURN(const PreparedCase prepared, PrepareCase(changed, files_, study_));
    ASSIGN_OR_RETURN(std::vector<float> scores, score_(prepared));
    LabelMap labels =
        ArgMaxResampled(scores, study_.classes(), prepared.grid, prepared.reference_grid);
    return Prediction{.scores = std::move(scores), .labels = std::move(labels)};
  }

  absl::StatusOr<AffineFinding> UnderMap(double scale, double bias, const Prediction& original,
                                         double spread) const {
    const absl::StatusOr<Prediction> mapped = Predict([&](const Volume& scan, std::size_t) {
      return Rescaled(scan, scale, bias * scale * DeviationOf(scan.voxels));
    });
    AffineFinding finding{.scale = scale, .bias = bias};
    // Harmonisation took the scan itself, and refuses it from another scanner.
    if (absl::IsInvalidArgument(mapped.status())) {
      finding.logit_change = std::numeric_limits<double>::infinity();
      finding.voxels_changed = static_cast<std::int64_t>(original.labels.voxels.size());
      return finding;
    }
    RETURN_IF_ERROR(mapped.status());
    double change = 0;
    for (std::size_t i = 0; i < original.scores.size(); ++i) {
      const double difference = std::abs(static_cast<double>(mapped->scores[i]) -
                                         static_cast<double>(original.scores[i]));
      change = std::isnan(difference) ? std::numeric_limits<double>::infinity()
                                      : std::max(change, difference);
    }
    finding.logit_change = change == 0 ? 0 : change / spread;
    if (std::isnan(finding.logit_change)) {
      finding.logit_change = std::numeric_limits<double>::infinity();
    }
    for (std::size_t i = 0; i < original.labels.voxels.size(); ++i) {
      finding.voxels_changed += mapped->labels.voxels[i] != original.labels.voxels[i] ? 1 : 0;
    }
    return finding;
  }

  absl::StatusOr<PerturbedFinding> Under(const PerturbationFacts& facts, double amount,
                                         const Prediction& original) const {
    PerturbedFinding finding{.perturbation = facts.perturbation, .amount = amount};
    const absl::StatusOr<Prediction> perturbed =
        amount == facts.neutral ? original : Predict([&](const Volume& scan, std::size_t channel) {
          const RandomStream noise(study_.seed, "certificate", static_cast<std::uint64_t>(index_),
                                   static_cast<std::uint32_t>(channel));
          return Perturbed(scan, facts.perturbation, amount, noise);
        });
    // What harmonisation refuses is an answer, too; anything else that fails is none.
    if (absl::IsInvalidArgument(perturbed.status())) {
      finding.usable = false;
      return finding;
    }
    RETURN_IF_ERROR(perturbed.status());
    finding.flipped = FlippedShare(loaded_.labels, original.labels, perturbed->labels);
    finding.dice = MeanDice(Overlap(loaded_.labels, perturbed->labels, study_.classes() - 1));
    return finding;
  }

 private:
  const LoadedCase& loaded_;
  const CaseFiles& files_;
  const Study& study_;
  std::int64_t index_;
  const ModelScores& score_;
};

}  // namespace

std::int64_t PredictionsPerCase() {
  std::size_t predictions = 1 + kCertifiedScales.size() * kCertifiedBiases.size();
  for (const PerturbationFacts& facts : PerturbationTable())
    predictions += facts.amounts.size() - 1;
  return static_cast<std::int64_t>(predictions);
}

absl::StatusOr<CaseFindings> CertifyCase(const LoadedCase& loaded, const CaseFiles& files,
                                         const Study& study, std::int64_t index,
                                         const ModelScores& score, const std::stop_token& stop,
                                         const PredictionObserver& observe) {
  const Certification certification(loaded, files, study, index, score);
  std::int64_t done = 0;
  const auto next = [&]() -> absl::Status {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    observe(++done);
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(
      const Prediction original,
      certification.Predict([](const Volume& scan, std::size_t) -> const Volume& { return scan; }));
  const double spread = DeviationOf(original.scores);
  RETURN_IF_ERROR(next());

  CaseFindings findings;
  findings.voxels = static_cast<std::int64_t>(original.labels.voxels.size());
  for (const double scale : kCertifiedScales) {
    for (const double bias : kCertifiedBiases) {
      ASSIGN_OR_RETURN(const AffineFinding finding,
                       certification.UnderMap(scale, bias, original, spread));
      findings.affine.push_back(finding);
      RETURN_IF_ERROR(next());
    }
  }
  for (const PerturbationFacts& facts : PerturbationTable()) {
    for (const double amount : facts.amounts) {
      ASSIGN_OR_RETURN(const PerturbedFinding finding,
                       certification.Under(facts, amount, original));
      findings.perturbed.push_back(finding);
      if (amount != facts.neutral) RETURN_IF_ERROR(next());
    }
  }
  return findings;
}

std::vector<AffineFinding> OverCases(const std::vector<CaseFindings>& cases) {
  std::vector<AffineFinding> maps;
  for (const CaseFindings& findings : cases) {
    if (maps.empty()) {
      maps = findings.affine;
      continue;
    }
    for (std::size_t i = 0; i < maps.size(); ++i) {
      maps[i].logit_change = std::max(maps[i].logit_change, findings.affine[i].logit_change);
      maps[i].voxels_changed += findings.affine[i].voxels_changed;
    }
  }
  return maps;
}

InvarianceCertificate Summarize(const std::vector<CaseFindings>& cases) {
  InvarianceCertificate certificate;
  certificate.cases = static_cast<std::int64_t>(cases.size());
  for (const AffineFinding& map : OverCases(cases)) {
    certificate.voxels_changed += map.voxels_changed;
    if (map.logit_change <= certificate.largest_logit_change) continue;
    certificate.largest_logit_change = map.logit_change;
    certificate.scale = map.scale;
    certificate.bias = map.bias;
  }
  for (const CaseFindings& findings : cases) {
    certificate.voxels_compared +=
        findings.voxels * static_cast<std::int64_t>(findings.affine.size());
  }
  if (cases.empty()) return certificate;
  std::size_t place = 0;
  for (const PerturbationFacts& facts : PerturbationTable()) {
    DegradationCurve& curve = certificate.curves.emplace_back();
    curve.perturbation = facts.perturbation;
    for (const double amount : facts.amounts) {
      double flipped = 0;
      double dice = 0;
      DegradationPoint point{.amount = amount};
      for (const CaseFindings& findings : cases) {
        const PerturbedFinding& finding = findings.perturbed[place];
        if (!finding.usable) continue;
        ++point.cases;
        flipped += finding.flipped;
        if (std::isnan(finding.dice)) continue;
        ++point.scored;
        dice += finding.dice;
      }
      if (point.cases > 0) point.flipped = flipped / static_cast<double>(point.cases);
      if (point.scored > 0) point.dice = dice / static_cast<double>(point.scored);
      curve.points.push_back(point);
      ++place;
    }
  }
  return certificate;
}

}  // namespace isoscan
