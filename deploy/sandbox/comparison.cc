#include "deploy/sandbox/comparison.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/transfer/chunks.h"
#include "deploy/sandbox/case_scores.h"
#include "deploy/sandbox/results_table.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// What one arm reached on the sites' held-out cases, and on cohorts that it never trained on.
struct ArmScores {
  CaseScores sites;
  CaseScores unseen;
};

/// An error of one arm, with its name.
absl::Status InArm(const std::string& arm, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", arm, std::string(status.message()))};
}

/// The report of a run, which is made only if it is not there yet.
absl::StatusOr<ReportedResults> ResultsOf(const std::string& arm, const FederationRun& run,
                                          std::stop_token stop) {
  const fs::path report = run.out / "report.json";
  if (fs::exists(report)) {
    const char* const text = fs::exists(run.out / kDraftFile) ? kDraftFile : "plan.toml";
    ASSIGN_OR_RETURN(const Study done, LoadStudy(run.out / text));
    if (done.toml != run.study_toml) {
      return InArm(arm, absl::FailedPreconditionError(fmt::format(
                            "{} holds the results of another study text (its {} differs); "
                            "give another --out, or remove that folder",
                            run.out.string(), text)));
    }
    std::cerr << arm << ": done before, kept\n";
  } else {
    std::cerr << arm << ": running\n";
    const auto result = RunFederation(run, stop);
    if (!result.ok()) return InArm(arm, result.status());
  }
  return ReadReport(report);
}

/// The sites' declaration does not hold for an arm of other sites.
absl::Status CheckNoDeclaredSites(const Comparison& comparison) {
  if (comparison.arms == std::vector{Arm::kFederated}) return absl::OkStatus();
  for (const StudyVariant& variant : comparison.variants) {
    ASSIGN_OR_RETURN(const Study study, ParseStudy(variant.toml, comparison.run.study_source));
    if (study.sites.empty() && study.rounds.quorum.all) continue;
    return absl::InvalidArgumentError(fmt::format(
        "{} declares its sites or a quorum, which the local and pooled arms cannot have; leave out "
        "sites and [rounds.quorum] for a comparison, or take --arms federated",
        comparison.run.study_source));
  }
  return absl::OkStatus();
}

/// Which folder each name stands for, a line each.
std::string CohortsText(const Comparison& comparison) {
  std::string text;
  for (const auto& [role, sites] :
       {std::pair("site", &comparison.run.sites), std::pair("unseen", &comparison.unseen)}) {
    for (const SandboxSite& site : *sites) {
      for (const SandboxSite::Cohort& cohort : site.cohorts) {
        text += fmt::format("{} {}={}\n", role, site.name, cohort.folder.string());
      }
    }
  }
  return text;
}

/// What lies in OUT must be of the same cohorts: an arm that is done is not run again.
absl::Status CheckCohorts(const Comparison& comparison) {
  std::set<std::string> names;
  for (const SandboxSite& site : comparison.unseen) {
    if (!names.insert(site.name).second) {
      return absl::InvalidArgumentError(fmt::format("--unseen {} is given twice", site.name));
    }
  }
  const fs::path file = comparison.run.out / "cohorts.txt";
  std::error_code error;
  fs::create_directories(comparison.run.out, error);
  if (error) return FileError("cannot make the folder", comparison.run.out.string(), error);
  const std::string text = CohortsText(comparison);
  if (!fs::exists(file)) return WriteFileAtomically(file, text);
  std::ostringstream before;
  before << std::ifstream(file).rdbuf();
  if (before.str() == text) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("{} holds a comparison of other cohorts ({} lists them); give another --out, or "
                  "remove that folder",
                  comparison.run.out.string(), file.string()));
}

/// Scores the last model of an arm on cohorts of scanners that it never saw; kept as a report is.
absl::Status ScoreUnseen(const std::string& arm, const FederationRun& run,
                         const std::vector<SandboxSite>& unseen, std::stop_token stop,
                         CaseScores& scores) {
  if (unseen.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Study study, ParseStudy(run.study_toml, "the study"));
  if (!study.network.local_layers.empty()) {
    std::cerr << arm << ": has no model for cohorts that took no part (local_layers)\n";
    return absl::OkStatus();
  }
  for (const SandboxSite& site : unseen) {
    const fs::path file = run.out / fmt::format("unseen-{}.json", site.name);
    if (!fs::exists(file)) {
      std::cerr << arm << ": scoring " << site.name << ", which it has never seen\n";
      const absl::Status outcome = EvaluateModel(run, site, file, stop);
      if (!outcome.ok()) return InArm(arm, outcome);
    }
    ASSIGN_OR_RETURN(scores[site.name], ReadEvaluation(file));
  }
  return absl::OkStatus();
}

absl::StatusOr<ArmScores> LocalArm(const std::string& title, const FederationRun& run,
                                   std::stop_token stop) {
  ArmScores scores;
  for (const SandboxSite& site : run.sites) {
    FederationRun alone = run;
    alone.sites = {site};
    alone.out = run.out / "local" / site.name;
    ASSIGN_OR_RETURN(const ReportedResults results,
                     ResultsOf(fmt::format("{}local {}", title, site.name), alone, stop));
    for (const ReportedResults::Site& row : results.sites) scores.sites[site.name] = row.cases;
  }
  return scores;
}

absl::StatusOr<ArmScores> PooledArm(const std::string& title, const FederationRun& run,
                                    const std::vector<SandboxSite>& unseen, std::stop_token stop) {
  FederationRun pooled = run;
  ASSIGN_OR_RETURN(
      pooled.study_toml,
      WithStepsMultiplied(run.study_toml, static_cast<std::int64_t>(run.sites.size())));
  SandboxSite everything{.name = "pooled", .cohorts = {}};
  for (const SandboxSite& site : run.sites) {
    for (const SandboxSite::Cohort& cohort : site.cohorts) {
      everything.cohorts.push_back({.name = site.name, .folder = cohort.folder});
    }
  }
  pooled.sites = {std::move(everything)};
  pooled.out = run.out / "pooled";
  ASSIGN_OR_RETURN(const ReportedResults results, ResultsOf(title + "pooled", pooled, stop));
  ArmScores scores;
  for (const ReportedResults::Site& row : results.sites) scores.sites = row.cohorts;
  RETURN_IF_ERROR(ScoreUnseen(title + "pooled", pooled, unseen, stop, scores.unseen));
  return scores;
}

absl::StatusOr<ArmScores> FederatedArm(const std::string& title, const FederationRun& run,
                                       const std::vector<SandboxSite>& unseen,
                                       std::stop_token stop) {
  FederationRun federated = run;
  federated.out = run.out / "federated";
  ASSIGN_OR_RETURN(const ReportedResults results, ResultsOf(title + "federated", federated, stop));
  ArmScores scores;
  for (const ReportedResults::Site& row : results.sites) scores.sites[row.name] = row.cases;
  RETURN_IF_ERROR(ScoreUnseen(title + "federated", federated, unseen, stop, scores.unseen));
  return scores;
}

std::string NameOf(Arm arm) {
  switch (arm) {
    case Arm::kLocal:
      return "local";
    case Arm::kPooled:
      return "pooled";
    case Arm::kFederated:
      return "federated";
  }
  return "";
}

absl::StatusOr<ArmScores> RunArm(const Comparison& comparison, const StudyVariant& variant, Arm arm,
                                 std::int64_t repetition, const std::stop_token& stop) {
  FederationRun run = comparison.run;
  run.study_toml = variant.toml;
  std::string title = variant.name.empty() ? "" : variant.name + ", ";
  if (!variant.name.empty()) run.out /= variant.name;
  // The first is the study as it stands, so that repetitions can be added to what is done.
  if (repetition > 0) {
    ASSIGN_OR_RETURN(run.study_toml, WithSeedMoved(variant.toml, repetition));
    run.out /= fmt::format("repetition-{}", repetition + 1);
    title += fmt::format("repetition {}, ", repetition + 1);
  }
  return arm == Arm::kLocal    ? LocalArm(title, run, stop)
         : arm == Arm::kPooled ? PooledArm(title, run, comparison.unseen, stop)
                               : FederatedArm(title, run, comparison.unseen, stop);
}

/// A row of the comparison: an arm of a variant, over its repetitions.
struct Row {
  std::string variant;
  Arm arm = Arm::kFederated;
  std::vector<CaseScores> repetitions = {};  ///< Of the sites.
  ArmScores scores;                          ///< Each case's mean over the repetitions.

  struct Extremes {
    std::string worst_site;
    double worst = 0;
    double gap = 0;
  };
  Extremes extremes() const {
    Extremes result{.worst_site = "", .worst = 2, .gap = 0};
    double best = -1;
    for (const auto& [site, dice] : scores.sites) {
      const double mean = MeanOf(dice);
      if (std::isnan(mean)) continue;
      best = std::max(best, mean);
      if (mean < result.worst) {
        result.worst = mean;
        result.worst_site = site;
      }
    }
    if (best < 0) return {.worst_site = "-", .worst = std::nan(""), .gap = std::nan("")};
    result.gap = best - result.worst;
    return result;
  }
};

absl::StatusOr<Row> RowOf(const std::string& variant, Arm arm,
                          const std::vector<ArmScores>& repetitions) {
  std::vector<CaseScores> unseen;
  Row row{.variant = variant, .arm = arm, .scores = {}};
  for (const ArmScores& scores : repetitions) {
    row.repetitions.push_back(scores.sites);
    unseen.push_back(scores.unseen);
  }
  ASSIGN_OR_RETURN(row.scores.sites, MeanOverRepetitions(row.repetitions));
  ASSIGN_OR_RETURN(row.scores.unseen, MeanOverRepetitions(unseen));
  return row;
}

/// The federated arm of a variant less another of its arms.
struct ArmDifference {
  std::string variant;
  Arm other = Arm::kPooled;
  std::int64_t cases = 0;
  std::size_t repetitions = 0;
  Difference dice;
};

/// Of rows that have been repeated as often as each other: while a comparison runs, some are ahead.
absl::StatusOr<std::vector<ArmDifference>> DifferencesOf(const std::vector<Row>& rows) {
  std::vector<ArmDifference> differences;
  for (const Row& row : rows) {
    if (row.arm != Arm::kFederated) continue;
    for (const Row& other : rows) {
      if (other.arm == Arm::kFederated || other.variant != row.variant) continue;
      if (other.repetitions.size() != row.repetitions.size()) continue;
      ASSIGN_OR_RETURN(const Difference dice, PairedDifference(row.repetitions, other.repetitions));
      differences.push_back({.variant = row.variant,
                             .other = other.arm,
                             .cases = CasesWithDice(row.scores.sites),
                             .repetitions = row.repetitions.size(),
                             .dice = dice});
    }
  }
  return differences;
}

/// A line each, for people.
std::string DifferencesText(const std::vector<ArmDifference>& differences) {
  std::string text;
  for (const ArmDifference& difference : differences) {
    text +=
        fmt::format("{}{}federated less {}: {:+.3f} (95 % {:+.3f} to {:+.3f}, {} cases, {})\n",
                    difference.variant, difference.variant.empty() ? "" : ", ",
                    NameOf(difference.other), difference.dice.mean, difference.dice.interval.low,
                    difference.dice.interval.high, difference.cases,
                    difference.repetitions == 1 ? "one seed: another may give another sign"
                                                : fmt::format("{} seeds", difference.repetitions));
  }
  return text;
}

nlohmann::ordered_json JsonOf(const std::vector<ArmDifference>& differences) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ArmDifference& difference : differences) {
    json.push_back({{"variant", difference.variant},
                    {"arm", NameOf(Arm::kFederated)},
                    {"other", NameOf(difference.other)},
                    {"cases", difference.cases},
                    {"repetitions", difference.repetitions},
                    {"dice",
                     {{"mean", difference.dice.mean},
                      {"low", difference.dice.interval.low},
                      {"high", difference.dice.interval.high}}}});
  }
  return json;
}

std::string DiceOf(const CaseScores& scores, const std::string& site) {
  const auto dice = scores.find(site);
  return dice == scores.end() ? "-" : DiceText(MeanOf(dice->second));
}

/// A row per site, a column per arm.
std::string TableOfArms(const Comparison& comparison, const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> table{{"site"}};
  for (const Row& row : rows) table[0].push_back(NameOf(row.arm));
  for (const SandboxSite& site : comparison.run.sites) {
    table.push_back({site.name});
    for (const Row& row : rows) table.back().push_back(DiceOf(row.scores.sites, site.name));
  }
  for (const SandboxSite& site : comparison.unseen) {
    table.push_back({site.name + " (unseen)"});
    for (const Row& row : rows) table.back().push_back(DiceOf(row.scores.unseen, site.name));
  }
  return AlignedTable(table);
}

/// A row per variant and arm.
std::string TableOfVariants(const Comparison& comparison, const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> table{{"variant"}};
  const bool several_arms = comparison.arms.size() > 1;
  if (several_arms) table[0].emplace_back("arm");
  for (const SandboxSite& site : comparison.run.sites) table[0].push_back(site.name);
  for (const char* const title : {"cases", "mean", "95 %", "worst site", "gap"}) {
    table[0].emplace_back(title);
  }
  for (const SandboxSite& site : comparison.unseen) table[0].push_back("unseen " + site.name);
  for (const Row& row : rows) {
    std::vector<std::string> line{row.variant};
    if (several_arms) line.push_back(NameOf(row.arm));
    for (const SandboxSite& site : comparison.run.sites) {
      line.push_back(DiceOf(row.scores.sites, site.name));
    }
    const Interval interval = BootstrapInterval(row.scores.sites);
    const Row::Extremes extremes = row.extremes();
    line.push_back(std::to_string(CasesWithDice(row.scores.sites)));
    line.push_back(DiceText(MeanOf(row.scores.sites)));
    line.push_back(fmt::format("{}-{}", DiceText(interval.low), DiceText(interval.high)));
    line.push_back(extremes.worst_site);
    line.push_back(DiceText(extremes.gap));
    for (const SandboxSite& site : comparison.unseen) {
      line.push_back(DiceOf(row.scores.unseen, site.name));
    }
    table.push_back(std::move(line));
  }
  return AlignedTable(table);
}

nlohmann::ordered_json JsonOf(const CaseScores& scores) {
  nlohmann::ordered_json sites = nlohmann::ordered_json::array();
  for (const auto& [site, dice] : scores) {
    sites.push_back({{"name", site}, {"cases", dice.size()}, {"dice", MeanOf(dice)}});
  }
  return sites;
}

absl::Status WriteJson(const Comparison& comparison, const std::vector<Row>& rows,
                       const std::vector<ArmDifference>& differences) {
  nlohmann::ordered_json entries = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    const Interval interval = BootstrapInterval(row.scores.sites);
    const Row::Extremes extremes = row.extremes();
    std::vector<double> repetition_means;
    for (const CaseScores& scores : row.repetitions) repetition_means.push_back(MeanOf(scores));
    entries.push_back({{"variant", row.variant},
                       {"arm", NameOf(row.arm)},
                       {"cases", CasesWithDice(row.scores.sites)},
                       {"dice",
                        {{"mean", MeanOf(row.scores.sites)},
                         {"low", interval.low},
                         {"high", interval.high},
                         {"repetitions", repetition_means}}},
                       {"worst_site", extremes.worst_site},
                       {"gap", extremes.gap},
                       {"sites", JsonOf(row.scores.sites)},
                       {"unseen", JsonOf(row.scores.unseen)}});
  }
  const nlohmann::ordered_json json{{"study", comparison.run.study_source},
                                    {"repetitions", comparison.repetitions},
                                    {"rows", entries},
                                    {"differences", JsonOf(differences)}};
  return WriteFileAtomically(comparison.run.out / "comparison.json", json.dump(2) + "\n");
}

}  // namespace

absl::StatusOr<Arm> ParseArm(const std::string& text) {
  for (const Arm arm : {Arm::kLocal, Arm::kPooled, Arm::kFederated}) {
    if (NameOf(arm) == text) return arm;
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is no arm; there are local, pooled and federated", text));
}

absl::StatusOr<std::string> RunComparison(const Comparison& comparison, std::stop_token stop) {
  RETURN_IF_ERROR(CheckNoDeclaredSites(comparison));
  RETURN_IF_ERROR(CheckCohorts(comparison));
  struct ArmResults {
    const StudyVariant* variant;
    Arm arm;
    std::vector<ArmScores> repetitions;
  };
  std::vector<ArmResults> results;
  for (const StudyVariant& variant : comparison.variants) {
    for (const Arm arm : comparison.arms) {
      results.push_back({.variant = &variant, .arm = arm, .repetitions = {}});
    }
  }
  std::vector<Row> rows;
  std::vector<ArmDifference> differences;
  // All arms before any is repeated: hours before the end there is a whole table to look at.
  for (std::int64_t repetition = 0; repetition < comparison.repetitions; ++repetition) {
    for (std::size_t i = 0; i < results.size(); ++i) {
      ArmResults& result = results[i];
      ASSIGN_OR_RETURN(ArmScores scores,
                       RunArm(comparison, *result.variant, result.arm, repetition, stop));
      result.repetitions.push_back(std::move(scores));
      ASSIGN_OR_RETURN(Row row, RowOf(result.variant->name, result.arm, result.repetitions));
      if (i < rows.size()) {
        rows[i] = std::move(row);
      } else {
        rows.push_back(std::move(row));
      }
      ASSIGN_OR_RETURN(differences, DifferencesOf(rows));
      RETURN_IF_ERROR(WriteJson(comparison, rows, differences));
    }
  }
  const std::string table = comparison.variants.size() == 1 ? TableOfArms(comparison, rows)
                                                            : TableOfVariants(comparison, rows);
  return differences.empty() ? table : table + "\n" + DifferencesText(differences);
}

}  // namespace isoscan
