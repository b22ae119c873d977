#include "client/simulation/simulated_cohort.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <system_error>

#include "client/imaging/image_file.h"
#include "common/process/progress.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

absl::Status MakeEmptyFolder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_empty(folder, error)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is not empty; choose a new folder or remove it", folder.string()));
  }
  fs::create_directories(folder, error);
  if (error) return FileError("cannot make the folder", folder.string(), error);
  return absl::OkStatus();
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return FileError("cannot make the folder", folder.string(), error);
  return absl::OkStatus();
}

absl::Status WriteDatasetDescriptions(const fs::path& folder, const Scanner& scanner) {
  RETURN_IF_ERROR(WriteFileAtomically(
      folder / "dataset_description.json",
      fmt::format("{{\"Name\": \"Simulated cohort of scanner {}\", \"BIDSVersion\": \"1.8.0\"}}\n",
                  scanner.name)));
  RETURN_IF_ERROR(MakeFolder(folder / "derivatives" / "labels"));
  return WriteFileAtomically(
      folder / "derivatives" / "labels" / "dataset_description.json",
      "{\"Name\": \"Labels\", \"BIDSVersion\": \"1.8.0\", \"DatasetType\": \"derivative\", "
      "\"GeneratedBy\": [{\"Name\": \"isoscan-sandbox simulate\"}]}\n");
}

/// One label as a binary mask.
LabelMap MaskOf(const LabelMap& labels, std::uint8_t label) {
  LabelMap mask{.geometry = labels.geometry, .voxels = {}};
  mask.voxels.reserve(labels.voxels.size());
  for (const std::uint8_t voxel : labels.voxels) mask.voxels.push_back(voxel == label ? 1 : 0);
  return mask;
}

bool IsImage(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".nii.gz") || name.ends_with(".nii") || name.ends_with(".nrrd") ||
         name.ends_with(".mha");
}

bool IsLabel(const fs::path& relative) {
  for (const fs::path& part : relative) {
    if (part == "labelsTr" || part == "labelsTs" || part == "derivatives") return true;
  }
  return false;
}

}  // namespace

absl::Status WriteSimulatedCohort(const fs::path& folder, const Anatomy& anatomy,
                                  const std::vector<AtlasLabel>& labels, const Scanner& scanner,
                                  const PatientVariation& variation, std::int64_t patients,
                                  std::uint64_t seed) {
  RETURN_IF_ERROR(MakeEmptyFolder(folder));
  RETURN_IF_ERROR(WriteDatasetDescriptions(folder, scanner));
  Progress progress("simulating " + scanner.name, patients);
  for (std::int64_t number = 1; number <= patients; ++number) {
    const auto coordinate = static_cast<std::uint64_t>(number);
    const Anatomy patient =
        MakePatient(anatomy, variation, RandomStream(seed, "anatomy/" + scanner.name, coordinate));
    const Volume scan =
        Scan(patient.image, scanner, RandomStream(seed, "scan/" + scanner.name, coordinate));

    const std::string subject = fmt::format("sub-{:04}", number);
    const fs::path anat = folder / subject / "anat";
    const fs::path masks = folder / "derivatives" / "labels" / subject / "anat";
    RETURN_IF_ERROR(MakeFolder(anat));
    RETURN_IF_ERROR(MakeFolder(masks));
    RETURN_IF_ERROR(WriteVolume(anat / (subject + "_T1w.nii.gz"), scan));
    RETURN_IF_ERROR(
        WriteFileAtomically(anat / (subject + "_T1w.json"),
                            fmt::format("{{\"Modality\": \"MR\", \"Manufacturer\": \"simulated\", "
                                        "\"ManufacturersModelName\": \"{}\"}}\n",
                                        scanner.name)));
    for (std::size_t label = 0; label < labels.size(); ++label) {
      RETURN_IF_ERROR(
          WriteLabelMap(masks / fmt::format("{}_label-{}_mask.nii.gz", subject, labels[label].name),
                        MaskOf(patient.labels, static_cast<std::uint8_t>(label + 1))));
    }
    progress.Advance(number);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> RescanCohort(const fs::path& source, const fs::path& target,
                                          const Scanner& scanner, std::uint64_t seed) {
  std::error_code error;
  if (!fs::is_directory(source, error)) {
    return absl::NotFoundError(fmt::format("there is no folder {}", source.string()));
  }
  RETURN_IF_ERROR(MakeEmptyFolder(target));
  std::int64_t images = 0;
  const auto options = fs::directory_options::follow_directory_symlink;
  for (const fs::directory_entry& entry :
       fs::recursive_directory_iterator(source, options, error)) {
    const fs::path relative = entry.path().lexically_relative(source);
    if (entry.is_directory()) {
      RETURN_IF_ERROR(MakeFolder(target / relative));
      continue;
    }
    if (!IsImage(relative) || IsLabel(relative)) {
      fs::copy_file(entry.path(), target / relative, error);
      if (error) return FileError("cannot copy", relative.string(), error);
      continue;
    }
    ASSIGN_OR_RETURN(const Volume volume, ReadVolume(entry.path()));
    // The file's name places its noise, so that the same scan gets the same noise in any order.
    RETURN_IF_ERROR(WriteVolume(
        target / relative,
        Scan(volume, scanner, RandomStream(seed, "rescan/" + relative.generic_string()))));
    ++images;
  }
  if (error) return FileError("cannot read the folder", source.string(), error);
  return images;
}

}  // namespace isoscan
