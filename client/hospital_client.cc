#include "client/hospital_client.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/evaluation/overlap.h"
#include "client/federation/update_record.h"
#include "client/progress_reports.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include <unistd.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using Kind = SiteAssignment::Kind;

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

/// What of this assignment is not in the study that the site approved; empty when it all is. A
/// server that asked for more rounds would learn more of the cases than was agreed.
std::string BeyondTheStudy(const SiteAssignment& assignment, const Study& study) {
  const std::int64_t rounds = study.rounds.rounds;
  if (assignment.kind == Kind::kTrain && (assignment.round < 1 || assignment.round > rounds)) {
    return fmt::format("round {} of a study of {} rounds", assignment.round, rounds);
  }
  if (assignment.kind == Kind::kScore && assignment.round != rounds + 1) {
    return fmt::format("final scores in round {} of {}", assignment.round, rounds);
  }
  if (assignment.kind == Kind::kLocalOnly && !study.evaluation.local_only) {
    return "training alone, which the study does not have";
  }
  return "";
}

/// More bytes than any model of this study has.
std::int64_t ModelBytesLimit(const Study& study) {
  constexpr std::int64_t kHeaderAllowance = std::int64_t{1} << 20;
  std::int64_t values = 0;
  for (const auto& [name, shape] : NetworkShapes(study)) values += ElementCount(shape);
  return values * std::int64_t{sizeof(float)} + kHeaderAllowance;
}

/// Mean over cases and labels that are there, for the site's own log.
double MeanDice(const std::vector<ScoredCase>& scores) {
  double sum = 0;
  std::int64_t count = 0;
  for (const ScoredCase& scored : scores) {
    for (const LabelOverlap& overlap : scored.labels) {
      if (std::isnan(overlap.dice())) continue;
      sum += overlap.dice();
      ++count;
    }
  }
  return count == 0 ? std::nan("") : sum / static_cast<double>(count);
}

/// A bar for the person in front of it; the log has its own lines.
class TerminalProgress {
 public:
  TerminalProgress(const std::string& title, std::int64_t total) {
    if (isatty(STDERR_FILENO) != 0) bar_.emplace(title, total);
  }
  void Advance(std::int64_t done, const std::string& note = "") {
    if (bar_.has_value()) bar_->Advance(done, note);
  }

 private:
  std::optional<Progress> bar_;
};

/// What is asked of the site now. The watching thread replaces it, the working thread reads it.
class AssignmentBoard {
 public:
  /// Ends the work under way when it is not asked for any more.
  void Replace(std::vector<SiteAssignment> assignments) {
    {
      const std::lock_guard lock(mutex_);
      assignments_ = std::move(assignments);
      std::erase_if(done_, [this](const SiteAssignment& done) { return !IsAsked(done); });
      if (current_.has_value() && !IsAsked(*current_)) current_stop_.request_stop();
    }
    changed_.notify_all();
  }

  void EndWatch(absl::Status status) {
    {
      const std::lock_guard lock(mutex_);
      watch_ended_ = std::move(status);
      current_stop_.request_stop();
    }
    changed_.notify_all();
  }

  struct Task {
    SiteAssignment assignment;
    std::stop_source stop;
  };

  /// Waits for something to do. Errors: CANCELLED when `stop` was requested; why watching ended.
  absl::StatusOr<Task> Next(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    current_.reset();
    const SiteAssignment* next = nullptr;
    changed_.wait(lock, stop, [&] {
      next = FirstNotDone();
      return next != nullptr || watch_ended_.has_value();
    });
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    if (watch_ended_.has_value()) return *watch_ended_;
    current_ = *next;
    current_stop_ = std::stop_source();
    return Task{.assignment = *current_, .stop = current_stop_};
  }

  /// Why watching ended, if it has.
  absl::Status watch_status() {
    const std::lock_guard lock(mutex_);
    return watch_ended_.value_or(absl::OkStatus());
  }

  /// Never to be answered by Next() again, as long as it is asked for.
  void MarkDone(const SiteAssignment& assignment) {
    const std::lock_guard lock(mutex_);
    done_.push_back(assignment);
  }

 private:
  bool IsAsked(const SiteAssignment& assignment) const {
    return std::find(assignments_.begin(), assignments_.end(), assignment) != assignments_.end();
  }
  const SiteAssignment* FirstNotDone() const {
    const auto first =
        std::find_if(assignments_.begin(), assignments_.end(), [this](const SiteAssignment& entry) {
          return std::find(done_.begin(), done_.end(), entry) == done_.end();
        });
    return first == assignments_.end() ? nullptr : &*first;
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<SiteAssignment> assignments_;
  std::vector<SiteAssignment> done_;
  std::optional<SiteAssignment> current_;
  std::stop_source current_stop_;
  std::optional<absl::Status> watch_ended_;
};

}  // namespace

struct HospitalClient::State {
  /// The one study whose cases are in memory.
  struct LoadedStudy {
    Study study;
    StudyCohort cohort;
    std::unique_ptr<StudyTrainer> trainer;
  };

  State(ClientConfig site_config, FederationSession& site_session, TrainerFactory factory)
      : config(std::move(site_config)),
        session(site_session),
        make_trainer(std::move(factory)),
        folder(config.state),
        approved(folder.approved()) {}

  absl::Status Run(bool until_ended, const std::stop_token& stop);
  absl::Status Greet(const std::stop_token& stop);
  absl::Status CompareApprovals(bool until_ended, const std::stop_token& stop);
  absl::Status WorkThroughBoard(AssignmentBoard& board, bool until_ended,
                                const std::stop_token& stop);
  absl::StatusOr<bool> AllEnded() const;

  absl::Status Work(const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status TrainRound(const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status ScoreFinalModel(const SiteAssignment& assignment, const std::stop_token& stop);
  absl::Status TrainAlone(const SiteAssignment& assignment, const std::stop_token& stop);

  absl::Status Load(const Study& study, const SiteAssignment& assignment,
                    const std::stop_token& stop);
  absl::StatusOr<NamedTensors> FetchModel(const SiteAssignment& assignment,
                                          const std::stop_token& stop);
  absl::StatusOr<std::vector<ScoredCase>> Score(const NamedTensors& weights,
                                                const SiteAssignment& assignment,
                                                const std::stop_token& stop);
  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights, const TrainingTask& task,
                                       const SiteAssignment& assignment,
                                       const std::stop_token& stop);
  std::optional<RoundUpdate> KeptUpdate(const SiteAssignment& assignment) const;
  absl::Status HandIn(const RoundUpdate& update, const SiteAssignment& assignment,
                      const std::stop_token& stop);

  void Tell(const SiteAssignment& assignment, const std::string& activity, std::int64_t step,
            std::int64_t steps) {
    reports->Set({.study = assignment.study,
                  .round = assignment.round,
                  .activity = activity,
                  .step = step,
                  .steps = steps});
  }

  const ClientConfig config;
  FederationSession& session;
  const TrainerFactory make_trainer;
  const SiteStateFolder folder;
  const ApprovedStudies approved;
  /// Ends everything. What is handed in waits for its answer under this one: the server takes the
  /// assignment off the list before its answer arrives, and that must not look like lost work.
  std::stop_token run_stop;
  std::set<std::string> ended;
  std::unique_ptr<LoadedStudy> loaded;
  std::unique_ptr<ProgressReports> reports;
};

HospitalClient::HospitalClient(ClientConfig config, FederationSession& session,
                               TrainerFactory make_trainer)
    : state_(std::make_unique<State>(std::move(config), session, std::move(make_trainer))) {}

HospitalClient::~HospitalClient() = default;

absl::Status HospitalClient::Run(bool until_ended, std::stop_token stop) {
  return state_->Run(until_ended, stop);
}

absl::Status HospitalClient::State::Run(bool until_ended, const std::stop_token& stop) {
  run_stop = stop;
  ASSIGN_OR_RETURN(const SiteStateFolder::Lock lock, folder.Acquire());
  RETURN_IF_ERROR(Greet(stop));
  RETURN_IF_ERROR(CompareApprovals(until_ended, stop));

  reports = std::make_unique<ProgressReports>(session);
  AssignmentBoard board;
  absl::Status outcome;
  {
    std::jthread watcher([this, &board](const std::stop_token& watch_stop) {
      board.EndWatch(session.Watch(
          [&board](std::vector<SiteAssignment> assignments) {
            board.Replace(std::move(assignments));
          },
          watch_stop));
    });
    outcome = WorkThroughBoard(board, until_ended, stop);
  }
  reports.reset();
  return outcome;
}

absl::Status HospitalClient::State::Greet(const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const ServerGreeting greeting, session.Hello(stop));
  if (greeting.site != config.site) {
    return absl::FailedPreconditionError(fmt::format(
        "the certificate {} is of site {}, client.toml says site = \"{}\"; correct one of the two",
        config.certificate.certificate.string(), greeting.site, config.site));
  }
  spdlog::info("connected server={} version={} site={}", config.server, greeting.program_version,
               greeting.site);
  return absl::OkStatus();
}

absl::Status HospitalClient::State::CompareApprovals(bool until_ended,
                                                     const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const std::vector<Study> own, approved.All());
  if (own.empty() && until_ended) {
    return absl::FailedPreconditionError(
        "no study is approved, so there is nothing to wait for; `isoscan-client study list` shows "
        "what is offered, `isoscan-client study approve NAME` takes part");
  }
  if (own.empty()) {
    spdlog::info(
        "no_study_approved action=\"waiting for one: study list shows what is offered, study "
        "approve takes part\"");
  }
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> offered, session.Studies(stop));
  for (const Study& study : own) {
    const auto same = std::find_if(offered.begin(), offered.end(), [&](const OfferedStudy& entry) {
      return entry.name == study.name && entry.digest == study.digest;
    });
    if (same == offered.end()) {
      spdlog::warn(
          "study_not_offered study={} action=\"the server has no such study with the text approved "
          "here; see study list, then study withdraw or approve\"",
          study.name);
      continue;
    }
    if (same->ended()) ended.insert(study.name);
    if (!same->ended() && !same->approved) {
      spdlog::warn("approval_unknown_to_server study={} action=\"study approve {}\"", study.name,
                   study.name);
    }
    spdlog::info("study study={} phase={} round={} rounds={}", study.name, ToString(same->phase),
                 same->round, same->rounds);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> HospitalClient::State::AllEnded() const {
  ASSIGN_OR_RETURN(const std::vector<Study> own, approved.All());
  return std::all_of(own.begin(), own.end(),
                     [this](const Study& study) { return ended.contains(study.name); });
}

absl::Status HospitalClient::State::WorkThroughBoard(AssignmentBoard& board, bool until_ended,
                                                     const std::stop_token& stop) {
  while (true) {
    if (until_ended) {
      ASSIGN_OR_RETURN(const bool all_ended, AllEnded());
      if (all_ended) return absl::OkStatus();
    }
    reports->Clear();
    ASSIGN_OR_RETURN(AssignmentBoard::Task task, board.Next(stop));
    absl::Status outcome;
    {
      const std::stop_callback forward(stop, [&task] { task.stop.request_stop(); });
      outcome = Work(task.assignment, task.stop.get_token());
    }
    if (stop.stop_requested() && !outcome.ok()) {
      spdlog::info("interrupted study={} round={} action=\"the next run goes on from here\"",
                   task.assignment.study, task.assignment.round);
      return absl::CancelledError("interrupted; the next `isoscan-client run` goes on from here");
    }
    if (absl::IsCancelled(outcome) && task.stop.stop_requested()) {
      RETURN_IF_ERROR(board.watch_status());
      spdlog::info(
          "work_dropped study={} round={} kind={} reason=\"the server asks for something "
          "else now\"",
          task.assignment.study, task.assignment.round, ToString(task.assignment.kind));
      continue;
    }
    RETURN_IF_ERROR(outcome);
    board.MarkDone(task.assignment);
  }
}

absl::Status HospitalClient::State::Work(const SiteAssignment& assignment,
                                         const std::stop_token& stop) {
  if (assignment.kind == Kind::kStudyEnded) {
    if (ended.insert(assignment.study).second) {
      spdlog::info("study_ended study={}", assignment.study);
    }
    if (loaded != nullptr && loaded->study.name == assignment.study) loaded.reset();
    // The name comes from the server and becomes a path.
    if (IsName(assignment.study)) folder.Forget(assignment.study);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<Study> study, approved.Find(assignment.study));
  if (!study.has_value() || study->digest != assignment.study_digest) {
    spdlog::warn(
        "assignment_refused study={} round={} reason=\"{}\" action=\"isoscan-client study show {}, "
        "then study approve {}\"",
        assignment.study, assignment.round,
        study.has_value() ? "the server's study is not the text that this site approved"
                          : "this site has not approved the study",
        assignment.study, assignment.study);
    return absl::OkStatus();
  }
  if (const std::string beyond = BeyondTheStudy(assignment, *study); !beyond.empty()) {
    spdlog::error(
        "assignment_refused study={} reason=\"the server asks for {}\" action=\"tell "
        "the coordinator\"",
        study->name, beyond);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(folder.Prepare(study->name));
  if (const std::optional<RoundUpdate> kept = KeptUpdate(assignment)) {
    spdlog::info("update_kept study={} round={} action=\"sent again without training\"",
                 kept->study, kept->round);
    return HandIn(*kept, assignment, stop);
  }
  RETURN_IF_ERROR(Load(*study, assignment, stop));
  switch (assignment.kind) {
    case Kind::kTrain:
      return TrainRound(assignment, stop);
    case Kind::kScore:
      return ScoreFinalModel(assignment, stop);
    case Kind::kLocalOnly:
      return TrainAlone(assignment, stop);
    case Kind::kStudyEnded:
      break;
  }
  return absl::OkStatus();
}

absl::Status HospitalClient::State::Load(const Study& study, const SiteAssignment& assignment,
                                         const std::stop_token& stop) {
  if (loaded != nullptr && loaded->study.digest == study.digest) return absl::OkStatus();
  loaded.reset();
  Tell(assignment, "preparing", 0, 0);
  auto next = std::make_unique<LoadedStudy>();
  next->study = study;
  ASSIGN_OR_RETURN(next->trainer, make_trainer(study));
  ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config, study));
  const std::int64_t cases_bytes = EstimateCohortMemory(cases, study);
  const std::int64_t training_bytes = next->trainer->memory_bytes();
  constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;
  spdlog::info(
      "preparing study={} cases={} device=\"{}\" memory_gib={:.2f} of_cases={:.2f} "
      "of_training={:.2f}",
      study.name, cases.files.size(), next->trainer->device_name(),
      static_cast<double>(cases_bytes + training_bytes) / kGibibyte,
      static_cast<double>(cases_bytes) / kGibibyte,
      static_cast<double>(training_bytes) / kGibibyte);
  RETURN_IF_ERROR(CheckMemory(fmt::format("study {}", study.name), cases_bytes + training_bytes));

  TerminalProgress bar("reading cases", static_cast<std::int64_t>(cases.files.size()));
  ASSIGN_OR_RETURN(next->cohort, PrepareStudyCohort(cases, study, stop,
                                                    [&](std::int64_t done, std::int64_t total) {
                                                      Tell(assignment, "preparing", done, total);
                                                      bar.Advance(done);
                                                    }));
  if (!next->cohort.refused.empty()) {
    std::string indices;
    for (const RefusedCase& refused : next->cohort.refused) {
      indices += fmt::format("{}{}", indices.empty() ? "" : ",", refused.index);
    }
    spdlog::warn(
        "cases_refused study={} count={} cases={} action=\"isoscan-client inspect names "
        "them and says why\"",
        study.name, next->cohort.refused.size(), indices);
  }
  spdlog::info("prepared study={} training={} held_out={} refused={}", study.name,
               next->cohort.training.size(), next->cohort.held_out.size(),
               next->cohort.refused.size());
  loaded = std::move(next);
  return absl::OkStatus();
}

absl::StatusOr<NamedTensors> HospitalClient::State::FetchModel(const SiteAssignment& assignment,
                                                               const std::stop_token& stop) {
  if (!IsSha256(assignment.model_digest)) {
    return absl::DataLossError(
        fmt::format("the server names the model of round {} of study {} by what is no SHA-256",
                    assignment.round, assignment.study));
  }
  const std::int64_t limit = ModelBytesLimit(loaded->study);
  if (assignment.model_bytes < 0 || assignment.model_bytes > limit) {
    return absl::InvalidArgumentError(
        fmt::format("the server announces a model of {} bytes, one of study {} has at most {}",
                    assignment.model_bytes, assignment.study, limit));
  }
  const fs::path path = folder.Model(assignment.study, assignment.model_digest);
  // A file that decayed on this disk is fetched anew.
  const absl::StatusOr<std::string> kept = Sha256OfFile(path);
  if (kept.ok() && *kept != assignment.model_digest) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  ASSIGN_OR_RETURN(const std::int64_t free_bytes, FreeDiskBytes(path.parent_path()));
  // The model, and the update of the same size that will lie beside it.
  const std::int64_t needed = 2 * assignment.model_bytes;
  if (free_bytes < needed) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} has {} MB free, round {} of study {} needs {} MB; make room, or set `state` in "
        "client.toml to another disk",
        path.parent_path().string(), free_bytes / 1'000'000, assignment.round, assignment.study,
        needed / 1'000'000 + 1));
  }
  RETURN_IF_ERROR(session.DownloadModel(assignment.study, assignment.model_digest,
                                        assignment.model_bytes, path, stop));
  folder.KeepOnly(assignment.study, assignment.round, assignment.model_digest);
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  RETURN_IF_ERROR(CheckShapes("the server", file.shapes(), NetworkShapes(loaded->study)));
  return file.ReadAll();
}

absl::StatusOr<std::vector<ScoredCase>> HospitalClient::State::Score(
    const NamedTensors& weights, const SiteAssignment& assignment, const std::stop_token& stop) {
  const std::vector<PreparedCase>& cases = loaded->cohort.held_out;
  const auto total = static_cast<std::int64_t>(cases.size());
  TerminalProgress bar("scoring", total);
  std::vector<ScoredCase> scores;
  for (std::int64_t index = 0; index < total; ++index) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    Tell(assignment, "scoring", index, total);
    const PreparedCase& prepared = cases[static_cast<std::size_t>(index)];
    ASSIGN_OR_RETURN(const LabelMap predicted, loaded->trainer->Predict(weights, prepared));
    scores.push_back({.index = static_cast<int>(index),
                      .cohort = prepared.cohort,
                      .labels = Overlap(prepared.reference, predicted,
                                        static_cast<std::int64_t>(loaded->study.labels.size()))});
    bar.Advance(index + 1);
  }
  return scores;
}

absl::StatusOr<TrainingResult> HospitalClient::State::Train(const NamedTensors& weights,
                                                            const TrainingTask& task,
                                                            const SiteAssignment& assignment,
                                                            const std::stop_token& stop) {
  TerminalProgress bar(fmt::format("training round {}", assignment.round), task.steps);
  Tell(assignment, "training", 0, task.steps);
  std::int64_t done = 0;
  return loaded->trainer->Train(weights, loaded->cohort.training, task, stop,
                                [&](std::int64_t, double loss) {
                                  ++done;
                                  Tell(assignment, "training", done, task.steps);
                                  bar.Advance(done, fmt::format("loss {:.3f}", loss));
                                });
}

absl::Status HospitalClient::State::TrainRound(const SiteAssignment& assignment,
                                               const std::stop_token& stop) {
  const Study& study = loaded->study;
  const absl::StatusOr<NamedTensors> model = FetchModel(assignment, stop);
  if (absl::IsNotFound(model.status()) || absl::IsInvalidArgument(model.status())) {
    // The round has closed meanwhile, or the model is not of this study: the study may go on.
    spdlog::error("model_refused study={} round={} reason=\"{}\"", study.name, assignment.round,
                  MessageOf(model.status()));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(model.status());
  spdlog::info("round_started study={} round={} of={} model={}", study.name, assignment.round,
               study.rounds.rounds, assignment.model_digest.substr(0, 12));

  RoundUpdate update;
  update.study = study.name;
  update.round = assignment.round;
  const steady_clock::time_point scoring_start = steady_clock::now();
  ASSIGN_OR_RETURN(update.model_scores, Score(*model, assignment, stop));
  update.seconds_scoring = SecondsSince(scoring_start);
  spdlog::info("model_scored study={} round={} cases={} mean_dice={:.4f} seconds={:.1f}",
               study.name, assignment.round, update.model_scores.size(),
               MeanDice(update.model_scores), update.seconds_scoring);

  const bool shared = study.training.random_numbers == TrainingPlan::RandomNumbers::kShared;
  const TrainingTask task{.first_step = (assignment.round - 1) * study.training.steps_per_round,
                          .steps = study.training.steps_per_round,
                          .total_steps = study.rounds.rounds * study.training.steps_per_round,
                          .random_stream = shared ? "shared" : config.site,
                          .round = assignment.round};
  const steady_clock::time_point training_start = steady_clock::now();
  ASSIGN_OR_RETURN(const TrainingResult result, Train(*model, task, assignment, stop));
  update.seconds_training = SecondsSince(training_start);
  update.training_cases = static_cast<std::int64_t>(loaded->cohort.training.size());
  update.steps = result.steps;
  update.mean_loss = result.mean_loss;
  spdlog::info("trained study={} round={} steps={} mean_loss={:.4f} seconds={:.1f}", study.name,
               assignment.round, result.steps, result.mean_loss, update.seconds_training);

  const fs::path kept = folder.Update(study.name, assignment.round, assignment.model_digest);
  const fs::path weights = kept.string() + ".safetensors";
  RETURN_IF_ERROR(WriteSafetensors(weights, result.weights,
                                   {{"study", study.name},
                                    {"plan", study.digest},
                                    {"round", std::to_string(assignment.round)}}));
  ASSIGN_OR_RETURN(update.weights_digest, Sha256OfFile(weights));
  // Last: where the record is, the weights are.
  RETURN_IF_ERROR(WriteUpdateRecord(kept.string() + ".json", update));
  return HandIn(update, assignment, stop);
}

std::optional<RoundUpdate> HospitalClient::State::KeptUpdate(
    const SiteAssignment& assignment) const {
  if (assignment.kind != Kind::kTrain) return std::nullopt;
  const std::string kept =
      folder.Update(assignment.study, assignment.round, assignment.model_digest).string();
  const absl::StatusOr<RoundUpdate> record = ReadUpdateRecord(kept + ".json");
  if (!record.ok()) return std::nullopt;
  // Weights that do not fit their record cannot be handed in: train again.
  const absl::StatusOr<std::string> digest = Sha256OfFile(kept + ".safetensors");
  if (!digest.ok() || *digest != record->weights_digest) return std::nullopt;
  return *record;
}

absl::Status HospitalClient::State::HandIn(const RoundUpdate& update,
                                           const SiteAssignment& assignment,
                                           const std::stop_token& stop) {
  const fs::path kept = folder.Update(assignment.study, assignment.round, assignment.model_digest);
  const fs::path weights = kept.string() + ".safetensors";
  const fs::path record = kept.string() + ".json";
  const steady_clock::time_point start = steady_clock::now();
  absl::Status outcome =
      session.UploadWeights(update.study, update.round, update.weights_digest, weights, stop);
  if (outcome.ok()) outcome = session.SubmitUpdate(update, run_stop);
  if (outcome.ok()) {
    spdlog::info("update_accepted study={} round={} seconds={:.2f}", update.study, update.round,
                 SecondsSince(start));
  } else if (absl::IsFailedPrecondition(outcome)) {
    spdlog::warn("update_too_late study={} round={} reason=\"{}\"", update.study, update.round,
                 MessageOf(outcome));
  } else if (absl::IsInvalidArgument(outcome) || absl::IsDataLoss(outcome) ||
             absl::IsNotFound(outcome)) {
    spdlog::error("update_refused study={} round={} reason=\"{}\"", update.study, update.round,
                  MessageOf(outcome));
  } else {
    return outcome;
  }
  // The record first: it promises that the weights are there.
  std::error_code ignored;
  fs::remove(record, ignored);
  fs::remove(weights, ignored);
  return absl::OkStatus();
}

absl::Status HospitalClient::State::ScoreFinalModel(const SiteAssignment& assignment,
                                                    const std::stop_token& stop) {
  const absl::StatusOr<NamedTensors> model = FetchModel(assignment, stop);
  if (absl::IsNotFound(model.status()) || absl::IsInvalidArgument(model.status())) {
    spdlog::error("model_refused study={} round={} reason=\"{}\"", assignment.study,
                  assignment.round, MessageOf(model.status()));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(model.status());
  ASSIGN_OR_RETURN(const std::vector<ScoredCase> scores, Score(*model, assignment, stop));
  const absl::Status submitted =
      session.SubmitScores(assignment.study, assignment.kind, scores, run_stop);
  if (absl::IsFailedPrecondition(submitted)) {
    spdlog::warn("scores_too_late study={} reason=\"{}\"", assignment.study, MessageOf(submitted));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(submitted);
  spdlog::info("final_model_scored study={} cases={} mean_dice={:.4f}", assignment.study,
               scores.size(), MeanDice(scores));
  return absl::OkStatus();
}

absl::Status HospitalClient::State::TrainAlone(const SiteAssignment& assignment,
                                               const std::stop_token& stop) {
  const Study& study = loaded->study;
  const std::int64_t steps = study.rounds.rounds * study.training.steps_per_round;
  const bool shared = study.training.random_numbers == TrainingPlan::RandomNumbers::kShared;
  spdlog::info("local_only_started study={} steps={}", study.name, steps);
  ASSIGN_OR_RETURN(const TrainingResult result,
                   Train(InitialWeights(study),
                         {.first_step = 0,
                          .steps = steps,
                          .total_steps = steps,
                          .random_stream = shared ? "shared" : config.site,
                          .round = 1},
                         assignment, stop));
  ASSIGN_OR_RETURN(const std::vector<ScoredCase> scores, Score(result.weights, assignment, stop));
  const absl::Status submitted =
      session.SubmitScores(assignment.study, assignment.kind, scores, run_stop);
  if (absl::IsFailedPrecondition(submitted)) {
    spdlog::warn("scores_too_late study={} reason=\"{}\"", study.name, MessageOf(submitted));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(submitted);
  spdlog::info("local_only_scored study={} cases={} mean_dice={:.4f} mean_loss={:.4f}", study.name,
               scores.size(), MeanDice(scores), result.mean_loss);
  return absl::OkStatus();
}

}  // namespace isoscan
