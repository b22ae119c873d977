/// isoscan-admin: the coordinator's commands. docs/operations.md tells how it is used.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <utility>

#include "common/config/address.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/status/status_macros.h"
#include "common/tls/credentials.h"
#include "common/version.h"
#include "server/admin/commands.h"
#include "server/admin/operator_config.h"
#include "server/admin/operator_session.h"
#include "server/admin/presentation.h"

namespace isoscan {
namespace {

struct Arguments {
  std::filesystem::path config;
  std::string server;
  bool json = false;
  Invitation invitation;
  std::string study;
  std::filesystem::path study_file;
  std::filesystem::path out;
  WhichModel which;

  Format format() const { return json ? Format::kJson : Format::kTable; }
};

using Command = std::function<absl::Status(OperatorSession& session, Arguments& arguments)>;

template <typename Response>
absl::Status PrintResult(const absl::StatusOr<Response>& response, Format format) {
  RETURN_IF_ERROR(response.status());
  std::fputs(Present(*response, format).c_str(), stdout);
  return absl::OkStatus();
}

/// The command lines; each sets `chosen`.
class CommandLine {
 public:
  CommandLine(Arguments& arguments, Command& chosen, const std::stop_token& stop)
      : arguments_(arguments),
        chosen_(chosen),
        app_("Operate an Isoscan federation: sites, studies, reports, models.", "isoscan-admin") {
    app_.set_version_flag("--version", fmt::format("isoscan-admin {}", kVersion));
    app_.require_subcommand(1);
    app_.fallthrough();  // --json and the others may stand anywhere.
    app_.footer("Exit codes: docs/operations.md.");
    app_.failure_message([](const CLI::App* failed, const CLI::Error& error) {
      return UsageError(failed->get_name(), error.what(), failed->remaining(/*recurse=*/true));
    });
    app_.add_option("--config", arguments.config, "operator.toml, made by isoscan-server init")
        ->required();
    app_.add_option("--server", arguments.server, "HOST:PORT instead of operator.toml's");
    app_.add_flag("--json", arguments.json, "print results as JSON");
    AddSiteCommands();
    AddStudyCommands(stop);
    AddModelCommands();
  }

  CLI::App& app() { return app_; }

 private:
  CLI::App* Add(CLI::App* parent, const char* name, const char* description, Command command) {
    CLI::App* const added = parent->add_subcommand(name, description);
    added->callback([this, command = std::move(command)] { chosen_ = command; });
    return added;
  }

  CLI::App* AddForStudy(CLI::App* parent, const char* name, const char* description,
                        Command command) {
    CLI::App* const added = Add(parent, name, description, std::move(command));
    added->add_option("NAME", arguments_.study, "the study")->required();
    return added;
  }

  void AddSiteCommands() {
    CLI::App* const site = app_.add_subcommand("site", "Hospitals")->require_subcommand(1);
    CLI::App* const invite =
        Add(site, "invite", "Write an invitation, valid once, for a hospital to enrol with",
            [](OperatorSession& session, Arguments& arguments) {
              return InviteSite(session, arguments.invitation, arguments.format());
            });
    Invitation& invitation = arguments_.invitation;
    invite->add_option("NAME", invitation.site, "lower-case letters, digits and hyphens")
        ->required();
    invite->add_option("--out", invitation.out, "the invitation file to write")->required();
    invite->add_option("--address", invitation.server,
                       "HOST:PORT that the site dials; operator.toml's by default");
    invite->add_option("--valid-hours", invitation.valid_hours, "hours until it expires")
        ->check(CLI::Range(1, 90 * 24))
        ->capture_default_str();
    Add(site, "list", "Every site: its state, connection and certificate",
        [](OperatorSession& session, Arguments& arguments) {
          return PrintResult(session.ListSites(), arguments.format());
        });
  }

  void AddStudyCommands(const std::stop_token& stop) {
    CLI::App* const study = app_.add_subcommand("study", "Studies")->require_subcommand(1);
    CLI::App* const create =
        Add(study, "create", "Send a study.toml, for the sites to approve",
            [](OperatorSession& session, Arguments& arguments) {
              return CreateStudy(session, arguments.study_file, arguments.format());
            });
    create->add_option("FILE", arguments_.study_file, "study.toml (docs/study.md)")->required();

    CLI::App* const plan =
        AddForStudy(study, "plan", "Plan a draft that its sites have approved, and show the plan",
                    [](OperatorSession& session, Arguments& arguments) {
                      return PlanStudy(session, arguments.study, arguments.out, arguments.format());
                    });
    plan->add_option("--out", arguments_.out, "also write the planned study.toml to this file");

    AddChange(study, "start", "Open round 1", &OperatorSession::StartStudy);
    AddChange(study, "pause", "Ask nothing of the sites; what arrives is kept",
              &OperatorSession::PauseStudy);
    AddChange(study, "resume", "Go on with a paused study", &OperatorSession::ResumeStudy);
    AddChange(study, "stop", "End it for good; models and scores so far stay",
              &OperatorSession::StopStudy);
    Add(study, "list", "Every study: phase, round, sites",
        [](OperatorSession& session, Arguments& arguments) {
          return PrintResult(session.ListStudies(), arguments.format());
        });
    AddForStudy(study, "watch", "A line per change, until the study has ended",
                [stop](OperatorSession& session, Arguments& arguments) {
                  return WatchStudy(session, arguments.study, arguments.format(), stop);
                });

    CLI::App* const report = AddForStudy(&app_, "report", "Write the fairness report as it is now",
                                         [](OperatorSession& session, Arguments& arguments) {
                                           return WriteReport(session, arguments.study,
                                                              arguments.out, arguments.format());
                                         });
    report->add_option("--out", arguments_.out, "folder for report.html and report.json")
        ->required();
  }

  using Verb = absl::StatusOr<v1::StudyState> (OperatorSession::*)(const std::string& study);
  void AddChange(CLI::App* parent, const char* name, const char* description, Verb verb) {
    AddForStudy(parent, name, description, [verb](OperatorSession& session, Arguments& arguments) {
      return PrintResult((session.*verb)(arguments.study), arguments.format());
    });
  }

  void AddModelCommands() {
    CLI::App* const model = app_.add_subcommand("model", "Global models")->require_subcommand(1);
    AddForStudy(model, "list", "The model of each round",
                [](OperatorSession& session, Arguments& arguments) {
                  return PrintResult(session.ListModels(arguments.study), arguments.format());
                });
    AddForStudy(model, "best", "The model that scores best on the sites' held-out cases",
                [](OperatorSession& session, Arguments& arguments) {
                  return PrintResult(session.GetBestModel(arguments.study), arguments.format());
                });
    CLI::App* const download =
        AddForStudy(model, "download", "Write a round's model as safetensors",
                    [](OperatorSession& session, Arguments& arguments) {
                      return DownloadModel(session, arguments.study, arguments.which, arguments.out,
                                           arguments.format());
                    });
    CLI::Option* const round = download->add_option(
        "--round", arguments_.which.round, "the round; 0: the initial weights; otherwise the last");
    download->add_flag("--best", arguments_.which.best, "the one that `model best` names")
        ->excludes(round);
    download->add_option("--out", arguments_.out, "the file to write")->required();
  }

  Arguments& arguments_;
  Command& chosen_;
  CLI::App app_;
};

absl::Status Execute(const Command& command, Arguments& arguments, const std::stop_token& stop) {
  for (const auto& [option, address] : {std::pair("--server", arguments.server),
                                        std::pair("--address", arguments.invitation.server)}) {
    if (!address.empty() && !IsAddress(address)) {
      return absl::InvalidArgumentError(
          fmt::format("{} is \"{}\", expected HOST:PORT, such as federation.example.org:8443",
                      option, address));
    }
  }
  ASSIGN_OR_RETURN(OperatorConfig config, LoadOperatorConfig(arguments.config));
  // A server on any free port has none in operator.toml that a site could dial.
  const bool is_dialable = !config.server.ends_with(":0") || arguments.server.empty();
  if (arguments.invitation.server.empty()) {
    arguments.invitation.server = is_dialable ? config.server : arguments.server;
  }
  if (!arguments.server.empty()) config.server = arguments.server;
  OperatorSession session(config, stop);
  return command(session, arguments);
}

int Main(int argc, char** argv) {
  const std::stop_token stop = StopOnInterrupt();
  RequireTls13();
  ReconnectBetweenCalls();
  // What gRPC would print is in the status that the command ends with.
  LogGrpcAsDebug();

  Arguments arguments;
  Command chosen;
  CommandLine line(arguments, chosen, stop);
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return line.app().exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  return Report(Execute(chosen, arguments, stop));
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) { return isoscan::Main(argc, argv); }
