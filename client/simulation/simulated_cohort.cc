#include "client/simulation/simulated_cohort.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>
#include <system_error>

#include "client/imaging/image_file.h"
#include "client/simulation/protocol.h"
#include "client/simulation/scan_grid.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
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

/// The BIDS sidecar of one scan; `protocol` may be null.
std::string SidecarOf(const Scanner& scanner, const Protocol* protocol, const Sampling& sampling) {
  return fmt::format(
      "{{\"Modality\": \"MR\", \"Manufacturer\": \"simulated\", \"ManufacturersModelName\": "
      "\"{}\", {}\"SliceThickness\": {:.6g}, \"Simulation\": {{\"Protocol\": \"{}\", \"Scale\": "
      "{}, "
      "\"Bias\": {}, \"Gamma\": {}, \"Noise\": {}, \"ReceiveField\": {}, \"TransmitField\": {}, "
      "\"Bits\": {}, \"InPlanePointSpread\": {}, \"Oblique\": {}}}}}\n",
      scanner.name, protocol == nullptr ? "" : SidecarMembers(*protocol) + ", ",
      sampling.thickness_mm, protocol == nullptr ? "none" : protocol->name, scanner.scale,
      scanner.bias, scanner.gamma, scanner.noise, scanner.field, scanner.transmit, scanner.bits,
      scanner.psf, scanner.oblique);
}

/// How the scanner samples the anatomy's field of view.
Sampling SamplingOf(const Anatomy& anatomy, const Scanner& scanner, double default_spacing_mm) {
  std::array<double, 3> spacing = scanner.spacing_mm;
  if (spacing == std::array<double, 3>{}) spacing.fill(default_spacing_mm);
  return {.grid = ScanGrid(anatomy.field_of_view, spacing, scanner.orientation, scanner.oblique),
          .thickness_mm = scanner.thickness > 0 ? scanner.thickness : spacing[2],
          .in_plane_fwhm_mm = scanner.psf};
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
                                  const CohortPlan& plan) {
  if (scanner.protocols.empty() ? anatomy.image.voxels.empty() : anatomy.tissue.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "scanner {} {}", scanner.name,
        scanner.protocols.empty()
            ? "has no protocol, so it shows the head's own intensities: give the head (--anatomy)"
            : "has a protocol, which needs tissue: give tissue (--tissue) or the head and its "
              "brain (--anatomy, --brain)"));
  }
  const Sampling sampling = SamplingOf(anatomy, scanner, plan.spacing_mm);
  constexpr std::int64_t kBytesPerVoxel = 48;  // Tissue, intensities, labels, noise, scan.
  RETURN_IF_ERROR(CheckMemory(fmt::format("a person on the grid of scanner {}", scanner.name),
                              kBytesPerVoxel * sampling.grid.voxels()));
  RETURN_IF_ERROR(MakeEmptyFolder(folder));
  RETURN_IF_ERROR(WriteDatasetDescriptions(folder, scanner));
  Progress progress("simulating " + scanner.name, plan.patients);
  for (std::int64_t number = 1; number <= plan.patients; ++number) {
    const auto stream = [&](std::string_view purpose) {
      return RandomStream(plan.seed, fmt::format("{}/{}", purpose, scanner.name),
                          static_cast<std::uint64_t>(number));
    };
    const Anatomy patient = MakePatient(anatomy, sampling, plan.variation, stream("anatomy"));
    const std::string subject = fmt::format("sub-{:04}", number);
    const fs::path anat = folder / subject / "anat";
    const fs::path masks = folder / "derivatives" / "labels" / subject / "anat";
    RETURN_IF_ERROR(MakeFolder(anat));
    RETURN_IF_ERROR(MakeFolder(masks));

    const auto write = [&](const std::string& contrast, const Volume& scan,
                           const Protocol* protocol) -> absl::Status {
      RETURN_IF_ERROR(WriteVolume(anat / fmt::format("{}_{}.nii.gz", subject, contrast), scan));
      return WriteFileAtomically(anat / fmt::format("{}_{}.json", subject, contrast),
                                 SidecarOf(scanner, protocol, sampling));
    };
    if (scanner.protocols.empty()) {
      RETURN_IF_ERROR(write("T1w", Rescan(patient.image, scanner, stream("scan")), nullptr));
    }
    for (const Protocol& protocol : scanner.protocols) {
      const std::string contrast = ContrastOf(protocol);
      const TissueTable tissues = MakeTissues(protocol.field, plan.variation, stream("tissue"));
      RETURN_IF_ERROR(write(contrast,
                            Scan(patient, tissues, protocol, scanner, stream("scan/" + contrast)),
                            &protocol));
    }
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
  const Scanner plain;
  if (!scanner.protocols.empty() || scanner.transmit > 0 || scanner.thickness > 0 ||
      scanner.psf > 0 || scanner.oblique != 0 || scanner.spacing_mm != plain.spacing_mm ||
      scanner.orientation != plain.orientation) {
    return absl::InvalidArgumentError(fmt::format(
        "scanner {}: of a scan that exists, only scale, bias, gamma, noise, field and bits can be "
        "changed; simulate makes the rest from tissue",
        scanner.name));
  }
  std::error_code error;
  if (!fs::is_directory(source, error)) {
    return absl::NotFoundError(fmt::format("there is no folder {}", source.string()));
  }
  const fs::path inside = fs::weakly_canonical(fs::absolute(target), error)
                              .lexically_relative(fs::weakly_canonical(source, error));
  if (!inside.empty() && *inside.begin() != "..") {
    // The copy would be copied into itself without end.
    return absl::InvalidArgumentError(
        fmt::format("{} lies inside {}: name another place", target.string(), source.string()));
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
        Rescan(volume, scanner, RandomStream(seed, "rescan/" + relative.generic_string()))));
    ++images;
  }
  if (error) return FileError("cannot read the folder", source.string(), error);
  return images;
}

}  // namespace isoscan
