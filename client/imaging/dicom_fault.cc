#include "client/imaging/dicom_fault.h"

namespace isoscan {

std::string_view FaultName(DicomFault fault) {
  switch (fault) {
    case DicomFault::kUnreadable:
      return "unreadable";
    case DicomFault::kTruncated:
      return "truncated";
    case DicomFault::kTransferSyntax:
      return "transfer_syntax";
    case DicomFault::kNoImage:
      return "no_image";
    case DicomFault::kNotMr:
      return "not_mr";
    case DicomFault::kSecondaryCapture:
      return "secondary_capture";
    case DicomFault::kBurnedIn:
      return "burned_in_annotation";
    case DicomFault::kColour:
      return "colour";
    case DicomFault::kPixels:
      return "pixels";
    case DicomFault::kNoPosition:
      return "no_position";
    case DicomFault::kLocaliser:
      return "localiser";
    case DicomFault::kComputed:
      return "derived";
    case DicomFault::kMosaic:
      return "mosaic";
    case DicomFault::kMultiFrame:
      return "multi_frame";
    case DicomFault::kSingleSlice:
      return "single_slice";
    case DicomFault::kNotParallel:
      return "not_parallel";
    case DicomFault::kUnequalGaps:
      return "unequal_gaps";
    case DicomFault::kMissingSlices:
      return "missing_slices";
    case DicomFault::kDuplicateSlices:
      return "duplicate_slices";
    case DicomFault::kManyVolumes:
      return "many_volumes";
    case DicomFault::kCopies:
      break;
  }
  return "copies";
}

}  // namespace isoscan
