#include "common/study/label_side.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <utility>

namespace isoscan {
namespace {

/// "leftHippocampus_2" has the words "left", "hippocampus" and "2".
std::vector<std::string> WordsOf(std::string_view name) {
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
  return words;
}

}  // namespace

SidedName SideOf(std::string_view name) {
  using Side = SidedName::Side;
  SidedName sided;
  for (const std::string& word : WordsOf(name)) {
    const bool left = word == "left" || word == "l" || word == "lh" || word == "lt";
    const bool right = word == "right" || word == "r" || word == "rh" || word == "rt";
    if (sided.side == Side::kNone && (left || right)) {
      sided.side = left ? Side::kLeft : Side::kRight;
    } else {
      sided.rest += word + " ";
    }
  }
  return sided;
}

bool AnyHasASide(const std::vector<std::string>& labels) {
  using Side = SidedName::Side;
  for (const std::string& label : labels) {
    const std::vector<std::string> words = WordsOf(label);
    if (std::find(words.begin(), words.end(), "left") != words.end() ||
        std::find(words.begin(), words.end(), "right") != words.end()) {
      return true;
    }
    const SidedName left = SideOf(label);
    if (left.side != Side::kLeft) continue;
    for (const std::string& other : labels) {
      const SidedName right = SideOf(other);
      if (right.side == Side::kRight && right.rest == left.rest) return true;
    }
  }
  return false;
}

}  // namespace isoscan
