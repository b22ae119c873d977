#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "common/random/philox.h"

namespace isoscan {

/// A label of a simulated study and the values that an atlas marks it with.
struct AtlasLabel {
  std::string name;
  std::vector<std::int64_t> values;
};

/// A labelled head, canonical (LPS); labels are 1, 2, ... in the order of their names.
struct Anatomy {
  Volume image;
  LabelMap labels;
};

/// Reads an image and its atlas on the same grid, and keeps the box around the labels with
/// `margin_mm` on every side.
///
/// Errors: those of ReadVolume; INVALID_ARGUMENT when the grids differ or a label has no voxel.
absl::StatusOr<Anatomy> LoadAnatomy(const std::filesystem::path& image,
                                    const std::filesystem::path& atlas,
                                    const std::vector<AtlasLabel>& labels, double margin_mm);

/// How one person differs from the anatomy.
struct PatientVariation {
  double displacement_mm = 5;      ///< Standard deviation of the control points' displacement.
  double control_spacing_mm = 20;  ///< Distance of control points.
  double spacing_mm = 2;           ///< Isotropic voxel size of the result.
};

/// Another person: the anatomy under a smooth random deformation (cubic B-spline of random
/// displacements), sampled on a coarser grid. Each voxel is the mean of 27 samples inside it, so
/// borders have partial volume as in a real scan; its label is what most of them carry.
///
/// Source: docs/references.md#rueckert1999 for the deformation model.
Anatomy MakePatient(const Anatomy& anatomy, const PatientVariation& variation, RandomStream random);

}  // namespace isoscan
