#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "deploy/sandbox/child_process.h"

namespace isoscan {

/// One hospital of a sandbox: its name and its cohort folders. A site with several folders is how
/// the pooled arm of a comparison is run; each folder then has a name of its own.
struct SandboxSite {
  struct Cohort {
    std::string name;  ///< Empty for a site with one folder.
    std::filesystem::path folder;
  };
  std::string name;
  std::vector<Cohort> cohorts;
};

/// "NAME=FOLDER", FOLDER made absolute.
/// Errors: INVALID_ARGUMENT not of this form, or no valid name; NOT_FOUND no such folder.
absl::StatusOr<SandboxSite> ParseSandboxSite(const std::string& text);

/// A server and its sites in folders of this machine, with the programs that hospitals use and
/// throw-away certificates. The server runs for as long as this object lives.
///
///   FOLDER/server/                  isoscan-server's state
///   FOLDER/sites/NAME/              isoscan-client's, with client.toml
///   LOGS/{server,operator,NAME}.log
///
/// Thread safety: none.
class LocalFederation {
 public:
  /// `programs` holds isoscan-server, isoscan-admin and isoscan-client.
  LocalFederation(std::filesystem::path programs, std::filesystem::path folder,
                  std::filesystem::path logs);

  /// Makes a new authority and starts the server on a free port of the loopback.
  absl::Status InitServer(std::stop_token stop);
  /// Starts (or, after the server has ended, restarts) it on the address it had.
  absl::Status StartServer(std::stop_token stop);
  /// Gives the server weights for studies to start from.
  absl::Status ImportWeights(const std::filesystem::path& weights, std::stop_token stop);
  absl::Status Enrol(const std::string& site, std::stop_token stop);
  /// client.toml of an enrolled site.
  absl::Status Configure(const SandboxSite& site, const std::string& device, int threads) const;

  /// A call of one of the programs; its output goes to its log.
  Command Admin(std::vector<std::string> arguments) const;
  Command Client(const std::string& site, std::vector<std::string> arguments) const;

  /// Requires InitServer().
  ChildProcess& server() { return *server_; }
  const std::string& address() const { return address_; }
  std::filesystem::path server_state() const { return folder_ / "server"; }
  std::filesystem::path site_folder(const std::string& site) const {
    return folder_ / "sites" / site;
  }
  std::filesystem::path log(const std::string& name) const { return logs_ / (name + ".log"); }

 private:
  Command Server(std::vector<std::string> arguments) const;

  std::filesystem::path programs_;
  std::filesystem::path folder_;
  std::filesystem::path logs_;
  std::string address_ = "127.0.0.1:0";
  std::optional<ChildProcess> server_;
};

}  // namespace isoscan
