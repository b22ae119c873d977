#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace isoscan {

/// What can be wrong with a case; docs/intake.md has a line for each.
enum class Fault {
  kUnreadable,        ///< Missing, truncated, damaged, or no image file.
  kGeometry,          ///< A shape or a place in the patient that Isoscan does not read.
  kFourDimensional,   ///< Several volumes in one file.
  kMemory,            ///< Larger than this machine's memory.
  kGrid,              ///< Image and label, or two images, on different grids.
  kLabelValues,       ///< Values that no label has, or that are no whole numbers.
  kEmptyLabel,        ///< No labelled voxel.
  kNoLabel,           ///< No label file, in a cohort that has them.
  kMask,              ///< The given mask is empty, or would erase labelled voxels.
  kNotFinite,         ///< NaN or infinite voxels.
  kConstant,          ///< One intensity everywhere, or nearly.
  kLeftRight,         ///< Labels named left and right lie on the other side.
  kDuplicate,         ///< The image of another case.
  kSamePatient,       ///< Another case seems to be of the same patient.
  kNegativeContrast,  ///< Dark where the cohort is bright.
  kModality,          ///< Perhaps another contrast or another kind of scan than the cohort's.
  kSpacing,           ///< Voxels far from the cohort's, or of an impossible size.
  kSeries,            ///< DICOM files that are no volume; Finding::series_fault says why.
  kSidecar,           ///< A JSON beside the image that cannot be read.
};

/// Such as "negative_contrast": what --json and the summary say.
std::string_view NameOf(Fault fault);

/// One thing that is wrong with one case.
struct Finding {
  Fault fault = Fault::kUnreadable;
  bool quarantines = false;       ///< The case cannot be used; otherwise: look at it.
  std::filesystem::path path;     ///< The file that it is about.
  std::string reason;             ///< For the site's own terminal: it names files.
  std::string series_fault = "";  ///< For kSeries: FaultName() of client/imaging/dicom_fault.h.
};

/// The fault's name, for DICOM files the more exact one.
std::string NameOf(const Finding& finding);

}  // namespace isoscan
