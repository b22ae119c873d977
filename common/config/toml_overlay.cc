#include "common/config/toml_overlay.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <sstream>

#include "absl/status/status.h"

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

absl::StatusOr<toml::table> Parsed(std::string_view text, const char* what) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    const toml::source_position place = error.source().begin;
    return absl::InvalidArgumentError(fmt::format("{}, line {}, column {}: {}", what, place.line,
                                                  place.column, error.description()));
  }
}

void Merge(toml::table& base, const toml::table& overlay) {
  for (const auto& [key, value] : overlay) {
    const toml::table* const inner = value.as_table();
    toml::node* const there = base.get(key);
    if (inner != nullptr && there != nullptr && there->is_table()) {
      Merge(*there->as_table(), *inner);
    } else {
      value.visit([&](const auto& node) { base.insert_or_assign(key, node); });
    }
  }
}

std::string TextOf(const toml::table& table) {
  std::ostringstream text;
  text << table << '\n';
  return text.str();
}

}  // namespace

absl::StatusOr<std::string> WithOverlay(std::string_view base, std::string_view overlay) {
  ASSIGN_OR_RETURN(toml::table merged, Parsed(base, "the text"));
  ASSIGN_OR_RETURN(const toml::table changes, Parsed(overlay, "what is laid over it"));
  Merge(merged, changes);
  return TextOf(merged);
}

absl::StatusOr<std::string> WithoutKey(std::string_view text, std::string_view key) {
  ASSIGN_OR_RETURN(toml::table table, Parsed(text, "the text"));
  table.erase(key);
  return TextOf(table);
}

}  // namespace isoscan
