#include "client/training/patch_sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "client/training/intensity_augmentation.h"
#include "client/training/spatial_augmentation.h"

namespace isoscan {
namespace {

using Augmentation = TrainingPlan::Augmentation;

constexpr std::size_t kPositionsPerLabel = 10'000;

/// z, y, x.
Triple SizeOf(const PreparedCase& prepared) {
  return {prepared.grid.size[2], prepared.grid.size[1], prepared.grid.size[0]};
}

std::int64_t VoxelsOf(const Triple& size) { return size[0] * size[1] * size[2]; }

/// Every voxel of each label that occurs, thinned to an even choice.
std::vector<std::vector<std::uint32_t>> ForegroundOf(std::span<const std::uint8_t> labels) {
  std::array<std::vector<std::uint32_t>, 256> by_label;
  for (std::size_t voxel = 0; voxel < labels.size(); ++voxel) {
    if (labels[voxel] != 0) by_label[labels[voxel]].push_back(static_cast<std::uint32_t>(voxel));
  }
  std::vector<std::vector<std::uint32_t>> found;
  for (std::vector<std::uint32_t>& positions : by_label) {
    if (positions.empty()) continue;
    if (positions.size() > kPositionsPerLabel) {
      std::vector<std::uint32_t> thinned(kPositionsPerLabel);
      for (std::size_t i = 0; i < kPositionsPerLabel; ++i) {
        thinned[i] = positions[i * positions.size() / kPositionsPerLabel];
      }
      positions = std::move(thinned);
    }
    found.push_back(std::move(positions));
  }
  return found;
}

}  // namespace

PatchRange PartOfBatch(std::int64_t batch_size, int rank, int ranks) {
  const std::int64_t first = batch_size * rank / ranks;
  return {.first = first, .count = batch_size * (rank + 1) / ranks - first};
}

std::int64_t BatchBytes(const Study& study) {
  const auto channels = static_cast<std::int64_t>(study.channels.size());
  const auto bytes_per_voxel = channels * std::int64_t{sizeof(float)} + 1;
  return study.training.batch_size * VoxelsOf(study.training.patch_size) * bytes_per_voxel;
}

PatchSampler::PatchSampler(const Study& study, std::span<const PreparedCase> cases,
                           std::string stream, std::int64_t round)
    : seed_(study.seed),
      channels_(static_cast<std::int64_t>(study.channels.size())),
      plan_(study.training),
      flat_axis_(FlatAxis(study)),
      cases_(cases),
      stream_(std::move(stream)),
      round_(round) {
  foreground_.reserve(cases.size());
  for (const PreparedCase& prepared : cases) foreground_.push_back(ForegroundOf(prepared.labels));
}

PatchBatch PatchSampler::Sample(std::int64_t step) const {
  return Sample(step, {.first = 0, .count = plan_.batch_size});
}

PatchBatch PatchSampler::Sample(std::int64_t step, const PatchRange& range) const {
  const std::int64_t voxels = VoxelsOf(plan_.patch_size);
  const std::int64_t batch = plan_.batch_size;
  const auto first_forced =
      std::llround(static_cast<double>(batch) * (1.0 - plan_.foreground_fraction));
  // The round and the step share one number; 2^32 steps are more than any study has.
  const std::uint64_t when =
      (static_cast<std::uint64_t>(round_) << 32U) + static_cast<std::uint64_t>(step);

  PatchBatch patches;
  patches.images.assign(static_cast<std::size_t>(range.count * channels_ * voxels), 0.0F);
  patches.labels.assign(static_cast<std::size_t>(range.count * voxels), 0);
  for (std::int64_t place = 0; place < range.count; ++place) {
    const std::int64_t sample = range.first + place;
    const auto minor = static_cast<std::uint32_t>(sample);
    RandomStream position(seed_, stream_ + "/patch", when, minor);
    const auto index =
        static_cast<std::size_t>(position.Below(static_cast<std::int64_t>(cases_.size())));
    const bool force_foreground =
        batch == 1 ? position.Chance(plan_.foreground_fraction) : sample >= first_forced;
    float* const image = patches.images.data() + place * channels_ * voxels;
    Fill(cases_[index], Corner(index, force_foreground, position), when, minor, image,
         patches.labels.data() + place * voxels);

    if (plan_.augmentation == Augmentation::kNone) continue;
    RandomStream intensity(seed_, stream_ + "/intensity", when, minor);
    AugmentIntensity({image, static_cast<std::size_t>(channels_ * voxels)}, plan_.patch_size,
                     {.strength = plan_.intensity_augmentation,
                      .resolution = plan_.augmentation == Augmentation::kNnunet,
                      .flat_axis = flat_axis_},
                     intensity);
  }
  return patches;
}

void PatchSampler::Fill(const PreparedCase& source, const Triple& corner, std::uint64_t when,
                        std::uint32_t sample, float* image, std::uint8_t* labels) const {
  RandomStream mirror(seed_, stream_ + "/mirror", when, sample);
  std::array<bool, 3> mirrored{};
  for (const std::int64_t axis : plan_.mirror_axes) {
    mirrored[static_cast<std::size_t>(axis)] = mirror.Chance(0.5);
  }
  std::optional<Matrix3> matrix;
  if (plan_.augmentation == Augmentation::kNnunet) {
    RandomStream spatial(seed_, stream_ + "/spatial", when, sample);
    matrix = DrawRotationAndScaling(flat_axis_, spatial);
  }
  if (!matrix.has_value()) {
    Copy(source, corner, mirrored, image, labels);
    return;
  }
  PatchPlacement placement{.matrix = *matrix};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    placement.centre[axis] =
        static_cast<double>(corner[axis]) + static_cast<double>(plan_.patch_size[axis] - 1) / 2;
    if (!mirrored[axis]) continue;
    for (std::size_t row = 0; row < 3; ++row) placement.matrix[row][axis] *= -1;
  }
  SamplePatch(source, channels_, placement, plan_.patch_size, image, labels);
}

Triple PatchSampler::Corner(std::size_t index, bool force_foreground, RandomStream& random) const {
  const Triple size = SizeOf(cases_[index]);
  Triple lowest{};
  Triple highest{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t missing = std::max<std::int64_t>(0, plan_.patch_size[axis] - size[axis]);
    lowest[axis] = -(missing / 2);
    highest[axis] = size[axis] - plan_.patch_size[axis] + missing - missing / 2;
  }

  const std::vector<Positions>& labels = foreground_[index];
  Triple corner{};
  if (force_foreground && !labels.empty()) {
    const auto label =
        static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(labels.size())));
    const Positions& positions = labels[label];
    const std::int64_t voxel = positions[static_cast<std::size_t>(
        random.Below(static_cast<std::int64_t>(positions.size())))];
    const Triple centre{voxel / (size[1] * size[2]), voxel / size[2] % size[1], voxel % size[2]};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      corner[axis] =
          std::clamp(centre[axis] - plan_.patch_size[axis] / 2, lowest[axis], highest[axis]);
    }
  } else {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      corner[axis] = lowest[axis] + random.Below(highest[axis] - lowest[axis] + 1);
    }
  }
  return corner;
}

void PatchSampler::Copy(const PreparedCase& source, const Triple& corner,
                        const std::array<bool, 3>& mirrored, float* image,
                        std::uint8_t* labels) const {
  const Triple size = SizeOf(source);
  const Triple& patch = plan_.patch_size;
  // Row x of the patch is contiguous in the case; only the part inside is copied.
  const std::int64_t first = std::max<std::int64_t>(0, -corner[2]);
  const std::int64_t last = std::min(patch[2], size[2] - corner[2]);
  if (last <= first) return;
  const auto copy_row = [&](const auto* from, auto* to) {
    if (mirrored[2]) {
      std::reverse_copy(from + corner[2] + first, from + corner[2] + last, to + patch[2] - last);
    } else {
      std::copy(from + corner[2] + first, from + corner[2] + last, to + first);
    }
  };
  for (std::int64_t z = 0; z < patch[0]; ++z) {
    const std::int64_t source_z = corner[0] + (mirrored[0] ? patch[0] - 1 - z : z);
    if (source_z < 0 || source_z >= size[0]) continue;
    for (std::int64_t y = 0; y < patch[1]; ++y) {
      const std::int64_t source_y = corner[1] + (mirrored[1] ? patch[1] - 1 - y : y);
      if (source_y < 0 || source_y >= size[1]) continue;
      const std::int64_t from = (source_z * size[1] + source_y) * size[2];
      const std::int64_t to = (z * patch[1] + y) * patch[2];
      copy_row(source.labels.data() + from, labels + to);
      for (std::int64_t channel = 0; channel < channels_; ++channel) {
        copy_row(source.image.data() + channel * VoxelsOf(size) + from,
                 image + channel * VoxelsOf(patch) + to);
      }
    }
  }
}

}  // namespace isoscan
