#include "server/aggregation/federated_average.h"

#include <fmt/format.h>

#include <numeric>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

#include "common/status/status_macros.h"
#include "common/weights/safetensors.h"
#include "server/aggregation/block_reduction.h"
#include "server/aggregation/tensor_blocks.h"
#include "server/aggregation/weighted_sum.h"

namespace isoscan {
namespace {

constexpr std::int64_t kScreenedValues = 64 * 1024;

}  // namespace

absl::Status FederatedAverage(std::vector<StagedUpdate> updates,
                              const std::filesystem::path& output,
                              const std::map<std::string, std::string>& metadata,
                              const AveragingOptions& options) {
  RETURN_IF_ERROR(CheckStagedUpdates(updates));
  const WeightedSum mean(MeanRule(updates));
  return ReduceBlocks(mean, {.updates = std::move(updates), .model = {}},
                      {.model = output, .metadata = metadata}, options);
}

std::vector<double> SiteWeights(const std::vector<std::int64_t>& training_cases, double maximum) {
  const std::size_t sites = training_cases.size();
  std::vector<double> weights(sites, 0.0);
  std::vector<bool> capped(sites, false);
  double share = 1;  // What the sites below the cap divide among themselves.
  while (true) {
    double cases = 0;
    for (std::size_t i = 0; i < sites; ++i) {
      if (!capped[i] && training_cases[i] > 0) cases += static_cast<double>(training_cases[i]);
    }
    if (cases == 0) break;
    bool found = false;
    for (std::size_t i = 0; i < sites; ++i) {
      if (capped[i] || training_cases[i] <= 0) continue;
      weights[i] = share * static_cast<double>(training_cases[i]) / cases;
      if (weights[i] <= maximum) continue;
      capped[i] = true;
      found = true;
    }
    if (!found) return weights;
    share = 1;
    for (std::size_t i = 0; i < sites; ++i) {
      if (!capped[i]) continue;
      weights[i] = maximum;
      share -= maximum;
    }
  }
  // Every site reached the cap: together they are less than the whole.
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (sum > 0) {
    for (double& weight : weights) weight /= sum;
  }
  return weights;
}

absl::Status ScreenUpdate(const std::string& site, const std::filesystem::path& weights,
                          const TensorShapes& expected) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(weights);
  if (!file.ok()) {
    const absl::StatusCode code = file.status().code();
    const bool site_is_to_blame =
        code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kInvalidArgument;
    return absl::Status(
        site_is_to_blame ? absl::StatusCode::kInvalidArgument : code,
        fmt::format("the update of {}: {}", site, std::string(file.status().message())));
  }
  RETURN_IF_ERROR(CheckShapes(site, file->shapes(), expected));

  std::vector<float> buffer(static_cast<std::size_t>(kScreenedValues));
  for (const TensorBlock& block : CutIntoBlocks(expected, kScreenedValues)) {
    const std::span<float> values = std::span(buffer).first(static_cast<std::size_t>(block.count));
    RETURN_IF_ERROR(file->Read(block.tensor, block.first, values));
    if (!AllFinite(values)) return NotFinite(site, block, values);
  }
  return absl::OkStatus();
}

}  // namespace isoscan
