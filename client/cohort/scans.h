#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/cohort/sidecars.h"
#include "client/imaging/dicom_listing.h"
#include "client/imaging/image_file.h"
#include "common/study/study.h"

namespace isoscan {

/// One scan as a folder has it, whether or not a study can use it. `name` stays at the site.
struct ScanFiles {
  std::string name;
  std::string cohort;
  /// Who was scanned, where the layout says so (BIDS `sub-`); empty: unknown.
  std::string patient;
  /// The same from a DICOM header, as a digest: to be compared, never shown.
  std::string patient_digest;
  /// Of DICOM, the case by the study's name for it: all series of one have the same (CaseOfSeries).
  std::string dicom_case;
  struct Image {
    std::filesystem::path path;
    std::string channel;  ///< BIDS suffix, name in dataset.json; empty: unknown.
    std::optional<DicomSeries> series = std::nullopt;  ///< Instead of one image file.
  };
  std::vector<Image> images;
  struct LabelFile {
    std::filesystem::path path;
    std::map<std::int64_t, std::string> names;  ///< Value -> label; "" is background.
    bool any_positive = false;  ///< A binary mask: every value > 0 is the only entry of names.
    bool closed = false;        ///< A value that `names` lacks is a fault, not a label of its own.
  };
  std::vector<LabelFile> labels;
  /// The case's label file lies on the grid of another series of the case, and belongs to that one.
  bool label_elsewhere = false;
  std::filesystem::path mask;      ///< That the study normalises over; empty: none is given.
  bool zero_outside_mask = false;  ///< The study erases what lies outside `mask`.
  Sidecar sidecar;                 ///< Of the first image.
  GeometrySource geometry = GeometrySource::kAgreed;  ///< For every one of these files.
  /// Files that look like a scan and are none: why, by name and in words; empty otherwise.
  std::string fault;
  std::string fault_reason;
};

/// What lies in one folder.
struct CohortScans {
  std::string layout;            ///< In words, such as "BIDS".
  std::vector<ScanFiles> scans;  ///< Sorted by name.
  /// Files and entries that are no scan, one line each; for the site's own terminal.
  std::vector<std::string> left_out;
};

/// Every scan of a folder with the labels that lie beside it, without a study. Names and sidecars
/// are read, no header and no voxel. What lies in no layout is listed too: DICOM series, by all
/// files' headers, and image files in the folder itself. `control` is for DICOM.
///
/// Errors: CANCELLED; NOT_FOUND no such folder, or no scan in it; DATA_LOSS a dataset.json that is
/// not JSON.
absl::StatusOr<CohortScans> ListScans(const CohortFolder& folder,
                                      const ListingControl& control = {});

/// A case as its study sees it: labels and channels have the study's names.
ScanFiles AsScan(const CaseFiles& files, const Study& study, Sidecars& sidecars);

}  // namespace isoscan
