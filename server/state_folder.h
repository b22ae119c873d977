#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "server/server_config.h"

namespace isoscan {

/// All that a server keeps, in one folder. It holds the authority's private key: mode 0700.
///
///   server.toml             configuration (deploy/config/server.toml)
///   authority/              authority.pem, authority.key: who owns the key decides who takes part
///   tls/                    server.pem, server.key
///   operator/               operator.pem, operator.key, authority.pem, operator.toml: for
///                           isoscan-admin; may be moved to the coordinator's machine
///   journal.db              studies, rounds, sites, scores (SQLite)
///   models/                 global models by digest
///   uploads/                updates that wait for their round to close
struct StateFolder {
  std::filesystem::path root;

  std::filesystem::path config() const { return root / "server.toml"; }
  std::filesystem::path authority() const { return root / "authority"; }
  std::filesystem::path tls() const { return root / "tls"; }
  std::filesystem::path operator_files() const { return root / "operator"; }
  std::filesystem::path journal() const { return root / "journal.db"; }
  std::filesystem::path models() const { return root / "models"; }
  std::filesystem::path uploads() const { return root / "uploads"; }
};

/// Makes the folder with a new authority, certificates, configuration and an empty journal. It
/// appears whole or not at all.
///
/// Errors: FAILED_PRECONDITION when there is something already; RESOURCE_EXHAUSTED disk full;
///         NOT_FOUND no such parent folder, or not writable.
absl::Status InitializeState(const StateFolder& folder, const Endpoint& address,
                             const Endpoint& listen, Time now);

/// Keeps other servers out of a state folder while it lives (also when this process is killed).
class StateLock {
 public:
  /// Errors: NOT_FOUND no such folder, or none of a server's; FAILED_PRECONDITION another
  ///         isoscan-server uses it.
  static absl::StatusOr<StateLock> Take(const StateFolder& folder);
  StateLock(StateLock&& other) noexcept;
  StateLock& operator=(StateLock&& other) noexcept;
  ~StateLock();

 private:
  explicit StateLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

/// What a state folder looks like.
struct StateFindings {
  std::vector<std::string> well;     ///< A line per thing that is.
  std::vector<absl::Status> faults;  ///< Each names its file: DATA_LOSS, NOT_FOUND, ...
  /// Files of models/ and uploads/ that nothing in the journal names, by name: weights that were
  /// imported and not used yet, and what a killed server left. They cost disk and nothing else.
  std::vector<std::string> unnamed;
};

/// Reads everything that a server needs of its folder, and goes on after a fault: configuration,
/// keys and certificates, the journal page by page, the digest of every model, and that of every
/// update that waits for its round to close. Errors: those of StateLock.
absl::StatusOr<StateFindings> CheckState(const StateFolder& folder);

}  // namespace isoscan
