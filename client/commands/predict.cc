#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>

#include "client/cohort/harmonized_copy.h"
#include "client/commands/commands.h"
#include "client/commands/input_choice.h"
#include "client/commands/study_choice.h"
#include "client/inference/predictor.h"
#include "client/prediction/prediction.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

/// One bar after the other, on standard error.
class Bars {
 public:
  void Show(std::string_view what, std::int64_t done, std::int64_t total, const std::string& note) {
    if (!bar_.has_value() || what != title_) {
      End();
      title_ = what;
      bar_.emplace(title_, total);
    }
    bar_->Advance(done, Printable(note));
  }
  void End() { bar_.reset(); }

 private:
  std::string title_;
  std::optional<Progress> bar_;
};

void PrintSize(const PredictionSize& size, const std::string& device) {
  constexpr double kMegabyte = 1e6;
  const auto network = static_cast<double>(size.network_bytes) / kMegabyte;
  const auto of_case = static_cast<double>(size.case_bytes) / kMegabyte;
  fmt::print(stderr,
             "predicting {} cases in {} windows on {}, in at most {:.0f} MB (the program with its "
             "network {:.0f} MB, the largest case {:.0f} MB)\n",
             size.cases, size.windows, device, network + of_case, network, of_case);
}

nlohmann::json JsonOf(const std::vector<PredictedCases::Named>& cases) {
  nlohmann::json list = nlohmann::json::array();
  for (const PredictedCases::Named& entry : cases) {
    list.push_back({{"name", entry.name}, {"reason", entry.reason}});
  }
  return list;
}

void PrintJson(const PredictedCases& cases, const PredictionRequest& request) {
  const nlohmann::json result{
      {"study", request.study.name},
      {"study_sha256", request.study.digest},
      {"model_sha256", request.model_sha256},
      {"harmonization_sha256", HarmonizationDigest(request.study.harmonization)},
      {"geometry", NameOf(request.input.geometry)},
      {"mirror_axes", request.mirror_axes},
      {"device", request.device},
      {"written", cases.written},
      {"kept", cases.kept},
      {"refused", JsonOf(cases.refused)},
      {"flagged", JsonOf(cases.flagged)},
      {"left_out", cases.left_out}};
  fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void PrintLines(const PredictedCases& cases) {
  for (const std::string& line : cases.left_out) fmt::print("left out {}\n", Printable(line));
  for (const PredictedCases::Named& entry : cases.flagged) {
    fmt::print("look at {}: {}\n", Printable(entry.name), Printable(entry.reason));
  }
  for (const PredictedCases::Named& entry : cases.refused) {
    fmt::print("refused {}: {}\n", Printable(entry.name), Printable(entry.reason));
  }
  fmt::print("{} written, {} kept, {} refused", cases.written, cases.kept, cases.refused.size());
  if (!cases.left_out.empty()) fmt::print(", {} left out", cases.left_out.size());
  fmt::print("\n");
}

}  // namespace

absl::Status Predict(const PredictRequest& request, std::stop_token stop) {
  ASSIGN_OR_RETURN(const ClientConfig config, ConfigOrNone(request.config));
  PredictionRequest prediction;
  ASSIGN_OR_RETURN(prediction.input,
                   ChooseInput(config, request.config, request.input, request.geometry,
                               /*as_the_study_reads=*/true));
  prediction.output = request.output;
  ASSIGN_OR_RETURN(prediction.study, ChooseStudy(config, request.study));
  const Study& study = prediction.study;
  ASSIGN_OR_RETURN(const NamedTensors weights, LoadStudyModel(request.model, prediction.study));
  ASSIGN_OR_RETURN(prediction.model_sha256, Sha256OfFile(request.model));
  prediction.dicom_seg = request.dicom_seg;
  if (request.mirror) prediction.mirror_axes = study.training.mirror_axes;
  const ClientConfig::Device device = request.device.value_or(config.device);
  prediction.threads = device.threads > 0 ? device.threads : AvailableCores();
  prediction.network_bytes = EstimateNetworkMemory(study, WindowsAtOnce(study, prediction.threads));
  RETURN_IF_ERROR(
      CheckMemory(fmt::format("predicting by study {}", study.name), prediction.network_bytes));
  ASSIGN_OR_RETURN(Predictor predictor,
                   Predictor::Create(study, weights, device.name, device.threads));
  prediction.device = predictor.device_name();

  Bars bars;
  const PredictionObserver observer{
      .progress = [&bars](std::string_view what, std::int64_t done, std::int64_t total,
                          const std::string& note) { bars.Show(what, done, total, note); },
      .begin =
          [&](const PredictionSize& size) {
            bars.End();
            PrintSize(size, prediction.device);
          }};
  const absl::StatusOr<PredictedCases> cases = PredictCases(
      prediction,
      [&predictor](const PreparedCase& prepared, const PredictionControl& control) {
        return predictor.Predict(prepared, control);
      },
      stop, observer);
  bars.End();
  RETURN_IF_ERROR(cases.status());
  if (request.json) {
    PrintJson(*cases, prediction);
  } else {
    PrintLines(*cases);
  }
  std::fflush(stdout);
  if (cases->refused.empty()) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} of {} cases were refused and are not in the output; the others are done",
                  cases->refused.size(),
                  static_cast<std::size_t>(cases->written + cases->kept) + cases->refused.size()));
}

}  // namespace isoscan
