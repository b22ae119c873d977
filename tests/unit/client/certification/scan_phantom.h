#pragma once

#include "client/cohort/cohort.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {

/// Smooth anatomy with a bright box (label 1 and 2), oblique, with slices thicker than wide.
inline LoadedCase BoxCase() {
  const Geometry geometry = ObliqueGeometry({16, 14, 9});
  LoadedCase loaded{.channels = {SmoothVolume(geometry)},
                    .labels = BoxLabels(geometry),
                    .stored = geometry,
                    .mask = {}};
  for (std::size_t i = 0; i < loaded.labels.voxels.size(); ++i) {
    loaded.channels[0].voxels[i] += 40.0F * static_cast<float>(loaded.labels.voxels[i]);
  }
  return loaded;
}

}  // namespace isoscan
