#include "client/cohort/scans.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/cohort/layouts.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

ScanFiles EmptyScan(const CohortFolder& folder, std::string name) {
  ScanFiles scan;
  scan.name = std::move(name);
  scan.cohort = folder.name;
  return scan;
}

/// Image files that lie in no layout: worth a look, though no study could use them.
void AddLooseFiles(const CohortFolder& folder, CohortScans& found) {
  Sidecars sidecars(folder.folder);
  for (const std::filesystem::path& path : SortedEntries(folder.folder)) {
    if (!IsImageFile(path)) continue;
    ScanFiles& scan = found.scans.emplace_back(EmptyScan(folder, StemOf(path)));
    scan.images.push_back({.path = path, .channel = ""});
    scan.sidecar = sidecars.Of(path);
  }
  if (!found.scans.empty()) found.layout = "loose files";
}

/// Labels of a DICOM case: `labels/CASE.nii.gz` in the cohort's folder, CASE being the folder under
/// it that the series lies in (docs/dicom.md).
void AddLabelsOfDicom(const CohortFolder& folder, ScanFiles& scan) {
  const std::string name = scan.name.substr(0, scan.name.find_first_of("/#"));
  for (const char* ending : {".nii.gz", ".nii", ".nrrd", ".mha"}) {
    std::error_code ignored;
    const std::filesystem::path path = folder.folder / "labels" / (name + ending);
    if (!std::filesystem::exists(path, ignored)) continue;
    scan.labels.emplace_back().path = path;
    return;
  }
}

absl::Status AddDicomSeries(const CohortFolder& folder, CohortScans& found) {
  ASSIGN_OR_RETURN(DicomListing listing, ListDicomSeries(folder.folder));
  for (DicomSeries& series : listing.series) {
    ScanFiles& scan = found.scans.emplace_back(EmptyScan(folder, series.key));
    scan.sidecar.acquisition = series.acquisition;
    scan.patient_digest = series.patient;
    const std::filesystem::path first = series.slices.front().file;
    scan.images.push_back({.path = first, .channel = "", .series = std::move(series)});
    AddLabelsOfDicom(folder, scan);
  }
  for (const DicomSetAside& aside : listing.set_aside) {
    const std::filesystem::path name = aside.first.lexically_relative(folder.folder);
    ScanFiles& scan = found.scans.emplace_back(EmptyScan(folder, name.string()));
    scan.images.push_back({.path = aside.first, .channel = ""});
    scan.fault = FaultName(aside.fault);
    scan.fault_reason =
        aside.files == 1 ? aside.reason : fmt::format("{} files: {}", aside.files, aside.reason);
  }
  if (listing.dicom_files == 0) return absl::OkStatus();
  found.layout += found.layout.empty() ? "DICOM series" : " and DICOM series";
  return absl::OkStatus();
}

void Finish(const CohortFolder& folder, CohortScans& found) {
  for (ScanFiles& scan : found.scans) scan.geometry = folder.geometry;
  std::stable_sort(
      found.scans.begin(), found.scans.end(),
      [](const ScanFiles& left, const ScanFiles& right) { return left.name < right.name; });
}

std::string NameOf(CohortFolder::Layout layout) {
  switch (layout) {
    case CohortFolder::Layout::kBids:
      return "BIDS";
    case CohortFolder::Layout::kDecathlon:
      return "Medical Segmentation Decathlon";
    case CohortFolder::Layout::kNnunet:
      return "nnU-Net raw";
    case CohortFolder::Layout::kDicom:
    case CohortFolder::Layout::kAuto:
      break;  // AddDicomSeries and AddLooseFiles say what they find.
  }
  return "";
}

}  // namespace

absl::StatusOr<CohortScans> ListScans(const CohortFolder& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder.folder, error)) {
    return absl::NotFoundError(fmt::format("there is no folder {}", folder.folder.string()));
  }
  CohortScans found;
  absl::StatusOr<CohortFolder::Layout> layout = folder.layout;
  if (layout.value() == CohortFolder::Layout::kAuto) layout = DetectLayout(folder.folder);
  const bool dicom = layout.ok() && *layout == CohortFolder::Layout::kDicom;
  if (dicom || absl::IsNotFound(layout.status())) {
    AddLooseFiles(folder, found);
    RETURN_IF_ERROR(AddDicomSeries(folder, found));
    if (found.scans.empty() && !dicom) return layout.status();
    if (found.scans.empty()) {
      return absl::NotFoundError(fmt::format("no DICOM file in {}", folder.folder.string()));
    }
    Finish(folder, found);
    return found;
  }
  RETURN_IF_ERROR(layout.status());
  found.layout = NameOf(*layout);
  ASSIGN_OR_RETURN(found.scans, *layout == CohortFolder::Layout::kBids
                                    ? ListBidsScans(folder, &found.left_out)
                                : *layout == CohortFolder::Layout::kDecathlon
                                    ? ListDecathlonScans(folder, &found.left_out)
                                    : ListNnunetScans(folder, &found.left_out));
  if (found.scans.empty()) {
    return absl::NotFoundError(
        fmt::format("no scan in {}, which looks like {}", folder.folder.string(), found.layout));
  }
  Finish(folder, found);
  return found;
}

ScanFiles AsScan(const CaseFiles& files, const Study& study, Sidecars& sidecars) {
  ScanFiles scan;
  scan.name = files.name;
  scan.cohort = files.cohort;
  scan.patient = files.patient;
  scan.mask = files.mask;
  scan.zero_outside_mask = study.harmonization.outside == HarmonizationPlan::Outside::kZero;
  scan.sidecar = sidecars.Of(files.images.front());
  scan.geometry = files.geometry;
  for (std::size_t channel = 0; channel < files.images.size(); ++channel) {
    ScanFiles::Image& image = scan.images.emplace_back();
    image.path = files.images[channel];
    image.channel = study.channels[channel];
    if (!MayBeDicom(image.path)) continue;
    // What cannot be read is told by the reader.
    absl::StatusOr<DicomSeries> series = FindDicomSeries(image.path);
    if (!series.ok()) continue;
    if (channel == 0) {
      scan.sidecar.acquisition = series->acquisition;
      scan.patient_digest = series->patient;
    }
    image.series = *std::move(series);
  }
  for (const CaseFiles::LabelFile& file : files.labels) {
    ScanFiles::LabelFile& labels = scan.labels.emplace_back();
    labels.path = file.path;
    labels.any_positive = file.any_positive;
    labels.closed = true;
    for (const auto& [value, label] : file.values) {
      labels.names[value] = label == 0 ? "" : study.labels[label - std::size_t{1}];
    }
  }
  return scan;
}

}  // namespace isoscan
