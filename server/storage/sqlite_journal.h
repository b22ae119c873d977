#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/rounds/journal.h"
#include "server/storage/database.h"
#include "server/storage/site_registry.h"

namespace isoscan {

/// The journal in one SQLite file (schema.sql). One mutex guards its connection, which the site
/// registry shares.
class SqliteJournal final : public Journal {
 public:
  /// Opens, creates or migrates the file.
  /// Errors: those of Database::Open and Migrate; FAILED_PRECONDITION "another isoscan-server uses
  ///         ..." while one does.
  static absl::StatusOr<std::unique_ptr<SqliteJournal>> Open(const std::filesystem::path& path);

  SiteRegistry& sites() { return sites_; }

  /// Reads every page and key. Errors: DATA_LOSS naming the first damage.
  absl::Status CheckIntegrity() const;

  absl::StatusOr<std::vector<JournaledStudy>> Studies() const override;
  absl::StatusOr<std::vector<RoundRecord>> ClosedRounds(const std::string& study) const override;
  absl::StatusOr<std::vector<ModelScoresRecord>> Scores(const std::string& study) const override;
  absl::StatusOr<std::vector<ModelScoresRecord>> GlobalScores(const std::string& study,
                                                              int first_round) const override;
  absl::StatusOr<std::optional<std::string>> TakenWeights(const std::string& study, int round,
                                                          const std::string& site) const override;

  absl::Status CreateStudy(const Study& study, const GlobalModelRecord& initial, Time now) override;
  absl::Status PlanStudy(const Study& planned, const GlobalModelRecord& initial, Time now) override;
  absl::Status StartStudy(const std::string& study, const std::vector<double>& standard,
                          const std::set<std::string>& asked, Time now) override;
  absl::Status SetPhase(const std::string& study, StudyPhase phase, Time now) override;
  absl::Status FinishStudy(const std::string& study, Time now) override;

  absl::Status Approve(const std::string& study, const SiteRecord& cohort,
                       const AskedSites& also_asked, Time now) override;
  absl::Status Withdraw(const std::string& study, const std::string& site,
                        const AskedSites& also_asked) override;
  absl::Status TakeUpdate(const std::string& site, const SiteUpdate& update, Time now) override;
  absl::Status DropUpdate(const std::string& study, int round, const std::string& site) override;
  absl::Status TakeScores(const std::string& study, const ModelScoresRecord& scores) override;

  absl::Status CloseRound(const std::string& study, const ClosedRound& round,
                          const std::set<std::string>& asked) override;

 private:
  explicit SqliteJournal(std::unique_ptr<Database> database)
      : database_(std::move(database)), sites_(*database_) {}

  std::unique_ptr<Database> database_;
  SiteRegistry sites_;
};

}  // namespace isoscan
