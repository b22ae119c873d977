#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "common/random/philox.h"
#include "common/study/study.h"

namespace isoscan {

/// What one training step sees.
struct PatchBatch {
  std::vector<float> images;         ///< [patches, channels, D, H, W] of the plan's patch size.
  std::vector<std::uint8_t> labels;  ///< [patches, D, H, W].
};

/// Which patches of a batch: `first` to `first + count` - 1.
struct PatchRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// What of a batch of `batch_size` falls to one of `ranks` processes: parts in order, as equal as
/// can be.
PatchRange PartOfBatch(std::int64_t batch_size, int rank, int ranks);

/// Memory of one.
std::int64_t BatchBytes(const Study& study);

/// Cuts and augments the patches of any step. Step n is a pure function of the study's seed, the
/// stream's name, the round and n: it can be computed by any thread and again after a crash.
///
/// The last batch_size - round(batch_size * (1 - foreground_fraction)) patches of a batch are
/// centred on a random voxel of a random label that the case has (clamped to the case); a batch of
/// one does so with that probability. Where a case is smaller than the patch, zeros surround it:
/// the mean of a harmonised volume. A patch that the study's augmentation turns or scales is about
/// the same place, and takes what it needs of the case from beyond its own borders.
///
/// Keeps up to 10,000 voxel positions per case and label, evenly chosen.
/// Thread safety: Sample() may be called by several threads.
/// Source: docs/references.md#isensee2021; nnU-Net's data_loader.py.
class PatchSampler {
 public:
  /// `cases` must outlive the sampler and hold at least one case.
  PatchSampler(const Study& study, std::span<const PreparedCase> cases, std::string stream,
               std::int64_t round);

  PatchBatch Sample(std::int64_t step) const;
  /// Those patches of it; each is the same whichever others are asked for.
  PatchBatch Sample(std::int64_t step, const PatchRange& range) const;

 private:
  /// Positions of one label's voxels in a case's grid.
  using Positions = std::vector<std::uint32_t>;

  void Fill(const PreparedCase& source, const Triple& corner, std::uint64_t when,
            std::uint32_t sample, float* image, std::uint8_t* labels) const;
  Triple Corner(std::size_t index, bool force_foreground, RandomStream& random) const;
  void Copy(const PreparedCase& source, const Triple& corner, const std::array<bool, 3>& mirrored,
            float* image, std::uint8_t* labels) const;

  std::uint64_t seed_;
  std::int64_t channels_;
  TrainingPlan plan_;
  std::optional<std::size_t> flat_axis_;
  std::span<const PreparedCase> cases_;
  std::string stream_;
  std::int64_t round_;
  std::vector<std::vector<Positions>> foreground_;  ///< Per case, for each label that it has.
};

}  // namespace isoscan
