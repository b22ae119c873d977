#include "client/cohort/scans.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/cohort/layouts.h"
#include "client/imaging/orientation.h"
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

/// The series of one case share a label file. It belongs to those on its grid; to all where it lies
/// on none, or cannot be read, so that each is told so.
void AddLabelOfDicom(const CohortFolder& folder, const std::string& name,
                     const std::vector<ScanFiles*>& of_case) {
  const auto path = FileOfCase(folder.folder / "labels", name);
  if (!path.has_value()) return;
  std::vector<ScanFiles*> on_grid;
  if (of_case.size() > 1) {
    const absl::StatusOr<Geometry> label = ReadGeometry(*path, folder.geometry);
    for (ScanFiles* const scan : of_case) {
      const Geometry grid = CanonicalGeometry(scan->images.front().series->geometry);
      if (label.ok() && SameGrid(grid, CanonicalGeometry(*label), GridToleranceOf(grid))) {
        on_grid.push_back(scan);
      }
    }
    for (ScanFiles* const scan : of_case) scan->label_elsewhere = !on_grid.empty();
  }
  for (ScanFiles* const scan : on_grid.empty() ? of_case : on_grid) {
    scan->labels.emplace_back().path = *path;
    scan->label_elsewhere = false;
  }
}

absl::Status AddDicomSeries(const CohortFolder& folder, const ListingControl& control,
                            CohortScans& found) {
  ASSIGN_OR_RETURN(DicomListing listing, ListDicomSeries(folder.folder, control));
  const std::size_t first_scan = found.scans.size();
  for (DicomSeries& series : listing.series) {
    ScanFiles& scan = found.scans.emplace_back(EmptyScan(folder, series.key));
    scan.sidecar.acquisition = series.acquisition;
    scan.patient_digest = series.patient;
    scan.dicom_case = CaseOfSeries(series);
    const std::filesystem::path first = series.slices.front().file;
    scan.images.push_back({.path = first, .channel = "", .series = std::move(series)});
  }
  std::map<std::string, std::vector<ScanFiles*>> cases;
  for (std::size_t i = first_scan; i < found.scans.size(); ++i) {
    cases[found.scans[i].dicom_case].push_back(&found.scans[i]);
  }
  for (const auto& [name, of_case] : cases) AddLabelOfDicom(folder, name, of_case);
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

absl::StatusOr<CohortScans> ListScans(const CohortFolder& folder, const ListingControl& control) {
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
    RETURN_IF_ERROR(AddDicomSeries(folder, control, found));
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
    if (files.series.empty()) continue;
    image.series = files.series[channel];
    if (channel > 0) continue;
    scan.sidecar.acquisition = image.series->acquisition;
    scan.patient_digest = image.series->patient;
    scan.dicom_case = files.name;
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
