#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "server/storage/phase_word.h"
#include "server/storage/sqlite_journal.h"

namespace isoscan {
namespace {

std::vector<std::int64_t> ParseCounts(const std::string& text) {
  std::vector<std::int64_t> counts;
  const char* position = text.data();
  const char* const end = position + text.size();
  while (position < end) {
    std::int64_t count = 0;
    position = std::from_chars(position, end, count).ptr + 1;  // Past the comma.
    counts.push_back(count);
  }
  return counts;
}

// Written as short as they can be read back exactly.
std::vector<double> ParseNumbers(const std::string& text) {
  std::vector<double> numbers;
  const char* position = text.data();
  const char* const end = position + text.size();
  while (position < end) {
    double number = 0;
    position = std::from_chars(position, end, number).ptr + 1;  // Past the comma.
    numbers.push_back(number);
  }
  return numbers;
}

absl::Status ReadParticipants(Database& database, const std::string& study,
                              std::vector<JournaledParticipant>& participants) {
  return database.Each(
      [&](const Statement& row) {
        JournaledParticipant& participant = participants.emplace_back();
        participant.cohort = {
            .name = row.Text(0),
            .training_cases = row.Integer(1),
            .held_out_cases = row.Integer(2),
            .refused_cases = row.Integer(3),
            .raw = {row.Number(4), row.Number(5), ParseCounts(row.Text(6))},
            .harmonized = {row.Number(7), row.Number(8), ParseCounts(row.Text(9))},
            .withdrawn = row.Integer(11) != 0,
            .standard = {.sum = ParseNumbers(row.Text(13)), .cases = row.Integer(12)}};
        participant.at_start = row.Integer(10) != 0;
        participant.last_update = row.Moment(14);
      },
      "SELECT site, training_cases, held_out_cases, refused_cases, raw_low, raw_high, raw_counts, "
      "harmonized_low, harmonized_high, harmonized_counts, at_start, withdrawn, "
      "coalesce(cases, 0), coalesce(sum, ''), coalesce((SELECT max(received) FROM updates "
      "WHERE updates.study = ?1 AND updates.site = participants.site), 0) "
      "FROM participants LEFT JOIN standard_sums USING (study, site) "
      "WHERE study = ?1 ORDER BY site",
      study);
}

absl::StatusOr<DecimalSketch> ReadSketch(int digits, const std::string& buckets) {
  const std::vector<std::int64_t> numbers = ParseCounts(buckets);
  std::map<std::int64_t, std::int64_t> counts;
  for (std::size_t i = 0; i + 1 < numbers.size(); i += 2) counts[numbers[i]] = numbers[i + 1];
  return DecimalSketch::FromBuckets(digits, std::move(counts));
}

absl::Status ReadFingerprints(Database& database, const std::string& study,
                              std::vector<JournaledParticipant>& participants) {
  const auto of_site = [&participants](const std::string& site) -> std::optional<Fingerprint>& {
    return std::find_if(participants.begin(), participants.end(),
                        [&site](const auto& known) { return known.cohort.name == site; })
        ->cohort.fingerprint;
  };
  RETURN_IF_ERROR(database.Each(
      [&](const Statement& row) {
        Fingerprint fingerprint = Fingerprint::Empty(row.Integer(1), row.Integer(2));
        fingerprint.cases = row.Integer(3);
        of_site(row.Text(0)) = std::move(fingerprint);
      },
      "SELECT site, channels, classes, cases FROM fingerprints WHERE study = ?1", study));
  absl::Status damage;
  RETURN_IF_ERROR(database.Each(
      [&](const Statement& row) {
        Fingerprint& fingerprint = *of_site(row.Text(0));
        const auto part = static_cast<std::size_t>(row.Integer(1));
        DecimalSketch& sketch = *Sketches(fingerprint).at(part);
        absl::StatusOr<DecimalSketch> read = ReadSketch(sketch.digits(), row.Text(2));
        damage.Update(read.status());
        if (!read.ok()) return;
        sketch = *std::move(read);
        if (part < kSketchesOfGrids) return;
        fingerprint.intensities[part - kSketchesOfGrids].moments = {
            .count = sketch.count(), .mean = row.Number(3), .squared_deviations = row.Number(4)};
      },
      "SELECT site, part, buckets, mean, squared_deviations FROM fingerprint_sketches "
      "WHERE study = ?1",
      study));
  if (damage.ok()) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} is damaged: a fingerprint of study {}: {}; restore it from a backup",
                  database.path(), study, std::string(damage.message())));
}

absl::Status ReadModels(Database& database, const std::string& study,
                        std::vector<GlobalModelRecord>& models) {
  return database.Each(
      [&](const Statement& row) {
        models.push_back({row.Small(0), row.Text(1), row.Integer(2)});
      },
      "SELECT round, digest, bytes FROM models WHERE study = ?1 ORDER BY round", study);
}

absl::Status ReadState(Database& database, const std::string& study, ServerState& state) {
  RETURN_IF_ERROR(database.Each(
      [&](const Statement& row) {
        state.digest = row.Text(0);
        state.bytes = row.Integer(1);
      },
      "SELECT digest, bytes FROM server_states WHERE study = ?1", study));
  return database.Each(
      [&](const Statement& row) { state.site_weights[row.Text(0)] = row.Number(1); },
      "SELECT site, weight FROM site_weights WHERE study = ?1", study);
}

absl::Status ReadUpdates(Database& database, const std::string& study, int round,
                         std::vector<JournaledUpdate>& updates) {
  return database.Each(
      [&](const Statement& row) {
        updates.push_back(
            {.site = row.Text(0),
             .weights_digest = row.Text(1),
             .training_cases = row.Integer(2),
             .steps = row.Integer(3),
             .mean_loss = row.Number(4),
             .seconds_training = row.Number(5),
             .seconds_scoring = row.Number(6),
             .loss_before = row.IsNull(7) ? std::nullopt : std::optional(row.Number(7))});
      },
      "SELECT site, weights_digest, training_cases, steps, mean_loss, seconds_training, "
      "seconds_scoring, loss_before "
      "FROM updates WHERE study = ?1 AND round = ?2 ORDER BY site",
      study, round);
}

absl::Status ReadAsked(Database& database, const std::string& study, int round,
                       std::set<std::string>& sites) {
  return database.Each([&](const Statement& row) { sites.insert(row.Text(0)); },
                       "SELECT site FROM asked WHERE study = ?1 AND round = ?2", study, round);
}

absl::Status ReadEarlyEnd(Database& database, const std::string& study,
                          std::optional<EarlyEnd>& end) {
  return database.Each(
      [&](const Statement& row) { end = EarlyEnd{.round = row.Small(0), .reason = row.Text(1)}; },
      "SELECT round, reason FROM early_ends WHERE study = ?1", study);
}

// Sites that have scores of this model.
absl::Status ReadScored(Database& database, const std::string& study, int after_round,
                        std::vector<std::string>& sites) {
  return database.Each([&](const Statement& row) { sites.push_back(row.Text(0)); },
                       "SELECT DISTINCT site FROM label_scores "
                       "WHERE study = ?1 AND after_round = ?2 ORDER BY site",
                       study, after_round);
}

// Of label_scores.after_round: below 0 are the models of single sites.
constexpr int kOldestModel = -2;

// From that value on, without certificates.
absl::Status ReadScores(Database& database, const std::string& study, int first_round,
                        std::vector<ModelScoresRecord>& scores) {
  int current = 0;
  return database.Each(
      [&](const Statement& row) {
        const std::string site = row.Text(0);
        const int after_round = row.Small(1);
        if (scores.empty() || scores.back().site != site || current != after_round) {
          current = after_round;
          using Model = ModelScoresRecord::Model;
          scores.push_back({.model = after_round == -1   ? Model::kLocalOnly
                                     : after_round == -2 ? Model::kPersonal
                                                         : Model::kGlobal,
                            .after_round = std::max(after_round, 0),
                            .site = site,
                            .cases = {}});
        }
        std::vector<CaseScoreRecord>& cases = scores.back().cases;
        if (cases.empty() || cases.back().case_index != row.Small(2)) {
          cases.push_back({.case_index = row.Small(2), .cohort = row.Text(3), .labels = {}});
        }
        cases.back().labels.push_back(
            {row.Number(4), row.Integer(5), row.Integer(6), row.Integer(7)});
      },
      "SELECT site, after_round, case_index, cohort, dice, reference_voxels, predicted_voxels, "
      "common_voxels FROM label_scores WHERE study = ?1 AND after_round >= ?2 "
      "ORDER BY site, after_round < 0, after_round, case_index, label",
      study, first_round);
}

/// Puts each certificate beside the scores of its model.
absl::Status ReadCertificates(Database& database, const std::string& study,
                              std::vector<ModelScoresRecord>& scores) {
  const auto place_of = [&scores](const Statement& row) {
    const auto found =
        std::find_if(scores.begin(), scores.end(), [&row](const ModelScoresRecord& record) {
          return record.model == ModelScoresRecord::Model::kGlobal && record.site == row.Text(0) &&
                 record.after_round == row.Small(1);
        });
    return found == scores.end() ? nullptr : &found->certificate;
  };
  RETURN_IF_ERROR(database.Each(
      [&](const Statement& row) {
        std::optional<InvarianceCertificate>* const certificate = place_of(row);
        if (certificate == nullptr) return;
        *certificate = InvarianceCertificate{.cases = row.Integer(2),
                                             .largest_logit_change = row.Number(3),
                                             .scale = row.Number(4),
                                             .bias = row.Number(5),
                                             .voxels_changed = row.Integer(6),
                                             .voxels_compared = row.Integer(7)};
        for (const PerturbationFacts& facts : PerturbationTable()) {
          (*certificate)->curves.push_back({.perturbation = facts.perturbation, .points = {}});
        }
      },
      "SELECT site, after_round, cases, largest_logit_change, scale, bias, voxels_changed, "
      "voxels_compared FROM certificates WHERE study = ?1",
      study));
  return database.Each(
      [&](const Statement& row) {
        std::optional<InvarianceCertificate>* const certificate = place_of(row);
        const std::optional<Perturbation> perturbation = PerturbationOf(row.Text(2));
        if (certificate == nullptr || !certificate->has_value() || !perturbation.has_value()) {
          return;
        }
        (*certificate)
            ->curves[static_cast<std::size_t>(*perturbation)]
            .points.push_back({.amount = row.Number(3),
                               .cases = row.Integer(4),
                               .flipped = row.Number(5),
                               .dice = row.Number(6)});
      },
      "SELECT site, after_round, perturbation, amount, cases, flipped, dice "
      "FROM degradation_points WHERE study = ?1 ORDER BY site, after_round, perturbation, amount",
      study);
}

absl::Status ReadStandard(Database& database, const std::string& study,
                          std::vector<double>& standard) {
  return database.Each([&](const Statement& row) { standard = ParseNumbers(row.Text(0)); },
                       "SELECT numbers FROM standards WHERE study = ?1", study);
}

}  // namespace

absl::StatusOr<std::vector<JournaledStudy>> SqliteJournal::Studies() const {
  absl::MutexLock lock(&database_->mutex());
  std::map<std::string, JournaledStudy> by_name;
  std::map<std::string, std::string> phase_words;
  RETURN_IF_ERROR(database_->Each(
      [&](const Statement& row) {
        phase_words[row.Text(0)] = row.Text(2);
        JournaledStudy& study = by_name[row.Text(0)];
        study.name = row.Text(0);
        study.toml = row.Text(1);
        study.created = row.Moment(3);
        study.phase_since = row.Moment(4);
        study.round = row.Small(5);
        study.round_opened = row.Moment(6);
        study.draft_digest = row.Text(7);
      },
      "SELECT name, studies.toml, phase, created, phase_since, studies.round, "
      "coalesce(opened, 0), coalesce(drafts.digest, '') "
      "FROM studies LEFT JOIN rounds ON rounds.study = name AND rounds.round = studies.round "
      "LEFT JOIN drafts ON drafts.study = name"));

  std::vector<JournaledStudy> studies;
  for (auto& [name, study] : by_name) {
    ASSIGN_OR_RETURN(study.phase, PhaseOf(phase_words[name]));
    RETURN_IF_ERROR(ReadParticipants(*database_, name, study.participants));
    RETURN_IF_ERROR(ReadFingerprints(*database_, name, study.participants));
    RETURN_IF_ERROR(ReadStandard(*database_, name, study.standard));
    RETURN_IF_ERROR(ReadModels(*database_, name, study.models));
    RETURN_IF_ERROR(ReadEarlyEnd(*database_, name, study.early_end));
    RETURN_IF_ERROR(ReadAsked(*database_, name, study.round, study.asked));
    RETURN_IF_ERROR(ReadState(*database_, name, study.state));
    RETURN_IF_ERROR(ReadUpdates(*database_, name, study.round, study.updates));
    // While final scores arrive, the last model came out of the round before the open one.
    RETURN_IF_ERROR(ReadScored(*database_, name, study.round - 1, study.scored));
    RETURN_IF_ERROR(ReadScored(*database_, name, /*after_round=*/-1, study.scored_local_only));
    studies.push_back(std::move(study));
  }
  return studies;
}

absl::StatusOr<std::vector<RoundRecord>> SqliteJournal::ClosedRounds(
    const std::string& study) const {
  absl::MutexLock lock(&database_->mutex());
  std::vector<RoundRecord> rounds;
  RETURN_IF_ERROR(database_->Each(
      [&](const Statement& row) {
        rounds.push_back({.round = row.Small(0),
                          .opened = row.Moment(1),
                          .closed = row.Moment(2),
                          .model_digest = row.Text(3),
                          .seconds_aggregating = row.Number(4),
                          .ends_training = row.Text(5),
                          .sites = {}});
      },
      "SELECT round, opened, closed, digest, seconds_aggregating, coalesce(reason, '') "
      "FROM rounds JOIN models USING (study, round) LEFT JOIN early_ends USING (study, round) "
      "WHERE study = ?1 AND closed IS NOT NULL ORDER BY round",
      study));
  std::map<int, std::size_t> position;
  for (std::size_t i = 0; i < rounds.size(); ++i) position[rounds[i].round] = i;
  RETURN_IF_ERROR(database_->Each(
      [&](const Statement& row) {
        using Outcome = ParticipationRecord::Outcome;
        const bool left_out = !row.Text(3).empty();
        const bool has_update = !row.IsNull(4);
        rounds[position.at(row.Small(0))].sites.push_back(
            {.site = row.Text(1),
             .outcome = !left_out                      ? Outcome::kContributed
                        : row.IsNull(8) && !has_update ? Outcome::kNotAsked
                                                       : Outcome::kLeftOut,
             .declared = true,
             .reason = row.Text(3),
             .training_cases = row.Integer(4),
             .weight = row.Number(2),
             .mean_loss = has_update ? row.Number(5) : 0,
             .seconds_training = has_update ? row.Number(6) : 0,
             .seconds_scoring = has_update ? row.Number(7) : 0});
      },
      "SELECT round, site, weight, reason, training_cases, mean_loss, seconds_training, "
      "seconds_scoring, asked.site "
      "FROM participation LEFT JOIN updates USING (study, round, site) "
      "LEFT JOIN asked USING (study, round, site) "
      "WHERE study = ?1 ORDER BY round, site",
      study));
  return rounds;
}

absl::StatusOr<std::vector<ModelScoresRecord>> SqliteJournal::Scores(
    const std::string& study) const {
  absl::MutexLock lock(&database_->mutex());
  std::vector<ModelScoresRecord> scores;
  RETURN_IF_ERROR(ReadScores(*database_, study, kOldestModel, scores));
  RETURN_IF_ERROR(ReadCertificates(*database_, study, scores));
  return scores;
}

absl::StatusOr<std::vector<ModelScoresRecord>> SqliteJournal::GlobalScores(const std::string& study,
                                                                           int first_round) const {
  absl::MutexLock lock(&database_->mutex());
  std::vector<ModelScoresRecord> scores;
  RETURN_IF_ERROR(ReadScores(*database_, study, first_round, scores));
  return scores;
}

absl::StatusOr<std::optional<std::string>> SqliteJournal::TakenWeights(
    const std::string& study, int round, const std::string& site) const {
  absl::MutexLock lock(&database_->mutex());
  std::optional<std::string> digest;
  RETURN_IF_ERROR(database_->Each(
      [&](const Statement& row) { digest = row.Text(0); },
      "SELECT weights_digest FROM updates WHERE study = ?1 AND round = ?2 AND site = ?3", study,
      round, site));
  return digest;
}

}  // namespace isoscan
