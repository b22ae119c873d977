#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cohort/scans.h"
#include "client/imaging/volume.h"
#include "client/intake/finding.h"
#include "client/intake/picture.h"

namespace isoscan {

/// What a volume shows, as far as its border and its background tell.
enum class Extent {
  kCrop,           ///< Tissue up to the border: a part of the body.
  kInAir,          ///< A head or a body with air around it.
  kSkullStripped,  ///< Exactly one value around what was left, on every side.
};

/// One image of a case. Axes as stored, unless said otherwise.
struct ImageSight {
  ScanFiles::Image file;
  Geometry stored;
  std::string orientation;     ///< Where the stored axes run to, x first, such as "LPS", "RAS".
  double oblique_degrees = 0;  ///< Largest angle between an axis and the patient's nearest one.

  bool read = false;  ///< What follows was measured on the voxels.
  double minimum = 0;
  double maximum = 0;
  double mean = 0;
  double standard_deviation = 0;
  std::string digest;  ///< SHA-256 of the canonical volume: its size, then its voxels.
  Extent extent = Extent::kInAir;
  double background_share = 0;  ///< Voxels of exactly the commonest value.
  Picture picture;              ///< Of all voxels.
  Picture inside;               ///< Of those that are not background.
  /// 5, 10, ..., 95 percentiles of what is not background, less the median, over the range between
  /// the outer two: the shape of the histogram, whatever the scanner's scale and bias. May be
  /// empty.
  std::vector<double> shape;
};

struct LabelSight {
  std::string name;
  std::int64_t voxels = 0;  ///< In its file; where files overlap, a voxel counts in both.
  double millilitres = 0;
  std::array<double, 3> centre_mm{};  ///< LPS; of a label with voxels.
  /// Mean intensity (first image) less that of the unlabelled voxels in the box around all labels,
  /// over the standard deviation in that box.
  std::optional<double> contrast;
};

/// What share of the labelled voxels, and of all, a mask of the harmonisation holds.
struct MaskShare {
  double labelled = 0;
  double all = 0;
};

/// One case: what it holds and what is wrong with it.
struct CaseSight {
  ScanFiles files;
  std::vector<ImageSight> images;
  std::vector<LabelSight> labels;
  std::string label_digest;  ///< Of the joined label map; empty when nothing is labelled.
  std::optional<MaskShare> otsu;
  std::optional<MaskShare> threshold;
  std::vector<Finding> findings;
  std::vector<std::string> notes;  ///< What the DICOM reader does to it; no fault.
  std::int64_t bytes = 0;          ///< Memory that ReadVoxels takes, at most.

  bool quarantined() const;
  void Quarantine(Fault fault, const std::filesystem::path& path, std::string reason);
  void Flag(Fault fault, const std::filesystem::path& path, std::string reason);
};

/// Reads the headers of a case: place, size, spacing; image and labels on one grid. Never fails:
/// what is wrong is among the findings.
CaseSight LookAtHeaders(ScanFiles files);

/// Reads each voxel of the case's files once and fills in the rest. At most one image, or one label
/// file, is in memory at a time, beside the joined labels (LabelSlices). Does nothing to a case
/// that is quarantined already.
void LookAtVoxels(CaseSight& sight);

}  // namespace isoscan
