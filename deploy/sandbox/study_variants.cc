#include "deploy/sandbox/study_variants.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "absl/status/status.h"

#include "common/config/config_reader.h"
#include "common/config/toml_overlay.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"

namespace isoscan {
namespace {

struct Option {
  std::string name;
  std::string overlay;
};

/// A name that becomes a folder, not given to a neighbour.
std::string ReadName(ConfigReader& table, std::set<std::string>& seen) {
  std::string name = table.Text("name");
  if (!IsName(name)) {
    table.Refuse("name",
                 fmt::format("is \"{}\"; use lower-case letters, digits and hyphens", name));
  } else if (!seen.insert(name).second) {
    table.Refuse("name", fmt::format("is \"{}\", which comes twice", name));
  }
  return name;
}

struct Axes {
  std::string overlay;  ///< Of every variant.
  std::vector<std::vector<Option>> axes;
};

absl::StatusOr<Axes> ReadAxes(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(ConfigReader reader, ConfigReader::Load(path));
  Axes result{.overlay = reader.TableText("set"), .axes = {}};
  std::vector<std::vector<Option>>& axes = result.axes;
  std::set<std::string> axis_names;
  for (ConfigReader& axis : reader.Tables("axis")) {
    ReadName(axis, axis_names);
    std::set<std::string> option_names;
    std::vector<Option> options;
    for (ConfigReader& option : axis.Tables("option")) {
      options.push_back(
          {.name = ReadName(option, option_names), .overlay = option.TableText("set")});
    }
    if (options.empty()) axis.Refuse("option", "is missing; an axis has [[axis.option]] tables");
    axes.push_back(std::move(options));
  }
  if (axes.empty()) reader.Refuse("axis", "is missing; an experiment has [[axis]] tables");
  RETURN_IF_ERROR(reader.Finish());
  return result;
}

}  // namespace

absl::StatusOr<std::vector<StudyVariant>> StudyVariants(const std::string& study_toml,
                                                        const std::filesystem::path& axes_file) {
  ASSIGN_OR_RETURN(const Axes axes, ReadAxes(axes_file));
  ASSIGN_OR_RETURN(std::string base, WithOverlay(study_toml, axes.overlay));
  std::vector<StudyVariant> variants{{.name = "", .toml = std::move(base)}};
  for (const std::vector<Option>& options : axes.axes) {
    std::vector<StudyVariant> longer;
    for (const StudyVariant& variant : variants) {
      for (const Option& option : options) {
        ASSIGN_OR_RETURN(std::string toml, WithOverlay(variant.toml, option.overlay));
        longer.push_back(
            {.name = variant.name.empty() ? option.name : variant.name + "/" + option.name,
             .toml = std::move(toml)});
      }
    }
    variants = std::move(longer);
  }
  // Hours may lie before the last arm: what is wrong with it is said before the first.
  for (const StudyVariant& variant : variants) {
    RETURN_IF_ERROR(
        ParseStudy(variant.toml, fmt::format("{}, variant {}", axes_file.string(), variant.name))
            .status());
  }
  return variants;
}

absl::StatusOr<std::string> WithSeedMoved(const std::string& study_toml, std::int64_t repetition) {
  ASSIGN_OR_RETURN(const Study study, ParseStudy(study_toml, "the study"));
  return WithOverlay(study_toml,
                     fmt::format("seed = {}", static_cast<std::int64_t>(study.seed) + repetition));
}

absl::StatusOr<std::string> WithStepsMultiplied(const std::string& study_toml,
                                                std::int64_t factor) {
  ASSIGN_OR_RETURN(const Study study, ParseStudy(study_toml, "the study"));
  // A pass over more cases is so many steps more already.
  if (study.training.passes_per_round > 0) return study_toml;
  return WithOverlay(study_toml, fmt::format("training.steps_per_round = {}",
                                             study.training.steps_per_round * factor));
}

}  // namespace isoscan
