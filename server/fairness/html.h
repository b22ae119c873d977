#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock/clock.h"

namespace isoscan {

/// What a number that does not exist is shown as.
inline constexpr char kNoNumber[] = "–";

/// "0.812"; kNoNumber for NaN.
std::string FormatScore(double score);
/// "+0.120", "−0.031", "0.000".
std::string FormatDifference(double difference);
/// "12,345".
std::string FormatCount(std::int64_t count);
/// "1 case", "12,345 cases".
std::string FormatCount(std::int64_t count, std::string_view noun);
/// "4.2 s", "3 min 20 s", "2 h 05 min".
std::string FormatSeconds(double seconds);
/// "1.5 MB", in powers of ten.
std::string FormatBytes(std::int64_t bytes);
/// "2026-03-01 14:05 UTC"; kNoNumber for the epoch, which means "not yet".
std::string FormatTime(Time time);
/// Short, for the ticks of an axis: "0.5", "250", "1,500", "2e+06".
std::string FormatTick(double value);
/// Whole numbers as ranges: {1, 2, 3, 7} is "1–3, 7".
std::string FormatRanges(const std::vector<int>& ascending);

/// One cell of a table: HTML (escaped already), and where its number stands in the JSON twin.
struct Cell {
  std::string html;
  std::string json_pointer{};  ///< Such as "/sites/0/dice/mean"; empty for text.
  std::string css_class{};
  std::string css_style{};
};

/// A table that a screen reader can read: a note that names it, and every header with its scope. It
/// scrolls sideways by itself where the page is too narrow.
class Table {
 public:
  /// `id` is unique on the page; `note` and the headers are HTML. The first column is the header of
  /// its row.
  Table(std::string id, std::string note, std::vector<std::string> column_headers);

  /// `header` is HTML.
  void Row(std::string_view header, const std::vector<Cell>& cells);

  std::string Html() const;

 private:
  std::string id_;
  std::string note_;
  std::vector<std::string> column_headers_;
  std::string rows_;
};

}  // namespace isoscan
