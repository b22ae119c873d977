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
#include "server/rounds/model_folder.h"
#include "server/rounds/study_phase.h"
#include "server/rounds/upload_folder.h"
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

absl::Status CheckDigest(const fs::path& path, const std::string& digest,
                         const std::string& advice) {
  ASSIGN_OR_RETURN(const std::string actual, Sha256OfFile(path));
  if (actual == digest) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} is damaged: its SHA-256 is {}; {}", path.string(), actual, advice));
}

/// What is in the folder and its folders, relative to `root`; by name.
std::set<std::string> FilesUnder(const fs::path& folder, const fs::path& root) {
  std::set<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory()) continue;
    files.insert(entry->path().lexically_relative(root).string());
  }
  return files;
}

/// What the journal promises must be there, byte for byte; and what is there without a promise.
void CheckBlobs(const std::vector<JournaledStudy>& studies, const StateFolder& folder,
                StateFindings& findings) {
  std::set<std::string> models;
  std::set<std::string> states;       // Of strategies.
  std::set<std::string> open_rounds;  // Whatever lies there may be on its way.
  std::size_t updates = 0;
  const std::size_t faults = findings.faults.size();
  const auto check = [&findings](const absl::Status& intact) {
    if (!intact.ok()) findings.faults.push_back(intact);
  };
  const UploadFolder uploads(folder.uploads());
  for (const JournaledStudy& study : studies) {
    for (const GlobalModelRecord& model : study.models) models.insert(model.digest);
    if (!study.state.digest.empty()) states.insert(study.state.digest);
    if (IsOver(study.phase)) continue;
    for (const JournaledParticipant& site : study.participants) {
      const fs::path any = uploads.PathOf(site.cohort.name, study.name, study.round, "any");
      open_rounds.insert(any.parent_path().lexically_relative(folder.root).string());
    }
    for (const JournaledUpdate& update : study.updates) {
      ++updates;
      check(CheckDigest(uploads.PathOf(update.site, study.name, study.round, update.weights_digest),
                        update.weights_digest,
                        fmt::format("{} will be asked for it again", update.site)));
    }
  }
  for (const std::string& digest : models) {
    check(CheckDigest(ModelFolder(folder.models()).PathOf(digest), digest,
                      "restore it from a backup"));
  }
  for (const std::string& digest : states) {
    check(CheckDigest(ModelFolder(folder.models()).StatePathOf(digest), digest,
                      "restore it from a backup"));
  }
  if (findings.faults.size() == faults) {
    findings.well.push_back(
        fmt::format("models: {} files, uploads: {} updates that wait; every digest fits",
                    models.size(), updates));
  }
  for (const std::string& file : FilesUnder(folder.models(), folder.root)) {
    const std::string name = fs::path(file).filename().string();
    const std::string digest = name.substr(0, name.find('.'));
    const bool named =
        name.find(".state") == name.npos ? models.contains(digest) : states.contains(digest);
    if (!named) findings.unnamed.push_back(file);
  }
  for (const std::string& file : FilesUnder(folder.uploads(), folder.root)) {
    if (!open_rounds.contains(fs::path(file).parent_path().string())) {
      findings.unnamed.push_back(file);
    }
  }
}

absl::Status CheckJournal(const StateFolder& folder, StateFindings& findings) {
  ASSIGN_OR_RETURN(const std::unique_ptr<SqliteJournal> journal,
                   SqliteJournal::Open(folder.journal()));
  RETURN_IF_ERROR(journal->CheckIntegrity());
  ASSIGN_OR_RETURN(const std::vector<JournaledStudy> studies, journal->Studies());
  ASSIGN_OR_RETURN(const std::vector<RegisteredSite> sites, journal->sites().List());
  findings.well.push_back(
      fmt::format("journal.db: undamaged; {} sites, {} studies", sites.size(), studies.size()));
  CheckBlobs(studies, folder, findings);
  return absl::OkStatus();
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

absl::StatusOr<StateFindings> CheckState(const StateFolder& folder) {
  ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(folder));
  StateFindings findings;
  const auto find = [&findings](absl::StatusOr<std::string> line) {
    if (line.ok()) {
      findings.well.push_back(*std::move(line));
    } else {
      findings.faults.push_back(line.status());
    }
  };
  const auto check = [&findings](const absl::Status& status) {
    if (!status.ok()) findings.faults.push_back(status);
  };
  const absl::StatusOr<ServerConfig> config = LoadServerConfig(folder.config());
  check(config.status());
  if (config.ok()) {
    findings.well.push_back(fmt::format("server.toml: sites dial {}", ToString(config->address)));
  }
  check(LoadAuthority(folder.authority()).status());
  find(CheckCertificate(folder.authority() / "authority.pem"));
  find(CheckCertificate(folder.tls() / "server.pem"));
  check(ReadSecret(folder.tls() / "server.key").status());
  // The operator's files may have moved to the coordinator's machine.
  if (fs::exists(folder.operator_files() / "operator.pem")) {
    find(CheckCertificate(folder.operator_files() / "operator.pem"));
  }
  check(CheckJournal(folder, findings));
  return findings;
}

}  // namespace isoscan
