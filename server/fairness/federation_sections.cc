#include <fmt/format.h>

#include <map>
#include <string_view>
#include <utility>

#include "common/markup/escape.h"
#include "server/fairness/chart.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

using Outcome = ParticipationRecord::Outcome;

const ParticipationRecord* PartOf(const RoundRecord& round, const std::string& site) {
  for (const ParticipationRecord& part : round.sites) {
    if (part.site == site) return &part;
  }
  return nullptr;
}

Cell OutcomeCell(const ParticipationRecord* part) {
  if (part == nullptr || part->outcome == Outcome::kNotAsked) {
    const std::string reason = part == nullptr ? "" : ": " + EscapeMarkup(part->reason);
    return {fmt::format("<span title=\"not asked{}\">·</span>", reason), "", "took none"};
  }
  if (part->outcome == Outcome::kContributed) {
    return {fmt::format("<span title=\"contributed, weight {:.3f}\">●</span>", part->weight), "",
            "took yes"};
  }
  return {fmt::format("<span title=\"left out: {}\">✕</span>", EscapeMarkup(part->reason)), "",
          "took no"};
}

/// Without the numbers that say why this update was not chosen, which differ from round to round
/// and stand in the table.
std::string Summary(const std::string& reason) {
  constexpr std::string_view kNotChosen = "not chosen";
  return std::string(reason.starts_with(kNotChosen) ? kNotChosen : reason);
}

/// Who had this outcome, in which rounds, and why; `heading` is HTML, `nobody` what is said
/// instead.
std::string Absences(const std::vector<RoundRecord>& rounds, Outcome outcome,
                     std::string_view heading, std::string_view nobody) {
  std::map<std::pair<std::string, std::string>, std::vector<int>> absences;
  for (const RoundRecord& round : rounds) {
    for (const ParticipationRecord& part : round.sites) {
      if (part.outcome == outcome) {
        absences[{part.site, Summary(part.reason)}].push_back(round.round);
      }
    }
  }
  if (absences.empty()) return std::string(nobody);
  std::string items;
  for (const auto& [who_and_why, in_rounds] : absences) {
    items += fmt::format(
        "<li><b>{}</b>, {} {}: {}</li>\n", EscapeMarkup(who_and_why.first),
        in_rounds.size() == 1 ? "round" : "rounds", FormatRanges(in_rounds),
        EscapeMarkup(who_and_why.second.empty() ? "no reason recorded" : who_and_why.second));
  }
  return fmt::format("<p>{}</p>\n<ul class=\"reasons\">\n{}</ul>\n", heading, items);
}

std::string TimePicture(const std::vector<SiteStatistics>& sites) {
  constexpr double kRow = 40;
  double longest = 0;
  for (const SiteStatistics& site : sites) {
    const TimeUse& time = site.time;
    longest = std::max(longest, time.training + time.scoring + time.aggregating + time.waiting);
  }
  if (longest <= 0) return "";
  Picture picture("time", "Where each hospital's time went",
                  "Bars of training, scoring, aggregating and waiting; the table below has the "
                  "numbers.",
                  Picture::Width::kFluid, 0, kRow * static_cast<double>(sites.size()));
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const double top = kRow * static_cast<double>(i);
    const TimeUse& time = sites[i].time;
    picture.Text({0, top + 13}, "start", "site", sites[i].site.name);
    double x = 0;
    const auto part = [&](double seconds, std::string_view css_class, std::string_view name) {
      const double width = 100 * seconds / longest;
      if (width <= 0) return;
      picture.Bar({x, top + 20}, width, 11, css_class,
                  fmt::format("{}: {}", name, FormatSeconds(seconds)));
      x += width;
    };
    part(time.training, "training", "training");
    part(time.scoring, "scoring", "scoring");
    part(time.aggregating, "aggregating", "aggregating");
    part(time.waiting, "waiting", "waiting and transfer");
  }
  return fmt::format(
      "<figure>\n<ul class=\"legend\" aria-hidden=\"true\">"
      "<li><i class=\"training\"></i>training</li><li><i class=\"scoring\"></i>scoring</li>"
      "<li><i class=\"aggregating\"></i>aggregating</li>"
      "<li><i class=\"waiting\"></i>waiting and transfer</li></ul>\n{}</figure>\n",
      picture.Svg());
}

}  // namespace

std::string ParticipationSection(const ReportContent& content) {
  const std::vector<RoundRecord>& rounds = content.record.rounds;
  const std::vector<SiteStatistics>& sites = content.statistics.sites;
  if (rounds.empty() || sites.empty()) return "";
  std::vector<std::string> headers{"Hospital", "Rounds", "Weight"};
  for (const RoundRecord& round : rounds) headers.push_back(std::to_string(round.round));
  const std::int64_t drawn = content.record.study.rounds.sites_per_round;
  Table table(
      "participation",
      fmt::format("● contributed to the round, ✕ left out, · not asked. {}Weight: the hospital's "
                  "part in the last mean that it contributed to.",
                  drawn == 0 ? ""
                             : fmt::format("Each round asked {}, drawn by the study's seed. ",
                                           FormatCount(drawn, "hospital"))),
      std::move(headers));
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const std::string& name = sites[i].site.name;
    std::string weight = kNoNumber;
    std::vector<Cell> cells;
    for (const RoundRecord& round : rounds) {
      const ParticipationRecord* part = PartOf(round, name);
      if (part != nullptr && part->outcome == Outcome::kContributed) {
        weight = fmt::format("{:.1f} %", 100 * part->weight);
      }
      cells.push_back(OutcomeCell(part));
    }
    cells.insert(cells.begin(), {{FormatCount(sites[i].contributed_rounds),
                                  fmt::format("/sites/{}/contributed_rounds", i), ""},
                                 {weight}});
    table.Row(EscapeMarkup(name), cells);
  }
  return fmt::format(
      "<section class=\"participation\">\n<h2>Who took part</h2>\n{}{}{}</section>\n", table.Html(),
      Absences(rounds, Outcome::kLeftOut, "Asked and left out (✕):",
               "<p>Nobody who was asked was left out of any round.</p>\n"),
      Absences(rounds, Outcome::kNotAsked, "Not asked (·):", ""));
}

std::string TimeSection(const ReportContent& content) {
  const StudyStatistics& study = content.statistics;
  if (study.rounds == 0) return "";
  Table table(
      "seconds",
      fmt::format("Sums over the rounds that a hospital contributed to. All rounds together took "
                  "{}, of which the server aggregated for {}. Waiting includes the transfer of "
                  "models.",
                  FormatSeconds(study.seconds), FormatSeconds(study.seconds_aggregating)),
      {"Hospital", "Training", "Scoring", "Aggregating", "Waiting and transfer"});
  for (const SiteStatistics& site : study.sites) {
    const TimeUse& time = site.time;
    std::vector<Cell> cells;
    for (const double seconds : {time.training, time.scoring, time.aggregating, time.waiting}) {
      cells.push_back({site.contributed_rounds > 0 ? FormatSeconds(seconds) : kNoNumber});
    }
    table.Row(EscapeMarkup(site.site.name), cells);
  }
  return fmt::format("<section>\n<h2>Time</h2>\n{}{}</section>\n", TimePicture(study.sites),
                     table.Html());
}

}  // namespace isoscan
