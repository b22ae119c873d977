#include "common/config/address.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace isoscan {
namespace {

bool IsPort(std::string_view text) {
  constexpr int kHighest = 65'535;
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= kHighest;
}

bool IsAnyOf(std::string_view text, std::string_view more) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [more](char character) {
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') || more.find(character) != more.npos;
  });
}

}  // namespace

bool IsAddress(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || !IsPort(text.substr(colon + 1))) return false;
  const std::string_view host = text.substr(0, colon);
  const bool is_bracketed = host.starts_with('[') && host.ends_with(']');
  return is_bracketed ? IsAnyOf(host.substr(1, host.size() - 2), ":.%") : IsAnyOf(host, ".-_");
}

}  // namespace isoscan
