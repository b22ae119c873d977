#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/process_group/launch.h"

namespace at {
class Tensor;
}

namespace isoscan {

/// Processes that train one model together, through LibTorch's c10d: Gloo on the CPU and, for
/// tensors on a GPU, NCCL where this build has it. Rank 0 decides what is done; the others follow:
///
///   rank 0   Join ── Announce ─ collectives ── Announce ─ collectives ─ ... ── end of the object
///   others   Join ── Await ──── collectives ── Await ──── collectives ─ ... ── Await: false
///
/// Every rank calls the same collectives in the same order. Between two announcements a rank may
/// wait for days; within a collective the others are waited for no longer than Limits::collective.
///
/// What ranks tell each other is neither encrypted nor authenticated, as in every PyTorch job: they
/// belong in a network of their own (docs/training.md, "Several processes").
///
/// Errors of every method: ABORTED another rank has ended, cannot be reached or takes longer than
/// the limit; the group is of no use any more.
/// Thread safety: none.
class ProcessGroup {
 public:
  struct Limits {
    std::chrono::milliseconds join = std::chrono::minutes(10);
    /// Longer than any step, and any writing of a checkpoint between two.
    std::chrono::milliseconds collective = std::chrono::minutes(5);
  };

  /// Meets the other ranks. `identity` is what must be the same for all, such as the program's
  /// digest: ranks that compute otherwise would drift apart.
  ///
  /// Errors: ABORTED the ranks that did not come within Limits::join; FAILED_PRECONDITION a rank
  ///         with another identity, or a build without c10d; CANCELLED.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(const Launch& launch,
                                                            const std::string& identity,
                                                            const Limits& limits,
                                                            const std::stop_token& stop);

  /// Rank 0: tells the others that nothing more comes. Leaves the group.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const;
  int size() const;
  const Launch& launch() const;

  /// Rank 0: the others' Await() returns true.
  absl::Status Announce();

  /// Ranks other than 0: true when rank 0 has announced something, false when it has left.
  /// Errors: also CANCELLED.
  absl::StatusOr<bool> Await(const std::stop_token& stop);

  /// Overwrites the others' bytes, as many as rank 0's, by rank 0's.
  absl::Status Broadcast(std::span<std::byte> bytes);
  absl::Status Broadcast(std::string& text);  ///< Of any length.

  /// What each rank gives, in the order of the ranks: [size(), values.size()].
  absl::StatusOr<std::vector<double>> Gather(std::span<const double> values);

  /// Replaces `values` by the sum of all ranks', ((rank 0's + rank 1's) + rank 2's) + ..., to the
  /// same bits everywhere. Each rank adds up its own part of the tensor: twice the tensor travels
  /// to and from each rank, whatever their number, as in any all-reduce.
  ///
  /// Shapes: float32 of one axis, contiguous, of the same length and kind of device in every rank.
  absl::Status Sum(at::Tensor& values);

 private:
  struct State;
  explicit ProcessGroup(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace isoscan
