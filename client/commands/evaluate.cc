#include <fmt/format.h>

#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/evaluation_report.h"
#include "client/commands/study_choice.h"
#include "client/evaluation/surface_metrics.h"
#include "client/study_cohort.h"
#include "common/process/progress.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

/// Folders on the command line: all of their cases. Else the held-out cases of the site's own.
absl::StatusOr<std::vector<CaseFiles>> CasesOf(const ClientConfig& config,
                                               const EvaluationRequest& request,
                                               const Study& study) {
  if (request.folders.empty()) {
    ASSIGN_OR_RETURN(SiteCases cases, ListSiteCases(config, study));
    std::vector<CaseFiles> held_out;
    for (std::size_t index = 0; index < cases.files.size(); ++index) {
      if (cases.held_out[index]) held_out.push_back(std::move(cases.files[index]));
    }
    return held_out;
  }
  std::vector<CaseFiles> cases;
  for (const std::filesystem::path& folder : request.folders) {
    const std::string name = request.folders.size() > 1 ? folder.string() : "";
    ASSIGN_OR_RETURN(
        std::vector<CaseFiles> found,
        ListCases({.name = name, .folder = folder, .labels = {}, .channels = {}}, study));
    std::move(found.begin(), found.end(), std::back_inserter(cases));
  }
  return cases;
}

absl::StatusOr<std::vector<LabelScore>> ScoreCase(const CaseFiles& files, const Study& study,
                                                  const NamedTensors& weights,
                                                  const SurfaceOptions& options,
                                                  StudyTrainer& trainer) {
  ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(files, study));
  ASSIGN_OR_RETURN(const PreparedCase prepared, PrepareCase(loaded, files, study));
  ASSIGN_OR_RETURN(const LabelMap predicted, trainer.Predict(weights, prepared));
  return ScoreLabels(prepared.Reference(), predicted,
                     static_cast<std::int64_t>(study.labels.size()), options);
}

}  // namespace

absl::Status EvaluateCases(const ClientConfig& config, const EvaluationRequest& request,
                           std::stop_token stop) {
  ASSIGN_OR_RETURN(Study study, ChooseStudy(config, request.study));
  ASSIGN_OR_RETURN(const NamedTensors weights, LoadStudyModel(request.model, study));
  ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(request.model));
  ASSIGN_OR_RETURN(const std::vector<CaseFiles> cases, CasesOf(config, request, study));
  ASSIGN_OR_RETURN(const std::unique_ptr<StudyTrainer> trainer,
                   MakeDeviceTrainer(study, config.device));

  EvaluationReport report{.labels = study.labels, .options = request.surface, .cases = {}};
  {
    Progress progress("scoring", static_cast<std::int64_t>(cases.size()));
    for (const CaseFiles& files : cases) {
      if (stop.stop_requested()) return absl::CancelledError("interrupted");
      EvaluatedCase entry{.name = files.name, .cohort = files.cohort, .refusal = "", .scores = {}};
      absl::StatusOr<std::vector<LabelScore>> scores =
          ScoreCase(files, study, weights, request.surface, *trainer);
      if (absl::IsResourceExhausted(scores.status())) return scores.status();
      if (scores.ok()) {
        entry.scores = *std::move(scores);
      } else {
        entry.refusal = std::string(scores.status().message());
      }
      report.cases.push_back(std::move(entry));
      progress.Advance(static_cast<std::int64_t>(report.cases.size()));
    }
  }
  if (report.cases.empty()) {
    return absl::DataLossError(
        "no case is held out here; name a folder of cases, or see `isoscan-client inspect`");
  }
  if (report.refused() == report.cases.size()) {
    return absl::DataLossError(fmt::format("none of {} cases can be scored; the first: {}",
                                           report.cases.size(), report.cases.front().refusal));
  }
  return WriteEvaluation(
      report, {{"study", study.name}, {"study_sha256", study.digest}, {"model_sha256", digest}},
      request.output);
}

}  // namespace isoscan
