#include "server/rounds/submission_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/study/population_standard.h"
#include "common/study/schedule.h"
#include "common/weights/safetensors.h"

namespace isoscan {
namespace {

constexpr std::size_t kMaximumBins = 4096;
constexpr std::size_t kMaximumNameBytes = 128;
// More than any hospital has. Sums of such counts are far from the ends of their type.
constexpr std::int64_t kMaximumCases = 100'000;
constexpr std::int64_t kMaximumVoxels = std::int64_t{1} << 40;  // Of one case.
constexpr double kMaximumMeasure = 1e9;

// `what` is such as "training cases".
absl::Status CheckCases(const std::string& site, const char* what, std::int64_t cases) {
  if (cases >= 0 && cases <= kMaximumCases) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} declares {} {}, allowed are 0 to {}", site, cases, what, kMaximumCases));
}

absl::Status CheckHistogram(const std::string& site, const char* which,
                            const HistogramRecord& histogram) {
  if (histogram.counts.size() > kMaximumBins) {
    return absl::InvalidArgumentError(fmt::format("{}: the {} histogram has {} bins, at most {}",
                                                  site, which, histogram.counts.size(),
                                                  kMaximumBins));
  }
  if (!std::isfinite(histogram.low) || !std::isfinite(histogram.high) ||
      histogram.low > histogram.high) {
    return absl::InvalidArgumentError(fmt::format("{}: the {} histogram spans {} to {}", site,
                                                  which, histogram.low, histogram.high));
  }
  for (const std::int64_t count : histogram.counts) {
    if (count < 0) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the {} histogram has a bin of {} voxels", site, which, count));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPlannedFrom(const SiteRecord& cohort, const Study& study) {
  if (cohort.fingerprint.has_value() != study.planning.has_value()) {
    return absl::InvalidArgumentError(
        cohort.fingerprint.has_value()
            ? fmt::format("{} sent a fingerprint, which {} does not ask for", cohort.name,
                          study.name)
            : fmt::format("{} sent no fingerprint, which {} is to be planned from", cohort.name,
                          study.name));
  }
  if (!cohort.fingerprint.has_value()) return absl::OkStatus();
  if (cohort.fingerprint->cases != cohort.training_cases) {
    return absl::InvalidArgumentError(
        fmt::format("{} sent a fingerprint of {} cases, it has {} training cases", cohort.name,
                    cohort.fingerprint->cases, cohort.training_cases));
  }
  return CheckFingerprint(cohort.name, *cohort.fingerprint,
                          static_cast<std::int64_t>(study.channels.size()), study.classes());
}

absl::Status CheckLabel(const std::string& where, const LabelScoreRecord& score) {
  if (score.reference_voxels < 0 || score.predicted_voxels < 0 || score.common_voxels < 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: negative voxel counts ({} reference, {} predicted, {} common)", where,
                    score.reference_voxels, score.predicted_voxels, score.common_voxels));
  }
  if (std::max(score.reference_voxels, score.predicted_voxels) > kMaximumVoxels) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} reference and {} predicted voxels, at most {}", where,
                    score.reference_voxels, score.predicted_voxels, kMaximumVoxels));
  }
  if (score.common_voxels > std::min(score.reference_voxels, score.predicted_voxels)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} common voxels of {} reference and {} predicted ones", where,
                    score.common_voxels, score.reference_voxels, score.predicted_voxels));
  }
  const bool both_empty = score.reference_voxels == 0 && score.predicted_voxels == 0;
  if (both_empty && !std::isnan(score.dice)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: Dice is {} although label and prediction are both empty; send NaN", where,
                    score.dice));
  }
  // Written so that NaN is refused too.
  if (!both_empty && !(score.dice >= 0 && score.dice <= 1)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: Dice is {}, allowed are 0 to 1", where, score.dice));
  }
  return absl::OkStatus();
}

absl::Status CheckMeasure(const std::string& site, const char* what, double value) {
  // Written so that NaN is refused too.
  if (value >= 0 && value <= kMaximumMeasure) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} sent {} = {}", site, what, value));
}

// There the loss decides how much the update counts for.
absl::Status CheckLossBefore(const Study& study, const std::string& site,
                             std::optional<double> loss) {
  constexpr double kRounding = 1e-3;  // The loss is summed in float32, or of bfloat16 scores.
  const std::string aggregation(ToString(study.rounds.strategy.kind));
  if (!loss.has_value()) {
    if (!NeedsLossBefore(study.rounds.strategy.kind)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("{} sent no loss_before, which {} weighs updates by: update isoscan-client",
                    site, aggregation));
  }
  // Written so that NaN is refused too.
  if (*loss >= kLeastLoss - kRounding && *loss <= kMaximumMeasure) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} sent loss_before = {}, allowed are {} to {}",
                                                site, *loss, kLeastLoss, kMaximumMeasure));
}

// `where` is such as "berlin, certificate, gamma 0.5".
absl::Status CheckPoint(const std::string& where, const DegradationPoint& point,
                        std::int64_t cases) {
  if (point.cases < kFewestCertifiedCases || point.cases > cases) {
    return absl::InvalidArgumentError(fmt::format("{}: a mean over {} cases, allowed are {} to {}",
                                                  where, point.cases, kFewestCertifiedCases,
                                                  cases));
  }
  // Written so that NaN is refused too.
  if (!(point.flipped >= 0 && point.flipped <= 1)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} of the voxels flip, allowed are 0 to 1", where, point.flipped));
  }
  if (point.dice < 0 || point.dice > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: Dice is {}, allowed are 0 to 1", where, point.dice));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckCohort(const SiteRecord& cohort, const Study& study) {
  if (cohort.training_cases < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} training cases, at least 1 is needed: add cases or change the "
                    "held-out rule",
                    cohort.name, cohort.training_cases));
  }
  if (cohort.held_out_cases < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} held-out cases, at least 1 is needed to tell whether the model "
                    "serves its patients",
                    cohort.name, cohort.held_out_cases));
  }
  RETURN_IF_ERROR(CheckCases(cohort.name, "training cases", cohort.training_cases));
  RETURN_IF_ERROR(CheckCases(cohort.name, "held-out cases", cohort.held_out_cases));
  RETURN_IF_ERROR(CheckCases(cohort.name, "refused cases", cohort.refused_cases));
  RETURN_IF_ERROR(CheckHistogram(cohort.name, "raw", cohort.raw));
  RETURN_IF_ERROR(CheckHistogram(cohort.name, "harmonized", cohort.harmonized));
  RETURN_IF_ERROR(CheckPlannedFrom(cohort, study));
  if (cohort.standard == CaseSum()) return absl::OkStatus();
  if (cohort.standard.cases > cohort.training_cases) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared a sum over {} cases, it has {} training cases", cohort.name,
                    cohort.standard.cases, cohort.training_cases));
  }
  const HarmonizationPlan& plan = study.harmonization;
  RETURN_IF_ERROR(CheckCaseSum(cohort.name, cohort.standard,
                               StandardLength(plan.normalize) * study.channels.size()));
  std::vector<double> mean = cohort.standard.sum;
  for (double& value : mean) value /= static_cast<double>(cohort.standard.cases);
  const std::string fault = StandardFault(mean, plan.normalize, study.channels.size());
  if (fault.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} declared a sum over {} cases whose mean {}",
                                                cohort.name, cohort.standard.cases, fault));
}

absl::Status CheckScores(const Study& study, const SiteRecord& cohort,
                         const std::vector<CaseScoreRecord>& scores) {
  std::set<int> seen;
  for (const CaseScoreRecord& scored : scores) {
    if (scored.case_index < 0 || scored.case_index >= cohort.held_out_cases) {
      return absl::InvalidArgumentError(
          fmt::format("{} scored held-out case {}, but declared {} (0 to {})", cohort.name,
                      scored.case_index, cohort.held_out_cases, cohort.held_out_cases - 1));
    }
    if (!seen.insert(scored.case_index).second) {
      return absl::InvalidArgumentError(
          fmt::format("{} scored held-out case {} twice", cohort.name, scored.case_index));
    }
    if (scored.cohort.size() > kMaximumNameBytes) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the cohort's name of case {} has {} bytes, at most {}", cohort.name,
                      scored.case_index, scored.cohort.size(), kMaximumNameBytes));
    }
    if (Printable(scored.cohort) != scored.cohort) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the cohort's name of case {} cannot be printed: '{}'", cohort.name,
                      scored.case_index, Printable(scored.cohort)));
    }
    if (scored.labels.size() != study.labels.size()) {
      return absl::InvalidArgumentError(
          fmt::format("{} scored {} labels of case {}, the study has {}", cohort.name,
                      scored.labels.size(), scored.case_index, study.labels.size()));
    }
    for (std::size_t label = 0; label < scored.labels.size(); ++label) {
      RETURN_IF_ERROR(CheckLabel(
          fmt::format("{}, case {}, label {}", cohort.name, scored.case_index, study.labels[label]),
          scored.labels[label]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCertificate(const SiteRecord& cohort, const InvarianceCertificate& certificate) {
  const std::string where = cohort.name + ", certificate";
  if (certificate.cases < kFewestCertifiedCases || certificate.cases > cohort.held_out_cases) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} cases, allowed are {} to the {} declared held-out ones", where,
                    certificate.cases, kFewestCertifiedCases, cohort.held_out_cases));
  }
  // Written so that NaN is refused too; infinity says that a mapped scan was refused.
  if (!(certificate.largest_logit_change >= 0) || !std::isfinite(certificate.scale) ||
      !std::isfinite(certificate.bias)) {
    return absl::InvalidArgumentError(fmt::format("{}: a change of {} at scale {}, bias {}", where,
                                                  certificate.largest_logit_change,
                                                  certificate.scale, certificate.bias));
  }
  if (certificate.voxels_changed < 0 || certificate.voxels_changed > certificate.voxels_compared) {
    return absl::InvalidArgumentError(fmt::format("{}: {} of {} compared voxels changed", where,
                                                  certificate.voxels_changed,
                                                  certificate.voxels_compared));
  }
  std::set<std::pair<Perturbation, double>> seen;
  for (const DegradationCurve& curve : certificate.curves) {
    const PerturbationFacts& facts = FactsOf(curve.perturbation);
    for (const DegradationPoint& point : curve.points) {
      const std::string what = fmt::format("{}, {} {}", where, facts.word, point.amount);
      const bool known = std::find(facts.amounts.begin(), facts.amounts.end(), point.amount) !=
                         facts.amounts.end();
      if (!known || !seen.insert({curve.perturbation, point.amount}).second) {
        return absl::InvalidArgumentError(what + (known ? " is there twice" : " is not asked for"));
      }
      RETURN_IF_ERROR(CheckPoint(what, point, certificate.cases));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckUpdate(const Study& study, const SiteRecord& cohort, const SiteUpdate& update) {
  if (update.training_cases < 1 || update.training_cases > cohort.training_cases) {
    return absl::InvalidArgumentError(
        fmt::format("{} claims {} training cases, it declared {} when it approved the study",
                    cohort.name, update.training_cases, cohort.training_cases));
  }
  if (update.steps < 0) {
    return absl::InvalidArgumentError(fmt::format("{} sent steps = {}", cohort.name, update.steps));
  }
  // There the number of steps decides how much the update counts for.
  if (study.rounds.strategy.kind == StrategyPlan::Kind::kFedNova) {
    const std::int64_t steps = StepsPerRound(study.training, update.training_cases);
    if (update.steps != steps) {
      return absl::InvalidArgumentError(
          fmt::format("{} took {} steps, the study asks for {} with {} training cases", cohort.name,
                      update.steps, steps, update.training_cases));
    }
  }
  if (!std::isfinite(update.mean_loss)) {
    return absl::InvalidArgumentError(fmt::format("{} sent mean_loss = {}: its training diverged",
                                                  cohort.name, update.mean_loss));
  }
  RETURN_IF_ERROR(CheckLossBefore(study, cohort.name, update.loss_before));
  RETURN_IF_ERROR(CheckMeasure(cohort.name, "seconds_training", update.seconds_training));
  RETURN_IF_ERROR(CheckMeasure(cohort.name, "seconds_scoring", update.seconds_scoring));
  return CheckScores(study, cohort, update.model_scores);
}

absl::Status CheckWeightsMetadata(const Study& study, const std::string& site,
                                  const std::filesystem::path& weights) {
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(weights));
  return CheckHarmonization(fmt::format("the update of {}", site), file.metadata(),
                            study.harmonization);
}

}  // namespace isoscan
