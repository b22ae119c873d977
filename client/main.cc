/// isoscan-client: a hospital's part in federated studies. docs/hospital.md is its guide.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <csignal>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/client_config.h"
#include "client/commands/commands.h"
#include "client/commands/input_choice.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/tls/credentials.h"
#include "common/version.h"

namespace isoscan {
namespace {

/// What the command line said, and the command that it chose.
struct CommandLine {
  std::string config = "client.toml";
  std::string invitation;
  std::string folder;
  std::string server;
  std::string study;
  InspectRequest inspection;
  EvaluationRequest evaluation;
  MaskEvaluationRequest masks;
  std::optional<GeometrySource> masks_geometry;
  PredictRequest predict;
  ClientConfig::Device device;
  ExportRequest exported;
  ImportRequest imported;
  HarmonizeRequest harmonize;
  bool certify = false;
  CertificateRequest certificate;
  bool json = false;
  bool yes = false;
  bool text_only = false;
  bool until_ended = false;
  std::function<int()> command;
};

using ConfiguredCommand = std::function<absl::Status(const ClientConfig&)>;

/// A command that needs client.toml.
void Choose(CLI::App* app, CommandLine& line, ConfiguredCommand command) {
  app->callback([&line, command = std::move(command)] {
    line.command = [&line, command] {
      const absl::StatusOr<ClientConfig> config = LoadClientConfig(line.config);
      return Report(config.ok() ? command(*config) : config.status());
    };
  });
}

void AddEnrol(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  CLI::App* const app = program.add_subcommand(
      "enrol", "Make this site's key, certificate and client.toml from an invitation");
  app->add_option("invitation", line.invitation, "File from the coordinator")->required();
  app->add_option("--folder", line.folder, "Folder to make them in")->required();
  app->add_option("--server", line.server, "HOST:PORT, instead of the invitation's");
  app->callback([&line, &stop] {
    line.command = [&line, &stop] {
      return Report(Enrol(line.invitation, line.folder, line.server, stop));
    };
  });
}

absl::Status CertifyCohort(const CommandLine& line, const std::stop_token& stop) {
  const absl::StatusOr<ClientConfig> config =
      line.certificate.folder.empty() ? LoadClientConfig(line.config) : ConfigOrNone(line.config);
  RETURN_IF_ERROR(config.status());
  return Certify(*config, line.certificate, stop);
}

/// An option whose values are words; any other is refused with the list of them.
template <typename Value, typename Target>
CLI::Option* AddWord(CLI::App* app, const std::string& name, Target& target,
                     const std::vector<std::pair<std::string, Value>>& values,
                     const std::string& description) {
  const std::map<std::string, Value> words(values.begin(), values.end());
  std::vector<std::string> names;
  for (const auto& [word, value] : values) names.push_back(word);
  return app
      ->add_option_function<std::string>(
          name, [&target, words](const std::string& word) { target = words.at(word); }, description)
      ->check(CLI::IsMember(names))
      ->type_name("WORD");
}

/// Values with their words, as study.toml has them.
template <typename Value>
std::vector<std::pair<std::string, Value>> Words(const std::vector<Value>& values) {
  std::vector<std::pair<std::string, Value>> words;
  for (const Value value : values) words.emplace_back(ToString(value), value);
  return words;
}

CLI::Option* AddGeometry(CLI::App* app, std::optional<GeometrySource>& target,
                         const std::string& description) {
  return AddWord<GeometrySource>(app, "--geometry", target,
                                 {{"agreed", GeometrySource::kAgreed},
                                  {"qform", GeometrySource::kQform},
                                  {"sform", GeometrySource::kSform}},
                                 description);
}

void AddInspect(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  CLI::App* const app = program.add_subcommand(
      "inspect", "What is in a folder of scans, and which of them cannot be used");
  app->add_option("folder", line.inspection.folder,
                  "A cohort's folder; without it the folders of client.toml");
  app->add_option("--study", line.inspection.study, "A study's file, or an approved study's name");
  app->add_flag("--headers", line.inspection.headers_only, "Read headers only, no voxels");
  app->add_option("--threads", line.inspection.threads, "Cases at a time; 0 takes every core")
      ->check(CLI::Range(0, 1024));
  AddGeometry(app, line.inspection.geometry,
              "Which form counts where a NIfTI's qform and sform disagree");
  app->add_flag("--json", line.inspection.json, "Print JSON");
  app->callback([&line, &stop] {
    line.command = [&line, &stop] {
      line.inspection.config = line.config;
      return Report(Inspect(line.inspection, stop));
    };
  });
}

void AddEvaluate(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  CLI::App* const app = program.add_subcommand(
      "evaluate",
      "Score a model, on this site's held-out cases or on every case of FOLDERs; or masks in files "
      "(--predictions) against others (--references)");
  EvaluationRequest& request = line.evaluation;
  MaskEvaluationRequest& masks = line.masks;
  CLI::Option* const folders =
      app->add_option("folders", request.folders, "Cohorts, instead of the site's own");
  CLI::Option* const study =
      app->add_option("--study", request.study, "A study's file, or an approved study's name");
  CLI::Option* const model =
      app->add_option("--model", request.model, "A global model (.safetensors)");
  CLI::Option* const device =
      app->add_option("--device", line.device.name, "auto, cpu, cuda or cuda:N; for FOLDERs");
  CLI::Option* const predictions =
      app->add_option("--predictions", masks.predictions,
                      "A mask, or a folder of masks, whatever made them: no study is needed")
          ->excludes(folders)
          ->excludes(study)
          ->excludes(model)
          ->excludes(device);
  CLI::Option* const references =
      app->add_option(
             "--references", masks.references,
             "Masks to compare them with: a file, or a folder with files of the same names")
          ->needs(predictions);
  predictions->needs(references);
  app->add_option("--labels", masks.labels,
                  "VALUE or VALUE=NAME, separated by commas: these values of the masks alone")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->needs(predictions);
  AddGeometry(app, line.masks_geometry,
              "Which form counts where a NIfTI's qform and sform disagree; for --predictions")
      ->needs(predictions);
  app->add_option("--tolerance-mm", request.surface.tolerances_mm,
                  "Distances up to which surfaces count as equal, for NSD")
      ->delimiter(',')
      ->allow_extra_args(false)  // What follows is a FOLDER.
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddWord<SurfaceDefinition>(
      app, "--definition", request.surface.definition,
      {{"surface", SurfaceDefinition::kElements}, {"voxels", SurfaceDefinition::kVoxels}},
      "What a mask's surface is: elements with areas (surface, default), or its border voxels");
  app->add_option("--out", request.output.out, "Also write JSON to this file");
  app->add_option("--csv", request.output.csv, "Also write a CSV file, a row per case and label");
  app->add_flag("--json", request.output.json, "Print JSON");
  app->add_option("--threads", line.device.threads, "0: every core; not for the site's own cases")
      ->check(CLI::Range(0, 1024));
  app->callback([&line, &stop] {
    EvaluationRequest& chosen = line.evaluation;
    if (line.masks.predictions.empty() && chosen.model.empty()) {
      throw CLI::RequiredError("--model, or --predictions and --references");
    }
    line.masks.surface = chosen.surface;
    line.masks.output = chosen.output;
    line.masks.geometry = line.masks_geometry.value_or(GeometrySource::kAgreed);
    line.masks.threads = line.device.threads;
    line.command = [&line, &stop] {
      if (!line.masks.predictions.empty()) return Report(EvaluateMasks(line.masks, stop));
      if (line.evaluation.folders.empty()) {
        const absl::StatusOr<ClientConfig> config = LoadClientConfig(line.config);
        return Report(config.ok() ? EvaluateCases(*config, line.evaluation, stop)
                                  : config.status());
      }
      // A folder of files needs no site: no client.toml is asked for.
      ClientConfig config;
      config.device = line.device;
      return Report(EvaluateCases(config, line.evaluation, stop));
    };
  });
}

void AddPredict(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  CLI::App* const app = program.add_subcommand(
      "predict", "Label an image or a cohort by a model, each in its own grid");
  PredictRequest& request = line.predict;
  app->add_option(
         "input", request.input,
         "Image, DICOM series, folder of images, or of a cohort (BIDS, Decathlon, nnU-Net, "
         "DICOM)")
      ->required();
  app->add_option("output", request.output,
                  "Folder to write CASE.nii.gz into, of BIDS a derivative; for one case also a "
                  "NIfTI file")
      ->required();
  app->add_option("--study", request.study, "A study's file, or an approved study's name");
  app->add_option("--model", request.model, "A global model (.safetensors)")->required();
  app->add_flag("--mirror", request.mirror,
                "Also look at mirror images, along the axes that the study mirrors in training");
  app->add_flag("--dicom-seg", request.dicom_seg,
                "Of DICOM series also CASE.dcm, a DICOM segmentation; it names the patient as they "
                "do");
  AddGeometry(app, request.geometry,
              "Which form counts where a NIfTI's qform and sform disagree; may not contradict a "
              "form that client.toml names for the input's [[cohort]]");
  app->add_option("--device", line.device.name, "auto, cpu, cuda or cuda:N")
      ->default_str("that of client.toml, or auto");
  app->add_option("--threads", line.device.threads, "0: every core")->check(CLI::Range(0, 1024));
  app->add_flag("--json", request.json, "Print JSON");
  app->callback([&line, &stop, app] {
    line.predict.config = line.config;
    // What the command line says of the device counts as a whole.
    if (app->count("--device") + app->count("--threads") > 0) line.predict.device = line.device;
    line.command = [&line, &stop] { return Report(Predict(line.predict, stop)); };
  });
}

void AddExport(CLI::App& program, CommandLine& line) {
  CLI::App* const app =
      program.add_subcommand("export", "Write a model for nnU-Net or MONAI (docs/interop.md)");
  ExportRequest& request = line.exported;
  app->add_option("folder", request.folder, "Folder to write into")->required();
  app->add_option("--study", request.study, "A study's file, or an approved study's name");
  app->add_option("--model", request.model, "A global model (.safetensors)")->required();
  AddWord<ExportFormat>(
      app, "--format", request.format,
      {{"nnunet", ExportFormat::kNnunet}, {"dynunet", ExportFormat::kDynUnet}},
      "nnunet: a model folder for nnUNetv2_predict_from_modelfolder; dynunet: a state dict of "
      "MONAI's DynUNet");
  app->callback([&line] {
    line.command = [&line] {
      const absl::StatusOr<ClientConfig> config = ConfigOrNone(line.config);
      return Report(config.ok() ? ExportModel(*config, line.exported) : config.status());
    };
  });
}

void AddImport(CLI::App& program, CommandLine& line) {
  CLI::App* const app = program.add_subcommand(
      "import", "Check weights of deploy/convert_model.py, and make a model of them");
  app->add_option("weights", line.imported.weights, "weights.safetensors")->required();
  app->add_option("model", line.imported.model, "The model to write (.safetensors)")->required();
  app->add_option("--study", line.imported.study, "A study's file, or an approved study's name");
  app->callback([&line] {
    line.command = [&line] {
      const absl::StatusOr<ClientConfig> config = ConfigOrNone(line.config);
      return Report(config.ok() ? ImportModel(*config, line.imported) : config.status());
    };
  });
}

/// Answers with --certify.
CLI::Option* AddCertificate(CLI::App* harmonize, CommandLine& line) {
  CertificateRequest& request = line.certificate;
  CLI::Option* const certify = harmonize->add_flag(
      "--certify", line.certify,
      "Instead: measure what scale, bias and other changes of this site's held-out scans (or all "
      "of the folder INPUT) do to the model of --study, a file or an approved study's name");
  harmonize->add_option("--cases", request.cases, "At most so many cases")
      ->needs(certify)
      ->check(CLI::PositiveNumber);
  harmonize->add_option("--certificate", request.out, "File for the certificate as JSON")
      ->needs(certify);
  harmonize->add_option("--svg", request.svg, "File for its picture")->needs(certify);
  return certify;
}

void AddHarmonize(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  using Plan = HarmonizationPlan;
  CLI::App* const app = program.add_subcommand(
      "harmonize", "Copy an image or a cohort with harmonised images, as a study would see them");
  HarmonizeRequest& request = line.harmonize;
  app->add_option("input", request.input,
                  "Image, DICOM series, or folder of a cohort (BIDS, Decathlon, nnU-Net, DICOM)");
  CLI::Option* const output =
      app->add_option("output", request.output, "NIfTI file, or folder, to write");
  CLI::Option* const study =
      app->add_option("--study", line.study,
                      "A study's file, or an approved study's name, whose [harmonization] counts");
  app->add_option("--model", line.certificate.model,
                  "A model of the study (.safetensors): its standard, where nyul or lsq take the "
                  "sites' mean; another plan's is refused. With --certify, what is measured");
  CLI::Option* const certify = AddCertificate(app, line)->excludes(output);
  AddGeometry(app, request.geometry,
              "Which form counts where a NIfTI's qform and sform disagree. Otherwise `geometry` of "
              "the input's [[cohort]] in client.toml counts, or agreed: such a file is refused. A "
              "study leaves it to the hospital; with --study, --geometry may not contradict a form "
              "that client.toml names, since that is what the study reads")
      ->excludes(certify);
  app->add_option("--channel", request.channel,
                  "Which of the study's channels a single image shows, where its name does not say")
      ->needs(study)
      ->excludes(certify);
  app->add_flag("--nnunet", request.for_nnunet,
                "Write what nnU-Net takes as the input of an exported model: CASE_0000.nii.gz, "
                "voxels in LPS order, and no other file")
      ->needs(study)
      ->excludes(certify);
  AddWord(app, "--mask", request.plan.mask,
          Words<Plan::Mask>(
              {Plan::Mask::kWhole, Plan::Mask::kOtsu, Plan::Mask::kThreshold, Plan::Mask::kGiven}),
          "Voxels that statistics are taken over")
      ->excludes(study)
      ->excludes(certify);
  app->add_option("--threshold", request.plan.threshold,
                  "For --mask threshold: a fraction of the image's range")
      ->check(CLI::Range(0.0, 0.99))
      ->excludes(study)
      ->excludes(certify);
  AddWord(app, "--normalize", request.plan.normalize,
          Words<Plan::Normalizer>({Plan::Normalizer::kInstance, Plan::Normalizer::kZScore,
                                   Plan::Normalizer::kFcm, Plan::Normalizer::kNone}),
          "What is done with the statistics; white_stripe and kde, which need the contrast, and "
          "nyul and lsq, which need the sites' standard, come with --study")
      ->excludes(study)
      ->excludes(certify);
  app->add_flag_function(
         "--n4", [&request](std::int64_t) { request.plan.n4 = N4Plan(); },
         "Correct the bias field first")
      ->excludes(study)
      ->excludes(certify);
  app->add_flag("--json", line.json, "Print JSON");
  app->callback([&line, &stop] {
    if (line.certify && line.certificate.model.empty()) {
      throw CLI::RequiredError("--certify: --model");
    }
    if (!line.certify && !line.certificate.model.empty() && line.study.empty()) {
      throw CLI::RequiresError("--model", "--study");
    }
    if (!line.certify && line.harmonize.output.empty()) {
      throw CLI::RequiredError(line.harmonize.input.empty() ? "input" : "output");
    }
    line.harmonize.config = line.config;
    line.harmonize.model = line.certificate.model;
    line.harmonize.study = line.certificate.study = line.study;
    line.certificate.folder = line.harmonize.input;
    line.harmonize.json = line.certificate.json = line.json;
    line.command = [&line, &stop] {
      return Report(line.certify ? CertifyCohort(line, stop)
                                 : HarmonizeImages(line.harmonize, stop));
    };
  });
}

void AddStudy(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  CLI::App* const study = program.add_subcommand("study", "The studies that the server offers");
  study->require_subcommand(1);

  CLI::App* const list = study->add_subcommand("list", "All of them, and this site's part");
  list->add_flag("--json", line.json, "Print JSON");
  Choose(list, line, [&line, &stop](const ClientConfig& config) {
    return ListStudies(config, line.json, stop);
  });

  CLI::App* const show = study->add_subcommand("show", "What a study would do, and its text");
  show->add_option("name", line.study)->required();
  show->add_flag("--text", line.text_only, "Print the text alone");
  Choose(show, line, [&line, &stop](const ClientConfig& config) {
    return ShowStudy(config, line.study, line.text_only, stop);
  });

  CLI::App* const approve =
      study->add_subcommand("approve", "Take part: read the cohort, then ask");
  approve->add_option("name", line.study)->required();
  approve->add_flag("--yes", line.yes, "Do not ask");
  Choose(approve, line, [&line, &stop](const ClientConfig& config) {
    return ApproveStudy(config, line.study, line.yes, stop);
  });

  CLI::App* const withdraw = study->add_subcommand("withdraw", "Take part no longer");
  withdraw->add_option("name", line.study)->required();
  Choose(withdraw, line, [&line, &stop](const ClientConfig& config) {
    return WithdrawFromStudy(config, line.study, stop);
  });
}

void AddOthers(CLI::App& program, CommandLine& line, const std::stop_token& stop) {
  program.add_subcommand("check", "Try everything that a study needs and say what is amiss")
      ->callback([&line, &stop] {
        line.command = [&line, &stop] { return static_cast<int>(CheckSite(line.config, stop)); };
      });

  CLI::App* const run = program.add_subcommand("run", "Work on the approved studies");
  run->add_flag("--until-ended", line.until_ended, "Exit with 0 when all of them have ended");
  Choose(run, line, [&line, &stop](const ClientConfig& config) {
    return RunClient(config, line.until_ended, stop);
  });
}

int Main(int argc, char** argv) {
  const std::stop_token stop = StopOnInterrupt();
  RequireTls13();
  // Every failure of the connection is told in our own words:
  // client/federation/connection_failure.h.
  LogGrpcAsDebug();
  KeepFreedMemory();
  // A file that may not grow (ulimit -f) is an error of writing it, not the end of the program.
  std::signal(SIGXFSZ, SIG_IGN);

  CommandLine line;
  CLI::App program("A hospital's part in federated MRI segmentation: no scan leaves the site.",
                   "isoscan-client");
  program.set_version_flag(
      "--version", fmt::format("isoscan-client {} (protocol {})", kVersion, kProtocolVersion));
  program.add_option("--config", line.config, "This site's configuration")->capture_default_str();
  program.require_subcommand(1);
  // `isoscan-client run --config FILE` means the same as `--config FILE run`.
  program.fallthrough();
  program.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    std::string name = failed->get_name();
    // The command's own --help has its options.
    for (auto chosen = failed->get_subcommands(); !chosen.empty();
         chosen = chosen.front()->get_subcommands()) {
      name += " " + chosen.front()->get_name();
    }
    return UsageError(name, error.what(), failed->remaining(/*recurse=*/true));
  });
  program.footer(
      "Exit codes: 0 done, 1 defect, 2 usage or configuration, 3 data, 4 server unreachable,\n"
      "5 refused, 6 not possible now, 7 memory or disk, 8 other version, 130 interrupted.\n"
      "Guide: docs/hospital.md");
  AddEnrol(program, line, stop);
  AddOthers(program, line, stop);
  AddEvaluate(program, line, stop);
  AddExport(program, line);
  AddHarmonize(program, line, stop);
  AddImport(program, line);
  AddInspect(program, line, stop);
  AddPredict(program, line, stop);
  AddStudy(program, line, stop);

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  return line.command();
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) { return isoscan::Main(argc, argv); }
