#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/markup/escape.h"
#include "server/fairness/chart.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

constexpr double kRowHeight = 50;
constexpr double kLineHeight = 17;
constexpr double kTop = 26;  // Room for the axis and its numbers.

double MeanOf(const std::optional<ModelStatistics>& model) {
  return model ? model->dice.mean : kNoScore;
}

/// Dice as per cent of the picture's width; the margin keeps whole marks inside.
double X(double dice) { return Scale{0, 1, 1.2, 98.8}(dice); }

/// " (95 % interval 0.031 to 0.120)"; empty where there is none.
std::string GapInterval(const StudyStatistics& study) {
  if (!study.certainty.spread) return "";
  const Interval& interval = study.certainty.spread->gap.interval;
  return fmt::format(
      " (95 % interval <span data-json=\"/between_sites/gap/interval/low\">{}</span> to "
      "<span data-json=\"/between_sites/gap/interval/high\">{}</span>)",
      FormatScore(interval.low), FormatScore(interval.high));
}

/// Whether the gap could be chance, and what these cases could have shown.
std::string HowSureOfTheGap(const StudyStatistics& study) {
  const StudyCertainty& certainty = study.certainty;
  if (!certainty.without_spread.empty()) {
    std::string names;
    for (const std::string& name : certainty.without_spread) {
      names += (names.empty() ? "" : ", ") + EscapeMarkup(name);
    }
    return fmt::format(
        "One held-out case, or cases that all have the same Dice, give no interval: {}.{}", names,
        study.worst == study.best ? "" : " So the gap between hospitals has none.");
  }
  if (!certainty.spread) return "";
  const std::string smallest = fmt::format(
      "The smallest gap that so many cases show in four studies of five is <span "
      "data-json=\"/between_sites/smallest_gap\">{}</span>.",
      FormatScore(certainty.spread->smallest_gap));
  const Spread& gap = certainty.spread->gap;
  if (gap.interval.low > 0) return "Chance alone does not explain such a gap. " + smallest;
  return fmt::format(
             "Such a gap can be chance: hospitals that are served alike show one, too{}. ",
             gap.interval.high < gap.observed ? ", and noise has made this one larger" : "") +
         smallest;
}

std::string Headline(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  if (!study.scored_round || !study.worst) {
    return "No trained model has been scored on held-out cases yet, so there is nothing to "
           "compare.";
  }
  std::size_t scored = 0;
  for (const SiteStatistics& site : study.sites) scored += site.after && site.after->dice.n > 0;
  const std::string begin =
      fmt::format("After {} over {} the model reaches a mean Dice of <b>{}</b>",
                  FormatCount(*study.scored_round, "round"),
                  scored == 1 ? "one hospital" : fmt::format("{} hospitals", scored),
                  FormatScore(study.mean_over_cases));
  if (scored == 1) return begin + ".";
  const SiteStatistics& worst = study.sites[*study.worst];
  return fmt::format("{}; worst served is <b>{}</b> ({}), {} behind the best{}.", begin,
                     EscapeMarkup(worst.site.name), FormatScore(worst.after->dice.mean),
                     FormatScore(study.gap), GapInterval(study));
}

/// What the sentence above leaves out and a reader must know to believe it.
std::string Caveats(const StudyStatistics& study) {
  std::string too_few;
  std::string unscored;
  const auto append = [](std::string& list, const std::string& name) {
    list += (list.empty() ? "" : ", ") + EscapeMarkup(name);
  };
  for (const SiteStatistics& site : study.sites) {
    if (!site.after || site.after->dice.n == 0) {
      append(unscored, site.site.name);
    } else if (site.too_few) {
      append(too_few, site.site.name);
    }
  }
  std::string text;
  const bool several = study.worst != study.best;
  if (study.worst) {
    text += fmt::format("The mean is over {}", FormatCount(study.cases, "held-out case"));
    text += several ? fmt::format("; with every hospital counting the same it is {}. ",
                                  FormatScore(study.mean_over_sites))
                    : ". ";
  }
  if (!too_few.empty()) {
    text += fmt::format("Fewer than {} held-out cases, too few to conclude from: {}. ",
                        kFewestCasesToConclude, too_few);
  }
  if (!unscored.empty() && study.scored_round) {
    text += fmt::format("Without a score of this model: {}. ", unscored);
  }
  if (study.worst) text += HowSureOfTheGap(study);
  return text.empty() ? "" : fmt::format("<p class=\"caveat\">{}</p>\n", text);
}

std::string Verdict(const StudyStatistics& study, std::size_t index) {
  if (study.sites.size() < 2) return "";
  if (index == study.worst) return "worst served";
  return index == study.best ? "best served" : "";
}

void DrawAxis(Picture& picture, double bottom) {
  for (const double tick : Ticks(0, 1, 5)) {
    picture.Line({X(tick), kTop - 8}, {X(tick), bottom}, "grid");
    picture.Text({X(tick), kTop - 14}, "middle", "tick", FormatTick(tick));
  }
}

/// The words above a site's strip. Together they stand on one line, unless a phone is too narrow.
struct RowText {
  std::string name;
  std::string numbers;
  bool worst = false;

  bool two_lines() const { return name.size() + numbers.size() > 58; }
  double height() const { return two_lines() ? kRowHeight + kLineHeight : kRowHeight; }
};

RowText TextOf(const StudyStatistics& study, std::size_t index) {
  const SiteStatistics& site = study.sites[index];
  const std::string verdict = Verdict(study, index);
  RowText text;
  text.name = site.site.name + (verdict.empty() ? "" : " · " + verdict);
  text.worst = verdict == "worst served";
  text.numbers = FormatScore(MeanOf(site.before)) + " → " + FormatScore(MeanOf(site.after));
  if (site.after && site.too_few) {
    text.numbers += fmt::format(" (n = {}, too few)", site.after->dice.n);
  }
  return text;
}

void DrawText(Picture& picture, const RowText& text, double top) {
  picture.Text({0, top + 13}, "start", text.worst ? "site worst" : "site", text.name);
  if (text.two_lines()) {
    picture.Text({0, top + 13 + kLineHeight}, "start", "number", text.numbers);
  } else {
    picture.Text({100, top + 13}, "end", "number", text.numbers);
  }
}

/// Under the line at `y`.
void DrawInterval(Picture& picture, const Interval& interval, double y) {
  const double below = y + 11;
  picture.Line({X(interval.low), below}, {X(interval.high), below}, "interval");
  for (const double end : {interval.low, interval.high}) {
    picture.Line({X(end), below - 3}, {X(end), below + 3}, "interval");
  }
}

/// All cases, the way from before to after, and the three models' means on one line at `y`.
void DrawScores(Picture& picture, const SiteStatistics& site, bool worst, double y) {
  const double before = MeanOf(site.before);
  const double after = MeanOf(site.after);
  picture.Line({X(0), y}, {X(1), y}, "track");
  if (std::isfinite(before) && std::isfinite(after)) {
    picture.Line({X(before), y}, {X(after), y}, worst ? "path worst" : "path");
  }
  if (site.after) {
    for (const CaseStatistics& scored : site.after->cases) {
      if (std::isnan(scored.dice)) continue;
      // Spread by index, so that cases with equal scores stay visible.
      const double jitter = 2.5 * (scored.case_index % 5 - 2);
      picture.Draw(Mark::kDot, {X(scored.dice), y + jitter}, 2.4, "case",
                   fmt::format("case {}: {}", scored.case_index, FormatScore(scored.dice)));
    }
  }
  if (site.certainty.mean) DrawInterval(picture, *site.certainty.mean, y);
  if (site.local_only && site.local_only->dice.n > 0) {
    picture.Draw(Mark::kSquare, {X(site.local_only->dice.mean), y}, 5, "local",
                 "trained alone: " + FormatScore(site.local_only->dice.mean));
  }
  if (std::isfinite(before)) {
    picture.Draw(Mark::kRing, {X(before), y}, 5, "before", "before: " + FormatScore(before));
  }
  if (std::isfinite(after)) {
    picture.Draw(worst ? Mark::kDiamond : Mark::kDot, {X(after), y}, 6.5,
                 worst ? "after worst" : "after", "after: " + FormatScore(after));
  }
}

/// The gap between the best and the worst hospital, across all rows.
void DrawGap(Picture& picture, const StudyStatistics& study, double bottom) {
  const double worst = X(study.sites[*study.worst].after->dice.mean);
  const double best = X(study.sites[*study.best].after->dice.mean);
  const double y = bottom + 8;
  for (const double x : {worst, best}) picture.Line({x, kTop - 8}, {x, y + 4}, "gap");
  picture.Line({worst, y}, {best, y}, "gap across");
  const std::string label = "gap " + FormatScore(study.gap);
  const bool near_edge = worst < 15;
  picture.Text({near_edge ? best + 1 : worst - 1, y + 4}, near_edge ? "start" : "end", "value",
               label);
}

std::string Legend(bool local_only, bool several_sites) {
  const auto entry = [](Mark mark, double radius, std::string_view css_class,
                        std::string_view text) {
    Picture symbol("legend-" + std::string(css_class.substr(css_class.rfind(' ') + 1)), text, "",
                   Picture::Width::kFixed, 16, 16);
    symbol.Draw(mark, {8, 8}, radius, css_class);
    return fmt::format("<li>{}{}</li>", symbol.Svg(), text);
  };
  std::string entries = entry(Mark::kRing, 5, "before", "before training") +
                        entry(Mark::kDot, 6.5, "after", "after training");
  if (several_sites) entries += entry(Mark::kDiamond, 5, "after worst", "after, worst served");
  if (local_only) entries += entry(Mark::kSquare, 5, "local", "trained alone");
  entries += entry(Mark::kDot, 2.4, "case", "one held-out case");
  Picture interval("legend-interval", "95 % interval of the mean", "", Picture::Width::kFixed, 16,
                   16);
  interval.Line({1, 8}, {15, 8}, "interval");
  for (const double end : {1.0, 15.0}) interval.Line({end, 5}, {end, 11}, "interval");
  entries += fmt::format("<li>{}95 % interval of the mean</li>", interval.Svg());
  return fmt::format("<ul class=\"legend\" aria-hidden=\"true\">{}</ul>\n", entries);
}

std::string SitesPicture(const StudyStatistics& study) {
  double bottom = kTop;
  std::vector<RowText> rows;
  std::string description;
  bool local_only = false;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const SiteStatistics& site = study.sites[i];
    rows.push_back(TextOf(study, i));
    bottom += rows.back().height();
    description += fmt::format("{}: {} before, {} after", site.site.name,
                               FormatScore(MeanOf(site.before)), FormatScore(MeanOf(site.after)));
    if (site.certainty.mean) {
      description += fmt::format(", interval {} to {}", FormatScore(site.certainty.mean->low),
                                 FormatScore(site.certainty.mean->high));
    }
    description += ". ";
    local_only = local_only || site.local_only.has_value();
  }
  Picture picture("sites", "Mean Dice of each hospital before and after training", description,
                  Picture::Width::kFluid, 0, bottom + 18);
  DrawAxis(picture, bottom);
  if (study.worst && study.worst != study.best) DrawGap(picture, study, bottom);
  double top = kTop;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    DrawText(picture, rows[i], top);
    top += rows[i].height();
    DrawScores(picture, study.sites[i], rows[i].worst, top - 19);
  }
  return fmt::format(
      "<figure>\n{}{}<figcaption>Dice on held-out cases, per hospital: 0 is no overlap with the "
      "reference, 1 is perfect.</figcaption>\n</figure>\n",
      Legend(local_only, study.sites.size() > 1), picture.Svg());
}

}  // namespace

std::string Overview(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  std::string html =
      fmt::format("<p class=\"headline\">{}</p>\n{}", Headline(content), Caveats(study));
  const bool any_score = std::any_of(
      study.sites.begin(), study.sites.end(),
      [](const SiteStatistics& site) { return site.before || site.after || site.local_only; });
  return any_score ? html + SitesPicture(study) : html;
}

}  // namespace isoscan
