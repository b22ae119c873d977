#include "client/federation/messages.h"

#include <fmt/format.h>

#include "common/status/printable.h"
#include "common/study/study.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

OfferedStudy::Phase PhaseFrom(v1::StudyPhase phase) {
  switch (phase) {
    case v1::STUDY_PHASE_RUNNING:
      return OfferedStudy::Phase::kRunning;
    case v1::STUDY_PHASE_PAUSED:
      return OfferedStudy::Phase::kPaused;
    case v1::STUDY_PHASE_FINISHED:
      return OfferedStudy::Phase::kFinished;
    case v1::STUDY_PHASE_STOPPED:
      return OfferedStudy::Phase::kStopped;
    default:
      return OfferedStudy::Phase::kCreated;
  }
}

v1::Histogram ToMessage(const IntensityHistogram& histogram) {
  v1::Histogram message;
  message.set_low(histogram.low);
  message.set_high(histogram.high);
  message.mutable_counts()->Add(histogram.counts.begin(), histogram.counts.end());
  return message;
}

v1::Sketch ToMessage(const DecimalSketch& sketch) {
  v1::Sketch message;
  for (const auto& [key, count] : sketch.buckets()) {
    message.add_keys(key);
    message.add_counts(count);
  }
  return message;
}

v1::Fingerprint ToMessage(const Fingerprint& fingerprint) {
  v1::Fingerprint message;
  message.set_classes(fingerprint.classes);
  message.set_cases(fingerprint.cases);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    *message.add_spacing_mm() = ToMessage(fingerprint.spacing_mm[axis]);
    *message.add_size() = ToMessage(fingerprint.size[axis]);
    *message.add_extent_mm() = ToMessage(fingerprint.extent_mm[axis]);
  }
  *message.mutable_relative_size() = ToMessage(fingerprint.relative_size);
  for (const ForegroundIntensities& channel : fingerprint.intensities) {
    v1::ForegroundIntensities& sent = *message.add_intensities();
    *sent.mutable_draws() = ToMessage(channel.quantiles);
    sent.set_mean(channel.moments.mean);
    sent.set_squared_deviations(channel.moments.squared_deviations);
  }
  return message;
}

}  // namespace

OfferedStudy OfferedStudyFrom(const v1::StudyState& message) {
  // Shown before the text has been read.
  OfferedStudy study{.name = Printable(message.name()),
                     .digest = Printable(message.digest()),
                     .toml = message.toml(),
                     .phase = PhaseFrom(message.phase()),
                     .round = message.round(),
                     .rounds = message.rounds(),
                     .waiting_for = Printable(message.waiting_for()),
                     .standard = {message.standard().begin(), message.standard().end()}};
  if (message.sites_size() > 0) {
    study.approved = message.sites(0).approved();
    study.withdrawn = message.sites(0).withdrawn();
  }
  return study;
}

absl::StatusOr<SiteAssignment> SiteAssignmentFrom(const v1::Assignment& message) {
  // Some of it becomes paths and log lines, and all of it decides what this site does.
  if (!IsName(message.study()) || !IsSha256(message.study_digest()) ||
      !IsSha256(message.model_digest()) || message.round() < 0 || message.model_bytes() < 0) {
    return absl::DataLossError(fmt::format(
        "the server asks for work that cannot be: study '{}', round {}, model {} of {} bytes; tell "
        "the coordinator",
        Printable(message.study()).substr(0, 64), message.round(),
        Printable(message.model_digest()).substr(0, 64), message.model_bytes()));
  }
  SiteAssignment assignment{.study = message.study(),
                            .study_digest = message.study_digest(),
                            .round = message.round(),
                            .model_digest = message.model_digest(),
                            .model_bytes = message.model_bytes()};
  switch (message.kind()) {
    case v1::Assignment::KIND_TRAIN:
      assignment.kind = SiteAssignment::Kind::kTrain;
      return assignment;
    case v1::Assignment::KIND_SCORE:
      assignment.kind = SiteAssignment::Kind::kScore;
      return assignment;
    case v1::Assignment::KIND_LOCAL_ONLY:
      assignment.kind = SiteAssignment::Kind::kLocalOnly;
      return assignment;
    case v1::Assignment::KIND_STUDY_ENDED:
      assignment.kind = SiteAssignment::Kind::kStudyEnded;
      return assignment;
    default:
      return absl::UnimplementedError(
          fmt::format("the server asks for work of kind {}, which this client does not know; "
                      "update isoscan-client",
                      static_cast<int>(message.kind())));
  }
}

v1::Assignment::Kind ToMessage(SiteAssignment::Kind kind) {
  switch (kind) {
    case SiteAssignment::Kind::kTrain:
      return v1::Assignment::KIND_TRAIN;
    case SiteAssignment::Kind::kScore:
      return v1::Assignment::KIND_SCORE;
    case SiteAssignment::Kind::kLocalOnly:
      return v1::Assignment::KIND_LOCAL_ONLY;
    case SiteAssignment::Kind::kStudyEnded:
      return v1::Assignment::KIND_STUDY_ENDED;
  }
  return v1::Assignment::KIND_UNSPECIFIED;
}

v1::CohortSummary ToMessage(const CohortDeclaration& cohort) {
  v1::CohortSummary message;
  message.set_training_cases(cohort.training_cases);
  message.set_held_out_cases(cohort.held_out_cases);
  message.set_refused_cases(cohort.refused_cases);
  *message.mutable_raw() = ToMessage(cohort.raw);
  *message.mutable_harmonized() = ToMessage(cohort.harmonized);
  message.mutable_standard_sum()->Add(cohort.standard.sum.begin(), cohort.standard.sum.end());
  message.set_standard_cases(cohort.standard.cases);
  if (cohort.fingerprint.has_value()) {
    *message.mutable_fingerprint() = ToMessage(*cohort.fingerprint);
  }
  return message;
}

v1::SiteScores ToMessage(const std::vector<ScoredCase>& scores) {
  v1::SiteScores message;
  for (const ScoredCase& scored : scores) {
    v1::CaseScore& case_score = *message.add_cases();
    case_score.set_case_index(scored.index);
    case_score.set_cohort(scored.cohort);
    for (const LabelOverlap& overlap : scored.labels) {
      v1::LabelScore& label = *case_score.add_labels();
      label.set_dice(overlap.dice());
      label.set_reference_voxels(overlap.reference_voxels);
      label.set_predicted_voxels(overlap.predicted_voxels);
      label.set_common_voxels(overlap.common_voxels);
    }
  }
  return message;
}

v1::InvarianceCertificate ToMessage(const InvarianceCertificate& certificate) {
  v1::InvarianceCertificate message;
  message.set_cases(certificate.cases);
  message.set_largest_logit_change(certificate.largest_logit_change);
  message.set_scale(certificate.scale);
  message.set_bias(certificate.bias);
  message.set_voxels_changed(certificate.voxels_changed);
  message.set_voxels_compared(certificate.voxels_compared);
  for (const DegradationCurve& curve : certificate.curves) {
    for (const DegradationPoint& point : curve.points) {
      v1::DegradationPoint& sent = *message.add_points();
      sent.set_perturbation(std::string(FactsOf(curve.perturbation).word));
      sent.set_amount(point.amount);
      sent.set_cases(point.cases);
      sent.set_flipped(point.flipped);
      sent.set_dice(point.dice);
    }
  }
  return message;
}

std::vector<ScoredCase> ScoredCasesFrom(const v1::SiteScores& message) {
  std::vector<ScoredCase> scores;
  for (const v1::CaseScore& case_score : message.cases()) {
    ScoredCase& scored = scores.emplace_back();
    scored.index = case_score.case_index();
    scored.cohort = case_score.cohort();
    for (const v1::LabelScore& label : case_score.labels()) {
      scored.labels.push_back({.reference_voxels = label.reference_voxels(),
                               .predicted_voxels = label.predicted_voxels(),
                               .common_voxels = label.common_voxels()});
    }
  }
  return scores;
}

v1::SubmitUpdateRequest ToMessage(const RoundUpdate& update) {
  v1::SubmitUpdateRequest message;
  message.set_study(update.study);
  message.set_round(update.round);
  message.set_weights_digest(update.weights_digest);
  message.set_training_cases(update.training_cases);
  message.set_steps(update.steps);
  message.set_mean_loss(update.mean_loss);
  *message.mutable_model_scores() = ToMessage(update.model_scores);
  message.set_seconds_training(update.seconds_training);
  message.set_seconds_scoring(update.seconds_scoring);
  if (update.loss_before.has_value()) message.set_loss_before(*update.loss_before);
  return message;
}

RoundUpdate RoundUpdateFrom(const v1::SubmitUpdateRequest& message) {
  return {.study = message.study(),
          .round = message.round(),
          .weights_digest = message.weights_digest(),
          .training_cases = message.training_cases(),
          .steps = message.steps(),
          .mean_loss = message.mean_loss(),
          .model_scores = ScoredCasesFrom(message.model_scores()),
          .seconds_training = message.seconds_training(),
          .seconds_scoring = message.seconds_scoring(),
          .loss_before =
              message.has_loss_before() ? std::optional(message.loss_before()) : std::nullopt};
}

}  // namespace isoscan
