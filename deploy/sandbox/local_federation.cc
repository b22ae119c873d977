#include "deploy/sandbox/local_federation.h"

#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <system_error>
#include <utility>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return FileError("cannot make the folder", folder.string(), error);
  return absl::OkStatus();
}

/// A TOML basic string.
std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') quoted += '\\';
    quoted += character;
  }
  return quoted + '"';
}

}  // namespace

absl::StatusOr<SandboxSite> ParseSandboxSite(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    return absl::InvalidArgumentError(
        fmt::format("--site {} is not of the form NAME=FOLDER", text));
  }
  SandboxSite site{.name = text.substr(0, equals), .cohorts = {}};
  if (!IsName(site.name)) {
    return absl::InvalidArgumentError(fmt::format(
        "\"{}\" is no site name; use lower-case letters, digits and hyphens", site.name));
  }
  std::error_code error;
  const fs::path folder = fs::canonical(text.substr(equals + 1), error);
  if (error || !fs::is_directory(folder)) {
    return absl::NotFoundError(
        fmt::format("site {}: there is no folder {}", site.name, text.substr(equals + 1)));
  }
  site.cohorts.push_back({.name = "", .folder = folder});
  return site;
}

LocalFederation::LocalFederation(fs::path programs, fs::path folder, fs::path logs)
    : programs_(std::move(programs)), folder_(std::move(folder)), logs_(std::move(logs)) {}

Command LocalFederation::Server(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), (programs_ / "isoscan-server").string());
  return {.title = "isoscan-server",
          .arguments = std::move(arguments),
          .log = log("server"),
          .environment = {}};
}

Command LocalFederation::Admin(std::vector<std::string> arguments) const {
  const std::vector<std::string> program{(programs_ / "isoscan-admin").string(), "--config",
                                         (server_state() / "operator" / "operator.toml").string(),
                                         "--server", address_};
  arguments.insert(arguments.begin(), program.begin(), program.end());
  return {.title = "isoscan-admin",
          .arguments = std::move(arguments),
          .log = log("operator"),
          .environment = {}};
}

Command LocalFederation::Client(const std::string& site, std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), (programs_ / "isoscan-client").string());
  return {.title = "isoscan-client of " + site,
          .arguments = std::move(arguments),
          .log = log(site),
          // Several sites share the cores here: a waiting thread must sleep, not spin.
          .environment = {{"OMP_WAIT_POLICY", "passive"}}};
}

absl::Status LocalFederation::InitServer(std::stop_token stop) {
  RETURN_IF_ERROR(MakeFolder(folder_ / "sites"));
  RETURN_IF_ERROR(MakeFolder(logs_));
  RETURN_IF_ERROR(
      RunToEnd(Server({"init", "--state", server_state().string(), "--address", address_}), stop));
  return StartServer(std::move(stop));
}

absl::Status LocalFederation::StartServer(std::stop_token stop) {
  constexpr milliseconds kPatience{30'000};
  const fs::path ready_file = folder_ / "server.address";
  std::error_code error;
  fs::remove(ready_file, error);
  ASSIGN_OR_RETURN(
      ChildProcess started,
      ChildProcess::Start(Server({"run", "--state", server_state().string(), "--listen", address_,
                                  "--ready-file", ready_file.string()})));
  server_ = std::move(started);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    std::ifstream file(ready_file);
    if (std::getline(file, address_) && !address_.empty()) return absl::OkStatus();
    if (server_->WaitFor(milliseconds(20), stop)) return server_->Outcome();
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
  }
  return absl::DeadlineExceededError(
      fmt::format("isoscan-server did not listen within {} s; see {}", kPatience.count() / 1000,
                  server_->log().string()));
}

absl::Status LocalFederation::ImportWeights(const fs::path& weights, std::stop_token stop) {
  return RunToEnd(Server({"import", weights.string(), "--state", server_state().string()}),
                  std::move(stop));
}

absl::Status LocalFederation::Enrol(const std::string& site, std::stop_token stop) {
  const std::string invitation = (folder_ / (site + ".invitation")).string();
  RETURN_IF_ERROR(
      RunToEnd(Admin({"site", "invite", site, "--out", invitation, "--address", address_}), stop));
  return RunToEnd(Client(site, {"enrol", invitation, "--folder", site_folder(site).string()}),
                  stop);
}

absl::Status LocalFederation::Configure(const SandboxSite& site, const std::string& device,
                                        int threads) const {
  std::string config = fmt::format(
      "# Written by isoscan-sandbox.\n"
      "server = {}\nsite = {}\nstate = \"state\"\n\n"
      "[certificate]\nauthority = \"authority.pem\"\ncertificate = \"site.pem\"\n"
      "key = \"site.key\"\n\n"
      "[device]\nname = {}\nthreads = {}\n",
      Quoted(address_), Quoted(site.name), Quoted(device), threads);
  for (const SandboxSite::Cohort& cohort : site.cohorts) {
    config += fmt::format("\n[[cohort]]\nname = {}\nfolder = {}\n", Quoted(cohort.name),
                          Quoted(cohort.folder.string()));
  }
  return WriteFileAtomically(site_folder(site.name) / "client.toml", config);
}

}  // namespace isoscan
