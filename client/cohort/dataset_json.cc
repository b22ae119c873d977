#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/status/status.h"

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using nlohmann::json;

bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

absl::StatusOr<json> ReadDatasetJson(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "dataset.json";
  std::error_code ignored;
  std::ifstream file;
  // A stream on a folder opens, and throws when it is read; one on a pipe waits for its writer.
  if (std::filesystem::is_regular_file(path, ignored)) file.open(path);
  if (!file.is_open()) {
    return absl::NotFoundError(
        fmt::format("cannot read {}: the layouts decathlon and nnunet need it", path.string()));
  }
  try {
    json dataset = json::parse(file);
    if (dataset.is_object()) return dataset;
    return absl::DataLossError(fmt::format("{} is not a JSON object", path.string()));
  } catch (const json::exception& error) {
    return absl::DataLossError(fmt::format("{} is not JSON: {}", path.string(), error.what()));
  }
}

/// Both ways of writing it: {"1": "Anterior"} (Decathlon) and {"Anterior": 1} (nnU-Net), where a
/// region lists several values.
std::vector<NamedValues> LabelsOf(const json& dataset) {
  std::vector<NamedValues> labels;
  if (!dataset.contains("labels") || !dataset["labels"].is_object()) return labels;
  for (const auto& [key, value] : dataset["labels"].items()) {
    NamedValues label;
    if (value.is_string()) {
      const std::optional<std::int64_t> number = ToInteger(key);
      if (!number.has_value()) continue;
      label = {.name = value.get<std::string>(), .values = {*number}};
    } else if (value.is_number_integer()) {
      label = {.name = key, .values = {value.get<std::int64_t>()}};
    } else if (value.is_array()) {
      label.name = key;
      for (const json& part : value) {
        if (part.is_number_integer()) label.values.push_back(part.get<std::int64_t>());
      }
    }
    if (!label.values.empty()) labels.push_back(std::move(label));
  }
  return labels;
}

/// Names of the channels in their order.
std::vector<std::string> ChannelsOf(const json& dataset) {
  std::vector<std::string> names;
  for (const char* key : {"channel_names", "modality"}) {
    if (!dataset.contains(key) || !dataset[key].is_object()) continue;
    const json& channels = dataset[key];
    for (std::size_t i = 0; i < channels.size(); ++i) {
      const std::string index = std::to_string(i);
      if (channels.contains(index) && channels[index].is_string()) {
        names.push_back(channels[index].get<std::string>());
      }
    }
    break;
  }
  return names;
}

std::string FileEndingOf(const json& dataset) {
  if (dataset.contains("file_ending") && dataset["file_ending"].is_string()) {
    return dataset["file_ending"].get<std::string>();
  }
  return ".nii.gz";
}

struct ListedCase {
  std::filesystem::path image;
  std::filesystem::path label;
};

/// Whether a dataset.json names a file below its own folder, as far as names tell; symbolic links
/// are the site's own doing.
bool StaysInside(const std::filesystem::path& named) {
  const std::filesystem::path path = named.lexically_normal();
  return path.is_relative() && !path.empty() && *path.begin() != "..";
}

/// A cohort is what lies in the folder that client.toml names: whoever made its dataset.json must
/// not be able to add other files of this machine.
absl::Status CheckStaysInside(const std::string& named, const std::filesystem::path& folder) {
  if (StaysInside(named)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} names {}, which is not in its folder: name files below it, or put a symbolic "
                  "link there",
                  (folder / "dataset.json").string(), named));
}

/// The entries of Decathlon's "training" that name both files. Of the others, and of those that
/// leave the folder, `left_out` gets a line; without it the latter are errors.
absl::StatusOr<std::vector<ListedCase>> TrainingOf(const json& dataset,
                                                   const std::filesystem::path& folder,
                                                   std::vector<std::string>* left_out = nullptr) {
  std::vector<ListedCase> listed;
  if (!dataset.contains("training") || !dataset["training"].is_array()) return listed;
  for (const json& entry : dataset["training"]) {
    if (!entry.is_object() || !entry.contains("image") || !entry["image"].is_string() ||
        !entry.contains("label") || !entry["label"].is_string()) {
      if (left_out != nullptr) {
        left_out->push_back(
            fmt::format("{}: an entry of \"training\" names not both image and label",
                        (folder / "dataset.json").string()));
      }
      continue;
    }
    const auto image = entry["image"].get<std::string>();
    const auto label = entry["label"].get<std::string>();
    absl::Status inside = CheckStaysInside(image, folder);
    inside.Update(CheckStaysInside(label, folder));
    if (!inside.ok()) {
      if (left_out == nullptr) return inside;
      left_out->emplace_back(inside.message());
      continue;
    }
    listed.push_back({.image = (folder / image).lexically_normal(),
                      .label = (folder / label).lexically_normal()});
  }
  return listed;
}

/// The values of a label file by name; of a region's values, those that have no name of their own
/// are called by the region.
ScanFiles::LabelFile LabelFileOf(const json& dataset, std::filesystem::path path) {
  ScanFiles::LabelFile file{.path = std::move(path), .names = {}};
  std::vector<NamedValues> labels = LabelsOf(dataset);
  std::stable_sort(labels.begin(), labels.end(),
                   [](const NamedValues& left, const NamedValues& right) {
                     return left.values.size() < right.values.size();
                   });
  for (const NamedValues& label : labels) {
    // nnU-Net's "ignore" says that nobody knows what is there: a study cannot use it.
    if (SameName(label.name, "ignore")) continue;
    for (const std::int64_t value : label.values) {
      if (value != 0) file.names.emplace(value, label.name);
    }
  }
  file.closed = !labels.empty();
  return file;
}

/// Which of the cohort's channels is the study's `channel`.
absl::StatusOr<std::size_t> ChannelIndex(const CohortFolder& folder, const Study& study,
                                         const std::string& channel,
                                         const std::vector<std::string>& names,
                                         const std::filesystem::path& source) {
  const auto configured = folder.channels.find(channel);
  const std::string& wanted = configured != folder.channels.end() ? configured->second : channel;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (SameName(names[i], wanted)) return i;
  }
  const bool only_one = study.channels.size() == 1 && names.size() <= 1;
  if (only_one && configured == folder.channels.end()) return 0;
  return absl::InvalidArgumentError(
      fmt::format("{} has no channel \"{}\" for the study's channel \"{}\": it has {}; set {} = "
                  "\"NAME\" under [cohort.channels] in client.toml",
                  source.string(), wanted, channel, Quoted(names), channel));
}

absl::Status CheckOneImagePerFile(const std::vector<std::string>& channels,
                                  const std::filesystem::path& source) {
  if (channels.size() <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} has {} channels ({}) in one 4D file, Isoscan reads one 3D image per channel: "
                  "convert it with `nnUNetv2_convert_MSD_dataset` and name the result",
                  source.string(), channels.size(), Quoted(channels)));
}

/// Per channel of the study, the number of the cohort's.
absl::StatusOr<std::vector<std::size_t>> ChannelIndices(const CohortFolder& folder,
                                                        const Study& study,
                                                        const std::vector<std::string>& names,
                                                        const std::filesystem::path& source) {
  std::vector<std::size_t> indices;
  for (const std::string& channel : study.channels) {
    ASSIGN_OR_RETURN(const std::size_t index, ChannelIndex(folder, study, channel, names, source));
    indices.push_back(index);
  }
  return indices;
}

/// The mask of Mask::kGiven lies beside the labels, in masksTr, under the label file's name.
std::filesystem::path GivenMaskOf(const CohortFolder& folder, const std::filesystem::path& label) {
  return folder.folder / "masksTr" / label.filename();
}

/// Adds a case whose files are all there; otherwise a line to `left_out`.
void AddCase(const CohortFolder& folder, const Study& study, CaseFiles files,
             const std::filesystem::path& label, std::vector<CaseFiles>& cases,
             std::vector<std::string>& left_out) {
  if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) {
    files.mask = GivenMaskOf(folder, label);
  }
  std::vector<std::filesystem::path> needed = files.images;
  needed.push_back(label);
  if (!files.mask.empty()) needed.push_back(files.mask);
  for (const std::filesystem::path& path : needed) {
    if (Exists(path)) continue;
    left_out.push_back(fmt::format("{}: there is no {}", files.name, path.string()));
    return;
  }
  cases.push_back(std::move(files));
}

}  // namespace

std::optional<NumberedImage> NumberedImageOf(const std::string& stem) {
  const std::size_t underscore = stem.rfind('_');
  if (underscore == std::string::npos) return std::nullopt;
  const std::optional<std::int64_t> channel = ToInteger(stem.substr(underscore + 1));
  if (!channel.has_value() || *channel < 0) return std::nullopt;
  return NumberedImage{.name = stem.substr(0, underscore),
                       .channel = static_cast<std::size_t>(*channel)};
}

absl::StatusOr<CohortFolder::Layout> LayoutOfDatasetJson(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder));
  if (dataset.contains("file_ending") || dataset.contains("channel_names")) {
    return CohortFolder::Layout::kNnunet;
  }
  // nnU-Net's first version kept Decathlon's dataset.json but numbered the channels' files.
  std::vector<std::string> told_later;  // By whoever lists the cases.
  ASSIGN_OR_RETURN(const std::vector<ListedCase> listed, TrainingOf(dataset, folder, &told_later));
  if (!listed.empty() && !Exists(listed.front().image)) {
    const std::filesystem::path& image = listed.front().image;
    if (Exists(image.parent_path() / (StemOf(image) + "_0000.nii.gz"))) {
      return CohortFolder::Layout::kNnunet;
    }
  }
  return CohortFolder::Layout::kDecathlon;
}

absl::StatusOr<std::vector<CaseFiles>> ListDecathlonCases(const CohortFolder& folder,
                                                          const Study& study,
                                                          std::vector<std::string>* left_out) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder.folder));
  const std::filesystem::path source = folder.folder / "dataset.json";
  const std::vector<std::string> channels = ChannelsOf(dataset);
  RETURN_IF_ERROR(CheckOneImagePerFile(channels, source));
  RETURN_IF_ERROR(ChannelIndices(folder, study, channels, source).status());
  ASSIGN_OR_RETURN(const auto values, MapValues(folder, study, LabelsOf(dataset), source.string()));
  ASSIGN_OR_RETURN(const std::vector<ListedCase> listed, TrainingOf(dataset, folder.folder));
  if (listed.empty()) {
    return absl::NotFoundError(
        fmt::format("no case in {}: its list \"training\" is empty or missing; for nnU-Net's "
                    "layout set layout = "
                    "\"nnunet\" in client.toml",
                    source.string()));
  }
  std::vector<CaseFiles> cases;
  for (const ListedCase& entry : listed) {
    CaseFiles files{.name = StemOf(entry.image),
                    .cohort = folder.name,
                    .images = {entry.image},
                    .labels = {{.path = entry.label, .values = values}},
                    .mask = {}};
    AddCase(folder, study, std::move(files), entry.label, cases, *left_out);
  }
  return cases;
}

absl::StatusOr<std::vector<CaseFiles>> ListNnunetCases(const CohortFolder& folder,
                                                       const Study& study,
                                                       std::vector<std::string>* left_out) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder.folder));
  const std::filesystem::path source = folder.folder / "dataset.json";
  ASSIGN_OR_RETURN(const std::vector<std::size_t> indices,
                   ChannelIndices(folder, study, ChannelsOf(dataset), source));
  ASSIGN_OR_RETURN(const auto values, MapValues(folder, study, LabelsOf(dataset), source.string()));

  const std::string ending = FileEndingOf(dataset);
  std::vector<CaseFiles> cases;
  for (const std::filesystem::path& label : SortedEntries(folder.folder / "labelsTr")) {
    const std::string file = label.filename().string();
    if (!file.ends_with(ending)) continue;
    CaseFiles files{.name = file.substr(0, file.size() - ending.size()),
                    .cohort = folder.name,
                    .images = {},
                    .labels = {{.path = label, .values = values}},
                    .mask = {}};
    for (const std::size_t index : indices) {
      files.images.push_back(folder.folder / "imagesTr" /
                             fmt::format("{}_{:04}{}", files.name, index, ending));
    }
    AddCase(folder, study, std::move(files), label, cases, *left_out);
  }
  return cases;
}

absl::StatusOr<std::vector<CohortImage>> ListDatasetJsonImages(const CohortFolder& folder,
                                                               const Study& study) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder.folder));
  ASSIGN_OR_RETURN(const CohortFolder::Layout layout, LayoutOfDatasetJson(folder.folder));
  const bool numbered = layout == CohortFolder::Layout::kNnunet;
  const std::filesystem::path source = folder.folder / "dataset.json";
  const std::vector<std::string> names = ChannelsOf(dataset);
  if (!numbered) RETURN_IF_ERROR(CheckOneImagePerFile(names, source));
  ASSIGN_OR_RETURN(const std::vector<std::size_t> indices,
                   ChannelIndices(folder, study, names, source));

  // Decathlon's list may name images in other folders.
  std::map<std::filesystem::path, std::string> mask_of;  // Image -> its mask's name.
  if (!numbered) {
    std::vector<std::string> told_by_inspect;
    ASSIGN_OR_RETURN(const std::vector<ListedCase> listed,
                     TrainingOf(dataset, folder.folder, &told_by_inspect));
    for (const ListedCase& entry : listed) {
      if (Exists(entry.image)) mask_of[entry.image] = StemOf(entry.label);
    }
  }
  for (const char* images : {"imagesTr", "imagesTs"}) {
    for (const std::filesystem::path& path : SortedEntries(folder.folder / images)) {
      if (!IsImageFile(path)) continue;
      const std::optional<NumberedImage> image = NumberedImageOf(StemOf(path));
      mask_of.emplace(path.lexically_normal(),
                      numbered && image.has_value() ? image->name : StemOf(path));
    }
  }
  std::vector<CohortImage> images;
  for (const auto& [path, mask] : mask_of) {
    CohortImage& image = images.emplace_back();
    image.path = path;
    const std::optional<NumberedImage> number = NumberedImageOf(StemOf(path));
    image.name = numbered && number.has_value() ? number->name : StemOf(path);
    for (std::size_t channel = 0; channel < indices.size() && !image.channel; ++channel) {
      const bool shown = !numbered || (number.has_value() && number->channel == indices[channel]);
      if (shown) image.channel = channel;
    }
    if (study.harmonization.mask != HarmonizationPlan::Mask::kGiven) continue;
    image.mask = FileOfCase(folder.folder / "masksTr", mask).value_or(std::filesystem::path());
  }
  return images;
}

absl::StatusOr<std::vector<ScanFiles>> ListDecathlonScans(const CohortFolder& folder,
                                                          std::vector<std::string>* left_out) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder.folder));
  const std::vector<std::string> channels = ChannelsOf(dataset);
  ASSIGN_OR_RETURN(const std::vector<ListedCase> listed,
                   TrainingOf(dataset, folder.folder, left_out));
  Sidecars sidecars(folder.folder);
  std::vector<ScanFiles> scans;
  for (const ListedCase& entry : listed) {
    ScanFiles& scan = scans.emplace_back();
    scan.name = StemOf(entry.image);
    scan.cohort = folder.name;
    scan.images.push_back(
        {.path = entry.image, .channel = channels.size() == 1 ? channels.front() : ""});
    scan.labels.push_back(LabelFileOf(dataset, entry.label));
    scan.sidecar = sidecars.Of(entry.image);
  }
  return scans;
}

absl::StatusOr<std::vector<ScanFiles>> ListNnunetScans(const CohortFolder& folder,
                                                       std::vector<std::string>* left_out) {
  ASSIGN_OR_RETURN(const json dataset, ReadDatasetJson(folder.folder));
  const std::vector<std::string> channels = ChannelsOf(dataset);
  const std::string ending = FileEndingOf(dataset);
  Sidecars sidecars(folder.folder);
  std::map<std::string, ScanFiles> scans;
  for (const std::filesystem::path& path : SortedEntries(folder.folder / "imagesTr")) {
    const std::string file = path.filename().string();
    if (!file.ends_with(ending)) continue;
    const std::optional<NumberedImage> numbered =
        NumberedImageOf(file.substr(0, file.size() - ending.size()));
    if (!numbered.has_value()) {
      left_out->push_back(fmt::format(
          "{}: its name does not end in a channel's number, such as _0000", path.string()));
      continue;
    }
    const auto& [name, channel] = *numbered;
    ScanFiles& scan = scans[name];
    scan.images.push_back(
        {.path = path, .channel = channel < channels.size() ? channels[channel] : ""});
    if (scan.images.size() > 1) continue;
    scan.name = name;
    scan.cohort = folder.name;
    scan.sidecar = sidecars.Of(path);
  }
  for (const std::filesystem::path& label : SortedEntries(folder.folder / "labelsTr")) {
    const std::string file = label.filename().string();
    if (!file.ends_with(ending)) continue;
    const auto scan = scans.find(file.substr(0, file.size() - ending.size()));
    if (scan == scans.end()) {
      left_out->push_back(fmt::format("{}: there is no image in imagesTr", label.string()));
    } else {
      scan->second.labels = {LabelFileOf(dataset, label)};
    }
  }
  std::vector<ScanFiles> listed;
  for (auto& [name, scan] : scans) listed.push_back(std::move(scan));
  return listed;
}

}  // namespace isoscan
