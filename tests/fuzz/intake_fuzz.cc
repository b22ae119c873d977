#include "tests/fuzz/intake_fuzz.h"

#include <fmt/format.h>

#include <fstream>
#include <utility>

#include "client/cohort/scans.h"
#include "client/imaging/dicom_listing.h"
#include "client/intake/case_sight.h"

namespace isoscan {
namespace {

void Write(const std::filesystem::path& file, std::string_view bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << bytes;
}

/// What says how a scan was made, or which labels a cohort has.
void FuzzJson(std::string_view bytes, const std::filesystem::path& folder) {
  Write(folder / "imagesTr" / "x_0000.nii", "");
  Write(folder / "labelsTr" / "x.nii", "");
  for (const char* name : {"imagesTr/x_0000.json", "dataset.json"}) {
    Write(folder / name, bytes);
    CohortFolder cohort;
    cohort.folder = folder;
    (void)ListScans(cohort);
  }
}

}  // namespace

void FuzzNifti(std::string_view bytes, const std::filesystem::path& folder) {
  if (bytes.starts_with('{')) return FuzzJson(bytes, folder);
  std::filesystem::path file = folder / "x.nii";
  if (bytes.starts_with("NRRD")) file.replace_extension(".nrrd");
  if (bytes.starts_with("ObjectType")) file.replace_extension(".mha");
  if (const std::size_t end = bytes.find(kNextFile); end != std::string_view::npos) {
    // Whatever name the header gives to its voxels' file.
    const bool is_nifti = file.extension() == ".nii";
    Write(folder / (is_nifti ? "x.img" : "x.raw"), bytes.substr(end + kNextFile.size()));
    if (is_nifti) file.replace_extension(".hdr");
    bytes = bytes.substr(0, end);
  }
  Write(file, bytes);
  for (const GeometrySource source : {GeometrySource::kAgreed, GeometrySource::kSform}) {
    ScanFiles files;
    files.name = file.stem().string();
    files.geometry = source;
    files.images.push_back({.path = file, .channel = ""});
    files.labels.emplace_back().path = file;
    CaseSight sight = LookAtHeaders(std::move(files));
    if (sight.bytes < (std::int64_t{64} << 20)) LookAtVoxels(sight);
  }
}

void FuzzDicom(std::string_view bytes, const std::filesystem::path& folder) {
  int number = 0;
  while (number < 8) {
    const std::size_t end = bytes.find(kNextFile);
    Write(folder / fmt::format("{}.dcm", number++), bytes.substr(0, end));
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + kNextFile.size());
  }
  const auto listing = ListDicomSeries(folder);
  if (!listing.ok()) return;
  for (const DicomSeries& series : listing->series) {
    if (series.geometry.voxels() < (std::int64_t{16} << 20)) (void)ReadDicomSeries(series);
  }
}

}  // namespace isoscan
