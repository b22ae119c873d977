#pragma once

#include <string>
#include <string_view>

namespace isoscan {

/// `text` for use between tags and inside quoted attributes, in HTML and in SVG: nothing in it is
/// markup any more. Control characters, which no XML may hold, become U+FFFD; newline and tab stay.
std::string EscapeMarkup(std::string_view text);

}  // namespace isoscan
