#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "common/markup/escape.h"
#include "server/fairness/chart.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

constexpr double kWidth = 250;
constexpr double kHeight = 150;
constexpr Scale kY{0, 1, kHeight - 36, 8};

/// How a hospital is drawn in every picture: mark and colour repeat after 4, the line after 12.
struct SiteLook {
  Mark mark;
  std::string line;
  std::string fill;
};

SiteLook LookOf(std::size_t site) {
  constexpr std::array<Mark, 4> kMarks{Mark::kDot, Mark::kDiamond, Mark::kSquare, Mark::kRing};
  const std::size_t colour = site % kMarks.size();
  return {kMarks[colour], fmt::format("site-line c{} l{}", colour, site / kMarks.size() % 3),
          fmt::format("site-mark c{}", colour)};
}

const DegradationCurve* CurveOf(const SiteStatistics& site, Perturbation perturbation) {
  for (const DegradationCurve& curve : site.certificate->curves) {
    if (curve.perturbation == perturbation && !curve.points.empty()) return &curve;
  }
  return nullptr;
}

/// One of the two pictures of a perturbation, with a line for every hospital.
std::string PictureOf(const ReportContent& content, const PerturbationFacts& facts,
                      std::string_view word, std::string_view title,
                      double DegradationPoint::*number) {
  const Scale x{facts.Place(facts.amounts.front()), facts.Place(facts.amounts.back()), 34,
                kWidth - 14};
  const std::vector<SiteStatistics>& sites = content.statistics.sites;
  std::string description;
  for (const SiteStatistics& site : sites) {
    if (!site.certificate) continue;
    const DegradationCurve* const curve = CurveOf(site, facts.perturbation);
    if (curve == nullptr) continue;
    description += site.site.name + ":";
    for (const DegradationPoint& point : curve->points) {
      description += fmt::format(" {} {};", FormatTick(point.amount), FormatScore(point.*number));
    }
    description += " ";
  }
  Picture picture(fmt::format("certificate-{}-{}", facts.word, word),
                  fmt::format("{}, {}", facts.title, title), description, Picture::Width::kFixed,
                  kWidth, kHeight);
  for (const double share : {0.0, 0.5, 1.0}) {
    picture.Line({x.picture_low, kY(share)}, {x.picture_high, kY(share)}, "grid");
    picture.Text({x.picture_low - 6, kY(share) + 3.5}, "end", "tick", FormatTick(share));
  }
  const double neutral = x(facts.Place(facts.neutral));
  picture.Line({neutral, kY(0)}, {neutral, kY(1)}, "track");
  for (const double amount : facts.amounts) {
    picture.Text({x(facts.Place(amount)), kY(0) + 15}, "middle", "tick", facts.Label(amount));
  }
  picture.Text({(x.picture_low + x.picture_high) / 2, kY(0) + 31}, "middle", "tick", facts.unit);
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (!sites[i].certificate) continue;
    const DegradationCurve* const curve = CurveOf(sites[i], facts.perturbation);
    if (curve == nullptr) continue;
    const SiteLook look = LookOf(i);
    std::vector<Point> line;
    for (const DegradationPoint& point : curve->points) {
      line.push_back({x(facts.Place(point.amount)), kY(point.*number)});
    }
    // Nothing lies between two signs.
    if (facts.perturbation != Perturbation::kNegativeScale) picture.Curve(line, look.line);
    for (std::size_t k = 0; k < line.size(); ++k) {
      if (!std::isfinite(line[k].y)) continue;
      picture.Draw(
          look.mark, line[k], 3.2, look.fill,
          fmt::format("{}: {}", sites[i].site.name, FormatScore(curve->points[k].*number)));
    }
  }
  return picture.Svg();
}

std::string Legend(const std::vector<SiteStatistics>& sites) {
  std::string entries;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (!sites[i].certificate) continue;
    const SiteLook look = LookOf(i);
    Picture key(fmt::format("certificate-key-{}", i), sites[i].site.name, "its line and mark",
                Picture::Width::kFixed, 32, 16);
    key.Line({0, 8}, {32, 8}, look.line);
    key.Draw(look.mark, {16, 8}, 3.2, look.fill);
    entries +=
        fmt::format("<li class=\"wide\">{}{}</li>\n", key.Svg(), EscapeMarkup(sites[i].site.name));
  }
  return fmt::format("<ul class=\"legend\">\n{}</ul>\n", entries);
}

std::string Rows(const std::vector<SiteStatistics>& sites) {
  Table table(
      "certificate",
      fmt::format("The greatest change of a logit, in standard deviations of the case's logits, "
                  "under {} maps <i>x</i> to <i>s·x + b</i> of each held-out scan: {}. Rounding "
                  "alone stays far below {:g}, from where on the invariance does not hold.",
                  kCertifiedScales.size() * kCertifiedBiases.size(), kCertifiedMapsInWords,
                  kInvarianceLimit),
      {"Hospital", "Cases", "Invariance", "Greatest change", "at scale", "at bias",
       "Labels changed", "of voxels compared"});
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (!sites[i].certificate) continue;
    const InvarianceCertificate& certificate = *sites[i].certificate;
    const auto at = [i](std::string_view key) {
      return fmt::format("/sites/{}/certificate/{}", i, key);
    };
    const bool finite = std::isfinite(certificate.largest_logit_change);
    table.Row(
        EscapeMarkup(sites[i].site.name),
        {{FormatCount(certificate.cases), at("cases")},
         {certificate.holds() ? "holds" : "does not hold", "", certificate.holds() ? "yes" : "no"},
         {finite ? fmt::format("{:.1e}", certificate.largest_logit_change) : kNoNumber,
          at("largest_logit_change"), "strong"},
         {FormatTick(certificate.scale), at("scale")},
         {FormatTick(certificate.bias), at("bias")},
         {FormatCount(certificate.voxels_changed), at("voxels_changed")},
         {FormatCount(certificate.voxels_compared), at("voxels_compared")}});
  }
  return table.Html();
}

/// Sites without one, in words; empty when every site sent one.
std::string WithoutCertificate(const std::vector<SiteStatistics>& sites) {
  std::string names;
  for (const SiteStatistics& site : sites) {
    if (site.certificate) continue;
    names += (names.empty() ? "" : ", ") + EscapeMarkup(site.site.name);
  }
  if (names.empty()) return "";
  return fmt::format(
      "<p>No certificate came from {}. A hospital sends none of fewer than {} cases, or where "
      "making it failed or took too long; its own log tells.</p>\n",
      names, kFewestCertifiedCases);
}

}  // namespace

std::string CertificateSection(const ReportContent& content) {
  const std::vector<SiteStatistics>& sites = content.statistics.sites;
  const bool any = std::any_of(sites.begin(), sites.end(), [](const SiteStatistics& site) {
    return site.certificate.has_value();
  });
  if (!any) return "";
  std::string panels;
  for (const PerturbationFacts& facts : PerturbationTable()) {
    panels += fmt::format(
        "<figure class=\"panel\"><figcaption>{}</figcaption>\n<p class=\"view\">Dice</p>{}"
        "<p class=\"view\">Labelled voxels that flip</p>{}</figure>\n",
        facts.title, PictureOf(content, facts, "dice", "Dice", &DegradationPoint::dice),
        PictureOf(content, facts, "flipped", "labelled voxels that flip",
                  &DegradationPoint::flipped));
  }
  return fmt::format(
      "<section>\n<h2>Invariance certificate</h2>\n<p>Each hospital changed its own held-out scans "
      "as other scanners would have and looked what becomes of the model's answers. A positive "
      "scale and a bias must change nothing.</p>\n{}{}<p>What harmonisation does not remove, by "
      "its "
      "amount; the dotted line is the scan as it is. Means over a hospital's held-out cases, none "
      "of fewer than {}.</p>\n{}<div class=\"panels\">\n{}</div>\n</section>\n",
      Rows(sites), WithoutCertificate(sites), kFewestCertifiedCases, Legend(sites), panels);
}

}  // namespace isoscan
