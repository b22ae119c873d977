#include "client/certification/certificate_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>

#include "common/markup/escape.h"

namespace isoscan {
namespace {

constexpr double kPanelWidth = 250;
constexpr double kPanelHeight = 190;
constexpr double kLeft = 34;
constexpr double kRight = 16;
constexpr double kTop = 30;
constexpr double kBottom = 40;
constexpr double kHeader = 122;
constexpr std::size_t kColumns = 3;

// Blue and vermillion of docs/references.md#okabe2008.
constexpr std::string_view kStyle = R"css(
  svg { --paper: #fffefb; --ink: #1d1f22; --soft: #5c6068; --rule: #d9d7d0; --blue: #0072b2; --red: #c24e00; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #15171a; --ink: #e8e6e1; --soft: #a2a6ad; --rule: #34383e; --blue: #56b4e9; --red: #f28e3c; }
  }
  text { fill: var(--ink); font: 12px system-ui, "Liberation Sans", Arial, sans-serif; }
  .title { font-size: 17px; font-weight: 600; }
  .name { font-weight: 600; }
  .soft { fill: var(--soft); font-size: 11px; }
  .paper { fill: var(--paper); }
  .grid { stroke: var(--rule); }
  .neutral { stroke: var(--soft); stroke-dasharray: 2 3; }
  .dice { stroke: var(--blue); stroke-width: 2; fill: none; }
  .flipped { stroke: var(--red); stroke-width: 2; stroke-dasharray: 5 3; fill: none; }
  .dot { fill: var(--blue); }
  .ring { fill: var(--paper); stroke: var(--red); stroke-width: 1.8; }
)css";

std::string Text(double x, double y, std::string_view css_class, std::string_view anchor,
                 std::string_view text) {
  return fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
                     css_class, x, y, anchor, EscapeMarkup(text));
}

std::string Line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  return fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css_class,
      x1, y1, x2, y2);
}

std::string Mark(double x, double y, std::string_view css_class, const std::string& title) {
  return fmt::format(
      "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\"><title>{}</title>"
      "</circle>\n",
      css_class, x, y, EscapeMarkup(title));
}

/// One perturbation: where amounts and shares lie in the picture.
class Panel {
 public:
  Panel(const DegradationCurve& curve, double x, double y)
      : curve_(curve), facts_(FactsOf(curve.perturbation)), left_(x), top_(y) {}

  std::string Svg() const {
    std::string svg = Text(left_ + kLeft, top_ + 16, "name", "start", facts_.title);
    for (const double share : {0.0, 0.5, 1.0}) {
      svg += Line(X(facts_.amounts.front()), Y(share), X(facts_.amounts.back()), Y(share), "grid");
      svg += Text(left_ + kLeft - 6, Y(share) + 4, "soft", "end", fmt::format("{:g}", share));
    }
    svg += Line(X(facts_.neutral), Y(0), X(facts_.neutral), Y(1), "neutral");
    for (const double amount : facts_.amounts) {
      svg += Text(X(amount), Y(0) + 15, "soft", "middle", facts_.Label(amount));
    }
    svg += Text((X(facts_.amounts.front()) + X(facts_.amounts.back())) / 2, Y(0) + 30, "soft",
                "middle", facts_.unit);
    svg += Series(&DegradationPoint::dice, "dice", "dot", "Dice");
    svg += Series(&DegradationPoint::flipped, "flipped", "ring", "flipped");
    return svg;
  }

 private:
  double X(double amount) const {
    const double first = facts_.Place(facts_.amounts.front());
    const double last = facts_.Place(facts_.amounts.back());
    return left_ + kLeft + 8 +
           (facts_.Place(amount) - first) / (last - first) * (kPanelWidth - kLeft - kRight - 16);
  }
  double Y(double share) const {
    return top_ + kTop + (1 - share) * (kPanelHeight - kTop - kBottom);
  }

  std::string Series(double DegradationPoint::*number, std::string_view line_class,
                     std::string_view mark_class, std::string_view name) const {
    std::string path;
    std::string marks;
    bool pen_down = false;
    for (const DegradationPoint& point : curve_.points) {
      const double share = point.*number;
      if (!std::isfinite(share)) {
        pen_down = false;
        continue;
      }
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? 'L' : 'M', X(point.amount), Y(share));
      pen_down = true;
      marks += Mark(X(point.amount), Y(share), mark_class,
                    fmt::format("{} {:.3f}, {} cases", name, share, point.cases));
    }
    // Nothing lies between two signs.
    if (facts_.perturbation == Perturbation::kNegativeScale) return marks;
    return fmt::format("<path class=\"{}\" d=\"{}\"/>\n{}", line_class, path, marks);
  }

  const DegradationCurve& curve_;
  const PerturbationFacts& facts_;
  double left_;
  double top_;
};

std::string Header(const CertificateSubject& subject, const InvarianceCertificate& certificate) {
  return Text(14, 26, "title", "start", fmt::format("Invariance certificate · {}", subject.study)) +
         Text(14, 48, "name", "start",
              fmt::format("{}: no logit changes by more than {:.1e} of the logits' spread",
                          certificate.holds() ? "Holds" : "Does NOT hold",
                          certificate.largest_logit_change)) +
         Text(14, 65, "soft", "start",
              fmt::format("under {}; greatest at scale {:g}, bias {:g}.", kCertifiedMapsInWords,
                          certificate.scale, certificate.bias)) +
         Text(
             14, 80, "soft", "start",
             fmt::format("{} of {} compared voxels changed their label. {} cases, model "
                         "{}, Isoscan {}.",
                         certificate.voxels_changed, certificate.voxels_compared, certificate.cases,
                         subject.model_digest.substr(0, 12), subject.software_version)) +
         Line(14, 102, 38, 102, "dice") + Mark(26, 102, "dot", "Dice") +
         Text(44, 106, "", "start", "Dice, against the reference") +
         Line(214, 102, 238, 102, "flipped") + Mark(226, 102, "ring", "flipped") +
         Text(244, 106, "", "start", "flipped: share of labelled voxels that change their label");
}

}  // namespace

std::string CertificatePicture(const CertificateSubject& subject,
                               const InvarianceCertificate& certificate) {
  const std::size_t rows = (certificate.curves.size() + kColumns - 1) / kColumns;
  const double width = kPanelWidth * static_cast<double>(kColumns) + 10;
  const double height = kHeader + kPanelHeight * static_cast<double>(rows);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "width=\"{0:.0f}\" height=\"{1:.0f}\"><title>Invariance certificate, {2}</title>\n"
      "<style>{3}</style>\n<rect class=\"paper\" width=\"{0:.0f}\" height=\"{1:.0f}\"/>\n",
      width, height, EscapeMarkup(subject.study), kStyle);
  svg += Header(subject, certificate);
  for (std::size_t i = 0; i < certificate.curves.size(); ++i) {
    svg += Panel(certificate.curves[i], 4 + kPanelWidth * static_cast<double>(i % kColumns),
                 kHeader + kPanelHeight * static_cast<double>(i / kColumns))
               .Svg();
  }
  return svg + "</svg>\n";
}

}  // namespace isoscan
