#include "client/prediction/prediction_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "client/cohort/harmonization_json.h"
#include "client/cohort/harmonized_copy.h"
#include "client/cohort/layouts.h"
#include "client/cohort/output_folder.h"
#include "client/imaging/dicom_segmentation.h"
#include "client/imaging/image_file.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kDescription[] = "dataset_description.json";
constexpr char kGenerator[] = "Isoscan";
constexpr char kSegmentationKey[] = "dicom_seg";
constexpr char kModelKey[] = "model_sha256";  ///< No record but a prediction's has it.

/// A study's name as BIDS takes it for a `desc-`: letters and digits alone.
std::string DescOf(const Study& study) {
  std::string name;
  std::copy_if(study.name.begin(), study.name.end(), std::back_inserter(name),
               [](char letter) { return letter != '-'; });
  return name;
}

std::string Text(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

/// The folder of the input that its files are named relative to.
fs::path RootOf(const fs::path& input) {
  std::error_code ignored;
  return fs::is_directory(input, ignored) ? input : input.parent_path();
}

/// OK when nothing is there that is not ours.
absl::Status CheckDataset(const fs::path& output) {
  const fs::path path = output / kDescription;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return absl::OkStatus();
  const json description = ReadJsonObject(path);
  const json generators = description.value("GeneratedBy", json::array());
  for (const json& generator : generators) {
    if (generator.is_object() && generator.value("Name", "") == kGenerator) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "{} is another dataset, as its {} says: name a folder of its own for the predictions, such "
      "as derivatives/isoscan of the input",
      output.string(), kDescription));
}

/// The folder of a BIDS scan from the dataset's root: sub-01/ses-1/anat.
fs::path BidsFolderOf(const CaseFiles& files, const fs::path& root) {
  return files.images.front().lexically_relative(root).parent_path();
}

json LabelsOf(const LabelMap& labels, const Study& study) {
  std::vector<std::int64_t> voxels(static_cast<std::size_t>(study.classes()), 0);
  for (const std::uint8_t label : labels.voxels) ++voxels[label];
  const std::array<double, 3>& spacing = labels.geometry.spacing_mm;
  const double voxel_ml = spacing[0] * spacing[1] * spacing[2] / 1000;
  json list = json::array();
  for (std::size_t label = 0; label < study.labels.size(); ++label) {
    list.push_back({{"value", label + 1},
                    {"name", study.labels[label]},
                    {"voxels", voxels[label + 1]},
                    {"ml", voxel_ml * static_cast<double>(voxels[label + 1])}});
  }
  return list;
}

absl::StatusOr<std::string> DigestOfChannel(const CaseFiles& files, std::size_t channel) {
  return files.series.empty() ? DigestOfImage(files.images[channel])
                              : DigestOfSeries(files.series[channel]);
}

}  // namespace

fs::path PredictionPlaces::folder() const {
  return layout == Layout::kOneFile ? output.parent_path() : output;
}

absl::StatusOr<PredictionPlaces> PlacesOf(const PredictionRequest& request) {
  PredictionPlaces places;
  ASSIGN_OR_RETURN(places.input, CanonicalPath(request.input.folder));
  ASSIGN_OR_RETURN(places.output, CanonicalPath(request.output));
  std::error_code ignored;
  const bool is_folder = fs::is_directory(places.input, ignored);
  const CohortFolder::Layout layout = request.input.layout;
  const bool bids =
      is_folder && (layout == CohortFolder::Layout::kBids ||
                    (layout == CohortFolder::Layout::kAuto && LooksLikeBids(places.input) &&
                     !fs::exists(places.input / "dataset.json", ignored)));
  places.layout = IsNifti(places.output) ? PredictionPlaces::Layout::kOneFile
                  : bids                 ? PredictionPlaces::Layout::kBids
                                         : PredictionPlaces::Layout::kFolder;
  const fs::path derivatives = places.input / "derivatives";
  const bool derivative =
      bids && places.output != derivatives && LiesInside(places.output, derivatives);
  if (places.output == places.input ||
      (is_folder && LiesInside(places.output, places.input) && !derivative)) {
    return absl::InvalidArgumentError(fmt::format(
        "the output {} would overwrite or lie inside the input {}: name another place{}",
        request.output.string(), request.input.folder.string(),
        bids ? ", or a folder below its derivatives/" : ""));
  }
  if (places.layout == PredictionPlaces::Layout::kBids) {
    RETURN_IF_ERROR(CheckDataset(places.output));
  }
  return places;
}

absl::StatusOr<std::vector<fs::path>> LabelFilesOf(const PredictionPlaces& places,
                                                   const std::vector<CaseFiles>& cases,
                                                   const Study& study) {
  if (places.layout == PredictionPlaces::Layout::kOneFile && cases.size() > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} is one file, and {} has {} cases: name a folder for them",
                    places.output.string(), places.input.string(), cases.size()));
  }
  std::vector<fs::path> labels;
  std::map<fs::path, std::string> taken;
  for (const CaseFiles& files : cases) {
    fs::path path = places.output;
    if (places.layout == PredictionPlaces::Layout::kBids) {
      path /= BidsFolderOf(files, places.input) /
              fmt::format("{}_desc-{}_dseg.nii.gz", files.name, DescOf(study));
    } else if (places.layout == PredictionPlaces::Layout::kFolder) {
      path /= files.name + ".nii.gz";
    }
    const auto [other, inserted] = taken.emplace(path, files.images.front().string());
    if (!inserted) {
      return absl::InvalidArgumentError(fmt::format(
          "{} and {} would both be written as {}: rename one of them", other->second,
          files.images.front().string(), path.lexically_relative(places.folder()).string()));
    }
    labels.push_back(std::move(path));
  }
  return labels;
}

fs::path RecordOfLabels(const fs::path& labels) {
  return labels.parent_path() / (StemOf(labels) + ".json");
}

fs::path SegmentationOfLabels(const fs::path& labels) {
  return labels.parent_path() / (StemOf(labels) + ".dcm");
}

absl::Status WriteDatasetFiles(const PredictionPlaces& places, const Study& study) {
  if (places.layout != PredictionPlaces::Layout::kBids) return absl::OkStatus();
  // From a derivative inside the dataset by the way up, so that both may move together.
  const std::string source = LiesInside(places.output, places.input)
                                 ? places.input.lexically_relative(places.output).string()
                                 : "file://" + places.input.string();
  const json description{{"Name", fmt::format("Labels by the model of study {}", study.name)},
                         {"BIDSVersion", "1.8.0"},
                         {"DatasetType", "derivative"},
                         {"GeneratedBy", {{{"Name", kGenerator}, {"Version", kVersion}}}},
                         {"SourceDatasets", {{{"URL", source}}}},
                         {"DatasetLinks", {{"raw", source}}}};
  std::string table = "index\tname\n0\tbackground\n";
  for (std::size_t label = 0; label < study.labels.size(); ++label) {
    table += fmt::format("{}\t{}\n", label + 1, study.labels[label]);
  }
  RETURN_IF_ERROR(InFolder(WriteFileAtomically(places.output / kDescription, Text(description)),
                           places.output));
  return InFolder(
      WriteFileAtomically(places.output / fmt::format("desc-{}_dseg.tsv", DescOf(study)), table),
      places.output);
}

absl::Status RemoveLeftovers(const PredictionPlaces& places, const std::vector<fs::path>& labels) {
  std::set<fs::path> folders{places.folder()};
  std::set<fs::path> targets{places.output / kDescription};
  for (const fs::path& path : labels) {
    folders.insert(path.parent_path());
    targets.insert(path);
    targets.insert(RecordOfLabels(path));
    targets.insert(SegmentationOfLabels(path));
  }
  for (const fs::path& folder : folders) {
    for (const fs::path& entry : SortedEntries(folder)) {
      const fs::path target = TargetOfLeftover(entry);
      if (targets.contains(target) ||
          (folder == places.folder() && target.string().ends_with("_dseg.tsv"))) {
        RETURN_IF_ERROR(RemoveFile(entry));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> MadeOf(const CaseFiles& files, const PredictionRequest& request) {
  const Study& study = request.study;
  json made_of{{"version", kVersion},
               {"study", study.name},
               {"study_sha256", study.digest},
               {kModelKey, request.model_sha256},
               {"harmonization", json::parse(CanonicalText(study.harmonization))},
               {"harmonization_sha256", HarmonizationDigest(study.harmonization)},
               {"geometry", NameOf(files.geometry)},
               {"overlap", study.evaluation.overlap},
               {"mirror_axes", request.mirror_axes},
               {"inputs", json::array()}};
  ASSIGN_OR_RETURN(const fs::path input, CanonicalPath(request.input.folder));
  for (std::size_t channel = 0; channel < files.images.size(); ++channel) {
    ASSIGN_OR_RETURN(const std::string digest, DigestOfChannel(files, channel));
    made_of["inputs"].push_back(
        {{"channel", study.channels[channel]},
         {"file", files.images[channel].lexically_relative(RootOf(input)).string()},
         {"sha256", digest}});
  }
  if (request.dicom_seg && !files.series.empty()) made_of[kSegmentationKey] = true;
  if (!files.mask.empty()) {
    ASSIGN_OR_RETURN(made_of["mask_sha256"], DigestOfImage(files.mask));
  }
  return made_of;
}

bool IsPredicted(const fs::path& labels, const json& made_of) {
  const json record = ReadJsonObject(RecordOfLabels(labels));
  for (const auto& [key, value] : made_of.items()) {
    if (key == "inputs") continue;
    if (record.value(key, json()) != value) return false;
  }
  const json inputs = record.value("inputs", json::array());
  if (inputs.size() != made_of["inputs"].size()) return false;
  for (std::size_t channel = 0; channel < inputs.size(); ++channel) {
    for (const char* key : {"channel", "sha256"}) {
      if (inputs[channel].value(key, json()) != made_of["inputs"][channel][key]) return false;
    }
  }
  for (const char* key : {"mask_sha256", kSegmentationKey}) {
    if (record.contains(key) != made_of.contains(key)) return false;
  }
  if (made_of.contains(kSegmentationKey)) {
    const absl::StatusOr<std::string> segmentation = Sha256OfFile(SegmentationOfLabels(labels));
    if (!segmentation.ok() || record.value("dicom_seg_sha256", "") != *segmentation) return false;
  }
  const absl::StatusOr<std::string> digest = Sha256OfFile(labels);
  return digest.ok() && record.value("output_sha256", json()) == *digest;
}

absl::Status CheckNothingElseIsThere(const fs::path& labels, bool dicom_seg) {
  std::error_code ignored;
  const fs::path record = RecordOfLabels(labels);
  if (ReadJsonObject(record).contains(kModelKey)) return absl::OkStatus();
  std::vector<fs::path> places{labels, record};
  if (dicom_seg) places.push_back(SegmentationOfLabels(labels));
  for (const fs::path& path : places) {
    if (!fs::exists(path, ignored)) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} is there, and no prediction made it: move it away, or name another output",
                    path.string()));
  }
  return absl::OkStatus();
}

absl::Status WritePrediction(const PredictionPlaces& places, const PredictionRequest& request,
                             const CaseFiles& files, const LabelMap& labels, const fs::path& path,
                             const CaseRecord& record) {
  const fs::path folder = path.parent_path();
  RETURN_IF_ERROR(MakeFolder(folder));
  RETURN_IF_ERROR(
      InFolder(WriteFileAtomically(RecordOfLabels(path), Text(record.made_of)), folder));
  // A DICOM series has no forms to keep: both say the scanner's.
  const absl::Status written = files.series.empty()
                                   ? WriteLabelMapLike(files.images.front(), path, labels)
                                   : WriteLabelMap(path, labels);
  if (absl::IsInvalidArgument(written)) return written;
  RETURN_IF_ERROR(InFolder(written, folder));

  json text = record.made_of;
  if (record.made_of.contains(kSegmentationKey)) {
    const fs::path segmentation = SegmentationOfLabels(path);
    const absl::Status told =
        WriteDicomSegmentation(segmentation, files.series.front(), labels,
                               {.labels = request.study.labels,
                                .algorithm = fmt::format("Isoscan, study {}", request.study.name),
                                .version = kVersion,
                                .made_of = record.made_of.dump()});
    if (absl::IsInvalidArgument(told)) return told;
    RETURN_IF_ERROR(InFolder(told, folder));
    ASSIGN_OR_RETURN(text["dicom_seg_sha256"], Sha256OfFile(segmentation));
  }
  text["Description"] = fmt::format("Labels by the model of study {}", request.study.name);
  text["Manual"] = false;
  const char* const prefix = places.layout == PredictionPlaces::Layout::kBids ? "bids:raw:" : "";
  text["Sources"] = json::array();
  for (std::size_t channel = 0; channel < record.channels.size(); ++channel) {
    json& input = text["inputs"][channel];
    text["Sources"].push_back(prefix + input["file"].get<std::string>());
    input.update(JsonOf(record.channels[channel], labels.geometry));
  }
  text["labels"] = LabelsOf(labels, request.study);
  text["windows"] = record.windows;
  text["device"] = request.device;
  text["findings"] = json::array();
  for (const PredictedCases::Named& finding : record.findings) {
    text["findings"].push_back({{"fault", finding.name}, {"reason", finding.reason}});
  }
  ASSIGN_OR_RETURN(text["output_sha256"], Sha256OfFile(path));
  return InFolder(WriteFileAtomically(RecordOfLabels(path), Text(text)), folder);
}

absl::Status RemovePrediction(const fs::path& labels) {
  const json record = ReadJsonObject(RecordOfLabels(labels));
  if (!record.contains(kModelKey)) return absl::OkStatus();
  RETURN_IF_ERROR(RemoveFile(labels));
  if (record.contains(kSegmentationKey)) RETURN_IF_ERROR(RemoveFile(SegmentationOfLabels(labels)));
  return RemoveFile(RecordOfLabels(labels));
}

}  // namespace isoscan
