#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "client/commands/commands.h"
#include "client/commands/study_choice.h"
#include "client/interop/model_export.h"
#include "common/status/status_macros.h"
#include "common/weights/safetensors.h"

namespace isoscan {

absl::Status ExportModel(const ClientConfig& config, const ExportRequest& request) {
  ASSIGN_OR_RETURN(Study study, ChooseStudy(config, request.study));
  ASSIGN_OR_RETURN(const NamedTensors weights, LoadStudyModel(request.model, study));
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(request.model));
  const ExportedModel model{.study = study, .weights = weights, .metadata = file.metadata()};
  const std::string folder = request.folder.string();
  if (request.format == ExportFormat::kDynUnet) {
    RETURN_IF_ERROR(ExportToDynUnet(model, request.folder));
    fmt::print(
        "{0}: dynunet.pth, dynunet.json. In Python:\n"
        "  network = monai.networks.nets.DynUNet(**json.load(open(\"{0}/dynunet.json\")))\n"
        "  network.load_state_dict(torch.load(\"{0}/dynunet.pth\", weights_only=True))\n",
        folder);
  } else {
    RETURN_IF_ERROR(ExportToNnunet(model, request.folder));
    fmt::print(
        "{0}: plans.json, dataset.json, fold_all/checkpoint_final.pth. To run it:\n"
        "  isoscan-client harmonize SCANS INPUT --nnunet --study {1}\n"
        "  nnUNetv2_predict_from_modelfolder -m {0} -f all -i INPUT -o OUTPUT --disable_tta\n"
        "with -device cpu where there is no GPU.\n",
        folder, request.study.empty() ? study.name : request.study);
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace isoscan
