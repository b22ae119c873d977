#include "server/fairness/html.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace isoscan {

std::string FormatScore(double score) {
  return std::isfinite(score) ? fmt::format("{:.3f}", score) : kNoNumber;
}

std::string FormatDifference(double difference) {
  if (!std::isfinite(difference)) return kNoNumber;
  const std::string size = fmt::format("{:.3f}", std::abs(difference));
  if (size == "0.000") return size;
  return (difference < 0 ? "−" : "+") + size;
}

std::string FormatCount(std::int64_t count) {
  std::string digits = std::to_string(count);
  const std::size_t first_digit = count < 0 ? 1 : 0;
  for (std::size_t end = digits.size(); end > first_digit + 3; end -= 3)
    digits.insert(end - 3, 1, ',');
  return digits;
}

std::string FormatCount(std::int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", FormatCount(count), noun, count == 1 ? "" : "s");
}

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return kNoNumber;
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  const std::int64_t minutes = (whole + 30) / 60;
  return fmt::format("{} h {:02} min", FormatCount(minutes / 60), minutes % 60);
}

std::string FormatBytes(std::int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size < 1e3) return fmt::format("{} B", bytes);
  if (size < 1e6) return fmt::format("{:.1f} kB", size / 1e3);
  if (size < 1e9) return fmt::format("{:.1f} MB", size / 1e6);
  return fmt::format("{:.2f} GB", size / 1e9);
}

std::string FormatTime(Time time) {
  if (time == Time{}) return kNoNumber;
  return fmt::format("{:%Y-%m-%d %H:%M} UTC",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

std::string FormatTick(double value) {
  const double size = std::abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return fmt::format("{:.3g}", value);
  if (size >= 1000) return FormatCount(std::llround(value));
  return fmt::format("{:.4g}", value);
}

std::string FormatRanges(const std::vector<int>& ascending) {
  std::string text;
  for (std::size_t first = 0; first < ascending.size();) {
    std::size_t last = first;
    while (last + 1 < ascending.size() && ascending[last + 1] == ascending[last] + 1) ++last;
    if (!text.empty()) text += ", ";
    text += std::to_string(ascending[first]);
    if (last > first) text += (last == first + 1 ? ", " : "–") + std::to_string(ascending[last]);
    first = last + 1;
  }
  return text;
}

Table::Table(std::string id, std::string note, std::vector<std::string> column_headers)
    : id_(std::move(id)), note_(std::move(note)), column_headers_(std::move(column_headers)) {}

void Table::Row(std::string_view header, const std::vector<Cell>& cells) {
  rows_ += fmt::format("<tr><th scope=\"row\">{}</th>", header);
  for (const Cell& cell : cells) {
    rows_ += "<td";
    if (!cell.css_class.empty()) rows_ += fmt::format(" class=\"{}\"", cell.css_class);
    if (!cell.css_style.empty()) rows_ += fmt::format(" style=\"{}\"", cell.css_style);
    if (!cell.json_pointer.empty()) rows_ += fmt::format(" data-json=\"{}\"", cell.json_pointer);
    rows_ += fmt::format(">{}</td>", cell.html);
  }
  rows_ += "</tr>\n";
}

std::string Table::Html() const {
  std::string head;
  for (const std::string& header : column_headers_) {
    head += fmt::format("<th scope=\"col\">{}</th>", header);
  }
  // A region that scrolls must be reachable by keyboard, hence the tabindex.
  return fmt::format(
      "<p class=\"note\" id=\"{0}-note\">{1}</p>\n"
      "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"{0}-note\">"
      "<table aria-labelledby=\"{0}-note\">\n"
      "<thead><tr>{2}</tr></thead>\n<tbody>\n{3}</tbody>\n</table></div>\n",
      id_, note_, head, rows_);
}

}  // namespace isoscan
