#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/cohort/scans.h"
#include "client/imaging/dicom_series.h"
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

/// The same without labels (ListCasesToPredict). `listed` are a case's series, for the message
/// about what it lacks; errors: why it is no case.
absl::StatusOr<std::vector<CaseFiles>> ListUnlabelledDicomCases(const CohortFolder& folder,
                                                                const Study& study,
                                                                std::vector<std::string>* left_out,
                                                                const ListingControl& control);
absl::StatusOr<CaseFiles> DicomCase(const CohortFolder& folder, const Study& study,
                                    const std::filesystem::path& case_folder, DicomListing listed);

/// The readers of ListScans, likewise.
absl::StatusOr<std::vector<ScanFiles>> ListBidsScans(const CohortFolder& folder,
                                                     std::vector<std::string>* left_out);
absl::StatusOr<std::vector<ScanFiles>> ListDecathlonScans(const CohortFolder& folder,
                                                          std::vector<std::string>* left_out);
absl::StatusOr<std::vector<ScanFiles>> ListNnunetScans(const CohortFolder& folder,
                                                       std::vector<std::string>* left_out);

/// An image of a cohort, labelled or not.
struct CohortImage {
  std::filesystem::path path;
  std::string name;                    ///< Without what tells the channels of a case apart.
  std::optional<std::size_t> channel;  ///< The study's that it shows; nullopt: none of them.
  std::filesystem::path mask;          ///< For Mask::kGiven; empty: there is none.
};

/// Every image of a cohort, sorted by path: those in `anat` of BIDS outside derivatives/, those of
/// imagesTr and imagesTs. Channels and masks are found as ListCases finds them; a study without
/// channels asks for none.
/// Errors: those of ListCases that channels and masks give rise to.
absl::StatusOr<std::vector<CohortImage>> ListBidsImages(const CohortFolder& folder,
                                                        const Study& study);
absl::StatusOr<std::vector<CohortImage>> ListDatasetJsonImages(const CohortFolder& folder,
                                                               const Study& study);

/// "CASE_0001" is the second channel of CASE; nullopt for other names.
struct NumberedImage {
  std::string name;
  std::size_t channel = 0;
};
std::optional<NumberedImage> NumberedImageOf(const std::string& stem);

/// The study's channel that an image shows by its BIDS name alone, or a series as ListDicomCases
/// sees it; nullopt: none of them. `listed` is the name of the folder that the series was found in,
/// which counts after those that lie in it; empty: it does not count.
std::optional<std::size_t> ChannelOfBidsName(const CohortFolder& folder, const Study& study,
                                             const std::filesystem::path& image);
std::optional<std::size_t> ChannelOfSeries(const CohortFolder& folder, const Study& study,
                                           const DicomSeries& series, const std::string& listed);

/// The case of a DICOM cohort that a series lies in, by where ListDicomSeries found it in the
/// cohort's folder: the whole name of the folder below that, whatever it holds; "." for a series
/// that lies in none.
std::string CaseOfSeries(const DicomSeries& series);

/// `masks/CASE.nii.gz` or `labels/CASE.nii.gz` of a DICOM cohort; another ending will do.
std::optional<std::filesystem::path> FileOfCase(const std::filesystem::path& folder,
                                                const std::string& name);

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

/// True for the names of every image file that ReadVolume takes, but DICOM's.
bool IsImageFile(const std::filesystem::path& file);

}  // namespace isoscan
