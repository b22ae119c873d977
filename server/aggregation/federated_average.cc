#include "server/aggregation/federated_average.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include "common/weights/safetensors.h"

namespace isoscan {
namespace {

// Memory, not arithmetic, limits a mean: more threads only wait for each other.
constexpr int kMaximumThreads = 8;
constexpr std::int64_t kScreenedValues = 64 * 1024;

// A site's open update.
struct Contribution {
  std::string site;
  double weight;
  SafetensorsFile file;
};

// A piece of one tensor, and where its mean goes.
struct Block {
  std::string_view tensor;
  std::int64_t first;
  std::int64_t count;
  std::int64_t output_offset;
};

bool IsFinite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000) != 0x7f800000;
}

// std::isfinite in a loop that ends early is not vectorised; this one is.
bool AllFinite(std::span<const float> values) {
  std::uint32_t not_finite = 0;
  for (const float value : values) not_finite |= IsFinite(value) ? 0 : 1;
  return not_finite == 0;
}

absl::Status NotFinite(const std::string& site, std::string_view tensor, std::int64_t first,
                       std::span<const float> values) {
  const auto bad = std::find_if_not(values.begin(), values.end(), IsFinite);
  return absl::InvalidArgumentError(fmt::format("{} sent {} with value {} at index {}", site,
                                                std::string(tensor), *bad,
                                                first + (bad - values.begin())));
}

absl::StatusOr<std::vector<Contribution>> OpenUpdates(std::vector<StagedUpdate> updates) {
  if (updates.empty()) return absl::InvalidArgumentError("there is no update to average");
  std::sort(
      updates.begin(), updates.end(),
      [](const StagedUpdate& left, const StagedUpdate& right) { return left.site < right.site; });
  std::vector<Contribution> contributions;
  for (StagedUpdate& update : updates) {
    if (!contributions.empty() && contributions.back().site == update.site) {
      return absl::InvalidArgumentError(fmt::format("{} has two updates in one mean", update.site));
    }
    if (!(update.weight > 0) || !std::isfinite(update.weight)) {
      return absl::InvalidArgumentError(
          fmt::format("{} has weight {}, a mean needs positive ones", update.site, update.weight));
    }
    absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(update.weights);
    if (!file.ok()) {
      return absl::Status(file.status().code(), fmt::format("the update of {}: {}", update.site,
                                                            std::string(file.status().message())));
    }
    if (!contributions.empty()) {
      RETURN_IF_ERROR(
          CheckShapes(update.site, file->shapes(), contributions.front().file.shapes()));
    }
    contributions.push_back({std::move(update.site), update.weight, *std::move(file)});
  }
  return contributions;
}

std::vector<Block> CutIntoBlocks(const TensorShapes& shapes, std::int64_t block_values,
                                 std::int64_t offset) {
  std::vector<Block> blocks;
  for (const auto& [name, shape] : shapes) {
    const std::int64_t values = ElementCount(shape);
    for (std::int64_t first = 0; first < values; first += block_values) {
      const std::int64_t count = std::min(block_values, values - first);
      blocks.push_back({name, first, count, offset});
      offset += count * std::int64_t{sizeof(float)};
    }
  }
  return blocks;
}

// Averages blocks; one per thread, because it owns the buffers.
class BlockAverage {
 public:
  BlockAverage(std::span<const Contribution> contributions, std::int64_t block_values)
      : contributions_(contributions),
        values_(static_cast<std::size_t>(block_values)),
        sums_(static_cast<std::size_t>(block_values)) {
    for (const Contribution& contribution : contributions) total_weight_ += contribution.weight;
  }

  absl::Status Write(const Block& block, AtomicFile& output) {
    const auto count = static_cast<std::size_t>(block.count);
    const std::span<float> values = std::span(values_).first(count);
    const std::span<double> sums = std::span(sums_).first(count);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (const Contribution& contribution : contributions_) {
      RETURN_IF_ERROR(contribution.file.Read(block.tensor, block.first, values));
      if (!AllFinite(values)) {
        return NotFinite(contribution.site, block.tensor, block.first, values);
      }
      const double weight = contribution.weight;
      for (std::size_t i = 0; i < count; ++i) sums[i] += weight * double{values[i]};
    }
    for (std::size_t i = 0; i < count; ++i) {
      values[i] = static_cast<float>(sums[i] / total_weight_);
    }
    return output.WriteAt(block.output_offset,
                          {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }

 private:
  std::span<const Contribution> contributions_;
  double total_weight_ = 0;
  std::vector<float> values_;
  std::vector<double> sums_;
};

}  // namespace

absl::Status FederatedAverage(std::vector<StagedUpdate> updates,
                              const std::filesystem::path& output,
                              const std::map<std::string, std::string>& metadata,
                              const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<Contribution> contributions, OpenUpdates(std::move(updates)));
  const TensorShapes& shapes = contributions.front().file.shapes();
  const std::string header = EncodeSafetensorsHeader(shapes, metadata);
  const std::vector<Block> blocks =
      CutIntoBlocks(shapes, options.block_values, static_cast<std::int64_t>(header.size()));

  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(output));
  RETURN_IF_ERROR(file.WriteAt(0, header));

  const int threads =
      std::min(options.threads > 0 ? options.threads : AvailableCores(), kMaximumThreads);
  std::vector<absl::Status> failures(static_cast<std::size_t>(threads));
  std::atomic<bool> failed = false;
  std::atomic<std::size_t> next = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    BlockAverage average(contributions, options.block_values);
    for (std::size_t i = next++; i < blocks.size() && !failed; i = next++) {
      absl::Status status = average.Write(blocks[i], file);
      if (status.ok()) continue;
      failures[static_cast<std::size_t>(thread)] = std::move(status);
      failed = true;
    }
  }
  for (const absl::Status& failure : failures) RETURN_IF_ERROR(failure);
  return file.Commit();
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
  for (const Block& block : CutIntoBlocks(expected, kScreenedValues, /*offset=*/0)) {
    const std::span<float> values = std::span(buffer).first(static_cast<std::size_t>(block.count));
    RETURN_IF_ERROR(file->Read(block.tensor, block.first, values));
    if (!AllFinite(values)) return NotFinite(site, block.tensor, block.first, values);
  }
  return absl::OkStatus();
}

}  // namespace isoscan
