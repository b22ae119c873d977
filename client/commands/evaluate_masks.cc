#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <utility>

#include "client/cohort/label_names.h"
#include "client/cohort/mask_pairs.h"
#include "client/commands/commands.h"
#include "client/commands/evaluation_report.h"
#include "client/evaluation/mask_files.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include <omp.h>

namespace isoscan {
namespace {

/// ScoreMaskFiles(), and what surfaces take of it.
constexpr std::int64_t kBytesPerVoxel = 16;

using ScoresByValue = std::map<std::int64_t, LabelScore>;

/// Names by value, as --labels has them.
absl::StatusOr<std::map<std::int64_t, std::string>> NamesOf(
    const std::vector<std::string>& labels) {
  std::map<std::int64_t, std::string> names;
  std::set<std::string> given;
  for (const std::string& label : labels) {
    const std::size_t equals = label.find('=');
    const std::string text = label.substr(0, equals);
    const std::string name = equals == std::string::npos ? text : label.substr(equals + 1);
    const std::optional<std::int64_t> value = ToInteger(text);
    if (!value.has_value() || *value < 1 || name.empty()) {
      return absl::InvalidArgumentError(fmt::format(
          "--labels {}: VALUE or VALUE=NAME is needed, such as 1=tumour; 0 is the background",
          label));
    }
    if (!names.emplace(*value, name).second || !given.insert(name).second) {
      return absl::InvalidArgumentError(
          fmt::format("--labels {}: a value and a name can be there once only", label));
    }
  }
  return names;
}

/// Cases that can be scored side by side with half of the memory that there is.
int WorkersFor(const std::vector<MaskPair>& pairs, int threads) {
  std::int64_t largest = 1;
  for (const MaskPair& pair : pairs) {
    if (pair.reference.empty()) continue;
    const absl::StatusOr<Geometry> geometry = ReadGeometry(pair.reference);
    if (geometry.ok()) largest = std::max(largest, geometry->voxels());
  }
  const std::int64_t fit = AvailableMemoryBytes() / 2 / (largest * kBytesPerVoxel);
  return static_cast<int>(
      std::clamp<std::int64_t>(std::min(fit, static_cast<std::int64_t>(pairs.size())), 1, threads));
}

absl::StatusOr<ScoresByValue> ScorePair(const MaskPair& pair, const MaskEvaluationRequest& request,
                                        const std::optional<std::set<std::int64_t>>& values) {
  if (pair.predicted.empty()) {
    return absl::NotFoundError(fmt::format("{} has no counterpart in {}", pair.reference.string(),
                                           request.predictions.string()));
  }
  if (pair.reference.empty()) {
    return absl::NotFoundError(fmt::format("{} has no counterpart in {}", pair.predicted.string(),
                                           request.references.string()));
  }
  try {
    return ScoreMaskFiles(pair.predicted, pair.reference, values, request.surface,
                          request.geometry);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("not enough memory to score it");
  }
}

/// One entry per pair.
absl::StatusOr<std::vector<absl::StatusOr<ScoresByValue>>> ScoreAll(
    const std::vector<MaskPair>& pairs, const MaskEvaluationRequest& request,
    const std::optional<std::set<std::int64_t>>& values, const std::stop_token& stop) {
  std::vector<absl::StatusOr<ScoresByValue>> results(pairs.size(), ScoresByValue());
  const int threads = request.threads > 0 ? request.threads : AvailableCores();
  const int workers = WorkersFor(pairs, threads);
  Progress progress("scoring", static_cast<std::int64_t>(pairs.size()));
  std::mutex mutex;  // Of `progress` and `done`.
  std::int64_t done = 0;
  std::atomic<std::size_t> next = 0;
  {
    std::vector<std::jthread> running;
    for (int worker = 0; worker < workers; ++worker) {
      running.emplace_back([&] {
        omp_set_num_threads(std::max(1, threads / workers));
        for (std::size_t i = next++; i < pairs.size() && !stop.stop_requested(); i = next++) {
          results[i] = ScorePair(pairs[i], request, values);
          const std::lock_guard lock(mutex);
          progress.Advance(++done);
        }
      });
    }
  }
  if (stop.stop_requested()) return absl::CancelledError("interrupted");
  return results;
}

}  // namespace

absl::Status EvaluateMasks(const MaskEvaluationRequest& request, std::stop_token stop) {
  ASSIGN_OR_RETURN(const auto names, NamesOf(request.labels));
  ASSIGN_OR_RETURN(const std::vector<MaskPair> pairs,
                   PairMasks(request.predictions, request.references));
  std::optional<std::set<std::int64_t>> wanted;
  if (!names.empty()) wanted.emplace();
  for (const auto& [value, name] : names) wanted->insert(value);
  ASSIGN_OR_RETURN(const auto results, ScoreAll(pairs, request, wanted, stop));

  std::set<std::int64_t> values;
  if (wanted.has_value()) values = *wanted;
  for (const absl::StatusOr<ScoresByValue>& result : results) {
    if (!result.ok()) continue;
    for (const auto& [value, score] : *result) values.insert(value);
  }
  EvaluationReport report{.labels = {}, .options = request.surface, .cases = {}};
  for (const std::int64_t value : values) {
    const auto name = names.find(value);
    report.labels.push_back(name != names.end() ? name->second : std::to_string(value));
  }
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    EvaluatedCase entry{.name = pairs[i].name, .cohort = "", .refusal = "", .scores = {}};
    if (results[i].ok()) {
      for (const std::int64_t value : values) {
        const auto score = results[i]->find(value);
        entry.scores.push_back(score != results[i]->end() ? score->second
                                                          : BothEmptyScore(request.surface));
      }
    } else {
      entry.refusal = std::string(results[i].status().message());
    }
    report.cases.push_back(std::move(entry));
  }
  RETURN_IF_ERROR(WriteEvaluation(
      report,
      {{"predictions", request.predictions.string()}, {"references", request.references.string()}},
      request.output));
  if (report.refused() == 0) return absl::OkStatus();
  return absl::DataLossError(fmt::format("{} of {} cases were refused and are in no mean",
                                         report.refused(), report.cases.size()));
}

}  // namespace isoscan
