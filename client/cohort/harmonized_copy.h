#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// "agreed", "qform" or "sform", as client.toml and --geometry say it.
std::string_view NameOf(GeometrySource geometry);

/// What is copied, and by which steps.
struct CopyRequest {
  /// `folder`: a cohort's, one of DICOM series, or a single image. `geometry`, `channels` and the
  /// mask's name under `labels` count as they do when a study reads it; `layout` is found out.
  CohortFolder input;
  std::filesystem::path output;  ///< A folder; for a single image or series a NIfTI file.
  HarmonizationPlan plan;
  /// The study's, where the plan treats each its own way (`contrasts`, `standard`); otherwise every
  /// image is treated alike, and they are not looked at.
  std::vector<std::string> channels;
  std::string channel;  ///< Which of them a single image shows; empty: its name says it.
  /// As nnU-Net takes the input of an exported model: images alone, by CASE_0000.nii.gz in one
  /// folder with the number of the study's channel, their voxels in canonical order. Then `input`
  /// may also be a folder of images.
  bool for_nnunet = false;
};

/// What became of the images of a harmonised copy.
struct HarmonizedCopy {
  std::int64_t written = 0;
  std::int64_t kept = 0;  ///< Were there already, of the same input and by the same plan.
  struct NotThere {
    std::filesystem::path image;  ///< Relative to the input.
    std::string reason;
  };
  std::vector<NotThere> refused;   ///< By name; they are not in the output.
  std::vector<NotThere> left_out;  ///< Likewise: the study has no use for them.
  /// Files of the output that the input has no counterpart for, relative to the output: of an
  /// earlier copy, or somebody else's. They stay.
  std::vector<std::filesystem::path> strangers;
};

using ImageObserver = std::function<void(std::int64_t done, std::int64_t total)>;

/// Copies one image or DICOM series, or a cohort's folder in its layout (BIDS, Decathlon, nnU-Net),
/// with harmonised images: every image of a cohort's `imagesTr` and `imagesTs`, or of BIDS `anat`
/// outside of `derivatives`; all other files as they are. A folder of DICOM series becomes one
/// NIfTI file per series, with the files of `labels` and `masks` and no other file. Steps:
/// geometry, N4, mask, normalisation, in canonical order of voxels; the result is written in the
/// image's own grid and order, so that its labels still fit. The plan's last step, resampling, is
/// left to whoever trains.
///
/// Where the plan has contrasts or a standard, each image is treated as the channel that it shows,
/// found as ListCases finds it; what shows none is left out.
///
/// Beside each image stands NAME.harmonization.json: version, plan and its digest, channel (where
/// the plan has several ways), geometry, digests of input and output (and of a given mask),
/// statistics, the mask's volume in mL, N4's field, and the scanner's field strength where a
/// sidecar or a DICOM header tells it. The digest of one file is its SHA-256; of several (a header
/// and its voxels' file) that of a line with each file's digest; of a DICOM series that of a line
/// "DIGEST FRAME" for each slice. The JSON is written last: an image whose JSON says the same of
/// all that went in is kept, any other is removed before it is made anew. Files appear whole or not
/// at all; what a killed process left is removed.
///
/// Mask::kGiven: `masksTr/CASE.nii.gz` beside imagesTr; in BIDS the brain mask under `derivatives`;
/// of DICOM `masks/CASE.nii.gz`.
///
/// Images are worked on in parallel, as many as there are cores and half of the memory holds. One
/// that cannot be read, or takes more memory than there is, is refused; the others go on.
/// Errors: NOT_FOUND no input, no image in it, or a place that cannot be reached; INVALID_ARGUMENT
///         the output is the input or one lies inside the other, two images would be written to one
///         place, a mask of Mask::kGiven for a single image, a channel that is not found or not
///         said, or an output that is no NIfTI for a single image; FAILED_PRECONDITION another
///         process writes into the same folder; RESOURCE_EXHAUSTED disk full, and other errors of
///         writing, which all name the folder; CANCELLED when stopped (what is done stays, the next
///         call goes on).
absl::StatusOr<HarmonizedCopy> MakeHarmonizedCopy(const CopyRequest& request,
                                                  const std::stop_token& stop,
                                                  const ImageObserver& observe);

}  // namespace isoscan
