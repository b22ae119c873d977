#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

/// Makes labels of class scores that arrive slice by slice: each class is resampled linearly to
/// another grid of the same direction, where the greatest wins (ties: the lower label). Equal to
/// resampling each class as a whole, bit by bit, but two slices are all that is kept.
///
/// Memory: 3 x classes x a slice, of the larger grid; and the labels.
/// Threads: OpenMP inside; their number does not show in the labels.
class ScoreLabels {
 public:
  ScoreLabels(const Geometry& from, const Geometry& to, std::int64_t classes);
  ScoreLabels(ScoreLabels&&) noexcept;
  ScoreLabels& operator=(ScoreLabels&&) noexcept;
  ~ScoreLabels();

  /// The next slice of `from`, z = 0, 1, ...: class c's [H, W] begins at scores + c * class_stride.
  void Add(const float* scores, std::int64_t class_stride);

  /// After the last slice.
  LabelMap Take() &&;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The same of scores that are all there: [classes, D, H, W] on `from`.
LabelMap ArgMaxResampled(const std::vector<float>& scores, std::int64_t classes,
                         const Geometry& from, const Geometry& to);

}  // namespace isoscan
