#include <fmt/format.h>

#include "client/commands/commands.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/image_file.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::Status HarmonizeImage(const std::filesystem::path& input, const std::filesystem::path& output,
                            const Preprocessing& plan) {
  ASSIGN_OR_RETURN(Volume volume, ReadVolume(input));
  ASSIGN_OR_RETURN(const Mask mask, MakeMask(volume, plan));
  const IntensityStatistics statistics = StatisticsOf(volume, mask);
  const absl::Status normalized = NormalizeOverMask(volume, mask, plan.outside);
  if (!normalized.ok()) {
    return absl::Status(normalized.code(),
                        fmt::format("{}: {}", input.string(), std::string(normalized.message())));
  }
  RETURN_IF_ERROR(WriteVolume(output, volume));
  fmt::print("{}: y = (x - {:.6g}) / {:.6g}, statistics over {} of {} voxels\n", output.string(),
             statistics.mean, statistics.standard_deviation, statistics.voxels,
             volume.geometry.voxels());
  return absl::OkStatus();
}

}  // namespace isoscan
