#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace isoscan {

/// What a label's name says about the side of the patient that it lies on.
struct SidedName {
  enum class Side { kNone, kLeft, kRight };
  Side side = Side::kNone;
  std::string rest;  ///< The other words, in lower case: the same for a left label and its partner.
};

/// "Left-Hippocampus", "hippocampus_L", "hippocampusRight", "lh.cortex". L and R are also other
/// things (a lobe, a number): alone they tell nothing, a pair does.
SidedName SideOf(std::string_view name);

/// True when a label is called left or right in full, or two labels differ by their side alone:
/// then a picture that is mirrored from left to right shows what no label is called.
bool AnyHasASide(const std::vector<std::string>& labels);

}  // namespace isoscan
