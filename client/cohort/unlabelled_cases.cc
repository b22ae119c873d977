#include "client/cohort/unlabelled_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// One file per channel of a case; none where it lacks one.
struct Images {
  std::vector<std::optional<fs::path>> files;
  fs::path mask;
};
/// By folder, then by the case's name within it.
using ImagesByCase = std::map<std::pair<fs::path, std::string>, Images>;

void AddImage(const fs::path& path, const std::string& name, std::size_t channel,
              const fs::path& mask, const Study& study, ImagesByCase& images) {
  Images& of_case = images[{path.parent_path(), name}];
  of_case.files.resize(study.channels.size());
  of_case.files[channel] = path;
  if (!mask.empty()) of_case.mask = mask;
}

/// Cases of two folders that have one name are told apart by their folders' names.
std::vector<CaseFiles> CasesOf(const ImagesByCase& images, const Study& study,
                               std::vector<std::string>& left_out) {
  std::map<std::string, int> named;
  for (const auto& [place, of_case] : images) ++named[place.second];
  std::vector<CaseFiles> cases;
  for (const auto& [place, of_case] : images) {
    const auto& [folder, name] = place;
    CaseFiles files{.name = named[name] > 1 ? (folder.filename() / name).string() : name,
                    .cohort = "",
                    .images = {},
                    .labels = {},
                    .mask = of_case.mask};
    std::string missing;
    for (std::size_t channel = 0; channel < of_case.files.size(); ++channel) {
      if (of_case.files[channel].has_value()) {
        files.images.push_back(*of_case.files[channel]);
      } else {
        missing = fmt::format("there is no image of channel {}, \"{}\"", channel,
                              study.channels[channel]);
      }
    }
    if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven && files.mask.empty()) {
      missing = "no mask file, which the study normalises over (docs/cohorts.md)";
    }
    if (missing.empty()) {
      cases.push_back(std::move(files));
    } else {
      left_out.push_back(fmt::format("{}: {}", files.name, missing));
    }
  }
  return cases;
}

absl::StatusOr<std::vector<CaseFiles>> OfDatasetJson(const CohortFolder& folder, const Study& study,
                                                     bool numbered,
                                                     std::vector<std::string>& left_out) {
  ASSIGN_OR_RETURN(const std::vector<CohortImage> listed, ListDatasetJsonImages(folder, study));
  ImagesByCase images;
  for (const CohortImage& image : listed) {
    if (!image.channel.has_value()) continue;  // Of a channel that the study does not have.
    const std::optional<NumberedImage> number = NumberedImageOf(StemOf(image.path));
    AddImage(image.path, numbered && number.has_value() ? number->name : StemOf(image.path),
             *image.channel, image.mask, study, images);
  }
  return CasesOf(images, study, left_out);
}

/// Which case and channel an image file is by its name alone, as nnU-Net numbers its input. A
/// study of one channel takes any name.
std::optional<NumberedImage> ByName(const fs::path& path, const Study& study) {
  const std::string stem = StemOf(path);
  const std::optional<NumberedImage> number = NumberedImageOf(stem);
  const bool four_digits = stem.size() > 5 && stem[stem.size() - 5] == '_';
  if (number.has_value() && four_digits && number->channel < study.channels.size()) return number;
  if (study.channels.size() > 1) return std::nullopt;
  return NumberedImage{.name = stem, .channel = 0};
}

std::vector<CaseFiles> OfFiles(const fs::path& folder, const Study& study,
                               std::vector<std::string>& left_out) {
  ImagesByCase images;
  for (const fs::path& path : SortedEntries(folder)) {
    std::error_code ignored;
    if (!IsImageFile(path) || !fs::is_regular_file(path, ignored)) continue;
    if (const auto number = ByName(path, study)) {
      AddImage(path, number->name, number->channel, "", study, images);
    } else {
      left_out.push_back(
          fmt::format("{}: its name does not end in the number of one of the {} channels ({}), "
                      "such as _0000",
                      path.filename().string(), study.channels.size(), Quoted(study.channels)));
    }
  }
  return CasesOf(images, study, left_out);
}

absl::StatusOr<std::vector<CaseFiles>> OfOneImage(const fs::path& path, const Study& study) {
  if (!IsImageFile(path)) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is no image that is known: NIfTI, NRRD, MetaImage or DICOM", path.string()));
  }
  const auto number = ByName(path, study);
  if (!number.has_value()) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is one image, and the study has {} channels ({}): name a folder, or CASE_0000 with "
        "CASE_0001, ... beside it",
        path.string(), study.channels.size(), Quoted(study.channels)));
  }
  // Its folder may be relative, and that of this one.
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  ImagesByCase images;
  AddImage(path, number->name, number->channel, "", study, images);
  for (const fs::path& other : SortedEntries(folder)) {
    const auto of_other = IsImageFile(other) ? ByName(other, study) : std::nullopt;
    if (of_other.has_value() && of_other->name == number->name &&
        of_other->channel != number->channel) {
      images.begin()->second.files[of_other->channel] = other;
    }
  }
  std::vector<std::string> missing;
  std::vector<CaseFiles> cases = CasesOf(images, study, missing);
  if (missing.empty()) return cases;
  return absl::InvalidArgumentError(missing.front());
}

/// A folder of DICOM files, or one of them.
absl::StatusOr<std::vector<CaseFiles>> OfOneSeries(const CohortFolder& folder, const Study& study,
                                                   const ListingControl& control) {
  std::error_code ignored;
  const bool is_folder = fs::is_directory(folder.folder, ignored);
  DicomListing listing;
  if (is_folder) {
    ASSIGN_OR_RETURN(listing, ListDicomSeries(folder.folder,
                                              {.threads = control.threads, .stop = control.stop}));
  } else {
    ASSIGN_OR_RETURN(DicomSeries series, FindDicomSeries(folder.folder));
    listing.series.push_back(std::move(series));
    listing.dicom_files = 1;
  }
  if (listing.dicom_files == 0) {
    return absl::NotFoundError(fmt::format(
        "no image in {}: it has neither sub-* folders (BIDS), a dataset.json (Decathlon, nnU-Net), "
        "image files nor DICOM files",
        folder.folder.string()));
  }
  const fs::path case_folder = is_folder ? folder.folder : folder.folder.parent_path();
  absl::StatusOr<CaseFiles> files = DicomCase(folder, study, case_folder, std::move(listing));
  if (files.ok()) return std::vector<CaseFiles>{*std::move(files)};
  return absl::Status(files.status().code(), fmt::format("{}: {}", folder.folder.string(),
                                                         std::string(files.status().message())));
}

absl::StatusOr<std::vector<CaseFiles>> List(const CohortFolder& folder, const Study& study,
                                            std::vector<std::string>& left_out,
                                            const ListingControl& control) {
  using Layout = CohortFolder::Layout;
  std::error_code ignored;
  if (!fs::exists(folder.folder, ignored)) {
    return absl::NotFoundError(fmt::format("there is no {}", folder.folder.string()));
  }
  if (!fs::is_directory(folder.folder, ignored)) {
    return MayBeDicom(folder.folder) ? OfOneSeries(folder, study, control)
                                     : OfOneImage(folder.folder, study);
  }
  absl::StatusOr<Layout> layout = folder.layout;
  if (*layout == Layout::kAuto) layout = DetectLayout(folder.folder);
  if (!layout.ok()) {
    if (!absl::IsNotFound(layout.status())) return layout.status();
    std::vector<CaseFiles> cases = OfFiles(folder.folder, study, left_out);
    if (!cases.empty() || !left_out.empty()) return cases;
    return OfOneSeries(folder, study, control);
  }
  switch (*layout) {
    case Layout::kBids: {
      Study unlabelled = study;
      unlabelled.labels.clear();
      return ListBidsCases(folder, unlabelled, &left_out);
    }
    case Layout::kDicom: {
      ASSIGN_OR_RETURN(std::vector<CaseFiles> cases,
                       ListUnlabelledDicomCases(folder, study, &left_out, control));
      if (!cases.empty()) return cases;
      // One patient's folder, with a folder for each series.
      absl::StatusOr<std::vector<CaseFiles>> whole = OfOneSeries(folder, study, control);
      if (!whole.ok()) return cases;
      left_out.clear();
      return whole;
    }
    default:
      return OfDatasetJson(folder, study, *layout == Layout::kNnunet, left_out);
  }
}

}  // namespace

absl::StatusOr<std::vector<CaseFiles>> ListCasesToPredict(const CohortFolder& folder,
                                                          const Study& study,
                                                          std::vector<std::string>* left_out,
                                                          const ListingControl& control) {
  ASSIGN_OR_RETURN(std::vector<CaseFiles> cases, List(folder, study, *left_out, control));
  if (cases.empty()) {
    return absl::NotFoundError(
        left_out->empty()
            ? fmt::format("there is no image in {}", folder.folder.string())
            : fmt::format("no case of {} can be predicted; the first of {}: {}",
                          folder.folder.string(), left_out->size(), left_out->front()));
  }
  for (CaseFiles& files : cases) {
    files.cohort = folder.name;
    files.geometry = folder.geometry;
  }
  std::sort(cases.begin(), cases.end(),
            [](const CaseFiles& left, const CaseFiles& right) { return left.name < right.name; });
  return cases;
}

}  // namespace isoscan
