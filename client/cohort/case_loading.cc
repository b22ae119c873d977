#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "client/cohort/cohort.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/grid_check.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/imaging/resampling.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

absl::Status CheckGrid(const CaseFiles& files, const Geometry& image,
                       const std::filesystem::path& other_path, const Geometry& other) {
  const absl::Status same = CheckSameGrid(files.images.front(), image, other_path, other);
  if (same.ok()) return same;
  return absl::InvalidArgumentError(
      fmt::format("case {}: {}. Resample it onto the image with nearest neighbours, or leave the "
                  "case out",
                  files.name, std::string(same.message())));
}

/// Labels of one file as they are met; what is wrong with it is told once, with numbers.
class LabelReader {
 public:
  explicit LabelReader(const CaseFiles::LabelFile& file) : file_(file) {
    if (file.any_positive && !file.values.empty()) positive_ = file.values.begin()->second;
  }

  std::uint8_t LabelOf(float value) {
    if (value == 0) return 0;
    // Neighbours are alike: most voxels repeat the one before.
    if (value != last_value_) {
      last_label_ = Find(value);
      last_value_ = value;
    }
    if (last_label_ == kUnknown) ++unknown_[value];
    if (last_label_ == kFractional) ++fractional_;
    return last_label_ < 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(last_label_);
  }

  absl::Status Finish(const CaseFiles& files) const {
    if (fractional_ > 0) {
      return absl::InvalidArgumentError(
          fmt::format("case {}: {} voxels of {} are NaN, negative or no whole numbers, such as "
                      "{:g}: a label map "
                      "holds whole numbers; threshold a probability map at 0.5, and resample "
                      "labels with nearest "
                      "neighbours",
                      files.name, fractional_, file_.path.string(), example_));
    }
    if (unknown_.empty()) return absl::OkStatus();
    std::string values;
    std::size_t shown = 0;
    for (const auto& [value, voxels] : unknown_) {
      if (++shown > 5) {
        values += fmt::format(", and {} more", unknown_.size() - 5);
        break;
      }
      values += fmt::format("{}{:g} ({} voxels)", values.empty() ? "" : ", ", value, voxels);
    }
    return absl::InvalidArgumentError(fmt::format(
        "case {}: {} holds values that no label is mapped to: {}; name their labels, or set "
        "background = [VALUE], under [cohort.labels] in client.toml",
        files.name, file_.path.string(), values));
  }

 private:
  static constexpr int kUnknown = -1;
  static constexpr int kFractional = -2;

  int Find(float value) {
    if (!(value > -9e15f && value < 9e15f) || value != std::floor(value) ||
        (file_.any_positive && value < 0)) {
      example_ = value;
      return kFractional;
    }
    if (file_.any_positive) return positive_;
    const auto label = file_.values.find(static_cast<std::int64_t>(value));
    return label == file_.values.end() ? kUnknown : label->second;
  }

  const CaseFiles::LabelFile& file_;
  int positive_ = 0;
  float last_value_ = 0;
  int last_label_ = 0;
  float example_ = 0;
  std::int64_t fractional_ = 0;
  std::map<float, std::int64_t> unknown_;
};

/// Writes the labels of one file over those of the files before it.
absl::Status AddLabels(const CaseFiles& files, const CaseFiles::LabelFile& file, LabelMap& labels) {
  ASSIGN_OR_RETURN(Volume stored, ReadLabelValues(file.path, files.geometry));
  const Volume values = ToCanonical(std::move(stored));
  RETURN_IF_ERROR(CheckGrid(files, labels.geometry, file.path, values.geometry));
  LabelReader reader(file);
  for (std::size_t i = 0; i < values.voxels.size(); ++i) {
    if (const std::uint8_t label = reader.LabelOf(values.voxels[i])) labels.voxels[i] = label;
  }
  return reader.Finish(files);
}

absl::StatusOr<std::vector<std::uint8_t>> ReadMask(const CaseFiles& files, const Geometry& grid) {
  ASSIGN_OR_RETURN(Volume stored, ReadLabelValues(files.mask, files.geometry));
  const Volume values = ToCanonical(std::move(stored));
  RETURN_IF_ERROR(CheckGrid(files, grid, files.mask, values.geometry));
  std::vector<std::uint8_t> mask(values.voxels.size());
  std::transform(values.voxels.begin(), values.voxels.end(), mask.begin(),
                 [](float value) { return value > 0 ? std::uint8_t{1} : std::uint8_t{0}; });
  return mask;
}

absl::Status CheckThatNoLabelIsErased(const LoadedCase& loaded, const CaseFiles& files) {
  std::int64_t labelled = 0;
  std::int64_t erased = 0;
  for (std::size_t i = 0; i < loaded.labels.voxels.size(); ++i) {
    if (loaded.labels.voxels[i] == 0) continue;
    ++labelled;
    erased += loaded.mask[i] == 0 ? 1 : 0;
  }
  if (erased == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "case {}: {} of {} labelled voxels lie outside its mask, and outside = \"zero\" would erase "
      "them: correct the mask, or let the study use outside = \"keep\"",
      files.name, erased, labelled));
}

}  // namespace

absl::StatusOr<LoadedCase> LoadCase(const CaseFiles& files, const Study& study) {
  if (files.images.size() != study.channels.size()) {
    return absl::InvalidArgumentError(fmt::format("case {} has {} images, the study {} channels",
                                                  files.name, files.images.size(),
                                                  study.channels.size()));
  }
  LoadedCase loaded;
  for (std::size_t channel = 0; channel < files.images.size(); ++channel) {
    const std::filesystem::path& path = files.images[channel];
    ASSIGN_OR_RETURN(Volume stored, files.series.empty() ? ReadVolume(path, files.geometry)
                                                         : ReadDicomSeries(files.series[channel]));
    if (loaded.channels.empty()) loaded.stored = stored.geometry;
    loaded.channels.push_back(ToCanonical(std::move(stored)));
    RETURN_IF_ERROR(
        CheckGrid(files, loaded.channels.front().geometry, path, loaded.channels.back().geometry));
  }
  const Geometry& grid = loaded.channels.front().geometry;
  loaded.labels.geometry = grid;
  loaded.labels.voxels.assign(static_cast<std::size_t>(grid.voxels()), 0);
  for (const CaseFiles::LabelFile& file : files.labels) {
    RETURN_IF_ERROR(AddLabels(files, file, loaded.labels));
  }
  if (!files.mask.empty()) {
    ASSIGN_OR_RETURN(loaded.mask, ReadMask(files, grid));
  }
  return loaded;
}

absl::StatusOr<PreparedCase> PrepareCase(const LoadedCase& loaded, const CaseFiles& files,
                                         const Study& study,
                                         std::vector<HarmonizationRecord>* records) {
  const HarmonizationPlan& plan = study.harmonization;
  std::optional<Mask> given;
  if (plan.mask == HarmonizationPlan::Mask::kGiven) {
    given = loaded.mask;
    if (plan.outside == HarmonizationPlan::Outside::kZero && !loaded.mask.empty()) {
      RETURN_IF_ERROR(CheckThatNoLabelIsErased(loaded, files));
    }
  }
  const std::array<double, 3> spacing_mm{plan.spacing_mm[2], plan.spacing_mm[1],
                                         plan.spacing_mm[0]};
  const ImageInterpolation interpolation =
      plan.interpolation == HarmonizationPlan::Interpolation::kBSpline
          ? ImageInterpolation::kBSpline
          : ImageInterpolation::kLinear;
  PreparedCase prepared;
  prepared.cohort = files.cohort;
  prepared.reference_grid = loaded.labels.geometry;
  prepared.reference_labels = loaded.labels.voxels;
  prepared.grid = WithSpacing(loaded.labels.geometry, spacing_mm);
  std::vector<float> image;
  for (std::size_t channel = 0; channel < loaded.channels.size(); ++channel) {
    Volume volume = loaded.channels[channel];
    volume.geometry = loaded.labels.geometry;
    const auto harmonized = Harmonize(volume, plan, given, channel);
    if (!harmonized.ok()) {
      return absl::Status(harmonized.status().code(),
                          fmt::format("case {}, {}: {}", files.name, study.channels[channel],
                                      std::string(harmonized.status().message())));
    }
    if (records != nullptr) records->push_back(*harmonized);
    if (prepared.grid != volume.geometry) volume = Resample(volume, prepared.grid, interpolation);
    image.insert(image.end(), volume.voxels.begin(), volume.voxels.end());
  }
  prepared.image = std::move(image);
  prepared.labels = prepared.reference_labels;
  if (prepared.grid != prepared.reference_grid) {
    prepared.labels = Resample(loaded.labels, prepared.grid).voxels;
  }
  return prepared;
}

std::string TrainingDigest(const PreparedCase& prepared) {
  const auto& size = prepared.grid.size;
  Sha256 digest;
  digest.Update(fmt::format("case {} {} {}\n", size[0], size[1], size[2]));
  digest.Update({reinterpret_cast<const char*>(prepared.image.data()),
                 prepared.image.size() * sizeof(float)});
  digest.Update({reinterpret_cast<const char*>(prepared.labels.data()), prepared.labels.size()});
  return std::move(digest).Finish();
}

}  // namespace isoscan
