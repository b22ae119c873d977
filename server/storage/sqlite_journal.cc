#include "server/storage/sqlite_journal.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "common/process/fault_point.h"
#include "server/storage/migrations.h"
#include "server/storage/phase_word.h"

namespace isoscan {
namespace {

// label_scores.after_round of a model that a site trained alone.
// Values of label_scores.after_round that are no round.
constexpr int kLocalOnlyModel = -1;
constexpr int kPersonalModel = -2;

absl::Status RemoveScores(Database& database, const std::string& study, const std::string& site,
                          int after_round) {
  RETURN_IF_ERROR(
      database.Run("DELETE FROM certificates WHERE study = ?1 AND site = ?2 AND after_round = ?3",
                   study, site, after_round));
  return database.Run(
      "DELETE FROM label_scores WHERE study = ?1 AND site = ?2 AND after_round = ?3", study, site,
      after_round);
}

absl::Status ReplaceScores(Database& database, const std::string& study, const std::string& site,
                           int after_round, const std::vector<CaseScoreRecord>& cases) {
  RETURN_IF_ERROR(RemoveScores(database, study, site, after_round));
  ASSIGN_OR_RETURN(Statement insert, database.Prepare("INSERT INTO label_scores VALUES "
                                                      "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"));
  for (const CaseScoreRecord& scored : cases) {
    for (std::size_t label = 0; label < scored.labels.size(); ++label) {
      const LabelScoreRecord& score = scored.labels[label];
      insert.Bind(1, study);
      insert.Bind(2, site);
      insert.Bind(3, after_round);
      insert.Bind(4, scored.case_index);
      insert.Bind(5, scored.cohort);
      insert.Bind(6, static_cast<std::int64_t>(label));
      insert.Bind(7, score.dice);
      insert.Bind(8, score.reference_voxels);
      insert.Bind(9, score.predicted_voxels);
      insert.Bind(10, score.common_voxels);
      RETURN_IF_ERROR(insert.Step().status());
      insert.Reset();
    }
  }
  return absl::OkStatus();
}

absl::Status AddCertificate(Database& database, const std::string& study, const std::string& site,
                            int after_round, const InvarianceCertificate& certificate) {
  RETURN_IF_ERROR(database.Run(
      "INSERT INTO certificates VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", study, site,
      after_round, certificate.cases, certificate.largest_logit_change, certificate.scale,
      certificate.bias, certificate.voxels_changed, certificate.voxels_compared));
  for (const DegradationCurve& curve : certificate.curves) {
    for (const DegradationPoint& point : curve.points) {
      RETURN_IF_ERROR(
          database.Run("INSERT INTO degradation_points VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                       study, site, after_round, FactsOf(curve.perturbation).word, point.amount,
                       point.cases, point.flipped, point.dice));
    }
  }
  return absl::OkStatus();
}

std::string BucketsText(const DecimalSketch& sketch) {
  std::vector<std::int64_t> numbers;
  for (const auto& [key, count] : sketch.buckets()) numbers.insert(numbers.end(), {key, count});
  return fmt::format("{}", fmt::join(numbers, ","));
}

absl::Status RemoveFingerprint(Database& database, const std::string& study,
                               const std::string& site) {
  return database.Run("DELETE FROM fingerprints WHERE study = ?1 AND site = ?2", study, site);
}

absl::Status ReplaceFingerprint(Database& database, const std::string& study,
                                const SiteRecord& cohort) {
  RETURN_IF_ERROR(RemoveFingerprint(database, study, cohort.name));
  if (!cohort.fingerprint.has_value()) return absl::OkStatus();
  const Fingerprint& fingerprint = *cohort.fingerprint;
  RETURN_IF_ERROR(database.Run("INSERT INTO fingerprints VALUES (?1, ?2, ?3, ?4, ?5)", study,
                               cohort.name, fingerprint.channels, fingerprint.classes,
                               fingerprint.cases));
  const std::vector<const DecimalSketch*> sketches = Sketches(fingerprint);
  for (std::size_t part = 0; part < sketches.size(); ++part) {
    const bool of_intensities = part >= kSketchesOfGrids;
    const Moments moments = of_intensities
                                ? fingerprint.intensities[part - kSketchesOfGrids].moments
                                : Moments{.mean = std::nan(""), .squared_deviations = std::nan("")};
    RETURN_IF_ERROR(database.Run("INSERT INTO fingerprint_sketches VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                                 study, cohort.name, static_cast<std::int64_t>(part),
                                 BucketsText(*sketches[part]), moments.mean,
                                 moments.squared_deviations));
  }
  return absl::OkStatus();
}

absl::Status RemoveUpdate(Database& database, const std::string& study, int round,
                          const std::string& site) {
  RETURN_IF_ERROR(database.Run("DELETE FROM updates WHERE study = ?1 AND round = ?2 AND site = ?3",
                               study, round, site));
  return RemoveScores(database, study, site, round - 1);
}

absl::Status AddModel(Database& database, const std::string& study,
                      const GlobalModelRecord& model) {
  return database.Run("INSERT INTO models (study, round, digest, bytes) VALUES (?1, ?2, ?3, ?4)",
                      study, model.round, model.digest, model.bytes);
}

absl::Status ReplaceState(Database& database, const std::string& study, const ServerState& state) {
  RETURN_IF_ERROR(database.Run("DELETE FROM server_states WHERE study = ?1", study));
  RETURN_IF_ERROR(database.Run("DELETE FROM site_weights WHERE study = ?1", study));
  if (!state.digest.empty()) {
    RETURN_IF_ERROR(database.Run("INSERT INTO server_states VALUES (?1, ?2, ?3)", study,
                                 state.digest, state.bytes));
  }
  for (const auto& [site, weight] : state.site_weights) {
    RETURN_IF_ERROR(
        database.Run("INSERT INTO site_weights VALUES (?1, ?2, ?3)", study, site, weight));
  }
  return absl::OkStatus();
}

absl::Status AddAsked(Database& database, const std::string& study, const AskedSites& asked) {
  for (const std::string& site : asked.sites) {
    RETURN_IF_ERROR(
        database.Run("INSERT OR IGNORE INTO asked VALUES (?1, ?2, ?3)", study, asked.round, site));
  }
  return absl::OkStatus();
}

absl::Status OpenRound(Database& database, const std::string& study, const AskedSites& asked,
                       Time now) {
  const int round = asked.round;
  RETURN_IF_ERROR(database.Run("INSERT INTO rounds (study, round, opened) VALUES (?1, ?2, ?3)",
                               study, round, now));
  RETURN_IF_ERROR(AddAsked(database, study, asked));
  return database.Run("UPDATE studies SET round = ?2 WHERE name = ?1", study, round);
}

absl::Status WritePhase(Database& database, const std::string& study, StudyPhase phase, Time now) {
  return database.Run("UPDATE studies SET phase = ?2, phase_since = ?3 WHERE name = ?1", study,
                      WordOf(phase), now);
}

/// The last step of a method, whose name its fault points have.
absl::Status Commit(Transaction transaction, [[maybe_unused]] const char* method) {
  ISOSCAN_FAULT_POINT("journal.before", method);
  RETURN_IF_ERROR(std::move(transaction).Commit());
  ISOSCAN_FAULT_POINT("journal.after", method);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteJournal>> SqliteJournal::Open(
    const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  {
    absl::MutexLock lock(&database->mutex());
    RETURN_IF_ERROR(Migrate(*database, SystemClock().Now()));
  }
  return std::unique_ptr<SqliteJournal>(new SqliteJournal(std::move(database)));
}

absl::Status SqliteJournal::CheckIntegrity() const {
  absl::MutexLock lock(&database_->mutex());
  std::string verdict;
  RETURN_IF_ERROR(database_->Each([&](const Statement& row) { verdict = row.Text(0); },
                                  "PRAGMA integrity_check(1)"));
  if (verdict != "ok") {
    return absl::DataLossError(
        fmt::format("{} is damaged: {}; restore it from a backup", database_->path(), verdict));
  }
  bool dangling = false;
  RETURN_IF_ERROR(database_->Each(
      [&](const Statement& row) {
        dangling = true;
        verdict = row.Text(0);
      },
      "PRAGMA foreign_key_check"));
  if (dangling) {
    return absl::DataLossError(fmt::format(
        "{} is damaged: table {} points to a row that is missing; restore it from a backup",
        database_->path(), verdict));
  }
  return absl::OkStatus();
}

absl::Status SqliteJournal::CreateStudy(const Study& study, const GlobalModelRecord& initial,
                                        Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(
      database_->Run("INSERT INTO studies (name, digest, toml, phase, created, phase_since, round) "
                     "VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0)",
                     study.name, study.digest, study.toml, WordOf(StudyPhase::kCreated), now));
  RETURN_IF_ERROR(AddModel(*database_, study.name, initial));
  return Commit(std::move(transaction), "create_study");
}

absl::Status SqliteJournal::PlanStudy(const Study& planned, const GlobalModelRecord& initial,
                                      Time now) {
  const std::string& study = planned.name;
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_->Run(
      "INSERT INTO drafts SELECT name, digest, toml, ?2 FROM studies WHERE name = ?1", study, now));
  RETURN_IF_ERROR(database_->Run("UPDATE studies SET digest = ?2, toml = ?3 WHERE name = ?1", study,
                                 planned.digest, planned.toml));
  RETURN_IF_ERROR(
      database_->Run("UPDATE models SET digest = ?2, bytes = ?3 WHERE study = ?1 AND round = 0",
                     study, initial.digest, initial.bytes));
  RETURN_IF_ERROR(
      database_->Run("DELETE FROM standard_sums WHERE study = ?1 AND site IN "
                     "(SELECT site FROM participants WHERE study = ?1 AND withdrawn = 0)",
                     study));
  RETURN_IF_ERROR(
      database_->Run("DELETE FROM participants WHERE study = ?1 AND withdrawn = 0", study));
  return Commit(std::move(transaction), "plan_study");
}

absl::Status SqliteJournal::StartStudy(const std::string& study,
                                       const std::vector<double>& standard,
                                       const std::set<std::string>& asked, Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(WritePhase(*database_, study, StudyPhase::kRunning, now));
  RETURN_IF_ERROR(database_->Run(
      "UPDATE participants SET at_start = 1 WHERE study = ?1 AND withdrawn = 0", study));
  if (!standard.empty()) {
    RETURN_IF_ERROR(database_->Run("INSERT INTO standards VALUES (?1, ?2)", study,
                                   fmt::format("{}", fmt::join(standard, ","))));
  }
  RETURN_IF_ERROR(OpenRound(*database_, study, {.round = 1, .sites = asked}, now));
  return Commit(std::move(transaction), "start_study");
}

absl::Status SqliteJournal::SetPhase(const std::string& study, StudyPhase phase, Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(WritePhase(*database_, study, phase, now));
  return Commit(std::move(transaction), "set_phase");
}

absl::Status SqliteJournal::FinishStudy(const std::string& study, Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(WritePhase(*database_, study, StudyPhase::kFinished, now));
  RETURN_IF_ERROR(ReplaceState(*database_, study, {}));  // No round follows.
  RETURN_IF_ERROR(database_->Run(
      "UPDATE rounds SET closed = ?2 WHERE study = ?1 AND closed IS NULL", study, now));
  return Commit(std::move(transaction), "finish_study");
}

absl::Status SqliteJournal::Approve(const std::string& study, const SiteRecord& cohort,
                                    const AskedSites& also_asked, Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_->Run(
      "INSERT INTO participants VALUES "
      "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0) "
      "ON CONFLICT (study, site) DO UPDATE SET training_cases = ?3, held_out_cases = ?4, "
      "refused_cases = ?5, raw_low = ?6, raw_high = ?7, raw_counts = ?8, harmonized_low = ?9, "
      "harmonized_high = ?10, harmonized_counts = ?11, approved = ?12, withdrawn = 0",
      study, cohort.name, cohort.training_cases, cohort.held_out_cases, cohort.refused_cases,
      cohort.raw.low, cohort.raw.high, fmt::format("{}", fmt::join(cohort.raw.counts, ",")),
      cohort.harmonized.low, cohort.harmonized.high,
      fmt::format("{}", fmt::join(cohort.harmonized.counts, ",")), now));
  RETURN_IF_ERROR(database_->Run("INSERT OR REPLACE INTO standard_sums VALUES (?1, ?2, ?3, ?4)",
                                 study, cohort.name, cohort.standard.cases,
                                 fmt::format("{}", fmt::join(cohort.standard.sum, ","))));
  RETURN_IF_ERROR(ReplaceFingerprint(*database_, study, cohort));
  RETURN_IF_ERROR(AddAsked(*database_, study, also_asked));
  return Commit(std::move(transaction), "approve");
}

absl::Status SqliteJournal::Withdraw(const std::string& study, const std::string& site,
                                     const AskedSites& also_asked) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_->Run(
      "UPDATE participants SET withdrawn = 1 WHERE study = ?1 AND site = ?2", study, site));
  RETURN_IF_ERROR(RemoveFingerprint(*database_, study, site));
  RETURN_IF_ERROR(RemoveUpdate(*database_, study, also_asked.round, site));
  // A site's own models are scored in the last round only, which is open.
  RETURN_IF_ERROR(RemoveScores(*database_, study, site, kLocalOnlyModel));
  RETURN_IF_ERROR(RemoveScores(*database_, study, site, kPersonalModel));
  RETURN_IF_ERROR(AddAsked(*database_, study, also_asked));
  return Commit(std::move(transaction), "withdraw");
}

absl::Status SqliteJournal::TakeUpdate(const std::string& site, const SiteUpdate& update,
                                       Time now) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_->Run(
      "INSERT OR REPLACE INTO updates (study, round, site, weights_digest, training_cases, steps, "
      "mean_loss, seconds_training, seconds_scoring, received, loss_before) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
      update.study, update.round, site, update.weights_digest, update.training_cases, update.steps,
      update.mean_loss, update.seconds_training, update.seconds_scoring, now,
      update.loss_before.value_or(std::nan(""))));
  RETURN_IF_ERROR(
      ReplaceScores(*database_, update.study, site, update.round - 1, update.model_scores));
  return Commit(std::move(transaction), "take_update");
}

absl::Status SqliteJournal::DropUpdate(const std::string& study, int round,
                                       const std::string& site) {
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(RemoveUpdate(*database_, study, round, site));
  return Commit(std::move(transaction), "drop_update");
}

absl::Status SqliteJournal::TakeScores(const std::string& study, const ModelScoresRecord& scores) {
  using Model = ModelScoresRecord::Model;
  const int after_round = scores.model == Model::kLocalOnly  ? kLocalOnlyModel
                          : scores.model == Model::kPersonal ? kPersonalModel
                                                             : scores.after_round;
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(ReplaceScores(*database_, study, scores.site, after_round, scores.cases));
  if (scores.certificate.has_value()) {
    RETURN_IF_ERROR(
        AddCertificate(*database_, study, scores.site, after_round, *scores.certificate));
  }
  return Commit(std::move(transaction), "take_scores");
}

absl::Status SqliteJournal::CloseRound(const std::string& study, const ClosedRound& round,
                                       const std::set<std::string>& asked) {
  const RoundRecord& closed = round.record;
  absl::MutexLock lock(&database_->mutex());
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_->Run(
      "UPDATE rounds SET closed = ?3, seconds_aggregating = ?4 WHERE study = ?1 AND round = ?2",
      study, closed.round, closed.closed, closed.seconds_aggregating));
  for (const ParticipationRecord& site : closed.sites) {
    RETURN_IF_ERROR(
        database_->Run("INSERT INTO participation (study, round, site, weight, reason) "
                       "VALUES (?1, ?2, ?3, ?4, ?5)",
                       study, closed.round, site.site, site.weight, site.reason));
  }
  if (!closed.ends_training.empty()) {
    RETURN_IF_ERROR(database_->Run("INSERT INTO early_ends VALUES (?1, ?2, ?3)", study,
                                   closed.round, closed.ends_training));
  }
  RETURN_IF_ERROR(AddModel(*database_, study, round.model));
  RETURN_IF_ERROR(ReplaceState(*database_, study, round.state));
  RETURN_IF_ERROR(
      OpenRound(*database_, study, {.round = closed.round + 1, .sites = asked}, closed.closed));
  return Commit(std::move(transaction), "close_round");
}

}  // namespace isoscan
