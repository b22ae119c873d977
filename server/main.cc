/// isoscan-server: init, run, check. docs/operations.md tells how it is used.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "common/clock/clock.h"
#include "common/log/log.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/tls/credentials.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/safetensors.h"
#include "server/aggregation_server.h"
#include "server/rounds/model_folder.h"
#include "server/server_config.h"
#include "server/state_folder.h"

namespace isoscan {
namespace {

struct Arguments {
  std::filesystem::path state;
  std::string address;
  std::string listen;
  std::filesystem::path ready_file;
  std::filesystem::path weights;
};

absl::Status Init(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Endpoint address, ParseEndpoint(arguments.address));
  Endpoint listen{.host = "0.0.0.0", .port = address.port};
  if (!arguments.listen.empty()) {
    ASSIGN_OR_RETURN(listen, ParseEndpoint(arguments.listen));
  }
  const StateFolder folder{arguments.state};
  RETURN_IF_ERROR(InitializeState(folder, address, listen, SystemClock().Now()));
  const std::string state = folder.root.string();
  fmt::print(
      "Made the state of a server that sites reach at {} in {}.\n"
      "{} is the consortium's root of trust: keep it private, and back it up.\n"
      "Next:\n"
      "  isoscan-server run --state {}\n"
      "  isoscan-admin --config {} site invite NAME --out NAME.invitation.toml\n",
      ToString(address), state, (folder.authority() / "authority.key").string(), state,
      (folder.operator_files() / "operator.toml").string());
  return absl::OkStatus();
}

/// What is UNAVAILABLE to sites, which try again, is a file that cannot be used to who starts the
/// server.
absl::Status AsFileError(const absl::Status& status) {
  return absl::IsUnavailable(status) ? absl::DataLossError(status.message()) : status;
}

void WaitForStop(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait(lock, stop, [] { return false; });
}

absl::Status Run(const Arguments& arguments, const std::stop_token& stop) {
  const StateFolder folder{arguments.state};
  if (!std::filesystem::exists(folder.config())) return StateLock::Take(folder).status();
  ASSIGN_OR_RETURN(ServerConfig config, LoadServerConfig(folder.config()));
  if (!arguments.listen.empty()) {
    ASSIGN_OR_RETURN(config.listen, ParseEndpoint(arguments.listen));
  }
  RETURN_IF_ERROR(
      StartLog(config.log_level, config.log_file.empty() ? "" : folder.root / config.log_file));
  const SystemClock clock;
  ASSIGN_OR_RETURN(const std::unique_ptr<AggregationServer> server,
                   AggregationServer::Start(folder, config, clock));
  if (!arguments.ready_file.empty()) {
    RETURN_IF_ERROR(
        WriteFileAtomically(arguments.ready_file, ToString(server->listening()) + "\n"));
  }
  WaitForStop(stop);
  spdlog::info("server stopping");
  server->Stop();
  spdlog::info("server stopped");
  return absl::OkStatus();
}

absl::Status Check(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const StateFindings findings, CheckState({arguments.state}));
  for (const std::string& line : findings.well) fmt::print("{}\n", line);
  for (const std::string& file : findings.unnamed) {
    fmt::print("{}: nothing in the journal names it\n", file);
  }
  if (findings.faults.empty()) {
    fmt::print("{}: all is well\n", arguments.state.string());
    return absl::OkStatus();
  }
  std::fflush(stdout);  // In this order also in a pipe.
  // The last one is printed, like any error, when the program ends.
  for (std::size_t i = findings.faults.size() - 1; i > 0; --i)
    Report(AsFileError(findings.faults[i]));
  return findings.faults.front();
}

absl::Status Import(const Arguments& arguments) {
  const StateFolder folder{arguments.state};
  if (!std::filesystem::exists(folder.models())) return StateLock::Take(folder).status();
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(arguments.weights));
  ASSIGN_OR_RETURN(const std::string digest, ModelFolder(folder.models()).Import(file.ReadAll()));
  fmt::print("A study starts from these weights with, under [network]:\ninitial_weights = \"{}\"\n",
             digest);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const std::stop_token stop = StopOnInterrupt();
  RequireTls13();

  Arguments arguments;
  CLI::App app("The aggregation server of an Isoscan federation.", "isoscan-server");
  app.set_version_flag("--version", fmt::format("isoscan-server {}", kVersion));
  app.require_subcommand(1);
  app.footer("Exit codes: docs/operations.md.");
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    return UsageError(failed->get_name(), error.what(), failed->remaining(/*recurse=*/true));
  });

  CLI::App* const init = app.add_subcommand(
      "init", "Make a state folder: authority, certificates, configuration, journal");
  init->add_option("--address", arguments.address,
                   "HOST:PORT that sites dial; HOST stands in the server's certificate")
      ->required();
  init->add_option("--listen", arguments.listen,
                   "local IP:PORT to listen on; 0.0.0.0 and the address's port by default");

  CLI::App* const run = app.add_subcommand("run", "Serve until SIGTERM or Ctrl-C");
  run->add_option("--listen", arguments.listen, "IP:PORT instead of server.toml's; port 0: any");
  run->add_option("--ready-file", arguments.ready_file,
                  "write HOST:PORT into this file once the server listens");

  CLI::App* const check = app.add_subcommand(
      "check",
      "Verify keys, certificates, the journal, every model and every update that waits; tells all "
      "that is wrong");
  CLI::App* const import = app.add_subcommand(
      "import", "Keep weights that a study's initial_weights names; the server may run meanwhile");
  import->add_option("weights", arguments.weights, "a file of `isoscan-client import`")->required();
  for (CLI::App* const command : {init, run, check, import}) {
    command->add_option("--state", arguments.state, "the server's state folder")->required();
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  if (init->parsed()) return Report(AsFileError(Init(arguments)));
  if (import->parsed()) return Report(AsFileError(Import(arguments)));
  if (run->parsed()) return Report(AsFileError(Run(arguments, stop)));
  return Report(AsFileError(Check(arguments)));
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  isoscan::PrepareForMessages();
  return isoscan::Main(argc, argv);
}
