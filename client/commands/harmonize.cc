#include "client/harmonization/harmonize.h"

#include <fmt/format.h>

#include "client/commands/commands.h"
#include "client/imaging/image_file.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::Status HarmonizeImage(const std::filesystem::path& input, const std::filesystem::path& output,
                            const HarmonizationPlan& plan) {
  ASSIGN_OR_RETURN(Volume volume, ReadVolume(input));
  const absl::StatusOr<HarmonizationRecord> harmonized = Harmonize(volume, plan);
  if (!harmonized.ok()) {
    return absl::Status(
        harmonized.status().code(),
        fmt::format("{}: {}", input.string(), std::string(harmonized.status().message())));
  }
  const IntensityStatistics& statistics = harmonized->statistics;
  RETURN_IF_ERROR(WriteVolume(output, volume));
  fmt::print("{}: y = (x - {:.6g}) / {:.6g}, statistics over {} of {} voxels\n", output.string(),
             statistics.mean, statistics.standard_deviation, statistics.voxels,
             volume.geometry.voxels());
  return absl::OkStatus();
}

}  // namespace isoscan
