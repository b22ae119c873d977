#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/markup/escape.h"
#include "server/fairness/chart.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

std::string Pointer(std::size_t site, std::string_view rest) {
  return fmt::format("/sites/{}/{}", site, rest);
}

Cell Score(double score, std::string pointer) { return {FormatScore(score), std::move(pointer)}; }
Cell Count(std::int64_t count, std::string pointer) {
  return {FormatCount(count), std::move(pointer)};
}
Cell Difference(double difference, std::string pointer) {
  return {FormatDifference(difference), std::move(pointer)};
}

/// A site's name as the header of its row, with what must be known to read the row.
std::string RowHeader(const SiteStatistics& site) {
  std::string notes;
  if (site.too_few) notes += " <small class=\"flag\">too few cases</small>";
  if (site.site.withdrawn) notes += " <small class=\"flag\">withdrew</small>";
  return EscapeMarkup(site.site.name) + notes;
}

/// A mean, and under it "0.712 to 0.803".
Cell WithInterval(Cell mean, const std::optional<Interval>& interval, const std::string& pointer,
                  std::string (*format)(double)) {
  if (!interval) return mean;
  mean.html += fmt::format(
      "<small><span data-json=\"{0}/low\">{1}</span> to <span "
      "data-json=\"{0}/high\">{2}</span></small>",
      pointer, format(interval->low), format(interval->high));
  return mean;
}

/// From the lower quartile to the upper.
Cell MiddleHalf(const Distribution& dice, std::size_t index) {
  if (dice.n == 0) return {kNoNumber};
  return {fmt::format("<span data-json=\"{}\">{}</span>–<span data-json=\"{}\">{}</span>",
                      Pointer(index, "dice/lower_quartile"), FormatScore(dice.lower_quartile),
                      Pointer(index, "dice/upper_quartile"), FormatScore(dice.upper_quartile))};
}

std::vector<Cell> ScoreCells(const SiteStatistics& site, std::size_t index) {
  static const ModelStatistics none;
  const ModelStatistics& after = site.after ? *site.after : none;
  const double before = site.before ? site.before->dice.mean : kNoScore;
  return {Count(site.site.training_cases, Pointer(index, "training_cases")),
          Count(site.site.held_out_cases, Pointer(index, "held_out_cases")),
          Count(site.site.refused_cases, Pointer(index, "refused_cases")),
          Score(before, Pointer(index, "before/dice/mean")),
          WithInterval({FormatScore(after.dice.mean), Pointer(index, "dice/mean"), "strong"},
                       site.certainty.mean, Pointer(index, "interval"), FormatScore),
          Difference(after.dice.mean - before, Pointer(index, "change")),
          Score(after.dice.median, Pointer(index, "dice/median")),
          MiddleHalf(after.dice, index),
          Score(after.dice.lowest, Pointer(index, "dice/lowest")),
          site.after ? Count(after.misses, Pointer(index, "misses")) : Cell{kNoNumber},
          site.after ? Count(after.false_alarms, Pointer(index, "false_alarms")) : Cell{kNoNumber}};
}

constexpr double kCurveWidth = 220;
constexpr double kCurveHeight = 130;
constexpr Scale kCurveY{0, 1, kCurveHeight - 22, 10};

std::vector<Point> CurveOf(const SiteStatistics& site, const Scale& x) {
  std::vector<Point> points;
  for (std::size_t round = 0; round < site.mean_by_round.size(); ++round) {
    points.push_back({x(static_cast<double>(round)), kCurveY(site.mean_by_round[round])});
  }
  return points;
}

std::string CurvePanel(const SiteStatistics& site, std::size_t index, const Scale& x) {
  std::string description;
  std::size_t last = 0;
  for (std::size_t round = 0; round < site.mean_by_round.size(); ++round) {
    if (std::isnan(site.mean_by_round[round])) continue;
    description += fmt::format("round {}: {}; ", round, FormatScore(site.mean_by_round[round]));
    last = round;
  }
  if (description.empty()) description = "no scores";
  Picture panel(fmt::format("curve-{}", index), "Mean Dice by round, " + site.site.name,
                description, Picture::Width::kFixed, kCurveWidth, kCurveHeight);
  for (const double tick : {0.0, 0.5, 1.0}) {
    panel.Line({x.picture_low, kCurveY(tick)}, {x.picture_high, kCurveY(tick)}, "grid");
    panel.Text({x.picture_low - 5, kCurveY(tick) + 3.5}, "end", "tick", FormatTick(tick));
  }
  for (const double tick : Ticks(0, x.data_high, 4)) {
    if (tick != std::floor(tick)) continue;
    panel.Text({x(tick), kCurveHeight - 6}, "middle", "tick", FormatTick(tick));
  }
  panel.Use("all-curves", "others");
  const std::vector<Point> curve = CurveOf(site, x);
  panel.Curve(curve, "own");
  if (!curve.empty() && std::isfinite(curve[last].y)) {
    panel.Draw(Mark::kDot, curve[last], 3, "after");
    const bool near_end = curve[last].x > kCurveWidth - 60;
    const bool near_top = curve[last].y < 24;
    panel.Text({curve[last].x + (near_end ? 0 : 6), curve[last].y + (near_top ? 16 : -7)},
               near_end ? "end" : "start", "value", FormatScore(site.mean_by_round[last]));
  }
  return fmt::format("<figure class=\"panel\"><figcaption>{}</figcaption>\n{}</figure>\n",
                     EscapeMarkup(site.site.name), panel.Svg());
}

/// "18 cases · 1 missed": what a mean over a label's cases leaves out.
std::string LabelNote(const LabelStatistics& label) {
  std::string note = FormatCount(label.dice.n, "case");
  if (label.misses > 0) note += fmt::format(" · {} missed", label.misses);
  if (label.false_alarms > 0) {
    note += " · " + FormatCount(label.false_alarms, "false alarm");
  }
  if (label.both_empty > 0) note += fmt::format(" · {} rightly empty", label.both_empty);
  if (label.unusable > 0) note += fmt::format(" · {} without a usable score", label.unusable);
  return note;
}

/// Which model was the best, and who says so.
std::string BestModelSentence(const ReportContent& content) {
  const ModelRanking& ranking = content.statistics.ranking;
  const JudgedModel* const best = ranking.best();
  if (best == nullptr) return "";
  std::string judges;
  for (const std::string& site : ranking.judges) {
    judges += (judges.empty() ? "" : ", ") + EscapeMarkup(site);
  }
  return fmt::format(
      "<p>Best by {}: the model after round <b data-json=\"/best_model/round\">{}</b>, with "
      "<span data-json=\"/best_model/score\">{}</span>. {}</p>\n",
      InWords(content.record.study.rounds.best_by), best->round, FormatScore(best->score),
      ranking.models.size() == 1
          ? fmt::format("No other model was scored by all of: {}.", judges)
          : fmt::format("Compared are the {} models that each of these scored: {}.",
                        ranking.models.size(), judges));
}

std::string EarlyEndSentence(const StudyRecord& record) {
  for (const RoundRecord& round : record.rounds) {
    if (round.ends_training.empty()) continue;
    return fmt::format("<p>Training ended after round {} of {}: {}.</p>\n", round.round,
                       record.study.rounds.rounds, EscapeMarkup(round.ends_training));
  }
  return "";
}

bool AnyScored(const StudyStatistics& study) { return study.scored_round.has_value(); }

}  // namespace

std::string ScoresBySite(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  if (study.sites.empty()) return "";
  Table table(
      "scores",
      AnyScored(study)
          ? fmt::format("Dice on held-out cases after {}. Change is after minus before. "
                        "Misses and false alarms count labels of cases, and are in the "
                        "mean as Dice 0. Under a mean, its 95 % interval: where the mean of "
                        "many more such cases may lie.",
                        FormatCount(*study.scored_round, "round"))
          : "What each hospital brings.",
      {"Hospital", "Training cases", "Held out", "Refused", "Before", "After", "Change", "Median",
       "Middle half", "Lowest", "Misses", "False alarms"});
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    table.Row(RowHeader(study.sites[i]), ScoreCells(study.sites[i], i));
  }
  return fmt::format("<section>\n<h2>Every hospital</h2>\n{}</section>\n", table.Html());
}

std::string JoiningSection(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  Table table(
      "joining",
      "The federated model beside a model that the hospital trained alone for as many steps, on "
      "the same held-out cases. The difference is federated minus alone, case by case.",
      {"Hospital", "Verdict", "Federated", "Alone", "Mean difference", "Median difference",
       "Cases better", "Cases worse"});
  bool any = false;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const SiteStatistics& site = study.sites[i];
    if (!site.joining) continue;
    any = true;
    table.Row(
        RowHeader(site),
        {{std::string(WordsFor(site.certainty.verdict)), "", "strong"},
         Score(site.after->dice.mean, Pointer(i, "dice/mean")),
         Score(site.local_only->dice.mean, Pointer(i, "local_only/dice/mean")),
         WithInterval({FormatDifference(site.joining->difference.mean),
                       Pointer(i, "local_only/federated_minus_alone/mean"), "strong"},
                      site.certainty.joining ? site.certainty.joining->interval : std::nullopt,
                      Pointer(i, "local_only/joining/interval"), FormatDifference),
         Difference(site.joining->difference.median,
                    Pointer(i, "local_only/federated_minus_alone/median")),
         Count(site.joining->better, Pointer(i, "local_only/cases_better_federated")),
         Count(site.joining->worse, Pointer(i, "local_only/cases_worse_federated"))});
  }
  if (!any) return "";
  return fmt::format(
      "<section>\n<h2>Together or alone</h2>\n{}<p>Better: the mean difference is above 0. Not "
      "worse: it is above −{}. Harmed: it is below that. Cannot tell: these cases show none of the "
      "three. A verdict is given only where chance would give it to any of the hospitals in no "
      "more "
      "than one report of 40; the interval is each hospital's own and may say more. What happens "
      "to "
      "few patients, none of them among the held-out cases, no test can find.</p>\n</section>\n",
      table.Html(), FormatTick(kMargin));
}

std::string PersonalSection(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  Table table(
      "personal",
      "The model that each hospital has of its own, trained beside the federated one and drawn to "
      "it, on the same held-out cases. The difference is the hospital's own minus federated, case "
      "by case.",
      {"Hospital", "Own", "Federated", "Mean difference", "Median difference", "Cases better",
       "Cases worse"});
  bool any = false;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const SiteStatistics& site = study.sites[i];
    if (!site.owning) continue;
    any = true;
    table.Row(RowHeader(site),
              {Score(site.personal->dice.mean, Pointer(i, "personal/dice/mean")),
               Score(site.after->dice.mean, Pointer(i, "dice/mean")),
               {FormatDifference(site.owning->difference.mean),
                Pointer(i, "personal/personal_minus_federated/mean"), "strong"},
               Difference(site.owning->difference.median,
                          Pointer(i, "personal/personal_minus_federated/median")),
               Count(site.owning->better, Pointer(i, "personal/cases_better_personal")),
               Count(site.owning->worse, Pointer(i, "personal/cases_worse_personal"))});
  }
  if (!any) return "";
  return fmt::format("<section>\n<h2>A model of its own</h2>\n{}</section>\n", table.Html());
}

std::string LearningCurves(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  if (study.rounds == 0 || !AnyScored(study)) return "";
  const std::size_t models = study.sites.front().mean_by_round.size();
  const Scale x{0, static_cast<double>(std::max<std::size_t>(models, 2) - 1), 26, kCurveWidth - 12};
  std::vector<std::vector<Point>> all;
  std::string panels;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    all.push_back(CurveOf(study.sites[i], x));
    panels += CurvePanel(study.sites[i], i, x);
  }
  SharedShapes shared;
  shared.Add("all-curves", all);
  return fmt::format(
      "<section>\n<h2>Round by round</h2>\n<p>Mean Dice on held-out cases after each round; round "
      "0 "
      "is the model before training.{}</p>\n{}{}{}"
      "<div class=\"panels\">\n{}</div>\n</section>\n",
      study.sites.size() > 1 ? " The other hospitals are grey." : "",
      EarlyEndSentence(content.record), BestModelSentence(content), shared.Svg(), panels);
}

std::string ScoresByLabel(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  const std::vector<std::string>& labels = content.record.study.labels;
  if (!AnyScored(study) || labels.empty()) return "";
  std::vector<std::string> headers{"Hospital"};
  for (const std::string& label : labels) headers.push_back(EscapeMarkup(label));
  Table table(
      "labels",
      "Mean Dice per label. A label that the model missed or drew where there is none counts as "
      "Dice 0; a case where label and prediction are both empty has no Dice and is only counted.",
      std::move(headers));
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const SiteStatistics& site = study.sites[i];
    if (!site.after) continue;
    std::vector<Cell> cells;
    for (std::size_t label = 0; label < labels.size(); ++label) {
      const LabelStatistics& statistics = site.after->labels[label];
      const double filled = std::isnan(statistics.dice.mean) ? 0 : 100 * statistics.dice.mean;
      const std::string pointer = Pointer(i, fmt::format("labels/{}/dice/mean", label));
      cells.push_back({fmt::format("<span data-json=\"{}\">{}</span><small>{}</small>", pointer,
                                   FormatScore(statistics.dice.mean), LabelNote(statistics)),
                       "", "bar", fmt::format("--filled:{:.1f}%", filled)});
    }
    table.Row(RowHeader(site), cells);
  }
  return fmt::format("<section class=\"labels\">\n<h2>Every label</h2>\n{}</section>\n",
                     table.Html());
}

std::string LowestScoringCases(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  if (!AnyScored(study)) return "";
  std::vector<std::string> headers{"Hospital"};
  for (std::size_t rank = 0; rank < kLowestCases; ++rank) {
    headers.push_back(rank == 0 ? "Lowest" : fmt::format("{}.", rank + 1));
  }
  Table table(
      "lowest",
      "Index of the case (only the hospital knows which patient it is) and its Dice, the mean over "
      "its labels.",
      std::move(headers));
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const SiteStatistics& site = study.sites[i];
    if (!site.after) continue;
    std::vector<Cell> cells;
    for (std::size_t rank = 0; rank < kLowestCases; ++rank) {
      if (rank >= site.after->lowest.size()) {
        cells.push_back({kNoNumber});
        continue;
      }
      const CaseStatistics& lowest = site.after->lowest[rank];
      const std::string pointer = Pointer(i, fmt::format("lowest_cases/{}/dice", rank));
      cells.push_back({fmt::format("<small>case {}</small> <span data-json=\"{}\">{}</span>",
                                   lowest.case_index, pointer, FormatScore(lowest.dice))});
    }
    table.Row(RowHeader(site), cells);
  }
  return fmt::format("<section>\n<h2>Cases to look at</h2>\n{}</section>\n", table.Html());
}

}  // namespace isoscan
