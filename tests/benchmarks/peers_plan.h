#pragma once

#include <cstdlib>

#include "common/study/study.h"

namespace isoscan {

/// Of our side; ISOSCAN_THREADS=1 lets processor time compare on a machine that others use, too.
inline int Threads() {
  const char* threads = std::getenv("ISOSCAN_THREADS");
  return threads == nullptr ? 2 : std::atoi(threads);
}

/// The network and the patch of the peers' side: nnU-Net's plan for the hippocampus.
inline Study PeersPlan(TrainingPlan::Precision precision) {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"anterior", "posterior"};
  study.network.features = {32, 64, 128, 256};
  study.network.strides = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}, {2, 2, 2}};
  study.network.kernels.assign(4, {3, 3, 3});
  study.training.patch_size = {40, 56, 40};
  study.training.precision = precision;
  return study;
}

}  // namespace isoscan
