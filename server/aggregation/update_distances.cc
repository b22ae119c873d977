#include "server/aggregation/update_distances.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "server/aggregation/exact_sum.h"

namespace isoscan {
namespace {

// Values whose squares are summed in double; no block may cut such a piece.
constexpr std::size_t kPiece = 1024;
constexpr std::size_t kLanes = 8;
static_assert(kPiece % kLanes == 0);

using Pairs = std::vector<std::pair<std::size_t, std::size_t>>;

double SquaredDistance(std::span<const double, kPiece> a, std::span<const double, kPiece> b) {
  std::array<double, kLanes> lanes{};
  for (std::size_t i = 0; i < kPiece; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double difference = a[i + lane] - b[i + lane];
      lanes[lane] += difference * difference;
    }
  }
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// One thread's sums.
class Worker {
 public:
  Worker(std::span<const TensorSource> sources, std::int64_t block_values, const Pairs& pairs)
      : reader_(sources, block_values),
        pairs_(pairs),
        piece_(sources.size() * kPiece),
        sums_(pairs.size()) {}

  absl::Status Add(const TensorBlock& block) {
    RETURN_IF_ERROR(reader_.Read(block));
    const std::span<const std::span<const float>> values = reader_.values();
    const auto count = static_cast<std::size_t>(block.count);
    for (std::size_t first = 0; first < count; first += kPiece) {
      const std::size_t length = std::min(kPiece, count - first);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto begin = values[i].begin() + static_cast<std::ptrdiff_t>(first);
        const auto end =
            std::copy(begin, begin + static_cast<std::ptrdiff_t>(length), Piece(i).begin());
        std::fill(end, Piece(i).end(), 0.0);
      }
      for (std::size_t pair = 0; pair < pairs_.size(); ++pair) {
        sums_[pair].Add(SquaredDistance(Piece(pairs_[pair].first), Piece(pairs_[pair].second)));
      }
    }
    return absl::OkStatus();
  }

  const std::vector<ExactSum>& sums() const { return sums_; }

 private:
  std::span<double, kPiece> Piece(std::size_t source) {
    return std::span<double, kPiece>(piece_.data() + source * kPiece, kPiece);
  }

  BlockReader reader_;
  const Pairs& pairs_;
  std::vector<double> piece_;  // Of every source.
  std::vector<ExactSum> sums_;
};

TensorShapes WithoutControl(TensorShapes shapes) {
  std::erase_if(shapes, [](const auto& tensor) { return tensor.first.starts_with(kControl); });
  return shapes;
}

absl::StatusOr<std::vector<double>> SquaredDistances(std::span<const TensorSource> sources,
                                                     const Pairs& pairs,
                                                     const AveragingOptions& options) {
  const auto affordable =
      BlockValuesOf(options, static_cast<std::int64_t>(sources.size() * sizeof(float)));
  const auto piece = std::int64_t{kPiece};
  const std::int64_t block_values = std::max(affordable / piece, std::int64_t{1}) * piece;
  const TensorShapes shapes = WithoutControl(sources.front().file.shapes());
  std::mutex mutex;
  std::vector<std::shared_ptr<Worker>> workers;
  RETURN_IF_ERROR(
      ForEachBlock(CutIntoBlocks(shapes, block_values), ThreadsOf(options), [&]() -> BlockWork {
        auto worker = std::make_shared<Worker>(sources, block_values, pairs);
        const std::lock_guard lock(mutex);
        workers.push_back(worker);
        return [worker](const TensorBlock& block) { return worker->Add(block); };
      }));
  std::vector<double> squares(pairs.size());
  for (std::size_t pair = 0; pair < pairs.size(); ++pair) {
    ExactSum sum;
    for (const auto& worker : workers) sum.Add(worker->sums()[pair]);
    squares[pair] = sum.Value();
  }
  return squares;
}

}  // namespace

absl::StatusOr<Distances> MeasureDistances(const std::filesystem::path& global_model,
                                           const std::vector<StagedUpdate>& updates,
                                           const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<TensorSource> sources,
                   OpenSources(global_model, /*model_digest=*/"", updates));
  Pairs pairs;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) pairs.emplace_back(i, j);
  }
  ASSIGN_OR_RETURN(const std::vector<double> squares, SquaredDistances(sources, pairs, options));

  // The model is the first source and the last point.
  const std::size_t models = sources.size() - updates.size();
  const auto point = [&](std::size_t source) {
    return source < models ? updates.size() : source - models;
  };
  Distances distances(updates.size());
  for (std::size_t pair = 0; pair < pairs.size(); ++pair) {
    distances.Set(point(pairs[pair].first), point(pairs[pair].second), squares[pair]);
  }
  return distances;
}

absl::StatusOr<std::vector<double>> MeasureChanges(const std::filesystem::path& global_model,
                                                   const std::vector<StagedUpdate>& updates,
                                                   const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<TensorSource> sources,
                   OpenSources(global_model, /*model_digest=*/"", updates));
  Pairs pairs;
  for (std::size_t i = 1; i < sources.size(); ++i) pairs.emplace_back(i, 0);
  return SquaredDistances(sources, pairs, options);
}

absl::Status CheckUpdateNorm(const std::string& site, const std::filesystem::path& weights,
                             const std::filesystem::path& global_model, double maximum) {
  const absl::StatusOr<std::vector<double>> changes =
      MeasureChanges(global_model, {{.site = site, .weights = weights}}, {.threads = 1});
  if (!changes.ok()) {
    const bool site_is_to_blame = absl::IsInvalidArgument(changes.status());
    return {site_is_to_blame ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kUnavailable,
            changes.status().message()};
  }
  const double norm = std::sqrt(changes->front());
  if (norm <= maximum) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} moves the model by {:.6g}, this study takes at most {:.6g}", site, norm, maximum));
}

}  // namespace isoscan
