#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// Typed reading of one TOML file. toml++ ends here.
///
/// Reading never fails half way: each method answers with the value or its fallback and remembers
/// the first problem; Finish() tells it. So a config is read as one flat list of lines:
///
///   ConfigReader reader = ...;
///   config.rounds = reader.Integer("rounds", {.minimum = 1, .maximum = 10'000});
///   config.network.norm = reader.Table("network").Choice("norm", {"instance", "batch"},
///   "instance"); RETURN_IF_ERROR(reader.Finish());
///
/// Problems: a missing required key, a wrong type, a value out of range, and any key that nobody
/// read. Each is INVALID_ARGUMENT and reads "study.toml:12: rounds is 0, allowed are 1 to 10000".
/// An unknown key names the nearest known one, or all known ones of its table. A key is named with
/// its tables: "training.batch_size".
///
/// Where a value is refused, the answer is the fallback; without one, the nearest allowed value, an
/// empty text or an empty array. Copies and sub-tables share one document and one list of problems.
///
/// Thread safety: none.
class ConfigReader {
 public:
  struct IntegerRange {
    std::int64_t minimum = 0;
    std::int64_t maximum = INT64_MAX;
  };
  struct NumberRange {
    double minimum = -1e300;
    double maximum = 1e300;
  };

  /// `source` is the file's name as messages print it. Needs UTF-8.
  /// Errors: INVALID_ARGUMENT with line and column when the text is not TOML.
  static absl::StatusOr<ConfigReader> Parse(std::string_view text, std::string source);
  /// Errors: NOT_FOUND no such file, or one that cannot be read; INVALID_ARGUMENT one of more than
  /// 1 MiB; and those of Parse.
  static absl::StatusOr<ConfigReader> Load(const std::filesystem::path& path);

  bool Has(std::string_view key) const;
  /// A sub-table; one without keys when the file has none of this name.
  ConfigReader Table(std::string_view key);
  /// The tables of an array of tables ([[key]]), in order.
  std::vector<ConfigReader> Tables(std::string_view key);
  /// A sub-table as TOML of its own, with every key of it read; "" when the file has none.
  std::string TableText(std::string_view key);
  /// Every key of this table, in file order; marks none as read.
  std::vector<std::string> Keys() const;

  /// Without fallback the key is required.
  std::string Text(std::string_view key, std::optional<std::string> fallback = std::nullopt);
  std::string Choice(std::string_view key, const std::vector<std::string>& allowed,
                     std::optional<std::string> fallback = std::nullopt);
  std::int64_t Integer(std::string_view key, IntegerRange range,
                       std::optional<std::int64_t> fallback = std::nullopt);
  double Number(std::string_view key, NumberRange range,
                std::optional<double> fallback = std::nullopt);
  bool Flag(std::string_view key, std::optional<bool> fallback = std::nullopt);
  std::vector<std::string> Texts(std::string_view key,
                                 std::optional<std::vector<std::string>> fallback = std::nullopt);
  std::vector<std::int64_t> Integers(
      std::string_view key, IntegerRange range,
      std::optional<std::vector<std::int64_t>> fallback = std::nullopt);
  std::vector<double> Numbers(std::string_view key, NumberRange range,
                              std::optional<std::vector<double>> fallback = std::nullopt);
  /// Integers and texts, mixed, each as text; one value stands for an array of it:
  /// caudate = [71, 72, "head"]; putamen = 73.
  std::vector<std::string> Values(std::string_view key,
                                  std::optional<std::vector<std::string>> fallback = std::nullopt);
  /// An array of arrays of integers, such as strides = [[1, 1, 1], [2, 2, 2]].
  std::vector<std::vector<std::int64_t>> IntegerLists(
      std::string_view key, IntegerRange range,
      std::optional<std::vector<std::vector<std::int64_t>>> fallback = std::nullopt);

  /// Remembers a problem that only the caller can see. `problem` goes on where the key's name ends:
  /// Refuse("strides", "has 3 levels, features has 4") reads
  /// "study.toml:9: network.strides has 3 levels, features has 4".
  void Refuse(std::string_view key, std::string_view problem);

  /// The first problem of the whole document, in line order (a missing key comes last: it may be
  /// there under a misspelt name, which tells more); OK when there is none and every key was read.
  /// Call when all is read.
  absl::Status Finish() const;

 private:
  struct Document;
  struct Entry;

  ConfigReader(std::shared_ptr<Document> document, const void* table, std::string prefix);
  Entry Read(std::string_view key, bool required);
  template <typename T, typename ReadElement>
  std::vector<T> ReadArray(std::string_view key, std::string_view expected,
                           const std::optional<std::vector<T>>& fallback,
                           const ReadElement& read_element);

  std::shared_ptr<Document> document_;
  const void* table_;   // toml::table, or nullptr for a table that the file does not have.
  std::string prefix_;  // Such as "network.", empty for the whole file.
};

}  // namespace isoscan
