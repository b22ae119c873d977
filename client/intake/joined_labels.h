#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/imaging/volume.h"
#include "client/intake/case_sight.h"
#include "client/intake/label_slices.h"

namespace isoscan {

/// The joined labels of a case, in canonical order: 0 is background, i + 1 is names[i].
struct JoinedLabels {
  LabelSlices slices;
  std::vector<std::string> names;
  std::vector<std::int64_t> counts;
};

/// Reads the label files of a case one after the other; fills in `sight.labels`, but for their
/// contrast, the digest, and what is wrong with the files. A label with fewer voxels lies on top of
/// one with more: the part over the whole. `canonical` is the image's grid, which the headers of
/// the files agree with. No slices where the case has no label file.
JoinedLabels ReadLabels(CaseSight& sight, const Geometry& canonical);

/// Reads the mask that the study normalises over, where it asks for a file: an empty one, or one
/// that would erase labelled voxels, is a finding.
void CheckGivenMask(CaseSight& sight, const JoinedLabels& labels, const Geometry& canonical);

}  // namespace isoscan
