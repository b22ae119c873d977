#include "client/intake/left_right.h"

#include <fmt/format.h>

#include "common/study/label_side.h"

namespace isoscan {

void CheckLeftAndRight(CaseSight& sight) {
  for (const LabelSight& left : sight.labels) {
    const SidedName left_name = SideOf(left.name);
    if (left_name.side != SidedName::Side::kLeft || left.voxels == 0) continue;
    for (const LabelSight& right : sight.labels) {
      const SidedName right_name = SideOf(right.name);
      if (right.voxels == 0 || right_name.side != SidedName::Side::kRight ||
          right_name.rest != left_name.rest) {
        continue;
      }
      // In LPS, x grows towards the patient's left.
      const double distance = left.centre_mm[0] - right.centre_mm[0];
      if (distance >= 0) continue;
      sight.Quarantine(
          Fault::kLeftRight, sight.files.labels.front().path,
          fmt::format("the centre of {} lies {:.1f} mm further to the patient's right than that of "
                      "{}: the labels' names or the header's orientation are wrong",
                      left.name, -distance, right.name));
    }
  }
}

}  // namespace isoscan
