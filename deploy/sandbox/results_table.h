#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// What the tables of the sandbox show of one report.json.
struct ReportedResults {
  struct Site {
    std::string name;
    std::int64_t held_out_cases = 0;
    double before = 0;      ///< Mean Dice of the model before training; NaN without.
    double after = 0;       ///< Of the last model.
    double local_only = 0;  ///< NaN when the study had no local-only arm.
    double personal = 0;    ///< NaN when the study had no model of each site's own.
    std::vector<std::pair<std::string, double>> labels;  ///< Mean Dice, in the study's order.
    std::vector<double> cases;  ///< Dice of each held-out case; NaN without a label on either side.
    std::map<std::string, std::vector<double>> cohorts;  ///< The same by cohort folder, of those
                                                         ///< that have names.
  };
  std::vector<Site> sites;
  std::string worst_site;
  double gap = 0;
  double seconds_outside_training = 0;  ///< Median over the rounds.
};

/// Errors: NOT_FOUND; DATA_LOSS when it is not a report of ours.
absl::StatusOr<ReportedResults> ReadReport(const std::filesystem::path& report_json);

/// Dice of each case of a file that `isoscan-client evaluate` wrote; NaN for one without any label.
/// Errors: as ReadReport.
absl::StatusOr<std::vector<double>> ReadEvaluation(const std::filesystem::path& json);

/// Site x (held-out cases, Dice before and after, per label), then worst site and gap.
std::string ResultsTable(const ReportedResults& results);

/// Rows of text in columns: the first aligned left, the others right.
std::string AlignedTable(const std::vector<std::vector<std::string>>& rows);

/// "0.812", or a dash for NaN.
std::string DiceText(double dice);

}  // namespace isoscan
