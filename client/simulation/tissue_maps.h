#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "client/simulation/tissue.h"

namespace isoscan {

/// Which intensities of a T1 head belong to which tissue: the centres of three classes inside the
/// brain (CSF, grey, white) and of three outside (air and bone, muscle, fat), dark to bright.
///
/// The centres come from fuzzy c-means (three classes, exponent 2). The shares do not: they are the
/// mix of the two neighbouring centres that gives the voxel's intensity, so that partial volume
/// stays linear, and classes that do not touch in intensity never mix.
/// Source: docs/references.md#bezdek1984.
struct HeadClasses {
  std::array<double, 3> brain{};
  std::array<double, 3> outside{};

  TissueShares SharesOf(float intensity, bool in_brain) const;
};

/// `brain` is the head without skull: everything above 0 is brain. Both on the same grid.
/// Errors: INVALID_ARGUMENT when inside or outside has fewer than three intensities.
absl::StatusOr<HeadClasses> ClassifyHead(const Volume& head, const Volume& brain);

/// Reads tissue that somebody else has segmented, canonical (LPS): either one file of labels as in
/// BIDS (1 grey matter, 2 white matter, 3 CSF, 5 soft tissue, 7 lesion, 8 and 9 cortical and
/// subcortical grey matter, 10 brain stem, 11 cerebellum; anything else gives no signal), or
/// NAME=FILE of one probability map per tissue, NAME one of csf, grey, white, fat, muscle, lesion.
/// Shares that add up to more than 1 are scaled down to 1.
///
/// Errors: those of ReadVolume; INVALID_ARGUMENT unknown name, another grid than `grid`, no tissue.
/// Source: docs/references.md#bids, "Derivatives: Imaging derivatives".
absl::StatusOr<std::vector<TissueShares>> ReadTissue(const std::vector<std::string>& files,
                                                     const Geometry& grid);

}  // namespace isoscan
