#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/harmonized_copy.h"
#include "client/imaging/dicom_series.h"
#include "common/study/study.h"

// What MakeHarmonizedCopy has to do, found out before anything is written.

namespace isoscan {

/// One image on its way, by absolute paths.
struct CopyTask {
  std::filesystem::path image;
  std::optional<DicomSeries> series;  ///< Then `image` is one of its files.
  std::filesystem::path output;
  std::filesystem::path mask;  ///< For Mask::kGiven; empty: there is none.
  std::size_t channel = 0;
  std::string channel_name;  ///< Empty where the plan treats all channels alike.
  std::optional<double> field_tesla;
};

/// The files of the input: images to harmonise, others to copy, and images that are none of the
/// study's.
struct CopyListing {
  std::vector<CopyTask> images;
  std::vector<std::filesystem::path> others;  ///< Relative.
  std::vector<HarmonizedCopy::NotThere> left_out;
  /// Of images that are left out: where an earlier plan wrote them, absolute.
  std::vector<std::filesystem::path> outputs_left_out;
};

/// NAME.harmonization.json beside an image.
std::filesystem::path RecordOf(const std::filesystem::path& image);

/// Lists a cohort's folder or one of DICOM series, whose canonical path is `folder.folder`, for the
/// output folder `to`. Where `study` has channels, images are told apart by them. `for_nnunet`: as
/// CopyRequest has it; then also a folder of images, as ListCasesToPredict knows it.
/// Errors: those of MakeHarmonizedCopy that concern the input; INVALID_ARGUMENT two images of one
///         output; CANCELLED.
absl::StatusOr<CopyListing> ListFolderForCopy(const CohortFolder& folder,
                                              const std::filesystem::path& to, const Study& study,
                                              bool for_nnunet, const std::stop_token& stop);

/// The only image of `from`, a file or the folder of one DICOM series, both paths canonical.
absl::StatusOr<CopyListing> ListSingleForCopy(const CopyRequest& request,
                                              const std::filesystem::path& from,
                                              const std::filesystem::path& to, const Study& study);

}  // namespace isoscan
