#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/study_choice.h"
#include "client/evaluation/overlap.h"
#include "client/study_cohort.h"
#include "common/json/numbers.h"
#include "common/process/progress.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

struct Evaluation {
  CaseFiles files;
  std::string refusal;                ///< Empty: it was scored.
  std::vector<LabelOverlap> overlap;  ///< Per label of the study.

  double dice() const { return MeanDice(overlap); }
};

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

absl::StatusOr<std::vector<LabelOverlap>> ScoreCase(const CaseFiles& files, const Study& study,
                                                    const NamedTensors& weights,
                                                    StudyTrainer& trainer) {
  ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(files, study));
  ASSIGN_OR_RETURN(const PreparedCase prepared, PrepareCase(loaded, files, study));
  ASSIGN_OR_RETURN(const LabelMap predicted, trainer.Predict(weights, prepared));
  return Overlap(prepared.reference, predicted, static_cast<std::int64_t>(study.labels.size()));
}

/// Mean over the scored cases of what `dice` says of each; NaN when there is none.
template <typename Dice>
double MeanOver(const std::vector<Evaluation>& evaluations, Dice dice) {
  double sum = 0;
  double cases = 0;
  for (const Evaluation& evaluation : evaluations) {
    if (!evaluation.refusal.empty() || std::isnan(dice(evaluation))) continue;
    sum += dice(evaluation);
    cases += 1;
  }
  return cases > 0 ? sum / cases : std::nan("");
}

nlohmann::ordered_json JsonOf(const std::vector<Evaluation>& evaluations, const Study& study,
                              const std::string& model_digest) {
  nlohmann::ordered_json cases = nlohmann::ordered_json::array();
  nlohmann::ordered_json refused = nlohmann::ordered_json::array();
  for (const Evaluation& evaluation : evaluations) {
    nlohmann::ordered_json entry{{"name", evaluation.files.name},
                                 {"cohort", evaluation.files.cohort}};
    if (!evaluation.refusal.empty()) {
      entry["reason"] = evaluation.refusal;
      refused.push_back(std::move(entry));
      continue;
    }
    entry["dice"] = NumberOrNull(evaluation.dice());
    for (std::size_t label = 0; label < study.labels.size(); ++label) {
      const LabelOverlap& overlap = evaluation.overlap[label];
      entry["labels"][study.labels[label]] = {{"dice", NumberOrNull(overlap.dice())},
                                              {"reference_voxels", overlap.reference_voxels},
                                              {"predicted_voxels", overlap.predicted_voxels}};
    }
    cases.push_back(std::move(entry));
  }
  nlohmann::ordered_json labels;
  for (std::size_t label = 0; label < study.labels.size(); ++label) {
    labels[study.labels[label]] = NumberOrNull(MeanOver(
        evaluations, [label](const Evaluation& entry) { return entry.overlap[label].dice(); }));
  }
  return {{"study", study.name},
          {"study_sha256", study.digest},
          {"model_sha256", model_digest},
          {"dice",
           {{"mean", NumberOrNull(MeanOver(evaluations,
                                           [](const Evaluation& entry) { return entry.dice(); }))},
            {"labels", labels}}},
          {"cases", cases},
          {"refused", refused}};
}

void PrintTable(const std::vector<Evaluation>& evaluations, const Study& study) {
  std::size_t width = 4;
  for (const Evaluation& entry : evaluations) width = std::max(width, entry.files.name.size());
  const auto text = [](double dice) {
    return std::isnan(dice) ? std::string("-") : fmt::format("{:.3f}", dice);
  };
  std::string header = fmt::format("{:<{}}  {:>5}", "case", width, "Dice");
  for (const std::string& label : study.labels) {
    header += fmt::format("  {:>{}}", label, std::max<std::size_t>(5, label.size()));
  }
  fmt::print("{}\n", header);
  const auto print = [&](const std::string& name, double dice, const auto& label_dice) {
    fmt::print("{:<{}}  {:>5}", Printable(name), width, text(dice));
    for (std::size_t label = 0; label < study.labels.size(); ++label) {
      fmt::print("  {:>{}}", text(label_dice(label)),
                 std::max<std::size_t>(5, study.labels[label].size()));
    }
    fmt::print("\n");
  };
  for (const Evaluation& entry : evaluations) {
    if (!entry.refusal.empty()) {
      fmt::print("{:<{}}  refused: {}\n", Printable(entry.files.name), width,
                 Printable(entry.refusal));
      continue;
    }
    print(entry.files.name, entry.dice(),
          [&](std::size_t label) { return entry.overlap[label].dice(); });
  }
  print("mean", MeanOver(evaluations, [](const Evaluation& entry) { return entry.dice(); }),
        [&](std::size_t label) {
          return MeanOver(evaluations,
                          [label](const Evaluation& entry) { return entry.overlap[label].dice(); });
        });
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

  std::vector<Evaluation> evaluations;
  std::size_t refused = 0;
  {
    Progress progress("scoring", static_cast<std::int64_t>(cases.size()));
    for (const CaseFiles& files : cases) {
      if (stop.stop_requested()) return absl::CancelledError("interrupted");
      Evaluation evaluation{.files = files, .refusal = "", .overlap = {}};
      absl::StatusOr<std::vector<LabelOverlap>> overlap =
          ScoreCase(files, study, weights, *trainer);
      if (absl::IsResourceExhausted(overlap.status())) return overlap.status();
      if (overlap.ok()) {
        evaluation.overlap = *std::move(overlap);
      } else {
        evaluation.refusal = std::string(overlap.status().message());
        ++refused;
      }
      evaluations.push_back(std::move(evaluation));
      progress.Advance(static_cast<std::int64_t>(evaluations.size()));
    }
  }
  if (evaluations.empty()) {
    return absl::DataLossError(
        "no case is held out here; name a folder of cases, or see `isoscan-client inspect`");
  }
  if (refused == evaluations.size()) {
    return absl::DataLossError(fmt::format("none of {} cases can be scored; the first: {}", refused,
                                           evaluations.front().refusal));
  }
  const std::string json =
      JsonOf(evaluations, study, digest)
          .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
      "\n";
  if (!request.out.empty()) RETURN_IF_ERROR(WriteFileAtomically(request.out, json));
  if (request.json) {
    fmt::print("{}", json);
  } else {
    PrintTable(evaluations, study);
    fmt::print("{} cases scored, {} refused\n", evaluations.size() - refused, refused);
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace isoscan
