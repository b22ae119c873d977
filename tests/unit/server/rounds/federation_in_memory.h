#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/rounds/coordinator.h"
#include "server/storage/sqlite_journal.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

/// What differs from study to study in these tests; the rest is a network of a few hundred weights.
struct TinyStudy {
  std::string name = "tiny";
  std::vector<std::string> sites = {"berlin", "charite", "st-marys"};
  int rounds = 2;
  std::string quorum = "policy = \"all\"";
  bool local_only = false;
  std::string harmonization = "";  ///< Lines of that table; so are the others.
  std::string network = "";
  std::string training = "steps_per_round = 1";
  std::string aggregation = "fedavg";
  std::string rounds_table = "";

  std::string toml() const;
};

/// A coordinator with a real journal and real files, and the sites' side of the conversation
/// without network and training: a site "trains" by shifting the global model by an amount that
/// depends on its name and the round, so that every model depends on all those before it.
///
/// The clock stands still unless a test moves it.
class FederationInMemory {
 public:
  FederationInMemory();

  Coordinator& coordinator() { return *coordinator_; }
  Journal& journal() { return *journal_; }
  SimulatedClock& clock() { return clock_; }
  const std::filesystem::path& folder() const { return directory_.path(); }

  /// As a server that was killed: everything but the disk is forgotten.
  void Restart();

  /// Creates the study; its declared sites, or `sites`, approve it. The test fails on errors.
  void Create(const TinyStudy& study, const std::vector<std::string>& sites = {});
  void CreateAndStart(const TinyStudy& study, const std::vector<std::string>& sites = {});
  absl::Status Approve(const std::string& site, const std::string& study = "tiny");

  /// 10 training cases for berlin, 20 for charite, 30 for st-marys, 5 for others; 2 held out.
  static SiteRecord CohortOf(const std::string& site);
  static std::vector<CaseScoreRecord> Scores(double dice = 0.5);

  /// Writes what the site trained in the open round into the upload folder.
  absl::StatusOr<SiteUpdate> Upload(const std::string& site, const std::string& study = "tiny",
                                    float extra_shift = 0);
  /// Mean Dice of the models after 0, 1, ... rounds, at every site.
  void set_dice(std::vector<double> dice) { dice_ = std::move(dice); }
  /// What sites harmonise by from now on, where the study takes the sites' mean.
  void set_standard(std::vector<double> standard) { standard_ = std::move(standard); }
  /// Uploads and submits.
  absl::Status Train(const std::string& site, const std::string& study = "tiny");
  /// What sites send as the loss before training, by site; others send none.
  void set_loss_before(std::map<std::string, double> losses) { losses_ = std::move(losses); }
  absl::Status Score(const std::string& site, const std::string& study = "tiny");

  /// The single kind asked of the site, or nullopt when none is.
  std::optional<Assignment> AskedOf(const std::string& site);
  StudyStatus Status(const std::string& study = "tiny");
  /// Digest of the newest global model.
  std::string NewestModel(const std::string& study = "tiny");
  /// Everything uploaded that is still on disk.
  std::vector<std::string> StagedFiles() const;

 private:
  TemporaryDirectory directory_;
  SimulatedClock clock_;
  std::unique_ptr<SqliteJournal> journal_;
  std::unique_ptr<Coordinator> coordinator_;
  std::vector<double> standard_;
  std::vector<double> dice_;
  std::map<std::string, double> losses_;
};

}  // namespace isoscan
