#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/study/study.h"

namespace isoscan {

/// The keys of another program's state dict. PyTorch lists a module once for each place that it is
/// registered in, so several keys may mean one tensor.
struct StateDict {
  std::map<std::string, std::string> tensors;  ///< Key -> the name of our tensor.
  /// Of batch normalisation: counters of batches, int64 scalars that we have none of (0).
  std::vector<std::string> counters;
};

/// nnU-Net's keys: our names, with `all_modules.*` beside every convolution and normalisation, and
/// the whole encoder again under `decoder.encoder`.
/// Source: dynamic-network-architectures' PlainConvUNet and UNetDecoder.
StateDict NnunetStateDict(const Study& study);

/// The keys of MONAI's DynUNet(trans_bias=True), with its heads where the study trains them.
///
/// The two networks are the same function where all kernels are equal and strides are 1 or 2:
/// DynUNet's decoder takes the kernel of the stage below, and pads otherwise under longer strides.
/// It has no bias before a normalisation: under instance normalisation a bias cancels, under
/// others it does not.
/// Errors: INVALID_ARGUMENT a study whose network is no DynUNet, with the reason.
/// Source: monai.networks.nets.DynUNet.
absl::StatusOr<StateDict> DynUnetStateDict(const Study& study);

}  // namespace isoscan
