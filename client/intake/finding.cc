#include "client/intake/finding.h"

namespace isoscan {

std::string_view NameOf(Fault fault) {
  switch (fault) {
    case Fault::kUnreadable:
      return "unreadable";
    case Fault::kGeometry:
      return "geometry";
    case Fault::kFourDimensional:
      return "4d";
    case Fault::kMemory:
      return "memory";
    case Fault::kGrid:
      return "grid";
    case Fault::kLabelValues:
      return "label_values";
    case Fault::kEmptyLabel:
      return "empty_label";
    case Fault::kNoLabel:
      return "no_label";
    case Fault::kMask:
      return "mask";
    case Fault::kNotFinite:
      return "not_finite";
    case Fault::kConstant:
      return "constant";
    case Fault::kLeftRight:
      return "left_right";
    case Fault::kDuplicate:
      return "duplicate";
    case Fault::kSamePatient:
      return "same_patient";
    case Fault::kNegativeContrast:
      return "negative_contrast";
    case Fault::kModality:
      return "modality";
    case Fault::kSpacing:
      return "spacing";
    case Fault::kSeries:
      return "dicom";
    case Fault::kSidecar:
      return "sidecar";
  }
  return "unknown";
}

std::string NameOf(const Finding& finding) {
  return finding.series_fault.empty() ? std::string(NameOf(finding.fault)) : finding.series_fault;
}

}  // namespace isoscan
