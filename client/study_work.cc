#include "client/study_work.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "client/carried_state.h"
#include "client/control_variates.h"
#include "client/evaluation/overlap.h"
#include "client/federation/retry_policy.h"
#include "client/federation/update_record.h"
#include "client/site_certificate.h"
#include "common/process/fault_point.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"
#include "common/study/population_standard.h"
#include "common/study/schedule.h"
#include "common/weights/prefixed_tensors.h"
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

absl::Status InStudy(const SiteAssignment& assignment, const absl::Status& status) {
  return {status.code(), fmt::format("study {}, round {}: {}", assignment.study, assignment.round,
                                     MessageOf(status))};
}

/// True where the server does not want what was handed in, and would not the next time.
bool IsRefusal(const absl::Status& answer) {
  return absl::IsInvalidArgument(answer) || absl::IsDataLoss(answer) || absl::IsNotFound(answer);
}

/// True for a model that the server no longer has, since its round has closed, or that is not of
/// the study: logged, and the study may go on.
bool IsRefusedModel(const absl::Status& fetched, const SiteAssignment& assignment) {
  if (!absl::IsNotFound(fetched) && !absl::IsInvalidArgument(fetched)) return false;
  spdlog::error("model_refused study={} round={} reason=\"{}\"", assignment.study, assignment.round,
                MessageOf(fetched));
  return true;
}

/// What of this assignment is not in the study that the site approved; empty when it all is. A
/// server that asked for more rounds would learn more of the cases than was agreed.
std::string BeyondTheStudy(const SiteAssignment& assignment, const Study& study) {
  if (study.planning.has_value()) return "work on a draft";
  const std::int64_t rounds = study.rounds.rounds;
  if (assignment.kind == Kind::kTrain && (assignment.round < 1 || assignment.round > rounds)) {
    return fmt::format("round {} of a study of {} rounds", assignment.round, rounds);
  }
  if (assignment.kind == Kind::kScore || assignment.kind == Kind::kLocalOnly) {
    const std::int64_t patience = study.rounds.patience;
    const std::int64_t earliest = patience > 0 ? std::min(patience, rounds - 1) + 2 : rounds + 1;
    if (assignment.round < earliest || assignment.round > rounds + 1) {
      return fmt::format("final scores in round {} of {}", assignment.round, rounds);
    }
  }
  if (assignment.kind == Kind::kLocalOnly && !study.evaluation.local_only) {
    return "training alone, which the study does not have";
  }
  return "";
}

/// How the tensors of CarriedState are called: layers that stay at the site, and its own model.
/// SCAFFOLD's c_i are called as in messages.
constexpr char kLocal[] = "local.";
constexpr char kPersonal[] = "personal.";

bool IsScaffold(const Study& study) {
  return study.rounds.strategy.kind == StrategyPlan::Kind::kScaffold;
}

/// Of how many steps' patches the loss of the received model is measured, where the study asks for
/// it: a few forward passes beside the round's steps.
constexpr std::int64_t kLossSteps = 8;

bool CarriesState(const Study& study) {
  return !study.network.local_layers.empty() || study.training.personal > 0 || IsScaffold(study);
}

/// From the start of scoring, until the scores go without a certificate: they must not be late for
/// the end of the study, and other sites may be waiting for them.
std::chrono::milliseconds CertificateTime(const Study& study) {
  return study.rounds.round_deadline / 4;
}

/// Mean over the cases that have a Dice, as the report has it; for the site's own log.
double MeanDice(const std::vector<ScoredCase>& scores) {
  double sum = 0;
  std::int64_t count = 0;
  for (const ScoredCase& scored : scores) {
    const double dice = MeanDice(scored.labels);
    if (std::isnan(dice)) continue;
    sum += dice;
    ++count;
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

/// Where the study takes the sites' mean for its standard: asks the server for it.
/// Errors: DATA_LOSS it cannot be one; those of FederationSession.
absl::Status FixStandard(FederationSession& session, Study& study, const std::stop_token& stop) {
  HarmonizationPlan& plan = study.harmonization;
  if (StandardLength(plan.normalize) == 0 || !plan.standard.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> offered, session.Studies(stop));
  for (const OfferedStudy& entry : offered) {
    if (entry.name == study.name && entry.digest == study.digest) plan.standard = entry.standard;
  }
  const std::string fault = StandardFault(plan.standard, plan.normalize, study.channels.size());
  if (fault.empty()) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("the server's standard of study {} {}; tell the coordinator", study.name, fault));
}

}  // namespace

StudyWork::StudyWork(const ClientConfig& config, FederationSession& session,
                     ProgressReports& reports, const TrainerFactory& make_trainer,
                     std::stop_token run_stop)
    : config_(config),
      session_(session),
      reports_(reports),
      make_trainer_(make_trainer),
      run_stop_(std::move(run_stop)),
      folder_(config.state) {}

absl::Status StudyWork::Do(const Study& study, const SiteAssignment& assignment,
                           const std::stop_token& stop) {
  if (const std::string beyond = BeyondTheStudy(assignment, study); !beyond.empty()) {
    spdlog::error(
        "assignment_refused study={} reason=\"the server asks for {}\" action=\"tell "
        "the coordinator\"",
        study.name, beyond);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(folder_.Prepare(study.name));
  if (CarriesState(study)) RETURN_IF_ERROR(Settle(study, assignment));
  if (const std::optional<RoundUpdate> kept = KeptUpdate(assignment)) {
    spdlog::info("update_kept study={} round={} action=\"sent again without training\"",
                 kept->study, kept->round);
    return HandIn(study, *kept, assignment, stop);
  }
  RETURN_IF_ERROR(Load(study, assignment, stop));
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

void StudyWork::Forget(const std::string& study) {
  if (loaded_ != nullptr && loaded_->study.name == study) loaded_.reset();
  // The name comes from the server and becomes a path.
  if (IsName(study)) folder_.Forget(study);
}

std::string StudyWork::RandomStreamOf(const Study& study) const {
  const bool shared = study.training.random_numbers == TrainingPlan::RandomNumbers::kShared;
  return shared ? "shared" : config_.site;
}

void StudyWork::Tell(const SiteAssignment& assignment, const std::string& activity,
                     std::int64_t step, std::int64_t steps) {
  reports_.Set({.study = assignment.study,
                .round = assignment.round,
                .activity = activity,
                .step = step,
                .steps = steps});
}

TransferObserver StudyWork::Telling(const SiteAssignment& assignment, const std::string& activity) {
  return [this, &assignment, activity](std::int64_t done, std::int64_t total) {
    Tell(assignment, activity, done, total);
  };
}

absl::Status StudyWork::Load(const Study& study, const SiteAssignment& assignment,
                             const std::stop_token& stop) {
  if (loaded_ != nullptr && loaded_->study.digest == study.digest) {
    if (loaded_->trainer != nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(loaded_->trainer, make_trainer_(study));  // A certificate took its place.
    return absl::OkStatus();
  }
  loaded_.reset();
  Tell(assignment, "preparing", 0, 0);
  auto next = std::make_unique<LoadedStudy>();
  next->study = study;
  RETURN_IF_ERROR(FixStandard(session_, next->study, stop));
  next->standard_is_the_sites = next->study.harmonization.standard != study.harmonization.standard;
  ASSIGN_OR_RETURN(next->trainer, make_trainer_(study));
  ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config_, study));
  const std::int64_t cases_bytes = EstimateCohortMemory(
      cases, study, config_.cache_cases ? CasePlace::kMapped : CasePlace::kMemory);
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

  PreparedCache cache(folder_.PreparedCases(study.name), SiteStateFolder::RoundBytes(study),
                      [&](const absl::Status& trouble) {
                        spdlog::warn("cache_trouble study={} reason=\"{}\"", study.name,
                                     MessageOf(trouble));
                      });
  TerminalProgress bar("reading cases", static_cast<std::int64_t>(cases.files.size()));
  ASSIGN_OR_RETURN(next->cohort, PrepareStudyCohort(
                                     cases, next->study, stop,
                                     [&](std::int64_t done, std::int64_t total) {
                                       Tell(assignment, "preparing", done, total);
                                       bar.Advance(done);
                                     },
                                     config_.cache_cases ? &cache : nullptr));
  cache.RemoveOthers();
  if (cache.full())
    RETURN_IF_ERROR(CheckMemory(fmt::format("study {}", study.name), training_bytes));
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
  for (const std::string& label : next->cohort.missing_labels) {
    spdlog::warn(
        "label_missing study={} label=\"{}\" reason=\"no training case of this site has it\"",
        study.name, label);
  }
  spdlog::info("prepared study={} training={} held_out={} refused={}", study.name,
               next->cohort.training.size(), next->cohort.held_out.size(),
               next->cohort.refused.size());
  loaded_ = std::move(next);
  return absl::OkStatus();
}

absl::StatusOr<StudyWork::SiteModel> StudyWork::FetchModel(const SiteAssignment& assignment,
                                                           const std::stop_token& stop) {
  if (!IsSha256(assignment.model_digest)) {
    return absl::DataLossError(
        fmt::format("the server names the model of round {} of study {} by what is no SHA-256",
                    assignment.round, assignment.study));
  }
  const std::int64_t limit = SiteStateFolder::ModelBytes(loaded_->study);
  if (assignment.model_bytes < 0 || assignment.model_bytes > limit) {
    return absl::InvalidArgumentError(
        fmt::format("the server announces a model of {} bytes, one of study {} has at most {}",
                    assignment.model_bytes, assignment.study, limit));
  }
  const fs::path path = folder_.Model(assignment.study, assignment.model_digest);
  // A file that decayed on this disk is fetched anew.
  const absl::StatusOr<std::string> kept = Sha256OfFile(path);
  if (kept.ok() && *kept != assignment.model_digest) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  ASSIGN_OR_RETURN(const std::int64_t free_bytes, FreeDiskBytes(path.parent_path()));
  // The model, and the update of the same size that will lie beside it; what stays at the site.
  const std::int64_t needed = (CarriesState(loaded_->study) ? 4 : 2) * assignment.model_bytes;
  if (free_bytes < needed) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} has {} MB free, round {} of study {} needs {} MB; make room, or set `state` in "
        "client.toml to another disk",
        path.parent_path().string(), free_bytes / 1'000'000, assignment.round, assignment.study,
        needed / 1'000'000 + 1));
  }
  RETURN_IF_ERROR(session_.DownloadModel(assignment.study, assignment.model_digest,
                                         assignment.model_bytes, path,
                                         Telling(assignment, "downloading"), stop));
  ISOSCAN_FAULT_POINT("work.model_here");
  folder_.KeepOnly(assignment.study, assignment.round, assignment.model_digest);
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  RETURN_IF_ERROR(CheckShapes("the server", file.shapes(), ExchangedShapes(loaded_->study)));
  const bool initial = assignment.round == 1 || assignment.kind == Kind::kLocalOnly;
  HarmonizationPlan plan = loaded_->study.harmonization;
  // The initial model is older than the sites' mean.
  if (loaded_->standard_is_the_sites && initial) plan.standard.clear();
  RETURN_IF_ERROR(CheckHarmonization("the server's model", file.metadata(), plan));
  SiteModel model;
  model.weights = file.ReadAll();
  model.control = TakeFrom(kControl, model.weights);
  if (initial && !loaded_->study.network.initial_weights.empty()) {
    RETURN_IF_ERROR(CheckStartingWeights(loaded_->study, "the server's model", model.weights));
  }
  if (CarriesState(loaded_->study) && assignment.kind != Kind::kLocalOnly) {
    RETURN_IF_ERROR(AddCarried(assignment, model));
  }
  return model;
}

absl::Status StudyWork::AddCarried(const SiteAssignment& assignment, SiteModel& model) {
  const Study& study = loaded_->study;
  ASSIGN_OR_RETURN(model.carried, CarriedState(folder_, study).Before(assignment.round));
  NamedTensors layers = TakeFrom(kLocal, model.carried);
  if (!study.network.local_layers.empty() && layers.empty()) {
    NamedTensors first = InitialWeights(study);
    layers = TakeLocal(study.network, first);
  }
  model.weights.merge(layers);
  model.personal = TakeFrom(kPersonal, model.carried);
  const bool layered = !study.network.local_layers.empty();
  if (!layered && model.personal.empty()) return absl::OkStatus();
  // What this site can use, also where the study ends early: no one else has it.
  return WriteSafetensors(folder_.OwnModel(study.name), layered ? model.weights : model.personal,
                          WeightsMetadataOf(study, assignment.round - 1));
}

absl::StatusOr<std::vector<ScoredCase>> StudyWork::Score(const NamedTensors& weights,
                                                         const SiteAssignment& assignment,
                                                         const std::stop_token& stop) {
  const std::vector<PreparedCase>& cases = loaded_->cohort.held_out;
  const auto total = static_cast<std::int64_t>(cases.size());
  TerminalProgress bar("scoring", total);
  std::vector<ScoredCase> scores;
  for (std::int64_t index = 0; index < total; ++index) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    Tell(assignment, "scoring", index, total);
    const PreparedCase& prepared = cases[static_cast<std::size_t>(index)];
    ASSIGN_OR_RETURN(const LabelMap predicted, loaded_->trainer->Predict(weights, prepared));
    scores.push_back({.index = static_cast<int>(index),
                      .cohort = prepared.cohort,
                      .labels = Overlap(prepared.Reference(), predicted,
                                        static_cast<std::int64_t>(loaded_->study.labels.size()))});
    bar.Advance(index + 1);
  }
  return scores;
}

absl::StatusOr<TrainingResult> StudyWork::Train(const NamedTensors& weights, TrainingTask task,
                                                const fs::path& checkpoint,
                                                const SiteAssignment& assignment,
                                                const std::stop_token& stop) {
  TerminalProgress bar(fmt::format("training round {}", assignment.round), task.steps);
  Tell(assignment, "training", 0, task.steps);
  folder_.KeepOnlyCheckpoint(checkpoint);
  task.checkpoint = {.file = checkpoint,
                     .every_steps = config_.checkpoint.every_steps,
                     .on_resumed =
                         [&](std::int64_t done) {
                           spdlog::info("training_resumed study={} round={} step={} of={}",
                                        assignment.study, assignment.round, done, task.steps);
                         },
                     .on_trouble =
                         [&](const absl::Status& trouble) {
                           spdlog::warn("checkpoint_trouble study={} round={} reason=\"{}\"",
                                        assignment.study, assignment.round, MessageOf(trouble));
                         }};
  absl::StatusOr<TrainingResult> trained = loaded_->trainer->Train(
      weights, loaded_->cohort.training, task, stop, [&](std::int64_t step, double loss) {
        const std::int64_t done = step - task.first_step + 1;
        Tell(assignment, "training", done, task.steps);
        bar.Advance(done, fmt::format("loss {:.3f}", loss));
      });
  if (trained.ok()) return trained;
  return InStudy(assignment, trained.status());
}

absl::StatusOr<NamedTensors> StudyWork::TrainPersonal(const SiteModel& model,
                                                      const TrainingTask& task,
                                                      const SiteAssignment& assignment,
                                                      const std::stop_token& stop) {
  const Study& study = loaded_->study;
  const CarriedState carried(folder_, study);
  if (std::optional<NamedTensors> pending =
          carried.Pending(assignment.round, assignment.model_digest)) {
    spdlog::info("personal_model_kept study={} round={}", study.name, assignment.round);
    return *std::move(pending);
  }
  TrainingTask own = task;
  own.drawn_to = &model.weights;
  // A site's first own model is the global one that it sees first.
  const NamedTensors& start = model.personal.empty() ? model.weights : model.personal;
  const fs::path checkpoint =
      folder_.PersonalCheckpoint(study.name, assignment.round, assignment.model_digest);
  ASSIGN_OR_RETURN(TrainingResult result, Train(start, own, checkpoint, assignment, stop));
  spdlog::info("personal_model_trained study={} round={} steps={} mean_loss={:.4f}", study.name,
               assignment.round, result.steps, result.mean_loss);
  NamedTensors kept;
  MoveUnder(kPersonal, std::move(result.weights), kept);
  RETURN_IF_ERROR(carried.KeepPending(assignment.round, assignment.model_digest, kept));
  return kept;
}

absl::Status StudyWork::TrainRound(const SiteAssignment& assignment, const std::stop_token& stop) {
  const Study& study = loaded_->study;
  const absl::StatusOr<SiteModel> model = FetchModel(assignment, stop);
  if (IsRefusedModel(model.status(), assignment)) return absl::OkStatus();
  RETURN_IF_ERROR(model.status());
  spdlog::info("round_started study={} round={} of={} model={}", study.name, assignment.round,
               study.rounds.rounds, assignment.model_digest.substr(0, 12));

  RoundUpdate update;
  update.study = study.name;
  update.round = assignment.round;
  const steady_clock::time_point scoring_start = steady_clock::now();
  ASSIGN_OR_RETURN(update.model_scores, Score(model->weights, assignment, stop));
  update.seconds_scoring = SecondsSince(scoring_start);
  spdlog::info("model_scored study={} round={} cases={} mean_dice={:.4f} seconds={:.1f}",
               study.name, assignment.round, update.model_scores.size(),
               MeanDice(update.model_scores), update.seconds_scoring);

  update.training_cases = static_cast<std::int64_t>(loaded_->cohort.training.size());
  const std::int64_t steps = StepsPerRound(study.training, update.training_cases);
  TrainingTask task{.first_step = (assignment.round - 1) * steps,
                    .steps = steps,
                    .total_steps = study.rounds.rounds * steps,
                    .random_stream = RandomStreamOf(study),
                    .round = assignment.round};
  const steady_clock::time_point training_start = steady_clock::now();
  NamedTensors carried;
  if (study.training.personal > 0) {
    ASSIGN_OR_RETURN(carried, TrainPersonal(*model, task, assignment, stop));
  }
  NamedTensors carried_before = model->carried;
  NamedTensors own_control = TakeFrom(kControl, carried_before);
  NamedTensors correction;
  if (IsScaffold(study)) {
    correction = GradientCorrection(model->control, own_control);
    task.correction = &correction;
  }
  if (NeedsLossBefore(study.rounds.strategy.kind)) task.loss_steps = kLossSteps;
  const fs::path checkpoint =
      folder_.Checkpoint(study.name, assignment.round, assignment.model_digest);
  ASSIGN_OR_RETURN(TrainingResult result,
                   Train(model->weights, task, checkpoint, assignment, stop));
  update.seconds_training = SecondsSince(training_start);
  update.steps = result.steps;
  update.mean_loss = result.mean_loss;
  update.loss_before = result.loss_before;
  spdlog::info(
      "trained study={} round={} steps={} mean_loss={:.4f} seconds={:.1f} "
      "waited_for_patches={:.2f}",
      study.name, assignment.round, result.steps, result.mean_loss, update.seconds_training,
      result.seconds_waiting);

  const fs::path kept = folder_.Update(study.name, assignment.round, assignment.model_digest);
  const fs::path weights = kept.string() + ".safetensors";
  NamedTensors sent = std::move(result.weights);
  if (IsScaffold(study)) {
    const double rates = LearningRateSum(
        study.training, {.first = task.first_step, .count = steps, .total = task.total_steps});
    NamedTensors change = ControlChange(model->control, model->weights, sent, rates);
    AddTo(own_control, change);
    MoveUnder(kControl, std::move(own_control), carried);
    MoveUnder(kControl, std::move(change), sent);
  }
  MoveUnder(kLocal, TakeLocal(study.network, sent), carried);
  if (!carried.empty()) {
    RETURN_IF_ERROR(
        CarriedState(folder_, study).KeepPending(update.round, assignment.model_digest, carried));
  }
  const absl::Status written =
      WriteSafetensors(weights, sent, WeightsMetadataOf(study, assignment.round));
  if (!written.ok()) {
    return InStudy(
        assignment,
        {written.code(), fmt::format("{}; the next run goes on from this round's last checkpoint",
                                     MessageOf(written))});
  }
  ASSIGN_OR_RETURN(update.weights_digest, Sha256OfFile(weights));
  ISOSCAN_FAULT_POINT("work.weights_kept");
  // Last: where the record is, the weights are.
  RETURN_IF_ERROR(WriteUpdateRecord(kept.string() + ".json", update));
  ISOSCAN_FAULT_POINT("work.record_kept");
  std::error_code ignored;
  fs::remove(checkpoint, ignored);
  return HandIn(study, update, assignment, stop);
}

std::optional<RoundUpdate> StudyWork::KeptUpdate(const SiteAssignment& assignment) const {
  if (assignment.kind != Kind::kTrain) return std::nullopt;
  const std::string kept =
      folder_.Update(assignment.study, assignment.round, assignment.model_digest).string();
  const absl::StatusOr<RoundUpdate> record = ReadUpdateRecord(kept + ".json");
  if (!record.ok()) return std::nullopt;
  // Weights that do not fit their record cannot be handed in: train again.
  const absl::StatusOr<std::string> digest = Sha256OfFile(kept + ".safetensors");
  if (!digest.ok() || *digest != record->weights_digest) return std::nullopt;
  return *record;
}

absl::Status StudyWork::Settle(const Study& study, const SiteAssignment& assignment) {
  const CarriedState carried(folder_, study);
  for (const fs::path& path : folder_.UpdateRecords(study.name)) {
    const absl::StatusOr<RoundUpdate> record = ReadUpdateRecord(path);
    if (!record.ok() || !carried.HasPending(record->round)) continue;
    if (assignment.kind == Kind::kTrain && record->round == assignment.round) continue;
    // A client that did not live to hear the answer handed it in: it may have been taken.
    const absl::Status answer = session_.SubmitUpdate(*record, run_stop_);
    if (answer.ok()) {
      RETURN_IF_ERROR(carried.Accept(record->round));
    } else if (!absl::IsFailedPrecondition(answer) && !IsRefusal(answer)) {
      return answer;
    }
  }
  carried.DropAllBut(assignment.kind == Kind::kTrain ? assignment.round : 0);
  return absl::OkStatus();
}

absl::Status StudyWork::HandIn(const Study& study, const RoundUpdate& update,
                               const SiteAssignment& assignment, const std::stop_token& stop) {
  const CarriedState carried(folder_, study);
  const fs::path kept = folder_.Update(assignment.study, assignment.round, assignment.model_digest);
  const fs::path weights = kept.string() + ".safetensors";
  const fs::path record = kept.string() + ".json";
  const steady_clock::time_point start = steady_clock::now();
  RandomStream random(std::random_device{}(), "hand in");
  absl::Status outcome;
  for (int failures = 1;; ++failures) {
    outcome = session_.UploadWeights(update.study, update.round, update.weights_digest, weights,
                                     Telling(assignment, "uploading"), stop);
    ISOSCAN_FAULT_POINT("work.uploaded");
    if (outcome.ok()) outcome = session_.SubmitUpdate(update, run_stop_);
    ISOSCAN_FAULT_POINT("work.submitted");
    if (!absl::IsDataLoss(outcome) && !absl::IsNotFound(outcome)) break;
    // Whose copy is lost? The trained weights stay here until they have been taken.
    if (Sha256OfFile(weights).value_or("") != update.weights_digest) {
      return absl::DataLossError(
          fmt::format("the weights of round {} of study {} were damaged on this site's disk: {}; "
                      "check the disk, the next run trains the round again",
                      update.round, update.study, MessageOf(outcome)));
    }
    if (absl::IsNotFound(outcome)) break;
    spdlog::warn("update_wanted_again study={} round={} reason=\"{}\"", update.study, update.round,
                 MessageOf(outcome));
    if (!WaitFor(DelayAfter(RetryPolicy::Forever(), failures, random), stop)) {
      return absl::CancelledError("interrupted");
    }
  }
  if (outcome.ok()) {
    RETURN_IF_ERROR(carried.Accept(update.round));
    ISOSCAN_FAULT_POINT("work.accepted");
    spdlog::info("update_accepted study={} round={} seconds={:.2f}", update.study, update.round,
                 SecondsSince(start));
  } else if (absl::IsFailedPrecondition(outcome)) {
    spdlog::warn("update_too_late study={} round={} reason=\"{}\"", update.study, update.round,
                 MessageOf(outcome));
  } else if (IsRefusal(outcome)) {
    spdlog::error("update_refused study={} round={} reason=\"{}\"", update.study, update.round,
                  MessageOf(outcome));
  } else {
    return outcome;
  }
  carried.Drop(update.round);
  // The record first: it promises that the weights are there.
  std::error_code ignored;
  fs::remove(record, ignored);
  ISOSCAN_FAULT_POINT("work.record_removed");
  fs::remove(weights, ignored);
  return absl::OkStatus();
}

absl::Status StudyWork::HandInScores(const SiteScores& scores, const SiteAssignment& assignment) {
  ISOSCAN_FAULT_POINT("work.before_scores");
  const absl::Status submitted =
      session_.SubmitScores(assignment.study, assignment.kind, scores, run_stop_);
  ISOSCAN_FAULT_POINT("work.scores_sent");
  if (absl::IsFailedPrecondition(submitted)) {
    spdlog::warn("scores_too_late study={} kind={} reason=\"{}\"", assignment.study,
                 ToString(assignment.kind), MessageOf(submitted));
    return absl::OkStatus();
  }
  if (IsRefusal(submitted)) {
    spdlog::error("scores_refused study={} kind={} reason=\"{}\"", assignment.study,
                  ToString(assignment.kind), MessageOf(submitted));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(submitted);
  spdlog::info("scores_accepted study={} kind={} cases={} mean_dice={:.4f}", assignment.study,
               ToString(assignment.kind), scores.cases.size(), MeanDice(scores.cases));
  return absl::OkStatus();
}

absl::Status StudyWork::ScoreFinalModel(const SiteAssignment& assignment,
                                        const std::stop_token& stop) {
  const absl::StatusOr<SiteModel> model = FetchModel(assignment, stop);
  if (IsRefusedModel(model.status(), assignment)) return absl::OkStatus();
  RETURN_IF_ERROR(model.status());
  const Study& study = loaded_->study;
  const steady_clock::time_point give_up = steady_clock::now() + CertificateTime(study);
  SiteScores scores;
  ASSIGN_OR_RETURN(scores.cases, Score(model->weights, assignment, stop));
  if (!model->personal.empty()) {
    ASSIGN_OR_RETURN(scores.personal, Score(model->personal, assignment, stop));
  }
  if (study.evaluation.certificate) {
    absl::StatusOr<std::optional<InvarianceCertificate>> certified =
        CertifyFinalModel(model->weights, give_up, assignment, stop);
    if (absl::IsCancelled(certified.status())) return certified.status();
    if (certified.ok()) {
      scores.certificate = *std::move(certified);
    } else {
      // The scores are worth having all the same. The message may name a file.
      spdlog::warn(
          "certificate_failed study={} reason={} action=\"the scores go without it; "
          "isoscan-client harmonize --certify makes it here and says what is wrong\"",
          study.name, absl::StatusCodeToString(certified.status().code()));
    }
  }
  return HandInScores(scores, assignment);
}

absl::StatusOr<std::optional<InvarianceCertificate>> StudyWork::CertifyFinalModel(
    const NamedTensors& weights, steady_clock::time_point give_up, const SiteAssignment& assignment,
    const std::stop_token& stop) {
  Study study = loaded_->study;
  const auto held_out = static_cast<std::int64_t>(loaded_->cohort.held_out.size());
  if (held_out < kFewestCertifiedCases) {
    spdlog::info("certificate_not_made study={} cases={} fewest={}", study.name, held_out,
                 kFewestCertifiedCases);
    return std::nullopt;
  }
  std::unique_ptr<StudyTrainer> exact;
  if (study.training.precision != TrainingPlan::Precision::kFloat32) {
    // bfloat16 rounds each input to three digits, which would hide what harmonisation does.
    study.training.precision = TrainingPlan::Precision::kFloat32;
    // Each trainer asks for the memory that training takes: one at a time, and this one predicts.
    study.training.batch_size = 1;
    loaded_->trainer.reset();
    ASSIGN_OR_RETURN(exact, make_trainer_(study));
  }
  StudyTrainer& trainer = exact != nullptr ? *exact : *loaded_->trainer;
  ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config_, study));
  std::optional<TerminalProgress> bar;
  const absl::StatusOr<SiteFindings> findings = CertifyHeldOut(
      cases, study, /*limit=*/0,
      [&](const PreparedCase& prepared) -> absl::StatusOr<std::vector<float>> {
        if (steady_clock::now() >= give_up) {
          return absl::DeadlineExceededError("the certificate's time is over");
        }
        return trainer.Scores(weights, prepared);
      },
      stop,
      [&](std::int64_t done, std::int64_t total) {
        if (!bar.has_value()) bar.emplace("certifying", total);
        Tell(assignment, "certifying", done, total);
        bar->Advance(done);
      });
  RETURN_IF_ERROR(findings.status());
  const InvarianceCertificate certificate = Summarize(findings->cases);
  spdlog::info("final_model_certified study={} cases={} holds={} largest_logit_change={:.2e}",
               study.name, certificate.cases, certificate.holds(),
               certificate.largest_logit_change);
  return SendableCertificate(certificate);
}

absl::Status StudyWork::TrainAlone(const SiteAssignment& assignment, const std::stop_token& stop) {
  const Study& study = loaded_->study;
  SiteModel start;
  if (study.network.initial_weights.empty()) {
    start.weights = InitialWeights(study);  // What the study draws need not be sent.
  } else {
    absl::StatusOr<SiteModel> first = FetchModel(assignment, stop);
    if (IsRefusedModel(first.status(), assignment)) return absl::OkStatus();
    RETURN_IF_ERROR(first.status());
    start = *std::move(first);
  }
  const std::int64_t per_round =
      StepsPerRound(study.training, static_cast<std::int64_t>(loaded_->cohort.training.size()));
  // Training may have ended early; the learning rate falls as it did in the study.
  const std::int64_t steps = (assignment.round - 1) * per_round;
  spdlog::info("local_only_started study={} steps={}", study.name, steps);
  const fs::path checkpoint = folder_.Checkpoint(study.name, 0, study.digest);
  ASSIGN_OR_RETURN(const TrainingResult result,
                   Train(start.weights,
                         {.first_step = 0,
                          .steps = steps,
                          .total_steps = study.rounds.rounds * per_round,
                          .random_stream = RandomStreamOf(study),
                          .round = 1,
                          .alone = true},
                         checkpoint, assignment, stop));
  SiteScores scores;
  ASSIGN_OR_RETURN(scores.cases, Score(result.weights, assignment, stop));
  spdlog::info("trained_alone study={} steps={} mean_loss={:.4f}", study.name, result.steps,
               result.mean_loss);
  RETURN_IF_ERROR(HandInScores(scores, assignment));
  std::error_code ignored;
  fs::remove(checkpoint, ignored);
  return absl::OkStatus();
}

}  // namespace isoscan
