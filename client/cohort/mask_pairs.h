#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// A segmentation and what it is to be compared with.
struct MaskPair {
  std::string name;
  std::filesystem::path predicted;  ///< Empty: there is only the reference.
  std::filesystem::path reference;  ///< Empty: there is only the prediction.
};

/// Two files are a pair, whatever their names. Of two folders, those files in them and below
/// (NIfTI, NRRD, MetaImage) are pairs that have the same path without its ending, or, named as BIDS
/// names them, the same subject, session and run. Sorted by name; hidden files and folders do not
/// count.
///
/// Errors: NOT_FOUND one of both is not there or cannot be read, or a folder holds no image;
///         INVALID_ARGUMENT a file and a folder, or two files of a folder that would be the same
///         case, which are named.
absl::StatusOr<std::vector<MaskPair>> PairMasks(const std::filesystem::path& predictions,
                                                const std::filesystem::path& references);

}  // namespace isoscan
