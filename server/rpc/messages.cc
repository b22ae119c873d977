#include "server/rpc/messages.h"

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "common/planning/fingerprint.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

v1::StudyPhase ToMessage(StudyPhase phase) {
  switch (phase) {
    case StudyPhase::kCreated:
      return v1::STUDY_PHASE_CREATED;
    case StudyPhase::kRunning:
      return v1::STUDY_PHASE_RUNNING;
    case StudyPhase::kPaused:
      return v1::STUDY_PHASE_PAUSED;
    case StudyPhase::kFinished:
      return v1::STUDY_PHASE_FINISHED;
    case StudyPhase::kStopped:
      return v1::STUDY_PHASE_STOPPED;
  }
  return v1::STUDY_PHASE_UNSPECIFIED;
}

v1::Assignment::Kind ToMessage(Assignment::Kind kind) {
  switch (kind) {
    case Assignment::Kind::kTrain:
      return v1::Assignment::KIND_TRAIN;
    case Assignment::Kind::kScore:
      return v1::Assignment::KIND_SCORE;
    case Assignment::Kind::kLocalOnly:
      return v1::Assignment::KIND_LOCAL_ONLY;
    case Assignment::Kind::kStudyEnded:
      return v1::Assignment::KIND_STUDY_ENDED;
  }
  return v1::Assignment::KIND_UNSPECIFIED;
}

HistogramRecord FromMessage(const v1::Histogram& histogram) {
  return {.low = histogram.low(),
          .high = histogram.high(),
          .counts = {histogram.counts().begin(), histogram.counts().end()}};
}

constexpr int kMaximumChannels = 64;  // What a study allows is fewer, and checked later.

/// Into the sketch that a fingerprint has for it.
absl::Status Take(const std::string& site, const v1::Sketch& message, DecimalSketch& sketch) {
  if (message.keys_size() != message.counts_size()) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared a distribution of {} buckets with "
                    "{} counts",
                    site, message.keys_size(), message.counts_size()));
  }
  std::map<std::int64_t, std::int64_t> buckets;
  for (int i = 0; i < message.keys_size(); ++i) {
    if (i > 0 && message.keys(i) <= message.keys(i - 1)) {
      return absl::InvalidArgumentError(
          fmt::format("{} declared a distribution whose bucket {} does not follow {}", site,
                      message.keys(i), message.keys(i - 1)));
    }
    buckets.emplace_hint(buckets.end(), message.keys(i), message.counts(i));
  }
  absl::StatusOr<DecimalSketch> read =
      DecimalSketch::FromBuckets(sketch.digits(), std::move(buckets));
  if (!read.ok()) {
    return absl::Status(read.status().code(),
                        fmt::format("{} declared a distribution that is none: {}", site,
                                    std::string(read.status().message())));
  }
  sketch = *std::move(read);
  return absl::OkStatus();
}

absl::StatusOr<Fingerprint> FromMessage(const std::string& site, const v1::Fingerprint& message) {
  if (message.intensities_size() > kMaximumChannels) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared intensities of {} channels, at most "
                    "{} are read",
                    site, message.intensities_size(), kMaximumChannels));
  }
  Fingerprint fingerprint = Fingerprint::Empty(message.intensities_size(), message.classes());
  fingerprint.cases = message.cases();
  for (const auto& [sent, sketches] : {std::pair(&message.spacing_mm(), &fingerprint.spacing_mm),
                                       std::pair(&message.size(), &fingerprint.size),
                                       std::pair(&message.extent_mm(), &fingerprint.extent_mm)}) {
    if (sent->size() != 3) {
      return absl::InvalidArgumentError(
          fmt::format("{} declared distributions along {} axes, expected 3", site, sent->size()));
    }
    for (int axis = 0; axis < 3; ++axis) {
      RETURN_IF_ERROR(Take(site, sent->Get(axis), (*sketches)[static_cast<std::size_t>(axis)]));
    }
  }
  RETURN_IF_ERROR(Take(site, message.relative_size(), fingerprint.relative_size));
  for (int channel = 0; channel < message.intensities_size(); ++channel) {
    const v1::ForegroundIntensities& sent = message.intensities(channel);
    ForegroundIntensities& own = fingerprint.intensities[static_cast<std::size_t>(channel)];
    RETURN_IF_ERROR(Take(site, sent.draws(), own.quantiles));
    own.moments = {.count = own.quantiles.count(),
                   .mean = sent.mean(),
                   .squared_deviations = sent.squared_deviations()};
  }
  return fingerprint;
}

}  // namespace

v1::StudyState ToMessage(const StudyStatus& study) {
  v1::StudyState message;
  message.set_name(study.name);
  message.set_digest(study.digest);
  message.set_toml(study.toml);
  message.set_phase(ToMessage(study.phase));
  message.set_round(study.round);
  message.set_rounds(study.rounds);
  message.set_waiting_for(study.waiting_for);
  message.set_final_scores(study.final_scores);
  message.set_early_end(study.early_end);
  message.mutable_standard()->Add(study.standard.begin(), study.standard.end());
  for (const SiteStatus& status : study.sites) {
    v1::SiteState& site = *message.add_sites();
    site.set_site(status.site);
    site.set_approved(status.approved);
    site.set_withdrawn(status.withdrawn);
    site.set_connected(status.connected);
    site.set_training_cases(status.training_cases);
    site.set_held_out_cases(status.held_out_cases);
    site.set_activity(status.activity);
    site.set_step(status.step);
    site.set_steps(status.steps);
  }
  return message;
}

v1::Assignments ToMessage(const std::vector<Assignment>& assignments) {
  v1::Assignments message;
  for (const Assignment& assignment : assignments) {
    v1::Assignment& entry = *message.add_assignments();
    entry.set_kind(ToMessage(assignment.kind));
    entry.set_study(assignment.study);
    entry.set_study_digest(assignment.study_digest);
    entry.set_round(assignment.round);
    entry.set_model_digest(assignment.model_digest);
    entry.set_model_bytes(assignment.model_bytes);
  }
  return message;
}

v1::GlobalModel ToMessage(const GlobalModelRecord& model) {
  v1::GlobalModel message;
  message.set_round(model.round);
  message.set_digest(model.digest);
  message.set_bytes(model.bytes);
  return message;
}

std::vector<CaseScoreRecord> FromMessage(const v1::SiteScores& scores) {
  std::vector<CaseScoreRecord> cases;
  cases.reserve(static_cast<std::size_t>(scores.cases_size()));
  for (const v1::CaseScore& score : scores.cases()) {
    CaseScoreRecord& record = cases.emplace_back();
    record.case_index = score.case_index();
    record.cohort = score.cohort();
    for (const v1::LabelScore& label : score.labels()) {
      record.labels.push_back({.dice = label.dice(),
                               .reference_voxels = label.reference_voxels(),
                               .predicted_voxels = label.predicted_voxels(),
                               .common_voxels = label.common_voxels()});
    }
  }
  return cases;
}

absl::StatusOr<InvarianceCertificate> FromMessage(const v1::InvarianceCertificate& message) {
  InvarianceCertificate certificate{.cases = message.cases(),
                                    .largest_logit_change = message.largest_logit_change(),
                                    .scale = message.scale(),
                                    .bias = message.bias(),
                                    .voxels_changed = message.voxels_changed(),
                                    .voxels_compared = message.voxels_compared()};
  for (const PerturbationFacts& facts : PerturbationTable()) {
    certificate.curves.push_back({.perturbation = facts.perturbation, .points = {}});
  }
  for (const v1::DegradationPoint& point : message.points()) {
    const std::optional<Perturbation> perturbation = PerturbationOf(point.perturbation());
    if (!perturbation.has_value()) {
      return absl::InvalidArgumentError(
          fmt::format("the certificate has a perturbation that this server does not know: '{}'",
                      Printable(point.perturbation()).substr(0, 64)));
    }
    certificate.curves[static_cast<std::size_t>(*perturbation)].points.push_back(
        {.amount = point.amount(),
         .cases = point.cases(),
         .flipped = point.flipped(),
         .dice = point.dice()});
  }
  return certificate;
}

SiteUpdate FromMessage(const v1::SubmitUpdateRequest& request) {
  return {.study = request.study(),
          .round = request.round(),
          .weights_digest = request.weights_digest(),
          .training_cases = request.training_cases(),
          .steps = request.steps(),
          .mean_loss = request.mean_loss(),
          .seconds_training = request.seconds_training(),
          .seconds_scoring = request.seconds_scoring(),
          .loss_before =
              request.has_loss_before() ? std::optional(request.loss_before()) : std::nullopt,
          .model_scores = FromMessage(request.model_scores())};
}

absl::StatusOr<SiteRecord> FromMessage(const std::string& name, const v1::CohortSummary& cohort) {
  SiteRecord record{
      .name = name,
      .training_cases = cohort.training_cases(),
      .held_out_cases = cohort.held_out_cases(),
      .refused_cases = cohort.refused_cases(),
      .raw = FromMessage(cohort.raw()),
      .harmonized = FromMessage(cohort.harmonized()),
      .withdrawn = false,
      .standard = {.sum = {cohort.standard_sum().begin(), cohort.standard_sum().end()},
                   .cases = cohort.standard_cases()}};
  if (cohort.has_fingerprint()) {
    ASSIGN_OR_RETURN(record.fingerprint, FromMessage(name, cohort.fingerprint()));
  }
  return record;
}

absl::StatusOr<Assignment::Kind> ScoredKind(v1::Assignment::Kind kind) {
  if (kind == v1::Assignment::KIND_SCORE) return Assignment::Kind::kScore;
  if (kind == v1::Assignment::KIND_LOCAL_ONLY) return Assignment::Kind::kLocalOnly;
  return absl::InvalidArgumentError(
      fmt::format("scores are of kind {}; expected KIND_SCORE ({}) or KIND_LOCAL_ONLY ({})",
                  static_cast<int>(kind), static_cast<int>(v1::Assignment::KIND_SCORE),
                  static_cast<int>(v1::Assignment::KIND_LOCAL_ONLY)));
}

std::string WordOf(RegisteredSite::State state) {
  switch (state) {
    case RegisteredSite::State::kInvited:
      return "invited";
    case RegisteredSite::State::kEnrolled:
      return "enrolled";
    case RegisteredSite::State::kSuspended:
      return "suspended";
  }
  return "unknown";
}

}  // namespace isoscan
