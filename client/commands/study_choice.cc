#include "client/commands/study_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/state_folder.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"
#include "common/study/population_standard.h"
#include "common/weights/prefixed_tensors.h"
#include "common/weights/safetensors.h"

namespace isoscan {

absl::StatusOr<Study> ChooseStudy(const ClientConfig& config, const std::string& study) {
  const ApprovedStudies approved(SiteStateFolder(config.state).approved());
  if (!study.empty()) {
    if (std::filesystem::exists(study) || study.ends_with(".toml")) return LoadStudy(study);
    ASSIGN_OR_RETURN(std::optional<Study> found, approved.Find(study));
    if (found.has_value()) return *std::move(found);
    return absl::NotFoundError(fmt::format(
        "{} is neither a file nor an approved study; `isoscan-client study show {} --text > "
        "{}.toml`, then --study {}.toml",
        study, study, study, study));
  }
  ASSIGN_OR_RETURN(std::vector<Study> all, approved.All());
  if (all.size() == 1) return std::move(all.front());
  return absl::InvalidArgumentError(
      all.empty()
          ? std::string("no study is approved here; say which one is meant with "
                        "--study FILE (isoscan-client study show NAME --text > NAME.toml)")
          : fmt::format("{} studies are approved; say which with --study NAME", all.size()));
}

bool DraftWasApproved(const ClientConfig& config, const OfferedStudy& offered) {
  const auto own = ApprovedStudies(SiteStateFolder(config.state).approved()).Find(offered.name);
  return own.ok() && own->has_value() && IsPlanOf(offered, **own);
}

absl::Status TakeHarmonization(const std::filesystem::path& model, Study& study) {
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(model));
  TakeStandard(file.metadata(), study.channels.size(), study.harmonization);
  return CheckHarmonization(model.string(), file.metadata(), study.harmonization);
}

absl::StatusOr<NamedTensors> LoadStudyModel(const std::filesystem::path& path, Study& study) {
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  RETURN_IF_ERROR(CheckPlanned(study));
  if (!study.network.local_layers.empty() && file.shapes() == ExchangedShapes(study)) {
    return absl::FailedPreconditionError(fmt::format(
        "{} is what the sites of {} share; each site has layers of its own ({}), and its whole "
        "model in own/{}.safetensors of the `state` folder of client.toml",
        path.string(), study.name, fmt::join(study.network.local_layers, ", "), study.name));
  }
  NamedTensors weights = file.ReadAll();
  TakeFrom(kControl, weights);  // SCAFFOLD's, which only training needs.
  RETURN_IF_ERROR(CheckShapes(path.string(), ShapesOf(weights), NetworkShapes(study)));
  RETURN_IF_ERROR(TakeHarmonization(path, study));
  return weights;
}

}  // namespace isoscan
