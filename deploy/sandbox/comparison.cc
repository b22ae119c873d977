#include "deploy/sandbox/comparison.h"

#include <fmt/format.h>

#include <iostream>
#include <map>
#include <regex>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "deploy/sandbox/results_table.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// An error of one arm, with its name.
absl::Status InArm(const std::string& arm, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", arm, std::string(status.message()))};
}

/// The report of a run, which is made only if it is not there yet.
absl::StatusOr<ReportedResults> ResultsOf(const std::string& arm, const FederationRun& run,
                                          std::stop_token stop) {
  const fs::path report = run.out / "report.json";
  if (fs::exists(report)) {
    std::cerr << arm << ": done before, kept\n";
  } else {
    std::cerr << arm << ": running\n";
    const auto result = RunFederation(run, stop);
    if (!result.ok()) return InArm(arm, result.status());
  }
  return ReadReport(report);
}

/// The sites' declaration does not hold for an arm of other sites.
absl::StatusOr<std::string> WithoutDeclaredSites(const FederationRun& run) {
  ASSIGN_OR_RETURN(const Study study, ParseStudy(run.study_toml, run.study_source));
  if (study.sites.empty() && study.rounds.quorum.all) return run.study_toml;
  return absl::InvalidArgumentError(
      fmt::format("{} declares its sites or a quorum, which the local and pooled arms cannot have; "
                  "leave out sites and [rounds.quorum] for a comparison",
                  run.study_source));
}

/// One column: Dice by site.
using Column = std::map<std::string, double>;

absl::StatusOr<Column> LocalArm(const FederationRun& run, std::stop_token stop) {
  Column column;
  ASSIGN_OR_RETURN(const std::string study, WithoutDeclaredSites(run));
  for (const SandboxSite& site : run.sites) {
    FederationRun alone = run;
    alone.study_toml = study;
    alone.sites = {site};
    alone.out = run.out / "local" / site.name;
    ASSIGN_OR_RETURN(const ReportedResults results, ResultsOf("local " + site.name, alone, stop));
    for (const ReportedResults::Site& row : results.sites) column[site.name] = row.after;
  }
  return column;
}

absl::StatusOr<Column> PooledArm(const FederationRun& run, std::stop_token stop) {
  FederationRun pooled = run;
  ASSIGN_OR_RETURN(const std::string study, WithoutDeclaredSites(run));
  ASSIGN_OR_RETURN(pooled.study_toml,
                   WithStepsMultiplied(study, static_cast<std::int64_t>(run.sites.size())));
  SandboxSite everything{.name = "pooled", .cohorts = {}};
  for (const SandboxSite& site : run.sites) {
    for (const SandboxSite::Cohort& cohort : site.cohorts) {
      everything.cohorts.push_back({.name = site.name, .folder = cohort.folder});
    }
  }
  pooled.sites = {std::move(everything)};
  pooled.out = run.out / "pooled";
  ASSIGN_OR_RETURN(const ReportedResults results, ResultsOf("pooled", pooled, stop));
  for (const ReportedResults::Site& row : results.sites) return row.cohorts;
  return Column{};
}

absl::StatusOr<Column> FederatedArm(const FederationRun& run, std::stop_token stop) {
  FederationRun federated = run;
  federated.out = run.out / "federated";
  ASSIGN_OR_RETURN(const ReportedResults results, ResultsOf("federated", federated, stop));
  Column column;
  for (const ReportedResults::Site& row : results.sites) column[row.name] = row.after;
  return column;
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

std::string Table(const FederationRun& run, const std::vector<Arm>& arms,
                  const std::vector<Column>& columns) {
  std::vector<std::vector<std::string>> rows{{"site"}};
  for (const Arm arm : arms) rows[0].push_back(NameOf(arm));
  for (const SandboxSite& site : run.sites) {
    std::vector<std::string> row{site.name};
    for (const Column& column : columns) {
      const auto dice = column.find(site.name);
      row.push_back(dice == column.end() ? "-" : DiceText(dice->second));
    }
    rows.push_back(std::move(row));
  }
  return AlignedTable(rows);
}

}  // namespace

absl::StatusOr<Arm> ParseArm(const std::string& text) {
  for (const Arm arm : {Arm::kLocal, Arm::kPooled, Arm::kFederated}) {
    if (NameOf(arm) == text) return arm;
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is no arm; there are local, pooled and federated", text));
}

absl::StatusOr<std::string> WithStepsMultiplied(const std::string& study_toml,
                                                std::int64_t factor) {
  const std::regex key(R"((^|\n)([ \t]*steps_per_round[ \t]*=[ \t]*)([0-9]+))");
  std::smatch match;
  if (!std::regex_search(study_toml, match, key)) {
    return absl::InvalidArgumentError(
        "the study does not say steps_per_round, so its pooled arm would have no number of steps");
  }
  const std::int64_t steps = std::stoll(match[3].str());
  return match.prefix().str() + match[1].str() + match[2].str() + std::to_string(steps * factor) +
         match.suffix().str();
}

absl::StatusOr<std::string> RunComparison(const FederationRun& run, const std::vector<Arm>& arms,
                                          std::stop_token stop) {
  std::vector<Column> columns;
  for (const Arm arm : arms) {
    absl::StatusOr<Column> column = arm == Arm::kLocal    ? LocalArm(run, stop)
                                    : arm == Arm::kPooled ? PooledArm(run, stop)
                                                          : FederatedArm(run, stop);
    if (!column.ok()) return column.status();
    columns.push_back(*std::move(column));
  }
  return Table(run, arms, columns);
}

}  // namespace isoscan
