#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/aggregation/block_pass.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// Squared Euclidean distances over all tensors: between updates, and from the global model.
///
/// The same bits for any thread count, block size and order: the differences of 1024 values (a
/// fixed grid of each tensor) are squared and summed in double over a fixed number of lanes, those
/// sums exactly (ExactSum). Differences are taken directly, not from inner products, in which
/// updates that are nearly equal would cancel.
class Distances {
 public:
  /// Of `points` updates, all 0; FromModel() has a meaning only where it was set.
  explicit Distances(std::size_t points) : points_(points), squares_((points + 1) * (points + 1)) {}

  std::size_t size() const { return points_; }
  double Between(std::size_t i, std::size_t j) const { return squares_[i * (points_ + 1) + j]; }
  double FromModel(std::size_t i) const { return Between(i, points_); }
  /// Of two updates' changes to the model.
  double InnerProduct(std::size_t i, std::size_t j) const {
    return (FromModel(i) + FromModel(j) - Between(i, j)) / 2;
  }

  /// `j` may be size(): the model.
  void Set(std::size_t i, std::size_t j, double square) {
    squares_[i * (points_ + 1) + j] = square;
    squares_[j * (points_ + 1) + i] = square;
  }

 private:
  std::size_t points_;
  std::vector<double> squares_;  // The model is the last point.
};

/// All of them, in one pass over the files; with `global_model` empty, without those from the
/// model. The order of `updates` is that of the numbers.
///
/// Time is that of reading for ten updates and grows with their square.
/// Errors: those of ReduceBlocks.
absl::StatusOr<Distances> MeasureDistances(const std::filesystem::path& global_model,
                                           const std::vector<StagedUpdate>& updates,
                                           const AveragingOptions& options = {});

/// Those from the model alone, squared, by update.
absl::StatusOr<std::vector<double>> MeasureChanges(const std::filesystem::path& global_model,
                                                   const std::vector<StagedUpdate>& updates,
                                                   const AveragingOptions& options = {});

/// Screens an update by how far it moves the model: OK where |update - model| is at most `maximum`,
/// over every tensor but SCAFFOLD's control variates (running statistics count: what is not bounded
/// is where a site could hide).
///
/// Call it once ScreenUpdate has found the update sound.
/// Errors: INVALID_ARGUMENT naming the site, the norm and the bound, or a value that is not finite;
///         UNAVAILABLE a file that the server cannot read, which is no fault of the site.
absl::Status CheckUpdateNorm(const std::string& site, const std::filesystem::path& weights,
                             const std::filesystem::path& global_model, double maximum);

}  // namespace isoscan
