#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

struct ComputeDevice;

/// How one volume is predicted.
struct PredictionControl {
  /// 0 = z, 1 = y, 2 = x: every window is also seen mirrored along these, and the scores' mean
  /// counts (2^axes times the work).
  std::vector<std::int64_t> mirror_axes = {};
  std::int64_t windows_at_once = 0;  ///< The network's batch; 0: what is best on the device.
  std::stop_token stop = {};
  /// After each batch of windows, from the calling thread.
  std::function<void(std::int64_t done, std::int64_t windows)> observe = {};
};

/// A study's network with one model's weights, ready to predict: they are brought into the type
/// that is computed in once, nothing is kept for gradients, and only the finest head is computed.
///
/// The scores of a volume are never held as a whole, unless Scores() asks for them.
/// Thread safety: none; one prediction at a time.
class Predictor {
 public:
  /// Errors: INVALID_ARGUMENT weights that are not this network's; RESOURCE_EXHAUSTED.
  static absl::StatusOr<Predictor> Create(const Study& study, const NamedTensors& weights,
                                          const ComputeDevice& device);
  /// The same on a device by its name (ChooseDevice), whose errors it has.
  static absl::StatusOr<Predictor> Create(const Study& study, const NamedTensors& weights,
                                          const std::string& device, int threads);

  Predictor(Predictor&&) noexcept;
  Predictor& operator=(Predictor&&) noexcept;
  ~Predictor();

  /// Arg-max labels of one case in its own canonical grid (reference_grid).
  /// Errors: INVALID_ARGUMENT an image that is not of prepared.grid; DATA_LOSS scores that are not
  ///         finite; CANCELLED; RESOURCE_EXHAUSTED out of (GPU) memory.
  absl::StatusOr<LabelMap> Predict(const PreparedCase& prepared,
                                   const PredictionControl& control = {});

  /// Scores before the softmax, [classes, D, H, W] in float32 on prepared.grid. Errors likewise.
  absl::StatusOr<std::vector<float>> Scores(const PreparedCase& prepared,
                                            const PredictionControl& control = {});

  std::string device_name() const;

 private:
  struct State;
  explicit Predictor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Windows that a volume of this grid (the plan's spacing) is predicted in.
std::int64_t CountWindows(const Study& study, const Geometry& grid);

/// Windows that a CPU with so many threads has in work at a time: one for each thread, unless
/// they take more than 2 GiB; then they share one.
int WindowsAtOnce(const Study& study, int threads);

/// Memory on the CPU, in bytes: of the program with the network and the windows in work, whatever
/// the volume, and of the scores of one whose grid is `grid` at the plan's spacing, written on
/// `target`. The volume itself comes on top.
std::int64_t EstimateNetworkMemory(const Study& study, std::int64_t windows_at_once = 1);
std::int64_t EstimateScoresMemory(const Study& study, const Geometry& grid, const Geometry& target);

}  // namespace isoscan
