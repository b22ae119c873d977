#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/federation/federation_session.h"
#include "client/progress_reports.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "client/study_trainer.h"

namespace isoscan {

/// Does what a study asks of this site, one assignment at a time, and hands the results in:
///
///   train       download the global model, score it on held-out cases, train, upload, submit
///   score       download the final model, score it; certify it where the study asks, as long as
///               that takes no more than a quarter of the study's round_deadline
///   local only  train alone from the initial weights as many steps as the study had, score
///
/// Training is kept in the state folder now and then, so a client that was killed goes on from
/// there, to the same bits. An update that is trained and not yet accepted is kept there too, and
/// sent without training again. What a site has of its own (`local_layers`, `personal`, SCAFFOLD's
/// control variates) passes from round to round there (CarriedState). The cases of one study stay
/// in memory until another study's turn comes, or Forget().
///
/// Thread safety: none; one thread works.
class StudyWork {
 public:
  /// All of them must outlive this object. `run_stop` ends everything. What is handed in waits for
  /// its answer under that one, not under an assignment's: the server takes the assignment off the
  /// list before its answer arrives, and that must not look like lost work.
  StudyWork(const ClientConfig& config, FederationSession& session, ProgressReports& reports,
            const TrainerFactory& make_trainer, std::stop_token run_stop);

  /// `study` is the text that this site approved and that the assignment names.
  ///
  /// OK also when the server refuses the result, or asks for what is not in the study or for a
  /// model that does not fit it: logged, and the next assignment may be worked on. Errors:
  /// CANCELLED when `stop` was requested; RESOURCE_EXHAUSTED memory or disk, with both numbers;
  /// FAILED_PRECONDITION no usable case is left; and those of FederationSession and Trainer.
  absl::Status Do(const Study& study, const SiteAssignment& assignment,
                  const std::stop_token& stop);

  /// Drops the cases, models and updates of a study that is over.
  void Forget(const std::string& study);

 private:
  /// The one study whose cases are in memory.
  struct LoadedStudy {
    Study study;
    bool standard_is_the_sites = false;  ///< And not the study's own text.
    StudyCohort cohort;
    std::unique_ptr<StudyTrainer> trainer;  ///< Null once a certificate needed its memory.
  };

  absl::Status TrainRound(const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status ScoreFinalModel(const SiteAssignment& assignment, const std::stop_token& stop);
  absl::StatusOr<std::optional<InvarianceCertificate>> CertifyFinalModel(
      const NamedTensors& weights, std::chrono::steady_clock::time_point give_up,
      const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status TrainAlone(const SiteAssignment& assignment, const std::stop_token& stop);

  absl::Status Load(const Study& study, const SiteAssignment& assignment,
                    const std::stop_token& stop);
  /// The global model of an assignment, or the one that the study starts from, with what this site
  /// brings to it.
  struct SiteModel {
    NamedTensors weights;   ///< Of the whole network: with this site's layers, where it has some.
    NamedTensors control;   ///< SCAFFOLD's c.
    NamedTensors carried;   ///< CarriedState, but for the layers in `weights`.
    NamedTensors personal;  ///< The site's own model before this round; of Ditto.
  };

  absl::StatusOr<SiteModel> FetchModel(const SiteAssignment& assignment,
                                       const std::stop_token& stop);
  absl::Status AddCarried(const SiteAssignment& assignment, SiteModel& model);
  absl::StatusOr<NamedTensors> TrainPersonal(const SiteModel& model, const TrainingTask& task,
                                             const SiteAssignment& assignment,
                                             const std::stop_token& stop);
  absl::Status Settle(const Study& study, const SiteAssignment& assignment);
  absl::StatusOr<std::vector<ScoredCase>> Score(const NamedTensors& weights,
                                                const SiteAssignment& assignment,
                                                const std::stop_token& stop);
  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights, TrainingTask task,
                                       const std::filesystem::path& checkpoint,
                                       const SiteAssignment& assignment,
                                       const std::stop_token& stop);
  std::optional<RoundUpdate> KeptUpdate(const SiteAssignment& assignment) const;
  absl::Status HandIn(const Study& study, const RoundUpdate& update,
                      const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status HandInScores(const SiteScores& scores, const SiteAssignment& assignment);

  std::string RandomStreamOf(const Study& study) const;
  void Tell(const SiteAssignment& assignment, const std::string& activity, std::int64_t step,
            std::int64_t steps);
  /// Tells each byte of a transfer; `assignment` must outlive it.
  TransferObserver Telling(const SiteAssignment& assignment, const std::string& activity);

  const ClientConfig& config_;
  FederationSession& session_;
  ProgressReports& reports_;
  const TrainerFactory& make_trainer_;
  const std::stop_token run_stop_;
  const SiteStateFolder folder_;
  std::unique_ptr<LoadedStudy> loaded_;
};

}  // namespace isoscan
