#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "common/study/study.h"

namespace isoscan {

/// Equal but for the case of ASCII letters.
bool SameName(std::string_view left, std::string_view right);

/// The whole text as a decimal integer.
std::optional<std::int64_t> ToInteger(std::string_view text);

/// `"a", "b"`, or "none".
std::string Quoted(const std::vector<std::string>& names);

/// What the cohort calls a label of the study: the entries of its configuration, or the label
/// itself.
std::vector<std::string> CohortNamesOf(const CohortFolder& folder, const std::string& study_label);

/// A label as a cohort's own list of labels names it.
struct NamedValues {
  std::string name;
  std::vector<std::int64_t> values;
};

/// Value in a label file -> label of the network. Values that the cohort lists, or that the
/// configuration names for another label, become background (0).
///
/// `source` is the list's name in messages. Errors: INVALID_ARGUMENT for a label that neither the
/// list nor the configuration knows, for one value under two labels, and for 0.
absl::StatusOr<std::map<std::int64_t, std::uint8_t>> MapValues(
    const CohortFolder& folder, const Study& study, const std::vector<NamedValues>& listed,
    const std::string& source);

}  // namespace isoscan
