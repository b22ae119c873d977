#include "client/cohort/copy_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "client/cohort/sidecars.h"
#include "client/cohort/unlabelled_cases.h"
#include "client/imaging/dicom_listing.h"
#include "client/imaging/image_file.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRecordEnding = ".harmonization.json";

/// Where nnU-Net looks for a channel of a case.
fs::path NnunetName(const std::string& name, std::size_t channel) {
  return fmt::format("{}_{:04}.nii.gz", name, channel);
}

void AddImage(CopyTask task, const std::optional<std::size_t>& channel, const Study& study,
              const fs::path& from, CopyListing& listing) {
  if (!study.channels.empty()) {
    if (!channel.has_value()) {
      listing.left_out.push_back(
          {.image = task.image.lexically_relative(from),
           .reason = fmt::format("it shows no channel of the study, which has {}",
                                 Quoted(study.channels))});
      listing.outputs_left_out.push_back(std::move(task.output));
      return;
    }
    task.channel = *channel;
    task.channel_name = study.channels[*channel];
  }
  listing.images.push_back(std::move(task));
}

/// Whether a link to `target` leads back onto the way to it: `way` are the folders from the root of
/// the copy to the one that holds the link. Two folders may lead to each other.
bool IsCircle(const fs::path& target, const std::vector<fs::path>& way) {
  return std::any_of(way.begin(), way.end(), [&target](const fs::path& folder) {
    return std::mismatch(target.begin(), target.end(), folder.begin(), folder.end()).first ==
           target.end();
  });
}

/// All files but those of images (by their names, too: the header of a pair may be broken), records
/// of an earlier harmonisation, and hidden ones that are not BIDS's own.
absl::Status ListOthers(const fs::path& from, const std::set<fs::path>& of_images,
                        std::vector<fs::path>& others) {
  std::set<fs::path> stems;
  for (const fs::path& image : of_images) stems.insert(image.parent_path() / StemOf(image));
  std::error_code error;
  std::vector<fs::path> way{fs::canonical(from, error)};
  fs::recursive_directory_iterator entry(from, fs::directory_options::follow_directory_symlink,
                                         error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    const fs::path& path = entry->path();
    const std::string name = path.filename().string();
    const bool hidden = name.starts_with('.') && name != ".bidsignore";
    std::error_code unreadable;
    if (entry->is_directory(unreadable)) {
      way.resize(static_cast<std::size_t>(entry.depth()) + 1);
      const bool link = entry->is_symlink(unreadable);
      const fs::path target = link ? fs::canonical(path, unreadable) : way.back() / path.filename();
      if (hidden || unreadable || (link && IsCircle(target, way))) {
        entry.disable_recursion_pending();
      } else {
        way.push_back(target);
      }
      continue;
    }
    if (hidden || !entry->is_regular_file(unreadable) || of_images.contains(path) ||
        name.ends_with(kRecordEnding)) {
      continue;
    }
    const bool is_half = path.extension() == ".img" || path.extension() == ".raw";
    if (is_half && stems.contains(path.parent_path() / StemOf(path))) continue;
    others.push_back(path.lexically_relative(from));
  }
  if (!error) return absl::OkStatus();
  return absl::DataLossError(fmt::format("cannot list {}: {}", from.string(), error.message()));
}

absl::StatusOr<CopyListing> ListLayout(const CohortFolder& folder, const fs::path& to, bool bids,
                                       const Study& study, bool for_nnunet) {
  const fs::path& from = folder.folder;
  ASSIGN_OR_RETURN(std::vector<CohortImage> images,
                   bids ? ListBidsImages(folder, study) : ListDatasetJsonImages(folder, study));
  if (images.empty()) {
    return absl::NotFoundError(fmt::format("there is no image under {} of {}",
                                           bids ? "sub-*/anat" : "imagesTr", from.string()));
  }
  CopyListing listing;
  std::set<fs::path> of_images;
  Sidecars sidecars(from);
  for (CohortImage& image : images) {
    CopyTask task;
    task.image = image.path;
    task.output = to / (for_nnunet ? NnunetName(image.name, image.channel.value_or(0))
                                   : image.path.lexically_relative(from));
    task.mask = std::move(image.mask);
    task.field_tesla = sidecars.Of(image.path).acquisition.field_tesla;
    of_images.insert(image.path);
    // With the voxels of a header that keeps them apart; one that is broken is refused later.
    if (const auto files = FilesOf(image.path); files.ok()) {
      of_images.insert(files->begin(), files->end());
    }
    AddImage(std::move(task), image.channel, study, from, listing);
  }
  if (for_nnunet) return listing;
  RETURN_IF_ERROR(ListOthers(from, of_images, listing.others));
  return listing;
}

CopyTask TaskOf(DicomSeries series, fs::path output) {
  CopyTask task;
  task.image = series.slices.front().file;
  task.field_tesla = series.acquisition.field_tesla;
  task.output = std::move(output);
  task.series = std::move(series);
  return task;
}

/// The name of a series in a folder `name`. Those that lie in the folder itself have it instead of
/// ".": "scan" and "scan#2".
std::string NameOfSeries(const std::string& key, const std::string& name) {
  return key == "." || key.starts_with(".#") ? name + key.substr(1) : key;
}

/// Every output and its record have one image: two at a time would write over each other.
absl::Status CheckOutputs(const CopyListing& listing, const fs::path& from, const fs::path& to) {
  std::map<fs::path, fs::path> image_of;
  const auto taken = [&](const fs::path& image, const fs::path& other, const fs::path& output) {
    return absl::InvalidArgumentError(fmt::format(
        "{} and {} of {} would both be written as {}: rename one of them, or its folder",
        image.lexically_relative(from).string(), other.lexically_relative(from).string(),
        from.string(), output.lexically_relative(to).string()));
  };
  for (const CopyTask& task : listing.images) {
    if (!IsNifti(task.output)) continue;  // Refused later, by itself.
    const auto [known, inserted] = image_of.try_emplace(RecordOf(task.output), task.image);
    if (!inserted) return taken(known->second, task.image, task.output);
    image_of.emplace(task.output, task.image);
  }
  for (const fs::path& other : listing.others) {
    const auto known = image_of.find(to / other);
    if (known != image_of.end()) return taken(known->second, from / other, to / other);
  }
  return absl::OkStatus();
}

/// One file per series. Of the other files none is copied but labels and masks: what else lies
/// beside DICOM files may name patients.
absl::StatusOr<CopyListing> ListDicom(const CohortFolder& folder, DicomListing found,
                                      const fs::path& to, const Study& study, bool for_nnunet) {
  const fs::path& from = folder.folder;
  CopyListing listing;
  for (DicomSeries& series : found.series) {
    const std::string name = NameOfSeries(series.key, from.filename().string());
    // What lies deeper has the name of a folder of its own.
    const std::optional<std::size_t> channel =
        ChannelOfSeries(folder, study, series, name == series.key ? "" : from.filename().string());
    const std::string of_case = NameOfSeries(CaseOfSeries(series), from.filename().string());
    CopyTask task = TaskOf(
        std::move(series),
        to / (for_nnunet ? NnunetName(of_case, channel.value_or(0)) : fs::path(name + ".nii.gz")));
    if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) {
      task.mask = FileOfCase(from / "masks", of_case).value_or(fs::path());
    }
    AddImage(std::move(task), channel, study, from, listing);
  }
  for (const DicomSetAside& aside : found.set_aside) {
    listing.left_out.push_back(
        {.image = aside.first.lexically_relative(from),
         .reason = aside.files == 1 ? aside.reason
                                    : fmt::format("{} files: {}", aside.files, aside.reason)});
  }
  if (listing.images.empty()) {
    return absl::NotFoundError(fmt::format(
        "no DICOM series in {} can be used{}", from.string(),
        listing.left_out.empty()
            ? ""
            : fmt::format("; the first: {}: {}", listing.left_out.front().image.string(),
                          listing.left_out.front().reason)));
  }
  if (for_nnunet) return listing;
  for (const char* beside : {"labels", "masks"}) {
    std::vector<fs::path> files;
    std::error_code error;
    if (!fs::is_directory(from / beside, error)) continue;
    RETURN_IF_ERROR(ListOthers(from / beside, {}, files));
    for (const fs::path& file : files) {
      if (IsImageFile(file)) listing.others.push_back(fs::path(beside) / file);
    }
  }
  return listing;
}

bool HoldsImages(const fs::path& folder) {
  const std::vector<fs::path> entries = SortedEntries(folder);
  return std::any_of(entries.begin(), entries.end(), IsImageFile);
}

/// The cases that `predict` finds in a folder of images, for nnU-Net.
absl::StatusOr<CopyListing> ListImageFiles(const CohortFolder& folder, const fs::path& to,
                                           const Study& study, const std::stop_token& stop) {
  std::vector<std::string> left_out;
  ASSIGN_OR_RETURN(const std::vector<CaseFiles> cases,
                   ListCasesToPredict(folder, study, &left_out, {.stop = stop}));
  CopyListing listing;
  for (const std::string& line : left_out) {
    const std::size_t colon = line.find(": ");  // Behind the name.
    listing.left_out.push_back({.image = line.substr(0, colon), .reason = line.substr(colon + 2)});
  }
  Sidecars sidecars(folder.folder);
  for (const CaseFiles& files : cases) {
    for (std::size_t channel = 0; channel < files.images.size(); ++channel) {
      CopyTask task;
      task.image = files.images[channel];
      task.output = to / NnunetName(files.name, channel);
      task.field_tesla = sidecars.Of(task.image).acquisition.field_tesla;
      AddImage(std::move(task), channel, study, folder.folder, listing);
    }
  }
  return listing;
}

bool IsLayout(const fs::path& folder) {
  const absl::StatusOr<CohortFolder::Layout> layout = DetectLayout(folder);
  return layout.ok() && *layout != CohortFolder::Layout::kDicom;
}

/// The cohort that a folder is a part of, or that is a part of it; empty when there is none near.
fs::path CohortNear(const fs::path& folder) {
  fs::path above = folder;
  for (int levels = 0; levels < 3 && above.has_relative_path(); ++levels) {
    above = above.parent_path();
    if (IsLayout(above)) return above;
  }
  for (const fs::path& entry : SortedEntries(folder)) {
    std::error_code ignored;
    if (fs::is_directory(entry, ignored) && IsLayout(entry)) return entry;
  }
  return {};
}

absl::StatusOr<CopyListing> ListFolder(const CohortFolder& folder, const fs::path& to,
                                       const Study& study, bool for_nnunet,
                                       const std::stop_token& stop) {
  const absl::StatusOr<CohortFolder::Layout> layout = DetectLayout(folder.folder);
  if (!layout.ok() && !absl::IsNotFound(layout.status())) return layout.status();
  if (layout.ok() && *layout != CohortFolder::Layout::kDicom) {
    return ListLayout(folder, to, *layout == CohortFolder::Layout::kBids, study, for_nnunet);
  }
  if (for_nnunet && !layout.ok() && !study.channels.empty() && HoldsImages(folder.folder)) {
    return ListImageFiles(folder, to, study, stop);
  }
  ASSIGN_OR_RETURN(DicomListing found,
                   ListDicomSeries(folder.folder, {.threads = AvailableCores(), .stop = stop}));
  if (found.dicom_files > 0) return ListDicom(folder, std::move(found), to, study, for_nnunet);
  const fs::path near = CohortNear(folder.folder);
  return absl::NotFoundError(fmt::format(
      "{} is no cohort that is known: it has neither sub-* folders (BIDS), a "
      "dataset.json (Decathlon, nnU-Net) nor DICOM files; give a single image, or the "
      "cohort's uppermost folder{}",
      folder.folder.string(), near.empty() ? "" : fmt::format(", such as {}", near.string())));
}

/// The dataset's root that a single image lies in, as far as its path says.
fs::path RootOf(const fs::path& image) {
  fs::path root;
  for (const fs::path& part : image.parent_path()) {
    if (part.string().starts_with("sub-")) return root;
    root /= part;
  }
  return root;
}

}  // namespace

fs::path RecordOf(const fs::path& image) {
  return image.parent_path() / (StemOf(image) + std::string(kRecordEnding));
}

absl::StatusOr<CopyListing> ListFolderForCopy(const CohortFolder& folder, const fs::path& to,
                                              const Study& study, bool for_nnunet,
                                              const std::stop_token& stop) {
  ASSIGN_OR_RETURN(CopyListing listing, ListFolder(folder, to, study, for_nnunet, stop));
  RETURN_IF_ERROR(CheckOutputs(listing, folder.folder, to));
  return listing;
}

absl::StatusOr<CopyListing> ListSingleForCopy(const CopyRequest& request, const fs::path& from,
                                              const fs::path& to, const Study& study) {
  if (request.plan.mask == HarmonizationPlan::Mask::kGiven) {
    return absl::InvalidArgumentError(
        "a single image has no mask beside it: harmonise its cohort's folder, or choose --mask "
        "whole or otsu");
  }
  CopyTask task;
  std::optional<std::size_t> channel;
  std::error_code error;
  if (MayBeDicom(from)) {
    absl::StatusOr<DicomSeries> series = FindDicomSeries(from);
    if (!series.ok()) {
      return absl::Status(
          series.status().code(),
          fmt::format("{}; the output {} names one image: of a whole cohort name a folder",
                      std::string(series.status().message()), request.output.string()));
    }
    const fs::path folder = fs::is_directory(from, error) ? from : from.parent_path();
    channel = ChannelOfSeries(request.input, study, *series, folder.filename().string());
    task = TaskOf(*std::move(series), to);
  } else {
    task.image = from;
    task.output = to;
    channel = ChannelOfBidsName(request.input, study, from);
    task.field_tesla = Sidecars(RootOf(from)).Of(from).acquisition.field_tesla;
  }
  if (study.channels.size() == 1) channel = 0;
  if (!request.channel.empty()) {
    channel = std::nullopt;
    for (std::size_t i = 0; i < request.channels.size(); ++i) {
      if (SameName(request.channels[i], request.channel)) channel = i;
    }
    if (!channel.has_value()) {
      return absl::InvalidArgumentError(fmt::format("the study has no channel \"{}\": it has {}",
                                                    request.channel, Quoted(request.channels)));
    }
  }
  if (!study.channels.empty() && !channel.has_value()) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' treats each channel its own way, and the name of {} does not say which of "
        "{} it shows: say it with --channel",
        ToString(request.plan.normalize), from.filename().string(), Quoted(study.channels)));
  }
  CopyListing listing;
  AddImage(std::move(task), channel, study, from.parent_path(), listing);
  return listing;
}

}  // namespace isoscan
