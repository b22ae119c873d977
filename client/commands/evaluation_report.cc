#include "client/commands/evaluation_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>

#include "client/commands/table.h"
#include "client/evaluation/score_summary.h"
#include "common/json/numbers.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

using nlohmann::ordered_json;

const char* WordOf(SurfaceDefinition definition) {
  return definition == SurfaceDefinition::kElements ? "surface" : "voxels";
}

const char* WordOf(ScoreOutcome outcome) {
  switch (outcome) {
    case ScoreOutcome::kScored:
      return "scored";
    case ScoreOutcome::kMiss:
      return "miss";
    case ScoreOutcome::kFalseAlarm:
      return "false alarm";
    case ScoreOutcome::kBothEmpty:
      break;
  }
  return "both empty";
}

/// The scores of one label in the cases that were scored.
std::vector<LabelScore> ScoresOf(const EvaluationReport& report, std::size_t label) {
  std::vector<LabelScore> scores;
  for (const EvaluatedCase& entry : report.cases) {
    if (entry.refusal.empty()) scores.push_back(entry.scores[label]);
  }
  return scores;
}

double MeanDiceOf(const EvaluationReport& report) {
  std::vector<double> dice;
  for (const EvaluatedCase& entry : report.cases) {
    if (entry.refusal.empty() && !std::isnan(entry.dice())) dice.push_back(entry.dice());
  }
  return MeanOf(dice);
}

ordered_json JsonOf(const LabelScore& score) {
  ordered_json nsd = ordered_json::array();
  for (const double value : score.nsd) nsd.push_back(NumberOrNull(value));
  return {{"outcome", WordOf(score.outcome())},
          {"dice", NumberOrNull(score.dice())},
          {"hd95_mm", NumberOrNull(score.hd95_mm)},
          {"hd_mm", NumberOrNull(score.hd_mm)},
          {"assd_mm", NumberOrNull(score.assd_mm)},
          {"nsd", nsd},
          {"volume_error_ml", NumberOrNull(score.volume_error_ml())},
          {"relative_volume_error", NumberOrNull(score.relative_volume_error())},
          {"reference_ml", score.reference_ml()},
          {"predicted_ml", score.predicted_ml()},
          {"reference_voxels", score.overlap.reference_voxels},
          {"predicted_voxels", score.overlap.predicted_voxels}};
}

ordered_json JsonOf(const MetricSummary& summary) {
  return {{"mean", NumberOrNull(summary.mean)},
          {"median", NumberOrNull(summary.median)},
          {"mean_where_measured", NumberOrNull(summary.mean_where_measured)}};
}

ordered_json JsonOf(const LabelSummary& summary) {
  ordered_json nsd = ordered_json::array();
  for (const MetricSummary& metric : summary.nsd) nsd.push_back(JsonOf(metric));
  return {{"cases", summary.cases},
          {"scored", summary.scored},
          {"misses", summary.misses},
          {"false_alarms", summary.false_alarms},
          {"both_empty", summary.both_empty},
          {"dice", JsonOf(summary.dice)},
          {"hd95_mm", JsonOf(summary.hd95_mm)},
          {"hd_mm", JsonOf(summary.hd_mm)},
          {"assd_mm", JsonOf(summary.assd_mm)},
          {"nsd", nsd},
          {"volume_error_ml", JsonOf(summary.volume_error_ml)},
          {"relative_volume_error", JsonOf(summary.relative_volume_error)}};
}

ordered_json JsonOf(const EvaluationReport& report, ordered_json head) {
  ordered_json cases = ordered_json::array();
  ordered_json refused = ordered_json::array();
  for (const EvaluatedCase& evaluated : report.cases) {
    ordered_json entry{{"name", evaluated.name}, {"cohort", evaluated.cohort}};
    if (!evaluated.refusal.empty()) {
      entry["reason"] = evaluated.refusal;
      refused.push_back(std::move(entry));
      continue;
    }
    entry["dice"] = NumberOrNull(evaluated.dice());
    for (std::size_t label = 0; label < report.labels.size(); ++label) {
      entry["labels"][report.labels[label]] = JsonOf(evaluated.scores[label]);
    }
    cases.push_back(std::move(entry));
  }
  ordered_json dice;
  ordered_json summaries;
  for (std::size_t label = 0; label < report.labels.size(); ++label) {
    const LabelSummary summary = Summarize(ScoresOf(report, label));
    dice[report.labels[label]] = NumberOrNull(summary.dice.mean);
    summaries[report.labels[label]] = JsonOf(summary);
  }
  head["surface"] = WordOf(report.options.definition);
  head["tolerances_mm"] = report.options.tolerances_mm;
  head["dice"] = {{"mean", NumberOrNull(MeanDiceOf(report))}, {"labels", dice}};
  head["labels"] = summaries;
  head["cases"] = cases;
  head["refused"] = refused;
  return head;
}

/// A cell of a CSV file as RFC 4180 has it.
std::string Quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"') quoted += '"';
    quoted += letter;
  }
  return quoted + '"';
}

/// Empty for NaN.
std::string Cell(double value) { return std::isnan(value) ? "" : fmt::format("{:.9g}", value); }

std::string CsvOf(const EvaluationReport& report) {
  std::string csv = "cohort,case,label,outcome,dice,hd95_mm,hd_mm,assd_mm";
  for (const double tolerance : report.options.tolerances_mm) {
    csv += fmt::format(",nsd_{:g}mm", tolerance);
  }
  csv += ",volume_error_ml,relative_volume_error,reference_ml,predicted_ml,refused\n";
  for (const EvaluatedCase& entry : report.cases) {
    const std::string name = Quoted(entry.cohort) + "," + Quoted(entry.name);
    if (!entry.refusal.empty()) {
      csv += name + std::string(11 + report.options.tolerances_mm.size(), ',') +
             Quoted(entry.refusal) + "\n";
      continue;
    }
    for (std::size_t label = 0; label < report.labels.size(); ++label) {
      const LabelScore& score = entry.scores[label];
      csv += fmt::format("{},{},{},{},{},{},{}", name, Quoted(report.labels[label]),
                         WordOf(score.outcome()), Cell(score.dice()), Cell(score.hd95_mm),
                         Cell(score.hd_mm), Cell(score.assd_mm));
      for (const double nsd : score.nsd) csv += fmt::format(",{}", Cell(nsd));
      csv += fmt::format(",{},{},{},{},\n", Cell(score.volume_error_ml()),
                         Cell(score.relative_volume_error()), Cell(score.reference_ml()),
                         Cell(score.predicted_ml()));
    }
  }
  return csv;
}

std::string Number(double value, int digits) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits);
}

std::string Percent(double share) {
  return std::isnan(share) ? "-" : fmt::format("{:+.1f}%", 100 * share);
}

void PrintCases(const EvaluationReport& report) {
  std::vector<std::vector<std::string>> rows{{"case", "label", "Dice", "HD95 mm", "ASSD mm"}};
  for (const double tolerance : report.options.tolerances_mm) {
    rows[0].push_back(fmt::format("NSD {:g} mm", tolerance));
  }
  rows[0].insert(rows[0].end(), {"reference ml", "predicted ml", "volume", ""});
  for (const EvaluatedCase& entry : report.cases) {
    if (!entry.refusal.empty()) continue;
    for (std::size_t label = 0; label < report.labels.size(); ++label) {
      const LabelScore& score = entry.scores[label];
      std::vector<std::string> row{Printable(entry.name), Printable(report.labels[label]),
                                   Number(score.dice(), 3), Number(score.hd95_mm, 2),
                                   Number(score.assd_mm, 2)};
      for (const double nsd : score.nsd) row.push_back(Number(nsd, 3));
      row.insert(row.end(),
                 {Number(score.reference_ml(), 2), Number(score.predicted_ml(), 2),
                  Percent(score.relative_volume_error()),
                  score.outcome() == ScoreOutcome::kScored ? "" : WordOf(score.outcome())});
      rows.push_back(std::move(row));
    }
  }
  if (rows.size() > 1) PrintRows(rows);
  for (const EvaluatedCase& entry : report.cases) {
    if (entry.refusal.empty()) continue;
    fmt::print("{}  refused: {}\n", Printable(entry.name), Printable(entry.refusal));
  }
}

void PrintSummary(const EvaluationReport& report) {
  std::vector<std::vector<std::string>> rows{
      {"label", "in cases", "misses", "false alarms", "Dice", "HD95 mm", "ASSD mm"}};
  for (const double tolerance : report.options.tolerances_mm) {
    rows[0].push_back(fmt::format("NSD {:g} mm", tolerance));
  }
  rows[0].push_back("volume");
  const auto both = [](const MetricSummary& metric, int digits) {
    return fmt::format("{} ({})", Number(metric.mean, digits), Number(metric.median, digits));
  };
  for (std::size_t label = 0; label < report.labels.size(); ++label) {
    const LabelSummary summary = Summarize(ScoresOf(report, label));
    std::vector<std::string> row{
        Printable(report.labels[label]),
        fmt::format("{} of {}", summary.cases - summary.both_empty, summary.cases),
        fmt::format("{}", summary.misses),
        fmt::format("{}", summary.false_alarms),
        both(summary.dice, 3),
        both(summary.hd95_mm, 2),
        both(summary.assd_mm, 2)};
    for (const MetricSummary& nsd : summary.nsd) row.push_back(both(nsd, 3));
    row.push_back(fmt::format("{} ({})", Percent(summary.relative_volume_error.mean),
                              Percent(summary.relative_volume_error.median)));
    rows.push_back(std::move(row));
  }
  fmt::print("\nmean (median); distances by {}, the image's diagonal where one side is empty\n",
             report.options.definition == SurfaceDefinition::kElements ? "surface elements"
                                                                       : "border voxels");
  PrintRows(rows);
  fmt::print("mean Dice {}; {} cases scored, {} refused\n", Number(MeanDiceOf(report), 3),
             report.cases.size() - report.refused(), report.refused());
}

}  // namespace

double EvaluatedCase::dice() const {
  std::vector<LabelOverlap> overlaps;
  for (const LabelScore& score : scores) overlaps.push_back(score.overlap);
  return MeanDice(overlaps);
}

std::size_t EvaluationReport::refused() const {
  return static_cast<std::size_t>(
      std::count_if(cases.begin(), cases.end(),
                    [](const EvaluatedCase& entry) { return !entry.refusal.empty(); }));
}

absl::Status WriteEvaluation(const EvaluationReport& report, ordered_json head,
                             const EvaluationOutput& output) {
  const std::string json =
      JsonOf(report, std::move(head)).dump(2, ' ', false, ordered_json::error_handler_t::replace) +
      "\n";
  if (!output.out.empty()) RETURN_IF_ERROR(WriteFileAtomically(output.out, json));
  if (!output.csv.empty()) RETURN_IF_ERROR(WriteFileAtomically(output.csv, CsvOf(report)));
  if (output.json) {
    fmt::print("{}", json);
  } else {
    PrintCases(report);
    PrintSummary(report);
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace isoscan
