#include "server/fairness/chart.h"

#include <fmt/format.h>

#include <cmath>

#include "common/markup/escape.h"
#include "server/fairness/html.h"

namespace isoscan {
namespace {

/// Up to two decimals, without trailing zeros: small pages, and the same bytes everywhere.
std::string Number(double value) {
  std::string text = fmt::format("{:.2f}", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string TitleOf(std::string_view title) {
  return title.empty() ? "" : fmt::format("<title>{}</title>", EscapeMarkup(title));
}

std::string ShapeOf(Mark mark, double radius) {
  const std::string r = Number(radius);
  switch (mark) {
    case Mark::kDot:
    case Mark::kRing:
      return fmt::format("<circle r=\"{}\"", r);
    case Mark::kDiamond: {
      const std::string d = Number(radius * 1.3);
      return fmt::format("<path d=\"M0 -{0}L{0} 0L0 {0}L-{0} 0Z\"", d);
    }
    case Mark::kSquare: {
      const std::string half = Number(radius * 0.9);
      return fmt::format("<rect x=\"-{0}\" y=\"-{0}\" width=\"{1}\" height=\"{1}\"", half,
                         Number(radius * 1.8));
    }
  }
  return "";
}

}  // namespace

Picture::Picture(std::string_view id, std::string_view title, std::string_view description,
                 Width kind, double width, double height)
    : kind_(kind) {
  const std::string size =
      kind == Width::kFluid ? fmt::format("width=\"100%\" height=\"{}\"", Number(height))
                            : fmt::format("viewBox=\"0 0 {} {}\"", Number(width), Number(height));
  head_ = fmt::format(
      "<svg role=\"img\" aria-labelledby=\"{0}-title {0}-description\" {1}>"
      "<title id=\"{0}-title\">{2}</title><desc id=\"{0}-description\">{3}</desc>\n",
      id, size, EscapeMarkup(title), EscapeMarkup(description));
}

std::string Picture::X(double x) const {
  return kind_ == Width::kFluid ? Number(x) + "%" : Number(x);
}

void Picture::Line(Point from, Point to, std::string_view css_class) {
  body_ += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", css_class,
                       X(from.x), Number(from.y), X(to.x), Number(to.y));
}

void Picture::Draw(Mark mark, Point at, double radius, std::string_view css_class,
                   std::string_view title) {
  // A nested svg can be placed in per cent while its shape keeps its size in pixels.
  body_ +=
      fmt::format("<svg class=\"mark\" x=\"{}\" y=\"{}\">{} class=\"{}\">{}</{}></svg>\n", X(at.x),
                  Number(at.y), ShapeOf(mark, radius), css_class, TitleOf(title),
                  mark == Mark::kDiamond ? "path" : (mark == Mark::kSquare ? "rect" : "circle"));
}

void Picture::Text(Point at, std::string_view anchor, std::string_view css_class,
                   std::string_view text) {
  body_ += fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n",
                       css_class, X(at.x), Number(at.y), anchor, EscapeMarkup(text));
}

void Picture::Bar(Point at, double width, double height, std::string_view css_class,
                  std::string_view title) {
  body_ +=
      fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\">{}</rect>\n",
                  css_class, X(at.x), Number(at.y), X(width), Number(height), TitleOf(title));
}

void Picture::Curve(const std::vector<Point>& points, std::string_view css_class) {
  body_ += fmt::format("<path class=\"curve {}\" d=\"{}\"/>\n", css_class, PathThrough(points));
}

void Picture::Area(const std::vector<Point>& points, double floor, std::string_view css_class) {
  if (points.empty()) return;
  body_ +=
      fmt::format("<path class=\"{}\" d=\"{}L{} {}L{} {}Z\"/>\n", css_class, PathThrough(points),
                  Number(points.back().x), Number(floor), Number(points.front().x), Number(floor));
}

void Picture::Use(std::string_view id, std::string_view css_class) {
  body_ += fmt::format("<use href=\"#{}\" class=\"{}\"/>\n", id, css_class);
}

std::string Picture::Svg() const { return head_ + body_ + "</svg>\n"; }

std::string PathThrough(const std::vector<Point>& points) {
  std::string path;
  bool pen_down = false;
  for (const Point& point : points) {
    if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
      pen_down = false;
      continue;
    }
    path += fmt::format("{}{} {}", pen_down ? 'L' : 'M', Number(point.x), Number(point.y));
    pen_down = true;
  }
  return path;
}

void SharedShapes::Add(std::string_view id, const std::vector<std::vector<Point>>& curves) {
  groups_ += fmt::format("<g id=\"{}\">", id);
  for (const std::vector<Point>& curve : curves) {
    groups_ += fmt::format("<path class=\"curve\" d=\"{}\"/>", PathThrough(curve));
  }
  groups_ += "</g>\n";
}

std::string SharedShapes::Svg() const {
  return fmt::format(
      "<svg class=\"shared\" width=\"0\" height=\"0\" "
      "aria-hidden=\"true\"><defs>\n{}</defs></svg>\n",
      groups_);
}

double Scale::operator()(double value) const {
  return picture_low + (value - data_low) / (data_high - data_low) * (picture_high - picture_low);
}

std::vector<double> Ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power * (1 + 1e-9)) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const double slack = 1e-9 * step;
  const double first = std::ceil((low - slack) / step);
  for (int i = 0; i <= 2 * count && (first + i) * step <= high + slack; ++i) {
    ticks.push_back((first + i) * step);
  }
  return ticks;
}

}  // namespace isoscan
