/// What the fuzzers feed: bytes from anywhere, as a hospital's disk might hold them. Neither may
/// crash, hang, or take memory that the bytes do not pay for; what they answer does not matter.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_seed.h"

namespace isoscan {

/// `bytes` as an image file, which is both the image and the label map of one case: NRRD or
/// MetaImage if it begins as one, a JSON beside an image if it begins so, two files if kNextFile
/// parts them (.hdr and .img), otherwise a NIfTI. `folder` is empty and may be written to; the
/// caller empties it.
void FuzzNifti(std::string_view bytes, const std::filesystem::path& folder);

/// `bytes` as the files of one folder, parted by kNextFile, listed and read as DICOM series.
void FuzzDicom(std::string_view bytes, const std::filesystem::path& folder);
inline constexpr std::string_view kNextFile = "\nNEXT FILE\n";

/// Files of every kind that the readers know.
std::vector<FuzzSeed> NiftiSeeds();
std::vector<FuzzSeed> DicomSeeds();

}  // namespace isoscan
