#include "server/state_folder.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "common/status/status_macros.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"
#include "server/storage/sqlite_journal.h"
#include "server/trust/authority.h"
#include "server/trust/authority_folder.h"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace isoscan {
namespace fs = std::filesystem;
namespace {

constexpr char kOperatorName[] = "coordinator";

constexpr char kOperatorToml[] =
    "# For isoscan-admin --config. This folder is the coordinator's key to the server: keep it "
    "private.\n\n"
    "# HOST:PORT of isoscan-server.\n"
    "server = \"{}\"\n\n"
    "# Files, relative to this one.\n"
    "[certificate]\n"
    "authority = \"authority.pem\"\n"
    "certificate = \"operator.pem\"\n"
    "key = \"operator.key\"\n";

absl::Status FolderError(const char* what, const fs::path& path, const std::error_code& error) {
  const std::string message = fmt::format("cannot {} {}: {}", what, path.string(), error.message());
  return error == std::errc::no_space_on_device ? absl::ResourceExhaustedError(message)
                                                : absl::NotFoundError(message);
}

absl::Status MakePrivateFolder(const fs::path& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (!error) fs::permissions(path, fs::perms::owner_all, error);
  return error ? FolderError("make the folder", path, error) : absl::OkStatus();
}

absl::Status WriteCertificate(const KeyedCertificate& issued, const fs::path& folder,
                              const std::string& name) {
  RETURN_IF_ERROR(WriteSecret(folder / (name + ".key"), issued.private_key_pem));
  return WriteFileAtomically(folder / (name + ".pem"), issued.certificate.pem);
}

absl::Status Fill(const StateFolder& folder, const Endpoint& address, const Endpoint& listen,
                  Time now) {
  for (const fs::path& path : {folder.authority(), folder.tls(), folder.operator_files(),
                               folder.models(), folder.uploads()}) {
    RETURN_IF_ERROR(MakePrivateFolder(path));
  }
  ASSIGN_OR_RETURN(const Authority authority, Authority::Create(now));
  RETURN_IF_ERROR(SaveAuthority(authority, folder.authority()));
  ASSIGN_OR_RETURN(const KeyedCertificate server, authority.IssueServer(address.host, now));
  RETURN_IF_ERROR(WriteCertificate(server, folder.tls(), "server"));
  ASSIGN_OR_RETURN(const KeyedCertificate operator_certificate,
                   authority.IssueOperator(kOperatorName, now));
  RETURN_IF_ERROR(WriteCertificate(operator_certificate, folder.operator_files(), "operator"));
  RETURN_IF_ERROR(
      WriteFileAtomically(folder.operator_files() / "authority.pem", authority.certificate_pem()));
  RETURN_IF_ERROR(WriteFileAtomically(folder.operator_files() / "operator.toml",
                                      fmt::format(kOperatorToml, ToString(address))));
  RETURN_IF_ERROR(SqliteJournal::Open(folder.journal()).status());
  return WriteFileAtomically(folder.config(), ServerToml(address, listen));
}

/// An error of `what`, such as a file, gets its name in front.
absl::Status Naming(const std::string& what, const absl::Status& status) {
  if (status.ok()) return status;
  return {status.code(), fmt::format("{}: {}", what, std::string(status.message()))};
}

absl::StatusOr<std::string> CheckCertificate(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::string pem, ReadPem(path));
  absl::StatusOr<int> days = DaysUntilExpiry(pem);
  if (!days.ok()) return Naming(path.string(), days.status());
  if (*days < 0) {
    return absl::PermissionDeniedError(
        fmt::format("{} ended {} days ago; the server's own is renewed by isoscan-server run, an "
                    "operator's needs a new isoscan-server init",
                    path.string(), -*days));
  }
  return fmt::format("{}: {} days left", path.filename().string(), *days);
}

/// What the journal promises must be there, byte for byte.
absl::StatusOr<std::string> CheckModels(const std::vector<JournaledStudy>& studies,
                                        const fs::path& folder) {
  std::set<std::string> digests;
  for (const JournaledStudy& study : studies) {
    for (const GlobalModelRecord& model : study.models) digests.insert(model.digest);
  }
  for (const std::string& digest : digests) {
    const fs::path path = folder / (digest + ".safetensors");
    ASSIGN_OR_RETURN(const std::string actual, Sha256OfFile(path));
    if (actual != digest) {
      return absl::DataLossError(fmt::format(
          "{} is damaged: its SHA-256 is {}; restore it from a backup", path.string(), actual));
    }
  }
  return fmt::format("models: {} files, every digest fits", digests.size());
}

}  // namespace

absl::Status InitializeState(const StateFolder& folder, const Endpoint& address,
                             const Endpoint& listen, Time now) {
  std::error_code error;
  // A trailing slash would make the parent the folder itself.
  fs::path root = fs::absolute(folder.root).lexically_normal();
  if (!root.has_filename()) root = root.parent_path();
  if (fs::exists(root, error) && !fs::is_empty(root, error)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is not empty; choose another --state, so that no authority's key is lost",
                    root.string()));
  }
  if (!fs::is_directory(root.parent_path(), error)) {
    return absl::NotFoundError(fmt::format("there is no folder {} to make {} in",
                                           root.parent_path().string(), root.filename().string()));
  }
  std::string name =
      (root.parent_path() / fmt::format(".{}.XXXXXX", root.filename().string())).string();
  if (mkdtemp(name.data()) == nullptr) {  // Mode 0700.
    return FolderError("make a folder in", root.parent_path(), {errno, std::generic_category()});
  }
  absl::Status status = Fill({name}, address, listen, now);
  if (status.ok()) {
    fs::rename(name, root, error);
    if (error) status = FolderError("make the folder", root, error);
  }
  if (!status.ok()) fs::remove_all(name, error);
  return status;
}

absl::StatusOr<StateLock> StateLock::Take(const StateFolder& folder) {
  if (!fs::exists(folder.config())) {
    return absl::NotFoundError(fmt::format(
        "{} is no folder of a server's state: it has no server.toml; make one with isoscan-server "
        "init --state {} --address HOST:PORT",
        folder.root.string(), folder.root.string()));
  }
  StateLock lock(open(folder.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.descriptor_ < 0) {
    return FolderError("open", folder.root, {errno, std::generic_category()});
  }
  if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("another isoscan-server uses {}; stop it first", folder.root.string()));
  }
  return lock;
}

StateLock::StateLock(StateLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

StateLock& StateLock::operator=(StateLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

StateLock::~StateLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<std::vector<std::string>> CheckState(const StateFolder& folder) {
  std::vector<std::string> lines;
  ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(folder));
  ASSIGN_OR_RETURN(const ServerConfig config, LoadServerConfig(folder.config()));
  lines.push_back(fmt::format("server.toml: sites dial {}", ToString(config.address)));
  RETURN_IF_ERROR(LoadAuthority(folder.authority()).status());
  for (const fs::path& path : {folder.authority() / "authority.pem", folder.tls() / "server.pem"}) {
    ASSIGN_OR_RETURN(lines.emplace_back(), CheckCertificate(path));
  }
  RETURN_IF_ERROR(ReadSecret(folder.tls() / "server.key").status());
  // The operator's files may have moved to the coordinator's machine.
  if (fs::exists(folder.operator_files() / "operator.pem")) {
    ASSIGN_OR_RETURN(lines.emplace_back(),
                     CheckCertificate(folder.operator_files() / "operator.pem"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<SqliteJournal> journal,
                   SqliteJournal::Open(folder.journal()));
  RETURN_IF_ERROR(journal->CheckIntegrity());
  ASSIGN_OR_RETURN(const std::vector<JournaledStudy> studies, journal->Studies());
  ASSIGN_OR_RETURN(const std::vector<RegisteredSite> sites, journal->sites().List());
  lines.push_back(
      fmt::format("journal.db: undamaged; {} sites, {} studies", sites.size(), studies.size()));
  ASSIGN_OR_RETURN(lines.emplace_back(), CheckModels(studies, folder.models()));
  return lines;
}

}  // namespace isoscan
