#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "client/simulation/simulated_cohort.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/version.h"
#include "deploy/sandbox/comparison.h"
#include "deploy/sandbox/federation_run.h"
#include "deploy/sandbox/results_table.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

struct SimulateOptions {
  std::string out;
  std::string anatomy = "/usr/share/mricron/templates/ch2.nii.gz";
  std::string atlas = "/usr/share/mricron/templates/aal.nii.gz";
  // Numbers of the AAL atlas: left and right.
  std::vector<std::string> labels{"caudate=71,72", "putamen=73,74", "thalamus=77,78"};
  // Three hospitals of other size, units, offset, contrast and noise.
  std::vector<std::string> scanners{"harbour:scale=1,gamma=1,noise=0.02",
                                    "hillside:scale=12,bias=900,gamma=1.25,noise=0.04",
                                    "riverbank:scale=0.004,bias=-0.3,gamma=0.8,noise=0.05"};
  std::vector<std::int64_t> patients{20, 14, 10};
  double margin_mm = 10;
  PatientVariation variation;
  std::uint64_t seed = 1;
};

struct RescanOptions {
  std::string source;
  std::string target;
  std::string scanner;
  std::uint64_t seed = 1;
};

struct RunOptions {
  std::string study;
  std::vector<std::string> sites;
  std::string out;
  std::string device = "auto";
  int threads = 0;
  bool keep_state = false;
  std::vector<std::string> arms{"local", "pooled", "federated"};
  std::string variants;
  std::int64_t repetitions = 1;
  std::vector<std::string> unseen;
};

absl::StatusOr<AtlasLabel> ParseLabel(const std::string& text) {
  const std::size_t equals = text.find('=');
  AtlasLabel label{.name = text.substr(0, equals), .values = {}};
  std::istringstream values(equals == std::string::npos ? "" : text.substr(equals + 1));
  for (std::string value; std::getline(values, value, ',');) {
    std::istringstream number(value);
    std::int64_t parsed = 0;
    if (!(number >> parsed) || !number.eof()) {
      return absl::InvalidArgumentError(
          fmt::format("--label {}: \"{}\" is not a whole number", text, value));
    }
    label.values.push_back(parsed);
  }
  if (label.name.empty() || label.values.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("--label {} is not of the form NAME=VALUE[,VALUE]", text));
  }
  return label;
}

absl::Status Simulate(const SimulateOptions& options) {
  std::vector<AtlasLabel> labels;
  for (const std::string& text : options.labels) {
    ASSIGN_OR_RETURN(AtlasLabel label, ParseLabel(text));
    labels.push_back(std::move(label));
  }
  if (options.patients.size() != 1 && options.patients.size() != options.scanners.size()) {
    return absl::InvalidArgumentError(
        fmt::format("--patients has {} numbers for {} scanners; give one, or one for each",
                    options.patients.size(), options.scanners.size()));
  }
  ASSIGN_OR_RETURN(const Anatomy anatomy,
                   LoadAnatomy(options.anatomy, options.atlas, labels, options.margin_mm));
  for (std::size_t i = 0; i < options.scanners.size(); ++i) {
    ASSIGN_OR_RETURN(const Scanner scanner, ParseScanner(options.scanners[i]));
    const std::int64_t patients = options.patients[options.patients.size() == 1 ? 0 : i];
    RETURN_IF_ERROR(WriteSimulatedCohort(fs::path(options.out) / scanner.name, anatomy, labels,
                                         scanner, options.variation, patients, options.seed));
    std::cout << fmt::format("{}: {} patients\n", (fs::path(options.out) / scanner.name).string(),
                             patients);
  }
  return absl::OkStatus();
}

absl::Status Rescan(const RescanOptions& options) {
  ASSIGN_OR_RETURN(const Scanner scanner, ParseScanner(options.scanner));
  ASSIGN_OR_RETURN(const std::int64_t images,
                   RescanCohort(options.source, options.target, scanner, options.seed));
  std::cout << fmt::format("{}: {} images as {} would have stored them\n", options.target, images,
                           scanner.name);
  return absl::OkStatus();
}

absl::StatusOr<FederationRun> PlannedRun(const RunOptions& options) {
  ASSIGN_OR_RETURN(const Study study, LoadStudy(options.study));
  FederationRun run{.study_toml = study.toml,
                    .study_source = options.study,
                    .sites = {},
                    .out = fs::absolute(options.out),
                    .threads_per_site = options.threads,
                    .device = options.device,
                    .keep_state = options.keep_state};
  for (const std::string& site : options.sites) {
    ASSIGN_OR_RETURN(SandboxSite parsed, ParseSandboxSite(site));
    run.sites.push_back(std::move(parsed));
  }
  return run;
}

absl::Status Run(const RunOptions& options, std::stop_token stop) {
  ASSIGN_OR_RETURN(const FederationRun run, PlannedRun(options));
  ASSIGN_OR_RETURN(const FederationResult result, RunFederation(run, std::move(stop)));
  ASSIGN_OR_RETURN(const ReportedResults results, ReadReport(run.out / "report.json"));
  std::cout << '\n'
            << ResultsTable(results)
            << fmt::format(
                   "\n{:.0f} s in all; {:.2f} s of a round are not training or scoring (median); "
                   "server's peak memory {:.0f} MiB\nreport: {}\n",
                   result.seconds, results.seconds_outside_training,
                   static_cast<double>(result.server_peak_bytes) / (1024 * 1024),
                   result.report.string());
  return absl::OkStatus();
}

absl::Status Compare(const RunOptions& options, std::stop_token stop) {
  Comparison comparison{
      .run = {}, .arms = {}, .variants = {}, .repetitions = options.repetitions, .unseen = {}};
  ASSIGN_OR_RETURN(comparison.run, PlannedRun(options));
  for (const std::string& text : options.arms) {
    ASSIGN_OR_RETURN(const Arm arm, ParseArm(text));
    comparison.arms.push_back(arm);
  }
  comparison.variants = {{.name = "", .toml = comparison.run.study_toml}};
  if (!options.variants.empty()) {
    ASSIGN_OR_RETURN(comparison.variants,
                     StudyVariants(comparison.run.study_toml, options.variants));
  }
  for (const std::string& text : options.unseen) {
    ASSIGN_OR_RETURN(SandboxSite site, ParseSandboxSite(text));
    comparison.unseen.push_back(std::move(site));
  }
  ASSIGN_OR_RETURN(const std::string table, RunComparison(comparison, std::move(stop)));
  std::cout << "\nmean Dice of the held-out cases after the last round\n" << table;
  return absl::OkStatus();
}

void AddRunOptions(CLI::App& command, RunOptions& options) {
  command.add_option("study", options.study, "The study (docs/study.md)")->required();
  command.add_option("--site", options.sites, "A hospital and its cohort: NAME=FOLDER")
      ->required()
      ->type_name("NAME=FOLDER");
  command.add_option("--out", options.out, "Folder for results and logs")->required();
  command.add_option("--threads", options.threads, "Threads of each site; 0 shares the cores")
      ->check(CLI::Range(0, 1024));
  command.add_option("--device", options.device, "auto, cpu, cuda or cuda:N");
  command.add_flag("--keep-state", options.keep_state,
                   "Keep the server's and the sites' folders, keys included");
}

int Main(int argc, char** argv) {
  const std::stop_token stop = StopOnInterrupt();
  CLI::App program(
      "Isoscan's sandbox: simulated hospitals, and whole federations on one machine.\n"
      "Exit codes: docs/operations.md.",
      "isoscan-sandbox");
  program.set_version_flag("--version", std::string("isoscan-sandbox ") + kVersion);
  program.require_subcommand(1);
  program.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    return UsageError(failed->get_name(), error.what(), failed->remaining(/*recurse=*/true));
  });

  SimulateOptions simulate;
  CLI::App* const simulate_command =
      program.add_subcommand("simulate", "Make cohorts of several scanners from one labelled head");
  simulate_command->add_option("--out", simulate.out, "A folder for each scanner goes here")
      ->required();
  simulate_command->add_option("--anatomy", simulate.anatomy, "The head")->capture_default_str();
  simulate_command->add_option("--atlas", simulate.atlas, "Its labels, on the same grid")
      ->capture_default_str();
  simulate_command->add_option("--label", simulate.labels, "A label and its values in the atlas")
      ->type_name("NAME=VALUE[,VALUE]");
  simulate_command
      ->add_option("--scanner", simulate.scanners, "A hospital's scanner; every part has a default")
      ->type_name("NAME[:scale=..,bias=..,gamma=..,noise=..,field=..]");
  simulate_command->add_option("--patients", simulate.patients, "For each scanner, or one for all")
      ->check(CLI::Range(1, 100'000));
  simulate_command->add_option("--spacing-mm", simulate.variation.spacing_mm, "Voxel size")
      ->check(CLI::Range(0.2, 20.0))
      ->capture_default_str();
  simulate_command
      ->add_option("--displacement-mm", simulate.variation.displacement_mm,
                   "How much one person differs from another")
      ->check(CLI::Range(0.0, 20.0))
      ->capture_default_str();
  simulate_command->add_option("--margin-mm", simulate.margin_mm, "Around the labels")
      ->check(CLI::Range(0.0, 500.0))
      ->capture_default_str();
  simulate_command->add_option("--seed", simulate.seed, "Other seeds, other people")
      ->capture_default_str();

  RescanOptions rescan;
  CLI::App* const rescan_command = program.add_subcommand(
      "rescan", "Copy a real cohort as another scanner would have stored it");
  rescan_command->add_option("cohort", rescan.source, "Folder of the cohort")->required();
  rescan_command->add_option("--out", rescan.target, "Folder of the copy")->required();
  rescan_command->add_option("--scanner", rescan.scanner, "The other scanner")
      ->type_name("NAME[:scale=..,bias=..,gamma=..,noise=..,field=..]")
      ->required();
  rescan_command->add_option("--seed", rescan.seed, "Of noise and field");

  RunOptions run;
  CLI::App* const run_command = program.add_subcommand(
      "run", "Run a study with a real server and one real client per hospital");
  AddRunOptions(*run_command, run);

  RunOptions compare;
  CLI::App* const compare_command = program.add_subcommand(
      "compare", "Local, pooled and federated training on the same cohorts; resumable");
  AddRunOptions(*compare_command, compare);
  compare_command->add_option("--arms", compare.arms, "Which, in order")->delimiter(',');
  compare_command->add_option("--variants", compare.variants,
                              "TOML file of axes: every combination is compared (docs/sandbox.md)");
  compare_command->add_option("--repetitions", compare.repetitions, "Of each arm, with other seeds")
      ->check(CLI::Range(1, 100));
  compare_command->add_option("--unseen", compare.unseen, "A cohort to score and never to train on")
      ->type_name("NAME=FOLDER");

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  if (simulate_command->parsed()) return Report(Simulate(simulate));
  if (rescan_command->parsed()) return Report(Rescan(rescan));
  if (run_command->parsed()) return Report(Run(run, stop));
  return Report(Compare(compare, stop));
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) { return isoscan::Main(argc, argv); }
