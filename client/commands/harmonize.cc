#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <utility>

#include "client/client_config.h"
#include "client/cohort/harmonized_copy.h"
#include "client/commands/commands.h"
#include "client/commands/input_choice.h"
#include "client/commands/study_choice.h"
#include "common/process/progress.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// The study's plan, with the standard that its model carries.
absl::StatusOr<Study> StudyWithStandard(const ClientConfig& config,
                                        const HarmonizeRequest& request) {
  ASSIGN_OR_RETURN(Study study, ChooseStudy(config, request.study));
  RETURN_IF_ERROR(CheckPlanned(study));  // Its grid is part of what a copy is made for.
  if (!request.model.empty()) RETURN_IF_ERROR(TakeHarmonization(request.model, study));
  const HarmonizationPlan& plan = study.harmonization;
  if (StandardLength(plan.normalize) == 0 || !plan.standard.empty()) return study;
  return absl::FailedPreconditionError(fmt::format(
      "study {} normalises by '{}' to the mean of its sites, which is known once it has started: "
      "give one of its models, of round 1 or later, with --model",
      study.name, ToString(plan.normalize)));
}

nlohmann::json JsonOf(const std::vector<HarmonizedCopy::NotThere>& images) {
  nlohmann::json list = nlohmann::json::array();
  for (const HarmonizedCopy::NotThere& image : images) {
    list.push_back({{"path", image.image.string()}, {"reason", image.reason}});
  }
  return list;
}

void PrintJson(const HarmonizedCopy& copy, const CopyRequest& request) {
  nlohmann::json strangers = nlohmann::json::array();
  for (const std::filesystem::path& file : copy.strangers) strangers.push_back(file.string());
  const nlohmann::json result{{"harmonization_sha256", HarmonizationDigest(request.plan)},
                              {"geometry", NameOf(request.input.geometry)},
                              {"written", copy.written},
                              {"kept", copy.kept},
                              {"refused", JsonOf(copy.refused)},
                              {"left_out", JsonOf(copy.left_out)},
                              {"strangers", std::move(strangers)}};
  fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void PrintLines(const HarmonizedCopy& copy, const CopyRequest& request) {
  for (const HarmonizedCopy::NotThere& image : copy.left_out) {
    fmt::print("left out {}: {}\n", Printable(image.image.string()), Printable(image.reason));
  }
  for (const HarmonizedCopy::NotThere& image : copy.refused) {
    fmt::print("refused {}: {}\n", Printable(image.image.string()), Printable(image.reason));
  }
  if (!copy.strangers.empty()) {
    fmt::print("{} files of {} have no counterpart in {} and stay as they are; the first: {}\n",
               copy.strangers.size(), Printable(request.output.string()),
               Printable(request.input.folder.string()),
               Printable(copy.strangers.front().string()));
  }
  fmt::print("{}\n{} written, {} kept, {} refused", InWords(request.plan), copy.written, copy.kept,
             copy.refused.size());
  if (!copy.left_out.empty()) fmt::print(", {} left out", copy.left_out.size());
  fmt::print("\n");
}

}  // namespace

absl::Status HarmonizeImages(const HarmonizeRequest& request, std::stop_token stop) {
  ASSIGN_OR_RETURN(const ClientConfig config, ConfigOrNone(request.config));
  CopyRequest copied;
  ASSIGN_OR_RETURN(copied.input,
                   ChooseInput(config, request.config, request.input, request.geometry,
                               /*as_the_study_reads=*/!request.study.empty()));
  copied.output = request.output;
  copied.plan = request.plan;
  copied.channel = request.channel;
  copied.for_nnunet = request.for_nnunet;
  if (!request.study.empty()) {
    ASSIGN_OR_RETURN(const Study study, StudyWithStandard(config, request));
    copied.plan = study.harmonization;
    copied.channels = study.channels;
  }
  std::optional<Progress> bar;
  ASSIGN_OR_RETURN(const HarmonizedCopy copy,
                   MakeHarmonizedCopy(copied, stop, [&](std::int64_t done, std::int64_t total) {
                     if (!bar.has_value()) bar.emplace("harmonising", total);
                     bar->Advance(done);
                   }));
  bar.reset();
  if (request.json) {
    PrintJson(copy, copied);
  } else {
    PrintLines(copy, copied);
  }
  if (copy.refused.empty()) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} of {} images were refused and are not in the output; the others are done",
                  copy.refused.size(),
                  static_cast<std::size_t>(copy.written + copy.kept) + copy.refused.size()));
}

}  // namespace isoscan
