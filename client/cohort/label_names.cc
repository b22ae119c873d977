#include "client/cohort/label_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>

#include "absl/status/status.h"

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

std::string Described(const std::vector<NamedValues>& listed) {
  std::string text;
  for (const NamedValues& label : listed) {
    text += fmt::format("{}\"{}\" = {}", text.empty() ? "" : ", ", label.name,
                        fmt::join(label.values, " and "));
  }
  return text.empty() ? "none" : text;
}

/// Empty when `name` is neither a value nor listed.
std::vector<std::int64_t> ValuesNamed(const std::string& name,
                                      const std::vector<NamedValues>& listed) {
  const auto label = std::find_if(listed.begin(), listed.end(), [&name](const NamedValues& known) {
    return SameName(known.name, name);
  });
  if (label != listed.end()) return label->values;
  if (const std::optional<std::int64_t> value = ToInteger(name)) return {*value};
  return {};
}

}  // namespace

bool SameName(std::string_view left, std::string_view right) {
  return std::equal(
      left.begin(), left.end(), right.begin(), right.end(),
      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

std::optional<std::int64_t> ToInteger(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string Quoted(const std::vector<std::string>& names) {
  return names.empty() ? "none" : fmt::format("\"{}\"", fmt::join(names, "\", \""));
}

std::vector<std::string> CohortNamesOf(const CohortFolder& folder, const std::string& study_label) {
  for (const auto& [label, names] : folder.labels) {
    if (SameName(label, study_label)) return names;
  }
  return {study_label};
}

absl::StatusOr<std::map<std::int64_t, std::uint8_t>> MapValues(
    const CohortFolder& folder, const Study& study, const std::vector<NamedValues>& listed,
    const std::string& source) {
  std::map<std::int64_t, std::uint8_t> mapped;
  for (std::size_t i = 0; i < study.labels.size(); ++i) {
    const std::string& label = study.labels[i];
    for (const std::string& name : CohortNamesOf(folder, label)) {
      const std::vector<std::int64_t> values = ValuesNamed(name, listed);
      if (values.empty()) {
        return absl::InvalidArgumentError(fmt::format(
            "{} has no label \"{}\" for the study's label \"{}\": it lists {}; set {} = "
            "[VALUE] under [cohort.labels] in client.toml",
            source, name, label, Described(listed), label));
      }
      for (const std::int64_t value : values) {
        if (value == 0) {
          return absl::InvalidArgumentError(fmt::format(
              "{}: the study's label \"{}\" is mapped to the value 0, which is always background; "
              "name its values under [cohort.labels] in client.toml",
              source, label));
        }
        const auto [entry, inserted] = mapped.emplace(value, static_cast<std::uint8_t>(i + 1));
        if (!inserted && entry->second != i + 1) {
          return absl::InvalidArgumentError(
              fmt::format("{}: the value {} belongs to both \"{}\" and \"{}\", a voxel has one "
                          "label: part them "
                          "under [cohort.labels] in client.toml",
                          source, value, study.labels[entry->second - 1U], label));
        }
      }
    }
  }
  for (const NamedValues& label : listed) {
    // nnU-Net's "ignore" says that nobody knows what is there, which background would not.
    if (SameName(label.name, "ignore")) continue;
    for (const std::int64_t value : label.values) mapped.emplace(value, std::uint8_t{0});
  }
  for (const auto& [label, names] : folder.labels) {
    for (const std::string& name : names) {
      for (const std::int64_t value : ValuesNamed(name, listed)) {
        mapped.emplace(value, std::uint8_t{0});
      }
    }
  }
  return mapped;
}

}  // namespace isoscan
