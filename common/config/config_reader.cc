#include "common/config/config_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <system_error>
#include <tuple>
#include <utility>

#include "common/status/file_error.h"

namespace isoscan {
namespace {

using Line = toml::source_index;

/// Far above every configuration, study and invitation.
constexpr std::size_t kLongestFile = 1 << 20;

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

/// The value as the file has it; arrays and tables by their kind alone.
std::string Shown(const toml::node& node) {
  if (node.is_array_of_tables()) return "an array of tables";
  if (node.is_array()) return "an array";
  if (node.is_table()) return "a table";
  if (const auto* text = node.as_string()) return fmt::format("\"{}\"", text->get());
  std::ostringstream text;
  node.visit([&text](const auto& value) { text << value; });
  return text.str();
}

std::string Allowed(ConfigReader::IntegerRange range) {
  constexpr auto kLimits = std::numeric_limits<std::int64_t>();
  if (range.maximum == kLimits.max() && range.minimum == kLimits.min()) return "";
  if (range.maximum == kLimits.max()) return fmt::format("{} or more", range.minimum);
  if (range.minimum == kLimits.min()) return fmt::format("{} or less", range.maximum);
  return fmt::format("{} to {}", range.minimum, range.maximum);
}

std::string Allowed(ConfigReader::NumberRange range) {
  constexpr ConfigReader::NumberRange kEverything;
  if (range.maximum >= kEverything.maximum && range.minimum <= kEverything.minimum) return "";
  if (range.maximum >= kEverything.maximum) return fmt::format("{} or more", range.minimum);
  if (range.minimum <= kEverything.minimum) return fmt::format("{} or less", range.maximum);
  return fmt::format("{} to {}", range.minimum, range.maximum);
}

template <typename Range>
std::string Kind(std::string_view kind, Range range) {
  const std::string allowed = Allowed(range);
  return allowed.empty() ? std::string(kind) : fmt::format("{} ({})", kind, allowed);
}

template <typename Range>
std::string OutOfRange(Range range) {
  const std::string allowed = Allowed(range);
  return allowed.empty() ? "which is no finite number" : fmt::format("allowed are {}", allowed);
}

}  // namespace

/// The parsed file and what became of reading it. The Read... methods answer with nothing, and note
/// the problem, when a value is not what was asked for.
struct ConfigReader::Document {
  struct Problem {
    bool missing_key;
    Line line;  // 0 where there is none.
    std::string message;
  };

  void Note(Line line, std::string message) {
    problems.push_back({/*missing_key=*/false, line, std::move(message)});
  }

  void NoteWrongType(const std::string& name, const toml::node& node, std::string_view expected) {
    Note(node.source().begin.line,
         fmt::format("{} is {}, expected {}", name, Shown(node), expected));
  }

  std::optional<std::string> ReadText(const std::string& name, const toml::node& node) {
    if (const auto* text = node.as_string()) return text->get();
    NoteWrongType(name, node, "text in quotes");
    return std::nullopt;
  }

  std::optional<std::int64_t> ReadInteger(const std::string& name, const toml::node& node,
                                          IntegerRange range) {
    const auto* integer = node.as_integer();
    if (integer == nullptr) {
      NoteWrongType(name, node, Kind("a whole number", range));
      return std::nullopt;
    }
    const std::int64_t value = integer->get();
    if (value >= range.minimum && value <= range.maximum) return value;
    Note(node.source().begin.line, fmt::format("{} is {}, {}", name, value, OutOfRange(range)));
    return std::nullopt;
  }

  std::optional<double> ReadNumber(const std::string& name, const toml::node& node,
                                   NumberRange range) {
    if (!node.is_number()) {
      NoteWrongType(name, node, Kind("a number", range));
      return std::nullopt;
    }
    const double value = *node.value<double>();
    if (value >= range.minimum && value <= range.maximum) return value;  // False for NaN.
    Note(node.source().begin.line,
         fmt::format("{} is {}, {}", name, Shown(node), OutOfRange(range)));
    return std::nullopt;
  }

  std::optional<std::string> ReadValue(const std::string& name, const toml::node& node) {
    if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
    if (const auto* text = node.as_string()) return text->get();
    NoteWrongType(name, node, "a whole number or text in quotes");
    return std::nullopt;
  }

  /// The elements of `array`, or nothing when one was refused: then all that are wrong are noted.
  template <typename T, typename ReadElement>
  std::optional<std::vector<T>> ReadElements(const std::string& name, const toml::array& array,
                                             const ReadElement& read_element) {
    std::vector<T> elements;
    for (std::size_t i = 0; i < array.size(); ++i) {
      std::optional<T> element =
          read_element(*this, fmt::format("entry {} of {}", i + 1, name), array[i]);
      if (element) elements.push_back(*std::move(element));
    }
    if (elements.size() < array.size()) return std::nullopt;
    return elements;
  }

  void FindUnknownKeys(std::vector<Problem>& found) const {
    for (const auto& [table, prefix] : opened) {
      const std::set<std::string>& known_here = known.at(prefix);
      for (const auto& [key, node] : *table) {
        if (known_here.contains(std::string(key.str()))) continue;
        found.push_back({/*missing_key=*/false, key.source().begin.line,
                         fmt::format("unknown key {}{}{}", prefix, key.str(),
                                     Suggestion(key.str(), prefix, *table))});
      }
    }
  }

  std::string Suggestion(std::string_view unknown, const std::string& prefix,
                         const toml::table& table) const {
    const std::set<std::string>& known_here = known.at(prefix);
    std::string nearest;
    std::size_t nearest_distance = std::max<std::size_t>(1, unknown.size() / 3) + 1;
    for (const std::string& key : known_here) {
      const std::size_t distance = EditDistance(unknown, key);
      if (distance < nearest_distance && !table.contains(key)) {
        nearest = key;
        nearest_distance = distance;
      }
    }
    if (!nearest.empty()) return fmt::format(", did you mean {}{}?", prefix, nearest);
    for (const auto& [other_prefix, keys] : known) {
      if (keys.contains(std::string(unknown))) {
        return fmt::format(", did you mean {}{}?", other_prefix, unknown);
      }
    }
    if (known_here.empty()) return "; no key is known here";
    return fmt::format("; known here: {}", fmt::join(known_here, ", "));
  }

  toml::table root;
  std::string source;
  std::vector<Problem> problems;
  std::map<const toml::table*, std::string> opened;    // With their prefixes.
  std::map<std::string, std::set<std::string>> known;  // By prefix: every key that was asked for.
};

/// One key as it was asked for: `node` is nullptr when the file does not have it.
struct ConfigReader::Entry {
  std::string name;
  Line line = 0;
  const toml::node* node = nullptr;
};

ConfigReader::ConfigReader(std::shared_ptr<Document> document, const void* table,
                           std::string prefix)
    : document_(std::move(document)), table_(table), prefix_(std::move(prefix)) {
  document_->known.try_emplace(prefix_);
  if (table_ != nullptr) {
    document_->opened.try_emplace(static_cast<const toml::table*>(table_), prefix_);
  }
}

absl::StatusOr<ConfigReader> ConfigReader::Parse(std::string_view text, std::string source) {
  auto document = std::make_shared<Document>();
  try {
    document->root = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    const toml::source_position position = error.source().begin;
    return absl::InvalidArgumentError(
        fmt::format("{}:{}:{}: {}", source, position.line, position.column, error.description()));
  }
  document->source = std::move(source);
  const toml::table* root = &document->root;
  return ConfigReader(std::move(document), root, "");
}

absl::StatusOr<ConfigReader> ConfigReader::Load(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status kind = std::filesystem::status(path, error);
  if (!std::filesystem::exists(kind)) {
    if (error && error != std::errc::no_such_file_or_directory) {
      return absl::NotFoundError(fmt::format("cannot read {}: {}", path.string(), error.message()));
    }
    return absl::NotFoundError(fmt::format("there is no file {}", path.string()));
  }
  if (std::filesystem::is_directory(kind)) {
    return absl::NotFoundError(fmt::format("{} is a folder, expected a TOML file", path.string()));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  // No further than this, should it be a device or a scan by mistake.
  std::string text(kLongestFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || (file.fail() && !file.eof())) {
    return FileError("cannot read", path.string(), errno);
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kLongestFile) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is no TOML file of Isoscan's: it has more than {} bytes", path.string(), kLongestFile));
  }
  return Parse(text, path.string());
}

bool ConfigReader::Has(std::string_view key) const {
  return table_ != nullptr && static_cast<const toml::table*>(table_)->contains(key);
}

ConfigReader::Entry ConfigReader::Read(std::string_view key, bool required) {
  document_->known[prefix_].emplace(key);
  Entry entry{.name = prefix_ + std::string(key)};
  const auto* table = static_cast<const toml::table*>(table_);
  if (table != nullptr) {
    if (const auto found = table->find(key); found != table->end()) {
      entry.line = found->first.source().begin.line;
      entry.node = &found->second;
      return entry;
    }
    if (!prefix_.empty()) entry.line = table->source().begin.line;
  }
  if (required) {
    document_->problems.push_back(
        {/*missing_key=*/true, entry.line, fmt::format("{} is missing", entry.name)});
  }
  return entry;
}

ConfigReader ConfigReader::Table(std::string_view key) {
  const Entry entry = Read(key, /*required=*/false);
  const toml::table* table = nullptr;
  if (entry.node != nullptr) {
    table = entry.node->as_table();
    if (table == nullptr) {
      document_->NoteWrongType(entry.name, *entry.node, fmt::format("a table [{}]", entry.name));
    }
  }
  return {document_, table, entry.name + "."};
}

std::string ConfigReader::TableText(std::string_view key) {
  const Entry entry = Read(key, /*required=*/false);
  if (entry.node == nullptr) return "";
  const toml::table* const table = entry.node->as_table();
  if (table == nullptr) {
    document_->NoteWrongType(entry.name, *entry.node, fmt::format("a table [{}]", entry.name));
    return "";
  }
  toml::table lines = *table;
  lines.is_inline(false);  // { a = 1 } is a value, not a text of its own.
  std::ostringstream text;
  text << lines;
  return text.str();
}

std::vector<ConfigReader> ConfigReader::Tables(std::string_view key) {
  const Entry entry = Read(key, /*required=*/false);
  std::vector<ConfigReader> tables;
  if (entry.node == nullptr) return tables;
  const toml::array* array = entry.node->as_array();
  if (array == nullptr || (!array->empty() && !array->is_array_of_tables())) {
    document_->NoteWrongType(entry.name, *entry.node, fmt::format("tables [[{}]]", entry.name));
    return tables;
  }
  for (const toml::node& element : *array) {
    tables.push_back(ConfigReader(document_, element.as_table(), entry.name + "."));
  }
  return tables;
}

std::vector<std::string> ConfigReader::Keys() const {
  std::vector<std::tuple<toml::source_index, toml::source_index, std::string>> keys;
  if (table_ != nullptr) {
    for (const auto& [key, node] : *static_cast<const toml::table*>(table_)) {
      const toml::source_position position = key.source().begin;
      keys.emplace_back(position.line, position.column, std::string(key.str()));
    }
  }
  std::ranges::sort(keys);
  std::vector<std::string> names;
  for (auto& [line, column, name] : keys) names.push_back(std::move(name));
  return names;
}

std::string ConfigReader::Text(std::string_view key, std::optional<std::string> fallback) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const auto text = document_->ReadText(entry.name, *entry.node)) return *text;
  }
  return fallback.value_or("");
}

std::string ConfigReader::Choice(std::string_view key, const std::vector<std::string>& allowed,
                                 std::optional<std::string> fallback) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const auto text = document_->ReadText(entry.name, *entry.node)) {
      if (std::ranges::find(allowed, *text) != allowed.end()) return *text;
      document_->Note(entry.line, fmt::format("{} is \"{}\", allowed are {}", entry.name, *text,
                                              fmt::join(allowed, ", ")));
    }
  }
  if (fallback) return *fallback;
  return allowed.empty() ? "" : allowed.front();
}

std::int64_t ConfigReader::Integer(std::string_view key, IntegerRange range,
                                   std::optional<std::int64_t> fallback) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const auto value = document_->ReadInteger(entry.name, *entry.node, range)) return *value;
  }
  return fallback.value_or(std::clamp<std::int64_t>(0, range.minimum, range.maximum));
}

double ConfigReader::Number(std::string_view key, NumberRange range,
                            std::optional<double> fallback) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const auto value = document_->ReadNumber(entry.name, *entry.node, range)) return *value;
  }
  return fallback.value_or(std::clamp(0.0, range.minimum, range.maximum));
}

bool ConfigReader::Flag(std::string_view key, std::optional<bool> fallback) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const auto* flag = entry.node->as_boolean()) return flag->get();
    document_->NoteWrongType(entry.name, *entry.node, "true or false");
  }
  return fallback.value_or(false);
}

template <typename T, typename ReadElement>
std::vector<T> ConfigReader::ReadArray(std::string_view key, std::string_view expected,
                                       const std::optional<std::vector<T>>& fallback,
                                       const ReadElement& read_element) {
  const Entry entry = Read(key, !fallback);
  if (entry.node != nullptr) {
    if (const toml::array* array = entry.node->as_array()) {
      if (auto elements = document_->ReadElements<T>(entry.name, *array, read_element)) {
        return *std::move(elements);
      }
    } else {
      document_->NoteWrongType(entry.name, *entry.node, expected);
    }
  }
  return fallback.value_or(std::vector<T>());
}

std::vector<std::string> ConfigReader::Texts(std::string_view key,
                                             std::optional<std::vector<std::string>> fallback) {
  return ReadArray<std::string>(
      key, "an array of texts, such as [\"a\", \"b\"]", fallback,
      [](Document& document, const std::string& name, const toml::node& node) {
        return document.ReadText(name, node);
      });
}

std::vector<std::int64_t> ConfigReader::Integers(
    std::string_view key, IntegerRange range, std::optional<std::vector<std::int64_t>> fallback) {
  return ReadArray<std::int64_t>(
      key, "an array of whole numbers, such as [1, 2]", fallback,
      [range](Document& document, const std::string& name, const toml::node& node) {
        return document.ReadInteger(name, node, range);
      });
}

std::vector<double> ConfigReader::Numbers(std::string_view key, NumberRange range,
                                          std::optional<std::vector<double>> fallback) {
  return ReadArray<double>(
      key, "an array of numbers, such as [1.0, 0.5]", fallback,
      [range](Document& document, const std::string& name, const toml::node& node) {
        return document.ReadNumber(name, node, range);
      });
}

std::vector<std::string> ConfigReader::Values(std::string_view key,
                                              std::optional<std::vector<std::string>> fallback) {
  const auto read_value = [](Document& document, const std::string& name, const toml::node& node) {
    return document.ReadValue(name, node);
  };
  const Entry entry = Read(key, /*required=*/false);
  if (entry.node != nullptr && !entry.node->is_array()) {
    if (auto value = read_value(*document_, entry.name, *entry.node)) return {*std::move(value)};
    return fallback.value_or(std::vector<std::string>());
  }
  return ReadArray<std::string>(key, "an array", fallback, read_value);
}

std::vector<std::vector<std::int64_t>> ConfigReader::IntegerLists(
    std::string_view key, IntegerRange range,
    std::optional<std::vector<std::vector<std::int64_t>>> fallback) {
  using List = std::vector<std::int64_t>;
  constexpr std::string_view kExpected =
      "an array of arrays of whole numbers, such as [[1, 1, 1], [2, 2, 2]]";
  const auto read_integer = [range](Document& document, const std::string& name,
                                    const toml::node& node) {
    return document.ReadInteger(name, node, range);
  };
  return ReadArray<List>(key, kExpected, fallback,
                         [&](Document& document, const std::string& name,
                             const toml::node& node) -> std::optional<List> {
                           if (const toml::array* inner = node.as_array()) {
                             return document.ReadElements<std::int64_t>(name, *inner, read_integer);
                           }
                           document.NoteWrongType(name, node,
                                                  "an array of whole numbers, such as [1, 1, 1]");
                           return std::nullopt;
                         });
}

void ConfigReader::Refuse(std::string_view key, std::string_view problem) {
  const Entry entry = Read(key, /*required=*/false);
  document_->Note(entry.line, fmt::format("{} {}", entry.name, problem));
}

absl::Status ConfigReader::Finish() const {
  std::vector<Document::Problem> problems = document_->problems;
  document_->FindUnknownKeys(problems);
  if (problems.empty()) return absl::OkStatus();
  const auto first = std::ranges::min_element(problems, {}, [](const Document::Problem& problem) {
    return std::tuple(problem.missing_key, problem.line);
  });
  const std::string line = first->line == 0 ? "" : fmt::format(":{}", first->line);
  return absl::InvalidArgumentError(
      fmt::format("{}{}: {}", document_->source, line, first->message));
}

}  // namespace isoscan
