#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "client/simulation/tissue.h"
#include "common/random/philox.h"

namespace isoscan {

/// A label of a simulated study and the values that an atlas marks it with.
struct AtlasLabel {
  std::string name;
  std::vector<std::int64_t> values;
};

/// A labelled head on one grid. Labels are 1, 2, ... in the order of their names.
struct Anatomy {
  Geometry field_of_view;  ///< The part that scanners are pointed at; inside the grid.
  LabelMap labels;
  Volume image;                      ///< The head's own intensities; no voxels when not loaded.
  std::vector<TissueShares> tissue;  ///< In the order of voxels; empty when not loaded.
};

/// Where a labelled head comes from; every file on the atlas's grid.
struct AnatomyFiles {
  std::filesystem::path atlas;
  std::filesystem::path image = {};  ///< T1 of the head; empty: no intensities.
  std::filesystem::path brain = {};  ///< The head without skull, to find tissue in; may be empty.
  std::vector<std::string> tissue = {};  ///< Tissue that is known, as for ReadTissue(); goes first.
};

/// Reads a head, canonical (LPS). The field of view is the box around the labels with `margin_mm`
/// on every side; 30 mm more are kept for people who move and grids that are turned.
///
/// Tissue that is found by intensity (`brain`) is made to agree with the labels: a labelled
/// structure holds no CSF (its share becomes grey matter), and is as much grey and white as it is
/// on average, so that its border is where the label's is, under every protocol.
///
/// Errors: those of ReadVolume, ReadTissue and ClassifyHead; INVALID_ARGUMENT when grids differ or
/// a label has no voxel.
absl::StatusOr<Anatomy> LoadAnatomy(const AnatomyFiles& files,
                                    const std::vector<AtlasLabel>& labels, double margin_mm);

/// How one person differs from the anatomy.
struct PatientVariation {
  double displacement_mm = 5;      ///< Standard deviation of the control points' displacement.
  double control_spacing_mm = 20;  ///< Distance of control points.
  double texture = 0.02;           ///< Of proton density, per voxel: standard deviation.
  double relaxation = 0.03;        ///< Of T1, T2 and proton density, per tissue, likewise.
};

/// How a scanner samples: its grid, and what a voxel collects signal from.
struct Sampling {
  Geometry grid;
  double thickness_mm = 0;      ///< Of a slice (third axis), a box; 0: as the slices' distance.
  double in_plane_fwhm_mm = 0;  ///< Gaussian point spread of the two other axes; 0: only the voxel.
};

/// Another person on a scanner's grid: the anatomy under a smooth random deformation (cubic
/// B-spline of random displacements). Each voxel is the mean of samples all over it, which is
/// partial volume; its label is what fills most of it. The field of view becomes the whole grid.
///
/// OpenMP over slices; the same for any number of threads.
/// Source: docs/references.md#rueckert1999 for the deformation model.
Anatomy MakePatient(const Anatomy& anatomy, const Sampling& sampling,
                    const PatientVariation& variation, RandomStream random);

/// One person's tissues: T1, T2 with T2*, and proton density each times its own 1 + N(0,
/// relaxation).
TissueTable MakeTissues(FieldStrength field, const PatientVariation& variation,
                        RandomStream random);

}  // namespace isoscan
