#include "deploy/sandbox/results_table.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "absl/status/status.h"

namespace isoscan {
namespace {

using nlohmann::json;

/// A number of the report, where null says that there is none.
double NumberOf(const json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// "dice" of a model's scores, which are null for a model that the site has not scored.
double MeanDice(const json& scores) {
  return scores.is_object() ? NumberOf(scores.at("dice").at("mean"))
                            : std::numeric_limits<double>::quiet_NaN();
}

ReportedResults::Site SiteOf(const json& site) {
  ReportedResults::Site row;
  row.name = site.at("name").get<std::string>();
  row.held_out_cases = site.at("held_out_cases").get<std::int64_t>();
  row.before = MeanDice(site.at("before"));
  row.after = MeanDice(site);
  row.local_only = MeanDice(site.at("local_only"));
  row.personal = MeanDice(site.value("personal", json()));  // Absent in an older report.
  for (const json& label : site.at("labels")) {
    row.labels.emplace_back(label.at("name").get<std::string>(), MeanDice(label));
  }
  for (const json& scored : site.at("cases")) {
    row.cases.push_back(NumberOf(scored.at("dice")));
    if (scored.contains("cohort")) {
      row.cohorts[scored.at("cohort").get<std::string>()].push_back(row.cases.back());
    }
  }
  return row;
}

/// What a round took beyond the training and scoring of its slowest site.
double SecondsOutsideTraining(const json& round) {
  double busiest = 0;
  for (const json& site : round.at("sites")) {
    busiest = std::max(
        busiest, NumberOf(site.at("seconds_training")) + NumberOf(site.at("seconds_scoring")));
  }
  return NumberOf(round.at("closed")) - NumberOf(round.at("opened")) - busiest;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

absl::StatusOr<ReportedResults> ReadReport(const std::filesystem::path& report_json) {
  std::ifstream file(report_json);
  if (!file) {
    return absl::NotFoundError(fmt::format("there is no report {}", report_json.string()));
  }
  try {
    const json report = json::parse(file);
    ReportedResults results;
    for (const json& site : report.at("sites")) results.sites.push_back(SiteOf(site));
    if (report.at("worst_site").is_string()) {
      results.worst_site = report.at("worst_site").get<std::string>();
    }
    results.gap = NumberOf(report.at("gap"));
    std::vector<double> outside;
    for (const json& round : report.at("participation")) {
      outside.push_back(SecondsOutsideTraining(round));
    }
    results.seconds_outside_training = Median(outside);
    return results;
  } catch (const json::exception& error) {
    return absl::DataLossError(
        fmt::format("{} is not a report of ours: {}", report_json.string(), error.what()));
  }
}

absl::StatusOr<std::vector<double>> ReadEvaluation(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(fmt::format("there is no evaluation {}", path.string()));
  try {
    std::vector<double> dice;
    const json evaluation = json::parse(file);
    for (const json& scored : evaluation.at("cases")) {
      dice.push_back(NumberOf(scored.at("dice")));
    }
    return dice;
  } catch (const json::exception& error) {
    return absl::DataLossError(
        fmt::format("{} is not an evaluation of ours: {}", path.string(), error.what()));
  }
}

std::string DiceText(double dice) { return std::isnan(dice) ? "-" : fmt::format("{:.3f}", dice); }

std::string AlignedTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      table += i == 0 ? fmt::format("{:<{}}", row[i], widths[i])
                      : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    table += '\n';
  }
  return table;
}

std::string ResultsTable(const ReportedResults& results) {
  const bool local = std::any_of(results.sites.begin(), results.sites.end(),
                                 [](const auto& site) { return !std::isnan(site.local_only); });
  std::vector<std::vector<std::string>> rows{{"site", "held out", "Dice before", "after"}};
  if (local) rows[0].push_back("local only");
  const bool personal = std::any_of(results.sites.begin(), results.sites.end(),
                                    [](const auto& site) { return !std::isnan(site.personal); });
  if (personal) rows[0].push_back("own");
  if (!results.sites.empty()) {
    for (const auto& [label, dice] : results.sites[0].labels) rows[0].push_back(label);
  }
  for (const ReportedResults::Site& site : results.sites) {
    std::vector<std::string> row{site.name, std::to_string(site.held_out_cases),
                                 DiceText(site.before), DiceText(site.after)};
    if (local) row.push_back(DiceText(site.local_only));
    if (personal) row.push_back(DiceText(site.personal));
    for (const auto& [label, dice] : site.labels) row.push_back(DiceText(dice));
    rows.push_back(std::move(row));
  }
  std::string table = AlignedTable(rows);
  if (!results.worst_site.empty()) {
    table += fmt::format("worst site: {}; gap between best and worst: {}\n", results.worst_site,
                         DiceText(results.gap));
  }
  return table;
}

}  // namespace isoscan
