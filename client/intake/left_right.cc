#include "client/intake/left_right.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace isoscan {
namespace {

enum class Side { kNone, kLeft, kRight };

/// "Left-Hippocampus", "hippocampus_L", "hippocampusRight": the side, and the name without it.
std::pair<Side, std::string> SideOf(const std::string& name) {
  std::vector<std::string> words(1);
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto letter = static_cast<unsigned char>(name[i]);
    if (std::isalnum(letter) == 0) {
      words.emplace_back();
      continue;
    }
    const bool hump = i > 0 && std::isupper(letter) != 0 &&
                      std::islower(static_cast<unsigned char>(name[i - 1])) != 0;
    if (hump) words.emplace_back();
    words.back() += static_cast<char>(std::tolower(letter));
  }
  Side side = Side::kNone;
  std::string rest;
  for (const std::string& word : words) {
    const bool left = word == "left" || word == "l" || word == "lh" || word == "lt";
    const bool right = word == "right" || word == "r" || word == "rh" || word == "rt";
    if (side == Side::kNone && (left || right)) {
      side = left ? Side::kLeft : Side::kRight;
    } else {
      rest += word + " ";
    }
  }
  return {side, std::move(rest)};
}

}  // namespace

void CheckLeftAndRight(CaseSight& sight) {
  for (const LabelSight& left : sight.labels) {
    const auto [side, name] = SideOf(left.name);
    if (side != Side::kLeft || left.voxels == 0) continue;
    for (const LabelSight& right : sight.labels) {
      if (right.voxels == 0 || SideOf(right.name) != std::pair(Side::kRight, name)) continue;
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
