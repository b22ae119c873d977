#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/clock/clock.h"
#include "common/invariance/certificate.h"
#include "common/planning/fingerprint.h"
#include "common/population/population_mean.h"
#include "common/study/study.h"

namespace isoscan {

/// Everything that the fairness report is made of, read from the journal. Plain data: no database,
/// no message type.
struct HistogramRecord {
  double low = 0;
  double high = 0;
  std::vector<std::int64_t> counts;
};

struct LabelScoreRecord {
  double dice = 0;  ///< NaN when label and prediction are both empty.
  std::int64_t reference_voxels = 0;
  std::int64_t predicted_voxels = 0;
  std::int64_t common_voxels = 0;
};

struct CaseScoreRecord {
  int case_index = 0;
  std::string cohort;
  std::vector<LabelScoreRecord> labels;  ///< In the study's order.
};

/// Scores of one model on one site's held-out cases.
struct ModelScoresRecord {
  enum class Model {
    kGlobal,
    kLocalOnly,
    kPersonal,  ///< The site's own, after the last round (Ditto).
  };
  Model model = Model::kGlobal;
  /// kGlobal: rounds aggregated so far; 0 is the model before training. Others: unused.
  int after_round = 0;
  std::string site;
  std::vector<CaseScoreRecord> cases;
  /// Of kGlobal, where the site measured and sent one.
  std::optional<InvarianceCertificate> certificate = std::nullopt;
};

struct SiteRecord {
  std::string name;
  std::int64_t training_cases = 0;
  std::int64_t held_out_cases = 0;
  std::int64_t refused_cases = 0;
  HistogramRecord raw;
  HistogramRecord harmonized;
  bool withdrawn = false;
  CaseSum standard = {};  ///< What its cases add to the study's standard.
  /// What a draft is planned from, as Disclosed(); gone once it is planned.
  std::optional<Fingerprint> fingerprint = std::nullopt;
};

struct ParticipationRecord {
  std::string site;
  enum class Outcome {
    kContributed,
    kLeftOut,   ///< Asked, also where the site has withdrawn since.
    kNotAsked,  ///< It did not take part when the round opened, or the round asked others.
  };
  Outcome outcome = Outcome::kContributed;
  bool declared = true;  ///< By the study, or by its approval before the start.
  std::string reason;    ///< Unless it contributed, such as "no progress for 30 minutes".
  std::int64_t training_cases = 0;
  double weight = 0;  ///< In the aggregate, in [0, 1].
  double mean_loss = 0;
  double seconds_training = 0;
  double seconds_scoring = 0;
};

struct RoundRecord {
  int round = 0;
  Time opened{};
  Time closed{};
  std::string model_digest;  ///< Of the global model that came out.
  double seconds_aggregating = 0;
  /// Why no round of training follows although the study has more of them; empty: one does, or it
  /// was the last.
  std::string ends_training;
  std::vector<ParticipationRecord> sites;  ///< Every declared or asked site, by name.
};

struct StudyRecord {
  Study study;
  bool finished = false;
  Time created{};
  Time ended{};
  std::int64_t model_bytes = 0;
  std::string initial_model_digest;
  std::vector<SiteRecord> sites;  ///< By name.
  std::vector<RoundRecord> rounds;
  std::vector<ModelScoresRecord> scores;
  std::string software_version;
};

}  // namespace isoscan
