#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/study/harmonization_plan.h"

namespace isoscan {

/// What became of the images of a harmonised copy.
struct HarmonizedCopy {
  std::int64_t written = 0;
  std::int64_t kept = 0;  ///< Were there already, of the same input and by the same plan.
  struct Refused {
    std::filesystem::path image;  ///< Relative to the input.
    std::string reason;
  };
  std::vector<Refused> refused;  ///< By name; they are not in the output.
};

using ImageObserver = std::function<void(std::int64_t done, std::int64_t total)>;

/// Copies one image, or a cohort's folder in its layout (BIDS, Decathlon, nnU-Net), with harmonised
/// images: every image of a cohort's `imagesTr` and `imagesTs`, or of BIDS `anat` outside of
/// `derivatives`; all other files as they are. Steps: geometry, N4, mask, normalisation, in
/// canonical order of voxels; the result is written in the image's own grid and order, so that its
/// labels still fit. The plan's last step, resampling, is left to whoever trains.
///
/// Beside each image stands NAME.harmonization.json: version, plan and its digest, digests of input
/// and output (and of a given mask), statistics, the mask's volume in mL, N4's field, and the
/// scanner's field strength where a BIDS sidecar tells it. It is written last: an image whose JSON
/// says the same plan, input and mask is kept. Images appear whole or not at all.
///
/// Mask::kGiven: `masksTr/CASE.nii.gz` beside imagesTr; in BIDS a `desc-brain_mask` under
/// `derivatives` of the same subject and session.
///
/// Every image is taken as the plan's only channel, whatever its file is called.
///
/// Images are worked on in parallel, as many as there are cores and half of the memory holds.
/// Errors: NOT_FOUND no input, or no image in it; INVALID_ARGUMENT the output is the input or lies
///         inside it, a mask of Mask::kGiven for a single image, or a plan with contrasts or
///         standards of several channels; RESOURCE_EXHAUSTED disk full or no memory; CANCELLED when
///         stopped (what is done stays, the next call goes on).
absl::StatusOr<HarmonizedCopy> MakeHarmonizedCopy(const std::filesystem::path& input,
                                                  const std::filesystem::path& output,
                                                  const HarmonizationPlan& plan,
                                                  const std::stop_token& stop,
                                                  const ImageObserver& observe);

}  // namespace isoscan
