#pragma once

#include <filesystem>
#include <optional>

#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/cohort/cohort.h"

namespace isoscan {

/// A folder of files needs no site; where there is one, it has approved studies and cohorts. A
/// client.toml that was named has to be there. Errors: those of LoadClientConfig.
absl::StatusOr<ClientConfig> ConfigOrNone(const std::filesystem::path& config);

/// What client.toml says of the cohort that `input` is, or lies in (the innermost), with the
/// geometry that was asked for; `folder` is `input`.
///
/// Without a study everybody may look at a scan either way. What is read for a study
/// (`as_the_study_reads`) is read as its training reads it, or worthless.
/// Errors: INVALID_ARGUMENT a geometry that contradicts the one in client.toml, for a study.
absl::StatusOr<CohortFolder> ChooseInput(const ClientConfig& config,
                                         const std::filesystem::path& config_path,
                                         const std::filesystem::path& input,
                                         const std::optional<GeometrySource>& geometry,
                                         bool as_the_study_reads);

}  // namespace isoscan
