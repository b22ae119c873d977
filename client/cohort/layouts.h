#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/cohort/scans.h"
#include "common/study/study.h"

namespace isoscan {

/// The readers of ListCases, one per layout; docs/cohorts.md says what each accepts. `left_out` is
/// never null.
absl::StatusOr<std::vector<CaseFiles>> ListBidsCases(const CohortFolder& folder, const Study& study,
                                                     std::vector<std::string>* left_out);
absl::StatusOr<std::vector<CaseFiles>> ListDecathlonCases(const CohortFolder& folder,
                                                          const Study& study,
                                                          std::vector<std::string>* left_out);
absl::StatusOr<std::vector<CaseFiles>> ListNnunetCases(const CohortFolder& folder,
                                                       const Study& study,
                                                       std::vector<std::string>* left_out);

absl::StatusOr<std::vector<CaseFiles>> ListDicomCases(const CohortFolder& folder,
                                                      const Study& study,
                                                      std::vector<std::string>* left_out,
                                                      const ListingControl& control);

/// The readers of ListScans, likewise.
absl::StatusOr<std::vector<ScanFiles>> ListBidsScans(const CohortFolder& folder,
                                                     std::vector<std::string>* left_out);
absl::StatusOr<std::vector<ScanFiles>> ListDecathlonScans(const CohortFolder& folder,
                                                          std::vector<std::string>* left_out);
absl::StatusOr<std::vector<ScanFiles>> ListNnunetScans(const CohortFolder& folder,
                                                       std::vector<std::string>* left_out);

/// What the folder's content says it is; the errors of LayoutOfDatasetJson, and NOT_FOUND when it
/// is no layout of a labelled cohort.
absl::StatusOr<CohortFolder::Layout> DetectLayout(const std::filesystem::path& folder);

/// Decathlon and nnU-Net both have a dataset.json. Errors: NOT_FOUND, DATA_LOSS not JSON.
absl::StatusOr<CohortFolder::Layout> LayoutOfDatasetJson(const std::filesystem::path& folder);

/// True for a folder with sub-* folders.
bool LooksLikeBids(const std::filesystem::path& folder);

/// True for a folder with sub-folders in which, at any depth, DICOM files are found soon.
bool LooksLikeDicom(const std::filesystem::path& folder);

/// The cases of the layout "dicom": each sub-folder but labels/ and masks/, by name.
std::vector<std::filesystem::path> DicomCaseFolders(const std::filesystem::path& folder);

/// Entries of a folder, sorted by name, without hidden ones (macOS leaves ._x beside every x).
std::vector<std::filesystem::path> SortedEntries(const std::filesystem::path& folder);

/// A file's name without `.nii.gz`, `.nii` or its last ending.
std::string StemOf(const std::filesystem::path& file);

/// True for .nii and .nii.gz.
bool IsNifti(const std::filesystem::path& file);

}  // namespace isoscan
