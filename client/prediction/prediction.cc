#include "client/prediction/prediction.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <future>
#include <new>
#include <optional>
#include <span>
#include <utility>

#include "client/cohort/output_folder.h"
#include "client/cohort/scans.h"
#include "client/cohort/sidecars.h"
#include "client/cohort/unlabelled_cases.h"
#include "client/imaging/orientation.h"
#include "client/imaging/resampling.h"
#include "client/intake/cohort_findings.h"
#include "client/intake/intake.h"
#include "client/prediction/prediction_files.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include <omp.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A case on its way.
struct Task {
  CaseFiles files;
  fs::path labels;  ///< Where they go.
  Geometry stored;
  std::int64_t windows = 0;
  std::int64_t loading_bytes = 0;
  std::int64_t prediction_bytes = 0;
  CaseRecord record;
  std::string refusal;  ///< Empty: it can be predicted.
};

/// A case in memory, as the network sees it.
struct Ready {
  PreparedCase prepared;
  std::vector<HarmonizationRecord> channels;
};

/// Two channels that are one image, voxel by voxel.
bool ShowsOneImageTwice(const CaseSight& sight) {
  for (std::size_t i = 0; i < sight.images.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!sight.images[i].digest.empty() && sight.images[i].digest == sight.images[j].digest) {
        return true;
      }
    }
  }
  return false;
}

/// What a prediction has to know of a finding: that an image or a patient is there twice matters to
/// training alone.
bool Matters(const Finding& finding, const CaseSight& sight) {
  if (finding.fault == Fault::kDuplicate) return ShowsOneImageTwice(sight);
  return finding.fault != Fault::kSamePatient;
}

/// What loading takes: each channel as stored and in canonical order, N4's field, and the case at
/// the plan's spacing. What prediction takes beside the scores: that case, and labels.
void EstimateMemory(const Study& study, Task& task) {
  const HarmonizationPlan& plan = study.harmonization;
  const Geometry canonical = CanonicalGeometry(task.stored);
  const Geometry grid =
      WithSpacing(canonical, {plan.spacing_mm[2], plan.spacing_mm[1], plan.spacing_mm[0]});
  const auto channels = static_cast<std::int64_t>(study.channels.size());
  const std::int64_t of_n4 = plan.n4.has_value() ? 12 : 0;
  task.windows = CountWindows(study, grid);
  task.loading_bytes =
      task.stored.voxels() * (4 * channels + 8 + of_n4) + grid.voxels() * (4 * channels + 6);
  for (const DicomSeries& series : task.files.series) task.loading_bytes += series.decoder_bytes;
  task.prediction_bytes = grid.voxels() * (4 * channels + 1) + 2 * task.stored.voxels() +
                          EstimateScoresMemory(study, grid, canonical);
}

class Prediction {
 public:
  Prediction(const PredictionRequest& request, const CasePredictor& predict,
             const std::stop_token& stop, const PredictionObserver& observer)
      : request_(request), predict_(predict), stop_(stop), observer_(observer) {}

  absl::StatusOr<PredictedCases> Run();

 private:
  absl::Status ListTasks();
  /// Headers, voxels and the cases beside each other; refuses what intake quarantines.
  absl::Status LookAtCases();
  /// What is there already is kept; what takes more memory than there is is refused.
  absl::Status ChooseWork();
  absl::Status PredictAll();
  absl::StatusOr<Ready> Load(const Task& task) const;
  absl::Status PredictOne(Task& task, absl::StatusOr<Ready> ready);
  /// Names a case that is not predicted, and removes what an earlier run has made of it.
  absl::Status Refuse(const Task& task, const std::string& reason);

  IntakeObserver Watch(const char* what) const {
    return [this, what](std::int64_t done, std::int64_t total) {
      observer_.progress(what, done, total, "");
    };
  }

  const PredictionRequest& request_;
  const CasePredictor& predict_;
  const std::stop_token& stop_;
  const PredictionObserver& observer_;
  PredictionPlaces places_;
  std::vector<Task> tasks_;
  std::vector<Task*> work_;
  PredictionSize size_;
  bool loads_ahead_ = true;
  std::int64_t windows_done_ = 0;
  PredictedCases result_;
};

absl::Status Prediction::ListTasks() {
  CohortFolder input = request_.input;
  ASSIGN_OR_RETURN(input.folder, CanonicalPath(input.folder));
  ASSIGN_OR_RETURN(
      std::vector<CaseFiles> cases,
      ListCasesToPredict(
          input, request_.study, &result_.left_out,
          {.threads = request_.threads, .stop = stop_, .observe = Watch("listing DICOM cases")}));
  const auto is_dicom = [](const CaseFiles& files) { return !files.series.empty(); };
  if (request_.dicom_seg && std::none_of(cases.begin(), cases.end(), is_dicom)) {
    return absl::InvalidArgumentError(fmt::format(
        "a DICOM segmentation belongs to a DICOM series, and {} has none", places_.input.string()));
  }
  ASSIGN_OR_RETURN(std::vector<fs::path> labels, LabelFilesOf(places_, cases, request_.study));
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Task& task = tasks_.emplace_back();
    task.files = std::move(cases[i]);
    task.labels = labels[i];
  }
  return absl::OkStatus();
}

absl::Status Prediction::LookAtCases() {
  std::error_code ignored;
  Sidecars sidecars(fs::is_directory(places_.input, ignored) ? places_.input
                                                             : places_.input.parent_path());
  std::vector<ScanFiles> scans;
  for (const Task& task : tasks_) scans.push_back(AsScan(task.files, request_.study, sidecars));
  ASSIGN_OR_RETURN(std::vector<CaseSight> sights, InspectHeaders(std::move(scans), request_.threads,
                                                                 stop_, Watch("reading headers")));
  const ReadingPlan plan = PlanReading(sights, request_.threads, AvailableMemoryBytes() / 10 * 9);
  RETURN_IF_ERROR(InspectVoxels(sights, plan, stop_, Watch("reading voxels")));
  CompareCases(sights);
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    Task& task = tasks_[i];
    for (const Finding& finding : sights[i].findings) {
      if (!Matters(finding, sights[i])) continue;
      if (finding.quarantines) {
        task.refusal = finding.reason;
        break;
      }
      task.record.findings.push_back({.name = NameOf(finding), .reason = finding.reason});
    }
    if (task.refusal.empty()) task.stored = sights[i].images.front().stored;
  }
  return absl::OkStatus();
}

absl::Status Prediction::ChooseWork() {
  // Of what the network takes, this process holds some already.
  const std::int64_t free_bytes =
      AvailableMemoryBytes() -
      std::max<std::int64_t>(0, request_.network_bytes - PeakMemoryBytes());
  for (Task& task : tasks_) {
    if (stop_.stop_requested()) return absl::CancelledError("interrupted");
    if (const absl::Status ours = CheckNothingElseIsThere(task.labels, request_.dicom_seg);
        !ours.ok()) {
      RETURN_IF_ERROR(Refuse(task, std::string(ours.message())));
      continue;
    }
    if (task.refusal.empty()) {
      absl::StatusOr<json> made_of = MadeOf(task.files, request_);
      if (made_of.ok()) {
        task.record.made_of = *std::move(made_of);
      } else {
        task.refusal = std::string(made_of.status().message());
      }
    }
    if (!task.refusal.empty()) {
      RETURN_IF_ERROR(Refuse(task, task.refusal));
      continue;
    }
    for (const PredictedCases::Named& finding : task.record.findings) {
      result_.flagged.push_back({.name = task.files.name, .reason = finding.reason});
    }
    if (IsPredicted(task.labels, task.record.made_of)) {
      ++result_.kept;
      continue;
    }
    EstimateMemory(request_.study, task);
    const std::int64_t bytes = std::max(task.loading_bytes, task.prediction_bytes);
    if (bytes > free_bytes) {
      RETURN_IF_ERROR(Refuse(
          task,
          fmt::format("it takes {:.2f} GiB of memory beside the network's {:.2f}, and "
                      "{:.2f} GiB are free",
                      static_cast<double>(bytes) / (1 << 30),
                      static_cast<double>(request_.network_bytes) / (1 << 30),
                      static_cast<double>(std::max<std::int64_t>(0, free_bytes)) / (1 << 30))));
      continue;
    }
    work_.push_back(&task);
  }
  size_.cases = static_cast<std::int64_t>(work_.size());
  size_.network_bytes = request_.network_bytes;
  std::int64_t together = 0;
  std::int64_t alone = 0;
  for (std::size_t i = 0; i < work_.size(); ++i) {
    size_.windows += work_[i]->windows;
    alone = std::max({alone, work_[i]->loading_bytes, work_[i]->prediction_bytes});
    together = std::max(together, work_[i]->prediction_bytes +
                                      (i + 1 < work_.size() ? work_[i + 1]->loading_bytes : 0));
  }
  loads_ahead_ = together <= free_bytes;
  size_.case_bytes = loads_ahead_ ? std::max(alone, together) : alone;
  return absl::OkStatus();
}

/// Runs beside the network: it keeps to one thread of its own.
absl::StatusOr<Ready> Prediction::Load(const Task& task) const {
  if (loads_ahead_) omp_set_num_threads(1);
  try {
    Ready ready;
    ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(task.files, request_.study));
    ASSIGN_OR_RETURN(ready.prepared,
                     PrepareCase(loaded, task.files, request_.study, &ready.channels));
    return ready;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("not enough memory to read it");
  } catch (const std::exception& failure) {
    return absl::DataLossError(fmt::format("it cannot be read: {}", failure.what()));
  }
}

absl::Status Prediction::Refuse(const Task& task, const std::string& reason) {
  result_.refused.push_back({.name = task.files.name, .reason = reason});
  return RemovePrediction(task.labels);
}

absl::Status Prediction::PredictOne(Task& task, absl::StatusOr<Ready> ready) {
  RETURN_IF_ERROR(RemovePrediction(task.labels));
  if (!ready.ok()) return Refuse(task, std::string(ready.status().message()));
  const PredictionControl control{.mirror_axes = request_.mirror_axes,
                                  .stop = stop_,
                                  .observe = [&](std::int64_t done, std::int64_t /*windows*/) {
                                    observer_.progress("predicting", windows_done_ + done,
                                                       size_.windows, task.files.name);
                                  }};
  const absl::StatusOr<LabelMap> labels = predict_(ready->prepared, control);
  // A case that is too large, or that the model makes nothing of, must not end the others.
  if (absl::IsResourceExhausted(labels.status()) || absl::IsDataLoss(labels.status())) {
    return Refuse(task, std::string(labels.status().message()));
  }
  RETURN_IF_ERROR(labels.status());
  task.record.channels = std::move(ready->channels);
  task.record.windows = task.windows;
  ready = absl::CancelledError("done");  // Its memory is the next one's.
  const absl::Status written = WritePrediction(
      places_, request_, task.files, FromCanonical(*labels, task.stored), task.labels, task.record);
  if (absl::IsInvalidArgument(written)) return Refuse(task, std::string(written.message()));
  RETURN_IF_ERROR(written);
  ++result_.written;
  return absl::OkStatus();
}

absl::Status Prediction::PredictAll() {
  const auto load = [this](std::size_t i) {
    return std::async(loads_ahead_ ? std::launch::async : std::launch::deferred,
                      [this, task = work_[i]] { return Load(*task); });
  };
  std::future<absl::StatusOr<Ready>> next;
  if (!work_.empty()) next = load(0);
  for (std::size_t i = 0; i < work_.size(); ++i) {
    if (stop_.stop_requested()) break;
    absl::StatusOr<Ready> ready = next.get();
    if (i + 1 < work_.size()) next = load(i + 1);
    RETURN_IF_ERROR(PredictOne(*work_[i], std::move(ready)));
    windows_done_ += work_[i]->windows;
  }
  return absl::OkStatus();
}

absl::StatusOr<PredictedCases> Prediction::Run() {
  ASSIGN_OR_RETURN(places_, PlacesOf(request_));
  RETURN_IF_ERROR(ListTasks());
  RETURN_IF_ERROR(MakeFolder(places_.folder()));
  std::optional<FolderLock> lock;
  if (places_.layout != PredictionPlaces::Layout::kOneFile) {
    ASSIGN_OR_RETURN(lock, FolderLock::Acquire(places_.folder()));
  }
  std::vector<fs::path> labels;
  for (const Task& task : tasks_) labels.push_back(task.labels);
  RETURN_IF_ERROR(RemoveLeftovers(places_, labels));
  RETURN_IF_ERROR(WriteDatasetFiles(places_, request_.study));
  RETURN_IF_ERROR(LookAtCases());
  RETURN_IF_ERROR(ChooseWork());
  observer_.begin(size_);
  const absl::Status predicted = PredictAll();
  if (absl::IsCancelled(predicted) || stop_.stop_requested()) {
    return absl::CancelledError("interrupted; the same command goes on from here");
  }
  RETURN_IF_ERROR(predicted);
  const auto by_name = [](const auto& left, const auto& right) { return left.name < right.name; };
  std::stable_sort(result_.refused.begin(), result_.refused.end(), by_name);
  return std::move(result_);
}

}  // namespace

absl::StatusOr<PredictedCases> PredictCases(const PredictionRequest& request,
                                            const CasePredictor& predict,
                                            const std::stop_token& stop,
                                            const PredictionObserver& observer) {
  return Prediction(request, predict, stop, observer).Run();
}

}  // namespace isoscan
