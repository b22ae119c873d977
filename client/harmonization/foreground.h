#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isoscan {

/// Bins of the histogram that Otsu's threshold is taken from.
inline constexpr std::size_t kOtsuBins = 256;

/// The bin t that parts a histogram best: bins above t are foreground. The greatest between-class
/// variance wins, the lower bin on a tie; counts alone decide, so an affine map of the intensities
/// changes nothing. Source: docs/references.md#otsu1979.
std::size_t OtsuThreshold(const std::array<std::int64_t, kOtsuBins>& histogram);

/// Leaves only the largest set of face-connected voxels of a mask (x fastest, size in x, y, z); the
/// first one wins a tie.
void KeepLargestComponent(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size);

/// Fills every cavity: background that no chain of face neighbours joins to the volume's border.
void FillHoles(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size);

}  // namespace isoscan
