#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cohort/shared_values.h"
#include "client/imaging/dicom_listing.h"
#include "client/imaging/image_file.h"
#include "client/imaging/volume.h"
#include "common/study/study.h"

namespace isoscan {

struct HarmonizationRecord;

/// One folder of labelled MRI, as the site's configuration names it.
struct CohortFolder {
  std::string name;  ///< Travels with the scores when a site has several folders; "" otherwise.
  std::filesystem::path folder;
  enum class Layout { kAuto, kBids, kDecathlon, kNnunet, kDicom };
  Layout layout = Layout::kAuto;
  /// Study's label -> this cohort's values (integers as text) or mask entities (BIDS `label-NAME`).
  /// A label without an entry is looked up by its own name, case-insensitively: in dataset.json, in
  /// a BIDS dseg.tsv, as a mask's `label-` entity. The values of entries that the study has no
  /// label for, "background" among them, count as background.
  std::map<std::string, std::vector<std::string>> labels;
  /// Study's channel -> this cohort's name for it (BIDS suffix such as "FLAIR", dataset.json name,
  /// a folder of DICOM files or a contrast by its timing);
  /// a study of one channel takes a cohort's only channel whatever it is called.
  std::map<std::string, std::string> channels;
  /// Which form counts where a NIfTI's qform and sform contradict each other.
  GeometrySource geometry = GeometrySource::kAgreed;
};

/// One case's files. `name` stays at the site.
struct CaseFiles {
  std::string name;
  std::string cohort;
  std::vector<std::filesystem::path> images;  ///< One per channel of the study.
  /// Of the layout "dicom": each image as it was listed, so that no folder is listed again. Empty
  /// where images are files for ReadVolume.
  std::vector<DicomSeries> series = {};
  /// Label values of one file -> labels of the network (1, 2, ...). BIDS: a file per label.
  struct LabelFile {
    std::filesystem::path path;
    std::map<std::int64_t, std::uint8_t> values;
    bool any_positive =
        false;  ///< A binary mask: every value > 0 counts as the only entry of values.
  };
  std::vector<LabelFile> labels;
  std::filesystem::path mask;  ///< For Mask::kGiven; empty otherwise.
  /// Who was scanned (BIDS `sub-`; of DICOM, the patient's first case); empty: `name`. All cases of
  /// a patient are held out or none is.
  std::string patient = "";
  /// Of DICOM, by which kHash holds the patient out instead of by name (DicomSeries).
  std::optional<double> patient_fraction = std::nullopt;
  GeometrySource geometry = GeometrySource::kAgreed;  ///< For every one of these files.
};

/// Every case of a folder, sorted by name. Names only are read, of DICOM the headers, no voxel. A
/// scan that lacks a label file or a channel of the study is no case; `left_out`, where given, gets
/// one line for each of them, for the site's own terminal. `control` is for DICOM, where it is told
/// of each case; other layouts are a matter of names.
///
/// Errors: CANCELLED; NOT_FOUND no such folder, or no case in it (the message says which layouts
///         were looked for and what was found); INVALID_ARGUMENT a label or channel of the study
///         that this cohort has no files for (the message lists what it has, and the key to set);
///         DATA_LOSS a dataset.json that is not JSON.
absl::StatusOr<std::vector<CaseFiles>> ListCases(const CohortFolder& folder, const Study& study,
                                                 std::vector<std::string>* left_out = nullptr,
                                                 const ListingControl& control = {});

/// A case in memory, canonical (LPS), in its own grid, labels mapped to the study's.
struct LoadedCase {
  std::vector<Volume> channels;
  LabelMap labels;
  Geometry stored;                 ///< Grid of the file, before ToCanonical.
  std::vector<std::uint8_t> mask;  ///< For Mask::kGiven; empty otherwise.
};

/// Image and labels may be stored in different orders of axes; once canonical, their sizes must be
/// equal and their corners agree within GridToleranceOf. Where label files overlap, the study's
/// later label wins, so list the part after the whole.
///
/// Errors: INVALID_ARGUMENT image and label (or two channels) of different geometry, a label value
///         that the study does not have (with the value and its voxels), fractional values, NaN;
///         and those of ReadVolume. Messages name the case: they are for the site alone.
absl::StatusOr<LoadedCase> LoadCase(const CaseFiles& files, const Study& study);

/// A case as the network sees it.
struct PreparedCase {
  SharedValues<float> image;          ///< [channels, D, H, W], harmonised, at the plan's spacing.
  SharedValues<std::uint8_t> labels;  ///< [D, H, W] on the same grid.
  Geometry grid;                      ///< Of both; canonical.
  SharedValues<std::uint8_t> reference_labels;  ///< For scoring, on reference_grid.
  Geometry reference_grid;                      ///< The case's own canonical grid.
  std::string cohort;
  std::string digest;  ///< TrainingDigest() of it, where it has been computed; empty otherwise.

  LabelMap Reference() const {
    return {.geometry = reference_grid,
            .voxels = {reference_labels.begin(), reference_labels.end()}};
  }
};

/// SHA-256 of all of a case that training depends on: image, labels and their size.
std::string TrainingDigest(const PreparedCase& prepared);

/// Normalises each channel in its own grid, then resamples. `records`, where given, gets what was
/// done to each channel. Errors: those of Harmonize, and INVALID_ARGUMENT when Outside::kZero would
/// erase labelled voxels.
absl::StatusOr<PreparedCase> PrepareCase(const LoadedCase& loaded, const CaseFiles& files,
                                         const Study& study,
                                         std::vector<HarmonizationRecord>* records = nullptr);

/// Which cases are held out under the study's rule; the rest is for training. kEvery counts within
/// each cohort folder, kHash by the case's name, kList by `listed` names ("case" or "cohort/case").
/// A patient with several cases counts as one, by the patient's name or, of DICOM, fraction: a
/// model must not be scored on a patient that it was trained on.
/// Errors: INVALID_ARGUMENT when a listed name is no case, or when either side is empty.
absl::StatusOr<std::vector<bool>> HeldOut(const std::vector<CaseFiles>& cases,
                                          const HeldOutRule& rule,
                                          const std::vector<std::string>& listed);

}  // namespace isoscan
