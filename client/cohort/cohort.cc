#include "client/cohort/cohort.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <system_error>

#include "client/cohort/layouts.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// What a person sees who looks into a folder that is no cohort.
std::string WhatIsIn(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::size_t images = 0;
  for (const std::filesystem::path& entry : SortedEntries(folder)) {
    std::error_code ignored;
    const bool is_folder = std::filesystem::is_directory(entry, ignored);
    images += !is_folder && IsNifti(entry) ? 1 : 0;
    names.push_back(entry.filename().string() + (is_folder ? "/" : ""));
  }
  if (names.empty()) return "it is empty";
  const std::size_t shown = std::min<std::size_t>(names.size(), 6);
  return fmt::format(
      "it holds {}{} ({} entries, {} NIfTI files)",
      fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
      shown < names.size() ? ", ..." : "", names.size(), images);
}

bool HasDatasetJson(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::exists(folder / "dataset.json", ignored);
}

}  // namespace

absl::StatusOr<CohortFolder::Layout> DetectLayout(const std::filesystem::path& folder) {
  if (HasDatasetJson(folder)) return LayoutOfDatasetJson(folder);
  if (LooksLikeBids(folder)) return CohortFolder::Layout::kBids;
  if (LooksLikeDicom(folder)) return CohortFolder::Layout::kDicom;

  std::string hint;
  for (const std::filesystem::path& entry : SortedEntries(folder)) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(entry, ignored)) continue;
    if (HasDatasetJson(entry) || LooksLikeBids(entry)) {
      hint = fmt::format(", and {} looks like a cohort", entry.string());
      break;
    }
  }
  return absl::NotFoundError(fmt::format(
      "no case in {}: neither dataset.json (Medical Segmentation Decathlon, nnU-Net), sub-* "
      "folders (BIDS) nor folders of DICOM files are there, {}{}; `folder` in client.toml must "
      "name the cohort's own folder",
      folder.string(), WhatIsIn(folder), hint));
}

absl::StatusOr<std::vector<CaseFiles>> ListCases(const CohortFolder& folder, const Study& study,
                                                 std::vector<std::string>* left_out,
                                                 const ListingControl& control) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder.folder, error)) {
    return absl::NotFoundError(
        fmt::format("there is no folder {}: set `folder` of the [[cohort]] in client.toml to where "
                    "the scans are",
                    folder.folder.string()));
  }
  CohortFolder::Layout layout = folder.layout;
  if (layout == CohortFolder::Layout::kAuto) {
    ASSIGN_OR_RETURN(layout, DetectLayout(folder.folder));
  }
  std::vector<std::string> unused;
  std::vector<std::string>* const lines = left_out != nullptr ? left_out : &unused;
  absl::StatusOr<std::vector<CaseFiles>> cases =
      layout == CohortFolder::Layout::kBids        ? ListBidsCases(folder, study, lines)
      : layout == CohortFolder::Layout::kDecathlon ? ListDecathlonCases(folder, study, lines)
      : layout == CohortFolder::Layout::kDicom     ? ListDicomCases(folder, study, lines, control)
                                                   : ListNnunetCases(folder, study, lines);
  if (!cases.ok()) return cases;
  if (cases->empty()) {
    return absl::NotFoundError(
        fmt::format("no case in {}: {}{}", folder.folder.string(), WhatIsIn(folder.folder),
                    lines->empty() ? ""
                                   : fmt::format("; {} scans were left out, the first: {}",
                                                 lines->size(), lines->front())));
  }
  for (CaseFiles& files : *cases) files.geometry = folder.geometry;
  std::sort(cases->begin(), cases->end(),
            [](const CaseFiles& left, const CaseFiles& right) { return left.name < right.name; });
  return cases;
}

bool LooksLikeBids(const std::filesystem::path& folder) {
  const std::vector<std::filesystem::path> entries = SortedEntries(folder);
  return std::any_of(entries.begin(), entries.end(), [](const std::filesystem::path& entry) {
    std::error_code ignored;
    return entry.filename().string().starts_with("sub-") &&
           std::filesystem::is_directory(entry, ignored);
  });
}

std::vector<std::filesystem::path> SortedEntries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> entries;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().string().starts_with('.')) entries.push_back(entry->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::string StemOf(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  if (name.ends_with(".nii.gz")) return name.substr(0, name.size() - 7);
  return file.stem().string();
}

bool IsNifti(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".nii.gz") || name.ends_with(".nii");
}

bool IsImageFile(const std::filesystem::path& file) {
  const std::string ending = file.extension().string();
  return IsNifti(file) || ending == ".hdr" || ending == ".nrrd" || ending == ".nhdr" ||
         ending == ".mha" || ending == ".mhd";
}

}  // namespace isoscan
