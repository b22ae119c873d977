#include "client/interop/model_export.h"

#include <system_error>

#include "client/interop/exported_plan.h"
#include "client/interop/state_dict.h"
#include "client/interop/torch_file.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

absl::Status MakeFolder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? FileError("cannot make the folder", folder.string(), error) : absl::OkStatus();
}

}  // namespace

absl::Status ExportToNnunet(const ExportedModel& model, const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const std::string plans, NnunetPlans(model.study));
  ASSIGN_OR_RETURN(const std::string dataset, NnunetDataset(model.study, model.metadata));
  RETURN_IF_ERROR(MakeFolder(folder / "fold_all"));
  RETURN_IF_ERROR(WriteNnunetCheckpoint(folder / "fold_all" / "checkpoint_final.pth",
                                        NnunetStateDict(model.study), model.weights,
                                        model.study.training.mirror_axes));
  RETURN_IF_ERROR(WriteFileAtomically(folder / "dataset.json", dataset));
  return WriteFileAtomically(folder / "plans.json", plans);
}

absl::Status ExportToDynUnet(const ExportedModel& model, const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const StateDict keys, DynUnetStateDict(model.study));
  RETURN_IF_ERROR(MakeFolder(folder));
  RETURN_IF_ERROR(WriteStateDict(folder / "dynunet.pth", keys, model.weights));
  return WriteFileAtomically(folder / "dynunet.json", DynUnetArguments(model.study));
}

}  // namespace isoscan
