#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "client/simulation/protocol.h"
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

constexpr char kScannerForm[] = "NAME[:protocol=..,scale=..,bias=..,noise=..,...]";
constexpr char kRescannerForm[] = "NAME[:scale=..,bias=..,gamma=..,noise=..,field=..,bits=..]";
constexpr char kHead[] = "/usr/share/mricron/templates/ch2.nii.gz";
constexpr char kBrain[] = "/usr/share/mricron/templates/ch2bet.nii.gz";

struct SimulateOptions {
  std::string out;
  std::string anatomy;  // kHead unless tissue is given.
  std::string brain;    // kBrain with kHead.
  std::vector<std::string> tissue;
  std::string atlas = "/usr/share/mricron/templates/aal.nii.gz";
  // Numbers of the AAL atlas: left and right.
  std::vector<std::string> labels{"caudate=71,72", "putamen=73,74", "thalamus=77,78"};
  // Three hospitals of other size, magnet, sequence, units, offset and noise.
  std::vector<std::string> scanners{
      "harbour:protocol=1.5T-spgr,noise=0.02,field=0.1",
      "hillside:protocol=3T-mprage,scale=12,bias=900,noise=0.04,field=0.2,transmit=0.1",
      "riverbank:protocol=1.5T-mprage,scale=0.004,bias=-0.3,noise=0.05,field=0.1"};
  std::vector<std::int64_t> patients{20, 14, 10};
  double margin_mm = 10;
  CohortPlan plan;
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
  std::string initial_weights;
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

/// What has to be read for these scanners.
AnatomyFiles FilesFor(const SimulateOptions& options, const std::vector<Scanner>& scanners) {
  AnatomyFiles files{.atlas = options.atlas, .image = options.anatomy};
  if (options.anatomy.empty() && options.tissue.empty()) files.image = kHead;
  for (const Scanner& scanner : scanners) {
    if (scanner.protocols.empty()) continue;
    files.tissue = options.tissue;
    files.brain = files.image == kHead && options.brain.empty() ? kBrain : options.brain;
  }
  return files;
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
  std::vector<Scanner> scanners;
  for (const std::string& text : options.scanners) {
    ASSIGN_OR_RETURN(Scanner scanner, ParseScanner(text));
    scanners.push_back(std::move(scanner));
  }
  ASSIGN_OR_RETURN(const Anatomy anatomy,
                   LoadAnatomy(FilesFor(options, scanners), labels, options.margin_mm));
  for (std::size_t i = 0; i < scanners.size(); ++i) {
    CohortPlan plan = options.plan;
    plan.patients = options.patients[options.patients.size() == 1 ? 0 : i];
    const fs::path folder = fs::path(options.out) / scanners[i].name;
    RETURN_IF_ERROR(WriteSimulatedCohort(folder, anatomy, labels, scanners[i], plan));
    std::cout << fmt::format("{}: {} patients\n", folder.string(), plan.patients);
  }
  return absl::OkStatus();
}

/// What the protocols show of a brain, and what of their differences no scale and bias removes.
absl::Status ListProtocols() {
  ASSIGN_OR_RETURN(const Protocol reference, FindProtocol("E"));
  std::cout << fmt::format("{:2} {:16} {:8} {:>6} {:>6} {:>6} {:>9}\n", "", "protocol", "contrast",
                           "CSF", "grey", "white", "residual");
  for (const Protocol& protocol : Protocols()) {
    const TissueTable& tissues = TissuesAt(protocol.field);
    const auto signal = [&](Tissue tissue) { return Signal(tissues[IndexOf(tissue)], protocol); };
    const double unit = 100 / signal(Tissue::kWhite);
    std::cout << fmt::format("{:2} {:16} {:8} {:6.1f} {:6.1f} {:6.1f} {:9.2f}\n", protocol.letter,
                             protocol.name, ContrastOf(protocol), unit * signal(Tissue::kCsf),
                             unit * signal(Tissue::kGrey), 100.0,
                             AffineResidual(protocol, reference));
  }
  std::cout << fmt::format(
      "\nwhite matter is 100; residual of the best affine map onto {}, in "
      "standard deviations\n",
      reference.name);
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
  if (!options.initial_weights.empty()) run.initial_weights = fs::absolute(options.initial_weights);
  for (const std::string& site : options.sites) {
    ASSIGN_OR_RETURN(SandboxSite parsed, ParseSandboxSite(site));
    run.sites.push_back(std::move(parsed));
  }
  return run;
}

absl::Status Run(const RunOptions& options, std::stop_token stop) {
  ASSIGN_OR_RETURN(const FederationRun run, PlannedRun(options));
  ASSIGN_OR_RETURN(const Study study, ParseStudy(run.study_toml, run.study_source));
  if (!run.initial_weights.empty() && study.network.initial_weights.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{} starts from weights drawn from its seed: --initial-weights goes with the "
                    "line initial_weights = \"...\" under [network], as `isoscan-client import` "
                    "prints it",
                    run.study_source));
  }
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
  command.add_option("--initial-weights", options.initial_weights,
                     "The weights (.safetensors) that the study's initial_weights names");
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
  CLI::App* const simulate_command = program.add_subcommand(
      "simulate", "Make cohorts of several scanners from one labelled head (docs/simulation.md)");
  simulate_command->add_option("--out", simulate.out, "A folder for each scanner goes here")
      ->required();
  simulate_command->add_option("--anatomy", simulate.anatomy, "T1 of the head")->default_str(kHead);
  simulate_command->add_option("--brain", simulate.brain,
                               "The head without skull, to find tissue in; default: that of the "
                               "default head");
  simulate_command
      ->add_option("--tissue", simulate.tissue,
                   "Known tissue instead: labels as in BIDS, or maps of csf, grey, white, ...")
      ->type_name("FILE|NAME=FILE");
  simulate_command->add_option("--atlas", simulate.atlas, "Its labels, on the same grid")
      ->capture_default_str();
  simulate_command->add_option("--label", simulate.labels, "A label and its values in the atlas")
      ->type_name("NAME=VALUE[,VALUE]");
  simulate_command
      ->add_option("--scanner", simulate.scanners, "A hospital's scanner; every part has a default")
      ->type_name(kScannerForm);
  simulate_command->add_option("--patients", simulate.patients, "For each scanner, or one for all")
      ->check(CLI::Range(1, 100'000));
  simulate_command
      ->add_option("--spacing-mm", simulate.plan.spacing_mm,
                   "Voxel size of scanners without spacing=")
      ->check(CLI::Range(0.2, 20.0))
      ->capture_default_str();
  simulate_command
      ->add_option("--displacement-mm", simulate.plan.variation.displacement_mm,
                   "How much one person differs from another")
      ->check(CLI::Range(0.0, 20.0))
      ->capture_default_str();
  simulate_command->add_option("--margin-mm", simulate.margin_mm, "Around the labels")
      ->check(CLI::Range(0.0, 500.0))
      ->capture_default_str();
  simulate_command
      ->add_option("--relaxation", simulate.plan.variation.relaxation,
                   "How much T1, T2 and proton density differ between people")
      ->check(CLI::Range(0.0, 0.3))
      ->capture_default_str();
  simulate_command
      ->add_option("--texture", simulate.plan.variation.texture,
                   "How much proton density differs between voxels")
      ->check(CLI::Range(0.0, 0.3))
      ->capture_default_str();
  simulate_command->add_option("--seed", simulate.plan.seed, "Other seeds, other people")
      ->capture_default_str();

  CLI::App* const protocols_command = program.add_subcommand(
      "protocols", "List the protocols of simulate and what they show of a brain");

  RescanOptions rescan;
  CLI::App* const rescan_command = program.add_subcommand(
      "rescan", "Copy a real cohort as another scanner would have stored it");
  rescan_command->add_option("cohort", rescan.source, "Folder of the cohort")->required();
  rescan_command->add_option("--out", rescan.target, "Folder of the copy")->required();
  rescan_command->add_option("--scanner", rescan.scanner, "The other scanner")
      ->type_name(kRescannerForm)
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
  if (protocols_command->parsed()) return Report(ListProtocols());
  if (rescan_command->parsed()) return Report(Rescan(rescan));
  if (run_command->parsed()) return Report(Run(run, stop));
  return Report(Compare(compare, stop));
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) { return isoscan::Main(argc, argv); }
