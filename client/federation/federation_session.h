#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/evaluation/overlap.h"
#include "common/invariance/certificate.h"
#include "common/planning/fingerprint.h"
#include "common/population/population_mean.h"
#include "common/study/study.h"

namespace isoscan {

/// Who answered, and who it takes this site to be.
struct ServerGreeting {
  int protocol_version = 0;
  std::string program_version;
  std::string site;
};

/// A study that the server lets this site see.
struct OfferedStudy {
  enum class Phase { kCreated, kRunning, kPaused, kFinished, kStopped };

  std::string name;
  std::string digest;  ///< SHA-256 of `toml`.
  std::string toml;
  Phase phase = Phase::kCreated;
  int round = 0;  ///< The open round, from 1; 0 before the start.
  int rounds = 0;
  bool approved = false;  ///< By this site, as the server knows it.
  bool withdrawn = false;
  std::string waiting_for;  ///< In plain words; empty when nothing is amiss.
  /// Takes the place of HarmonizationPlan::standard; empty before the start, or where not needed.
  std::vector<double> standard = {};

  bool ended() const { return phase == Phase::kFinished || phase == Phase::kStopped; }
};

/// "created", "running", "paused", "finished", "stopped".
std::string ToString(OfferedStudy::Phase phase);

/// The draft that this site approved has been planned meanwhile, and waits for its approval.
bool IsPlanOf(const OfferedStudy& offered, const Study& approved);

/// What the server asks of this site. Equal fields are the same work.
struct SiteAssignment {
  enum class Kind { kTrain, kScore, kLocalOnly, kStudyEnded };

  Kind kind = Kind::kTrain;
  std::string study;
  std::string study_digest;
  int round = 0;  ///< From 1; of kScore and kLocalOnly the one after the last of training.
  std::string model_digest;
  std::int64_t model_bytes = 0;

  bool operator==(const SiteAssignment&) const = default;
};

/// "train", "score", "local_only", "study_ended".
std::string ToString(SiteAssignment::Kind kind);

/// One held-out case's agreement, without anything that names the case.
struct ScoredCase {
  int index = 0;                     ///< Among the site's held-out cases.
  std::string cohort;                ///< The site's own name for the folder; often empty.
  std::vector<LabelOverlap> labels;  ///< In the order of the study's labels.
};

/// Counts over bins of equal width; values outside count into the first and last bin.
struct IntensityHistogram {
  double low = 0;
  double high = 0;
  std::vector<std::int64_t> counts;
};

/// All that a site tells about its cohort when it approves a study.
struct CohortDeclaration {
  std::int64_t training_cases = 0;
  std::int64_t held_out_cases = 0;
  std::int64_t refused_cases = 0;  ///< Quarantined, never used.
  IntensityHistogram raw;          ///< Intensities as stored.
  IntensityHistogram harmonized;   ///< As the network sees them.
  CaseSum standard;  ///< What the training cases add to the study's standard, as Disclosed().
  /// What a draft is planned from, as Disclosed(); the histograms are empty then.
  std::optional<Fingerprint> fingerprint = std::nullopt;
};

/// What a site hands in for a round, beside the weights.
struct RoundUpdate {
  std::string study;
  int round = 0;
  std::string weights_digest;
  std::int64_t training_cases = 0;
  std::int64_t steps = 0;
  double mean_loss = 0;
  std::vector<ScoredCase> model_scores;  ///< Of the global model that the round started from.
  double seconds_training = 0;
  double seconds_scoring = 0;
  /// Of the global model on this site's training patches, before the first step.
  std::optional<double> loss_before = std::nullopt;
};

/// Scores of a model that nothing is handed in with.
struct SiteScores {
  std::vector<ScoredCase>
      cases;  ///< Of the final model, or of the one that the site trained alone.
  std::vector<ScoredCase> personal = {};  ///< Beside the final model, of the site's own one.
  /// Of the final model.
  std::optional<InvarianceCertificate> certificate = std::nullopt;
};

struct WorkProgress {
  std::string study;
  int round = 0;
  /// "preparing", "downloading", "scoring", "training", "uploading", "certifying".
  std::string activity;
  std::int64_t step = 0;
  std::int64_t steps = 0;
};

/// Called with the complete list of what is asked of this site, at once and after every change.
using AssignmentObserver = std::function<void(std::vector<SiteAssignment>)>;

/// Told how many bytes of how many have gone over the wire; on the calling thread.
using TransferObserver = std::function<void(std::int64_t done, std::int64_t total)>;

/// One site's conversation with the server: the seam between what a site does and how it talks.
///
/// Every call blocks until it has an answer, gives up as its retry policy says, or `stop` is
/// requested (CANCELLED). Every call may be repeated: the second time it changes nothing.
/// Common errors: UNAVAILABLE or DEADLINE_EXCEEDED, the server cannot be reached (the message says
/// what to check); PERMISSION_DENIED, the site is suspended; UNIMPLEMENTED, another version.
///
/// Thread safety: all methods from any thread.
class FederationSession {
 public:
  virtual ~FederationSession() = default;

  /// The first call. Errors: UNIMPLEMENTED naming both versions and which to update.
  virtual absl::StatusOr<ServerGreeting> Hello(std::stop_token stop) = 0;

  virtual absl::StatusOr<std::vector<OfferedStudy>> Studies(std::stop_token stop) = 0;

  /// Errors: FAILED_PRECONDITION another digest than the server's, a study that is over, or one
  /// that
  ///         declares its sites without this one.
  virtual absl::Status Approve(const std::string& study, const std::string& digest,
                               const CohortDeclaration& cohort, std::stop_token stop) = 0;
  virtual absl::Status Withdraw(const std::string& study, std::stop_token stop) = 0;

  /// Keeps the assignment stream open and opens it again after every loss, until `stop` (CANCELLED)
  /// or an error that a new try would not mend. `observe` runs on the calling thread.
  /// Errors: ABORTED another client of this site has opened the stream.
  virtual absl::Status Watch(const AssignmentObserver& observe, std::stop_token stop) = 0;

  /// Brings a model to `path`, from the byte on that is already in `path`.part.
  /// Bytes with another digest are asked for again, as if the server could not be reached: one
  /// whose model was damaged is mended without the sites having to be started anew. Errors:
  /// NOT_FOUND no such model; DATA_LOSS `path` cannot be written; RESOURCE_EXHAUSTED this
  ///         site's disk is full.
  virtual absl::Status DownloadModel(const std::string& study, const std::string& digest,
                                     std::int64_t bytes, const std::filesystem::path& path,
                                     const TransferObserver& observe, std::stop_token stop) = 0;

  /// Sends the weights in `path`, from the byte on that the server does not have yet.
  /// Errors: FAILED_PRECONDITION the round is closed; INVALID_ARGUMENT larger than this study's
  ///         model can be; DATA_LOSS the bytes arrive broken, three times.
  virtual absl::Status UploadWeights(const std::string& study, int round, const std::string& digest,
                                     const std::filesystem::path& path,
                                     const TransferObserver& observe, std::stop_token stop) = 0;

  /// Errors: INVALID_ARGUMENT the update was refused (tensor and number named);
  ///         FAILED_PRECONDITION the round is closed or not this one; DATA_LOSS the server does not
  ///         have the weights (any more): they are to be uploaded again.
  virtual absl::Status SubmitUpdate(const RoundUpdate& update, std::stop_token stop) = 0;

  /// `kind` is kScore or kLocalOnly. Errors: FAILED_PRECONDITION they are not asked for (any more).
  virtual absl::Status SubmitScores(const std::string& study, SiteAssignment::Kind kind,
                                    const SiteScores& scores, std::stop_token stop) = 0;

  /// A sign of life; one attempt only, since a newer one follows.
  virtual absl::Status ReportProgress(const WorkProgress& progress, std::stop_token stop) = 0;
};

}  // namespace isoscan
