#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace isoscan {

/// Marks that are told apart by shape, so that colour is never needed.
enum class Mark { kDot, kRing, kDiamond, kSquare };

struct Point {
  double x = 0;
  double y = 0;
};

/// One SVG picture, drawn shape by shape. Colours and strokes are the page's CSS classes, so one
/// picture serves the light page, the dark one and the print.
class Picture {
 public:
  /// How the x of every shape is read.
  enum class Width {
    kFixed,  ///< In pixels of a picture that is scaled as a whole.
    kFluid,  ///< In per cent of the page's width: marks and text keep their size on any screen.
  };

  /// `id` is unique on the page; `title` and `description` are what a screen reader says.
  /// `width` is in pixels and unused for Width::kFluid.
  Picture(std::string_view id, std::string_view title, std::string_view description, Width kind,
          double width, double height);

  void Line(Point from, Point to, std::string_view css_class);
  /// `title` is shown where the mouse rests.
  void Draw(Mark mark, Point at, double radius, std::string_view css_class,
            std::string_view title = "");
  /// `anchor` is start, middle or end.
  void Text(Point at, std::string_view anchor, std::string_view css_class, std::string_view text);
  /// A rectangle from its upper left corner.
  void Bar(Point at, double width, double height, std::string_view css_class,
           std::string_view title = "");
  /// A curve through `points`; a NaN leaves a gap. Width::kFixed only.
  void Curve(const std::vector<Point>& points, std::string_view css_class);
  /// The area between `points` and the horizontal line at `floor`. Width::kFixed only.
  void Area(const std::vector<Point>& points, double floor, std::string_view css_class);
  /// A shape that SharedShapes put on the page under `id`.
  void Use(std::string_view id, std::string_view css_class);

  std::string Svg() const;

 private:
  std::string X(double x) const;

  std::string head_;
  std::string body_;
  Width kind_;
};

/// The `d` of a path through `points`; a NaN leaves a gap.
std::string PathThrough(const std::vector<Point>& points);

/// Shapes that many pictures draw: on the page once, so that it grows with the number of sites and
/// not with its square.
class SharedShapes {
 public:
  /// All curves become one shape.
  void Add(std::string_view id, const std::vector<std::vector<Point>>& curves);
  std::string Svg() const;

 private:
  std::string groups_;
};

/// A linear map from data to picture.
struct Scale {
  double data_low = 0;
  double data_high = 1;
  double picture_low = 0;
  double picture_high = 1;

  double operator()(double value) const;
};

/// About `count` round numbers (1, 2 or 5 times a power of ten) that lie in [low, high].
std::vector<double> Ticks(double low, double high, int count);

}  // namespace isoscan
