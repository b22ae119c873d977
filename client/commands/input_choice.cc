#include "client/commands/input_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <system_error>

#include "client/cohort/harmonized_copy.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// The cohort of client.toml that a path is, or lies in: the innermost.
const CohortFolder* KnownCohort(const ClientConfig& config, const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path input = std::filesystem::weakly_canonical(path, ignored);
  const CohortFolder* known = nullptr;
  std::ptrdiff_t depth = 0;
  for (const CohortFolder& cohort : config.cohorts) {
    // Empty where a folder on the way cannot be searched now: then it holds nothing.
    const std::filesystem::path folder = std::filesystem::weakly_canonical(cohort.folder, ignored);
    const std::ptrdiff_t parts = std::distance(folder.begin(), folder.end());
    if (parts > depth &&
        std::mismatch(folder.begin(), folder.end(), input.begin(), input.end()).first ==
            folder.end()) {
      known = &cohort;
      depth = parts;
    }
  }
  return known;
}

}  // namespace

absl::StatusOr<ClientConfig> ConfigOrNone(const std::filesystem::path& config) {
  absl::StatusOr<ClientConfig> loaded = LoadClientConfig(config);
  if (absl::IsNotFound(loaded.status()) && config == "client.toml") return ClientConfig{};
  return loaded;
}

absl::StatusOr<CohortFolder> ChooseInput(const ClientConfig& config,
                                         const std::filesystem::path& config_path,
                                         const std::filesystem::path& input,
                                         const std::optional<GeometrySource>& geometry,
                                         bool as_the_study_reads) {
  CohortFolder chosen;
  if (const CohortFolder* known = KnownCohort(config, input)) {
    chosen = *known;
    if (as_the_study_reads && geometry.has_value() && known->geometry != GeometrySource::kAgreed &&
        *geometry != known->geometry) {
      return absl::InvalidArgumentError(fmt::format(
          "--geometry {} contradicts {}, whose cohort {} has geometry = \"{}\": that is what the "
          "study reads there, and it must be read alike; leave --geometry out, or change "
          "client.toml",
          NameOf(*geometry), config_path.string(), known->folder.string(),
          NameOf(known->geometry)));
    }
    std::error_code ignored;
    if (!std::filesystem::equivalent(known->folder, input, ignored)) {
      chosen.layout = CohortFolder::Layout::kAuto;
    }
  }
  chosen.folder = input;
  chosen.geometry = geometry.value_or(chosen.geometry);
  return chosen;
}

}  // namespace isoscan
