#pragma once

#include <string>
#include <string_view>

namespace isoscan {

/// Why files are no volume; FaultName() gives the name for JSON.
enum class DicomFault {
  kUnreadable,
  kTruncated,
  kTransferSyntax,
  kNoImage,
  kNotMr,
  kSecondaryCapture,
  kBurnedIn,
  kColour,
  kPixels,
  kNoPosition,
  kLocaliser,
  kComputed,
  kMosaic,
  kMultiFrame,
  kSingleSlice,
  kNotParallel,
  kUnequalGaps,
  kMissingSlices,
  kDuplicateSlices,
  kManyVolumes,
  kCopies,
};
std::string_view FaultName(DicomFault fault);

/// A fault of some files with its numbers and what to do, "they ..." in one line.
struct DicomRefusal {
  DicomFault fault;
  std::string reason;
};

}  // namespace isoscan
