#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace isoscan {

/// One line of a terminal or a log, made of text from elsewhere: a site's, a server's, a file's.
/// Control characters, which could forge lines or drive the terminal, and the characters that turn
/// the direction of writing, which could make text read as another, become '?'. Everything else
/// stays, byte for byte.
inline std::string Printable(std::string_view text) {
  // In UTF-8. C1 controls are C2 80 to C2 9F; the turning ones U+202A to U+202E, U+2066 to U+2069;
  // U+2028 and U+2029 end lines.
  struct Range {
    std::string_view lead;
    unsigned char first;
    unsigned char last;
  };
  constexpr std::array<Range, 3> kForbidden{
      {{"\xC2", 0x80, 0x9F}, {"\xE2\x80", 0xA8, 0xAE}, {"\xE2\x81", 0xA6, 0xA9}}};
  std::string line;
  line.reserve(text.size());
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text.front());
    std::size_t length = byte < 0x20 || byte == 0x7F ? 1 : 0;
    for (const Range& range : kForbidden) {
      if (!text.starts_with(range.lead) || text.size() == range.lead.size()) continue;
      const auto next = static_cast<unsigned char>(text[range.lead.size()]);
      if (next >= range.first && next <= range.last) length = range.lead.size() + 1;
    }
    line += length == 0 ? text.front() : '?';
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return line;
}

}  // namespace isoscan
