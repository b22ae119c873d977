#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/status.h"

#include "client/interop/state_dict.h"
#include "common/weights/named_tensors.h"

// PyTorch's .pth, which we write and never read: reading a pickle can run whatever is in it.

namespace isoscan {

/// Writes `keys` of `weights` as torch.save(model.state_dict()) would. torch.load reads it with
/// weights_only=True. Keys of one tensor share its values, which stand in the file once.
///
/// The file appears whole or not at all.
/// Errors: those of WriteError. Requires every tensor that `keys` names.
absl::Status WriteStateDict(const std::filesystem::path& path, const StateDict& keys,
                            const NamedTensors& weights);

/// The same inside of what nnU-Net's predictor reads of a checkpoint: `network_weights`,
/// `trainer_name` ("nnUNetTrainer"), `init_args` (the configuration "3d_fullres") and
/// `inference_allowed_mirroring_axes`, the axes (0 = z) that predictions may be averaged over.
absl::Status WriteNnunetCheckpoint(const std::filesystem::path& path, const StateDict& keys,
                                   const NamedTensors& weights,
                                   const std::vector<std::int64_t>& mirror_axes);

}  // namespace isoscan
