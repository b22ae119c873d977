#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "common/markup/escape.h"
#include "server/fairness/chart.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

constexpr double kWidth = 220;
constexpr double kHeight = 96;
constexpr double kFloor = kHeight - 18;
constexpr double kTailLeftOut = 0.001;  // Of the voxels, on each side of a picture.
constexpr double kLargestIntensity = 1e30;

/// Whether a histogram, which a site sent, can be drawn.
bool IsUsable(const HistogramRecord& histogram) {
  return std::abs(histogram.low) < kLargestIntensity &&
         std::abs(histogram.high) < kLargestIntensity && histogram.low < histogram.high &&
         !histogram.counts.empty() &&
         std::all_of(histogram.counts.begin(), histogram.counts.end(),
                     [](std::int64_t count) { return count >= 0; }) &&
         std::any_of(histogram.counts.begin(), histogram.counts.end(),
                     [](std::int64_t count) { return count > 0; });
}

double BinWidth(const HistogramRecord& histogram) {
  return (histogram.high - histogram.low) / static_cast<double>(histogram.counts.size());
}

struct Range {
  double low = 0;
  double high = 0;
};

/// The intensities of all but the outermost voxels.
Range CentralRange(const HistogramRecord& histogram) {
  const double total =
      std::accumulate(histogram.counts.begin(), histogram.counts.end(), 0.0,
                      [](double sum, std::int64_t count) { return sum + double(count); });
  std::size_t first = histogram.counts.size();
  std::size_t last = 0;
  double seen = 0;
  for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin) {
    seen += static_cast<double>(histogram.counts[bin]);
    if (first > bin && seen > kTailLeftOut * total) first = bin;
    if (seen <= (1 - kTailLeftOut) * total) last = bin + 1;
  }
  last = std::min(last, histogram.counts.size() - 1);
  const double width = BinWidth(histogram);
  return {histogram.low + width * static_cast<double>(first),
          histogram.low + width * static_cast<double>(last + 1)};
}

/// One of the two pictures of every site: as stored, or after harmonisation.
struct View {
  std::string id;
  std::string title;
  const HistogramRecord SiteRecord::*histogram;
  Range range;
};

/// The axis that all sites share.
std::optional<Range> SharedRange(const std::vector<SiteStatistics>& sites,
                                 const HistogramRecord SiteRecord::*histogram) {
  std::optional<Range> shared;
  for (const SiteStatistics& site : sites) {
    if (!IsUsable(site.site.*histogram)) continue;
    const Range own = CentralRange(site.site.*histogram);
    if (!shared) shared = own;
    shared = Range{std::min(shared->low, own.low), std::max(shared->high, own.high)};
  }
  return shared;
}

/// Height is the square root of a bin's share of the site's fullest bin: the air around a head
/// fills one bin so much that tissue would be flat beside it.
std::vector<Point> OutlineOf(const HistogramRecord& histogram, const Scale& x) {
  std::vector<Point> points;
  if (!IsUsable(histogram)) return points;
  const auto fullest =
      static_cast<double>(*std::max_element(histogram.counts.begin(), histogram.counts.end()));
  const double width = BinWidth(histogram);
  for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin) {
    const double middle = histogram.low + width * (static_cast<double>(bin) + 0.5);
    if (middle < x.data_low || middle > x.data_high) continue;
    const double share = std::sqrt(static_cast<double>(histogram.counts[bin]) / fullest);
    points.push_back({x(middle), kFloor - share * (kFloor - 6)});
  }
  return points;
}

std::string PictureOf(const SiteStatistics& site, std::size_t index, const View& view) {
  const HistogramRecord& histogram = site.site.*view.histogram;
  const Scale x{view.range.low, view.range.high, 6, kWidth - 6};
  std::string description = "no histogram";
  if (IsUsable(histogram)) {
    const Range range = CentralRange(histogram);
    description = fmt::format("Nearly all voxels lie between {} and {}.", FormatTick(range.low),
                              FormatTick(range.high));
  }
  Picture picture(fmt::format("{}-{}", view.id, index), view.title + ", " + site.site.name,
                  description, Picture::Width::kFixed, kWidth, kHeight);
  picture.Use("all-" + view.id, "others");
  const std::vector<Point> outline = OutlineOf(histogram, x);
  picture.Area(outline, kFloor, "own-area");
  picture.Curve(outline, "own");
  picture.Line({x.picture_low, kFloor}, {x.picture_high, kFloor}, "axis");
  for (const double tick : Ticks(view.range.low, view.range.high, 4)) {
    picture.Line({x(tick), kFloor}, {x(tick), kFloor + 3}, "axis");
    // A number at the very edge would be cut.
    const bool near_edge = x(tick) < 14 || x(tick) > kWidth - 14;
    if (!near_edge) picture.Text({x(tick), kHeight - 4}, "middle", "tick", FormatTick(tick));
  }
  if (outline.empty()) picture.Text({kWidth / 2, kFloor - 20}, "middle", "tick", "not sent");
  return picture.Svg();
}

}  // namespace

std::string IntensitySection(const ReportContent& content) {
  const std::vector<SiteStatistics>& sites = content.statistics.sites;
  const HarmonizationPlan& plan = content.record.study.harmonization;
  const bool harmonised = plan.normalize != HarmonizationPlan::Normalizer::kNone;
  std::vector<View> views{{"raw", "As stored", &SiteRecord::raw, {}}};
  if (harmonised) {
    views.push_back({"harmonized", "After harmonisation", &SiteRecord::harmonized, {}});
  }
  SharedShapes shared;
  std::vector<View> drawn;
  for (View& view : views) {
    const std::optional<Range> range = SharedRange(sites, view.histogram);
    if (!range) continue;
    view.range = *range;
    const Scale x{range->low, range->high, 6, kWidth - 6};
    std::vector<std::vector<Point>> outlines;
    for (const SiteStatistics& site : sites) {
      outlines.push_back(OutlineOf(site.site.*view.histogram, x));
    }
    shared.Add("all-" + view.id, outlines);
    drawn.push_back(view);
  }
  if (drawn.empty()) return "";

  std::string panels;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    panels += fmt::format("<figure class=\"panel\"><figcaption>{}</figcaption>\n",
                          EscapeMarkup(sites[i].site.name));
    for (const View& view : drawn) {
      panels += fmt::format("<p class=\"view\">{}</p>{}", view.title, PictureOf(sites[i], i, view));
    }
    panels += "</figure>\n";
  }
  return fmt::format(
      "<section>\n<h2>Intensities at every scanner</h2>\n<p>How often each intensity occurs at a "
      "hospital, the others in grey; all share one axis. {} Heights are square roots, "
      "relative to the fullest bin of each hospital. The counts are sums over all its cases.</p>\n"
      "{}<div class=\"panels\">\n{}</div>\n</section>\n",
      harmonised ? "Where the lower curves lie on each other, harmonisation has removed the "
                   "scanner's scale and bias; what still differs is anatomy, contrast and noise."
      : plan.n4.has_value()
          ? "This study does not normalise: the network sees these after N4 alone."
          : "This study does not normalise: the network sees these.",
      shared.Svg(), panels);
}

}  // namespace isoscan
