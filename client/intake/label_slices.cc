#include "client/intake/label_slices.h"

#include <algorithm>

namespace isoscan {

LabelSlices::LabelSlices(const std::array<std::int64_t, 3>& size)
    : slice_voxels_(static_cast<std::size_t>(size[0] * size[1])),
      slices_(static_cast<std::size_t>(size[2])) {}

void LabelSlices::Read(std::int64_t z, std::vector<std::uint8_t>& voxels) const {
  const std::vector<std::uint8_t>& kept = slices_[static_cast<std::size_t>(z)];
  if (kept.size() == slice_voxels_) {
    voxels = kept;
    return;
  }
  voxels.assign(slice_voxels_, 0);
  auto voxel = voxels.begin();
  for (std::size_t i = 0; i < kept.size(); i += 2) {
    voxel = std::fill_n(voxel, kept[i + 1] + 1, kept[i]);
  }
}

void LabelSlices::Write(std::int64_t z, const std::vector<std::uint8_t>& voxels) {
  constexpr std::ptrdiff_t kLongestRun = 256;
  std::vector<std::uint8_t> runs;
  for (auto first = voxels.begin(); first != voxels.end() && runs.size() < voxels.size();) {
    const auto limit = first + std::min(kLongestRun, voxels.end() - first);
    const auto end =
        std::find_if(first, limit, [first](std::uint8_t label) { return label != *first; });
    runs.push_back(*first);
    runs.push_back(static_cast<std::uint8_t>(end - first - 1));
    first = end;
  }
  // A copy has no spare capacity.
  slices_[static_cast<std::size_t>(z)] =
      std::vector<std::uint8_t>(runs.size() < voxels.size() ? runs : voxels);
}

}  // namespace isoscan
