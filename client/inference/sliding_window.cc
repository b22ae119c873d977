#include "client/inference/sliding_window.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <optional>

#include "common/status/status_macros.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

namespace isoscan {
namespace {

/// Copies the part of a volume [channels, D, H, W] that lies under a window, and leaves the rest of
/// the window, beyond the volume, as it is.
void CopyWindow(std::span<const float> image, std::int64_t channels, const Windows& windows,
                const Triple& corner, float* to) {
  const auto [depth, height, width] = windows.window;
  Triple first{};  // In the window; `from` is the same voxel in the volume.
  Triple from{};
  Triple count{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t place = corner[axis] - windows.before[axis];
    first[axis] = std::max<std::int64_t>(0, -place);
    from[axis] = std::max<std::int64_t>(0, place);
    count[axis] = std::min(windows.window[axis] - first[axis], windows.volume[axis] - from[axis]);
  }
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t z = 0; z < count[0]; ++z) {
      for (std::int64_t y = 0; y < count[1]; ++y) {
        const std::int64_t row =
            (channel * windows.volume[0] + from[0] + z) * windows.volume[1] + from[1] + y;
        const float* values = image.data() + row * windows.volume[2] + from[2];
        const std::int64_t place = (channel * depth + first[0] + z) * height + first[1] + y;
        std::copy(values, values + count[2], to + place * width + first[2]);
      }
    }
  }
}

/// The value of each channel of a window that holds nothing else.
std::optional<std::vector<float>> OnlyValues(std::span<const float> window, std::int64_t channels) {
  const std::size_t length = window.size() / static_cast<std::size_t>(channels);
  std::vector<float> values;
  for (std::size_t first = 0; first < window.size(); first += length) {
    const auto channel = window.subspan(first, length);
    if (!std::equal(channel.begin() + 1, channel.end(), channel.begin())) return std::nullopt;
    values.push_back(channel.front());
  }
  return values;
}

/// The scores of a batch, those of its mirror images among them; contiguous on the CPU.
torch::Tensor ScoresOf(const torch::Tensor& windows, const WindowWork& work,
                       const WindowScorer& score) {
  torch::Tensor scores = score(windows);
  const std::size_t images = std::size_t{1} << work.mirror_axes.size();
  if (images > 1) scores = scores.to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
  for (std::size_t image = 1; image < images; ++image) {
    std::vector<std::int64_t> axes;
    for (std::size_t i = 0; i < work.mirror_axes.size(); ++i) {
      if (((image >> i) & 1U) != 0) axes.push_back(work.mirror_axes[i] + 2);
    }
    scores.add_(score(windows.flip(axes)).flip(axes));
  }
  if (images > 1) scores.div_(static_cast<double>(images));
  // What the sums are not made for becomes float32.
  if (scores.scalar_type() != torch::kBFloat16) scores = scores.to(torch::kFloat32);
  return scores.to(torch::kCPU).contiguous();
}

/// Scores of `windows` in groups of `work.batch`, by `work.workers` threads.
std::vector<torch::Tensor> ScoresOfGroups(const torch::Tensor& windows, const WindowWork& work,
                                          const WindowScorer& score) {
  const std::vector<torch::Tensor> groups = windows.split(work.batch);
  std::vector<torch::Tensor> scores(groups.size());
  const auto score_group = [&](std::size_t group) {
    scores[group] = ScoresOf(groups[group].to(work.device, work.type), work, score);
  };
  if (work.workers == 1 || groups.size() == 1) {
    for (std::size_t group = 0; group < groups.size(); ++group) score_group(group);
    return scores;
  }
  const bool inference = c10::InferenceMode::is_enabled();  // Of this thread alone.
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic) num_threads(work.workers)
  for (std::size_t group = 0; group < groups.size(); ++group) {
    try {
      const c10::InferenceMode mode(inference);
      score_group(group);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  return scores;
}

/// Windows on their way to WindowSums, in order.
class Batch {
 public:
  Batch(std::int64_t channels, const Windows& windows, const WindowWork& work)
      : windows_(windows),
        channels_(channels),
        values_(channels * windows.window[0] * windows.window[1] * windows.window[2]),
        work_(work),
        capacity_(work.batch * (work.workers > 1 ? 2 * work.workers : 1)),
        inputs_(at::zeros(
            {capacity_, channels, windows.window[0], windows.window[1], windows.window[2]})) {}

  bool full() const { return filled_ == capacity_; }

  void Add(std::span<const float> image, const Triple& corner) {
    float* const to = inputs_.data_ptr<float>() + filled_ * values_;
    CopyWindow(image, channels_, windows_, corner, to);
    const std::optional<std::vector<float>> values =
        OnlyValues({to, static_cast<std::size_t>(values_)}, channels_);
    if (values.has_value() && known_values_ == values) {
      places_.push_back({corner, known_place_});
      return;
    }
    if (values.has_value()) {
      known_values_ = values;
      known_place_ = filled_;
    }
    places_.push_back({corner, filled_++});
  }

  /// Scores what was added and empties the batch.
  absl::Status Score(const WindowScorer& score, WindowSums& sums) {
    std::vector<torch::Tensor> scores;
    if (filled_ > 0) scores = ScoresOfGroups(inputs_.narrow(0, 0, filled_), work_, score);
    const auto of_place = [&](std::int64_t place) {
      return scores[static_cast<std::size_t>(place / work_.batch)][place % work_.batch];
    };
    for (const auto& [corner, place] : places_) {
      const torch::Tensor of_window = place < 0 ? known_scores_ : of_place(place);
      if (of_window.scalar_type() == torch::kFloat32) {
        RETURN_IF_ERROR(sums.Add(corner, of_window.data_ptr<float>()));
      } else {
        RETURN_IF_ERROR(sums.Add(corner, static_cast<const std::uint16_t*>(of_window.data_ptr())));
      }
    }
    if (known_place_ >= 0) known_scores_ = of_place(known_place_).clone();
    known_place_ = -1;
    filled_ = 0;
    places_.clear();
    return absl::OkStatus();
  }

 private:
  struct Place {
    Triple corner;
    std::int64_t index;  ///< In the batch; -1: its scores are `known_scores_`.
  };

  const Windows& windows_;
  const std::int64_t channels_;
  const std::int64_t values_;  ///< Of a window.
  const WindowWork& work_;
  const std::int64_t capacity_;  ///< Two batches a worker, since they take turns.
  torch::Tensor inputs_;         ///< [capacity, channels, d, h, w]
  std::int64_t filled_ = 0;
  std::vector<Place> places_;
  /// Of the last window that held one value only.
  std::optional<std::vector<float>> known_values_;
  std::int64_t known_place_ = -1;
  torch::Tensor known_scores_;
};

}  // namespace

absl::Status SlideWindow(std::span<const float> image, std::int64_t channels, std::int64_t classes,
                         const Windows& windows, const WindowWork& work, const WindowScorer& score,
                         const SliceTaker& take) {
  WindowSums sums(windows, classes, take);
  Batch batch(channels, windows, work);
  const std::vector<Triple> corners = windows.Corners();
  const auto count = static_cast<std::int64_t>(corners.size());
  for (std::int64_t done = 1; done <= count; ++done) {
    batch.Add(image, corners[static_cast<std::size_t>(done - 1)]);
    if (!batch.full() && done < count) continue;
    if (work.stop.stop_requested()) return absl::CancelledError("interrupted");
    RETURN_IF_ERROR(batch.Score(score, sums));
    if (work.observe) work.observe(done, count);
  }
  return sums.Finish();
}

}  // namespace isoscan
