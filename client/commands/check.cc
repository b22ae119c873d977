#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <vector>

#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/session.h"
#include "client/commands/study_choice.h"
#include "client/commands/study_summary.h"
#include "client/federation/connection_failure.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/tls/keys.h"
#include "common/version.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

constexpr int kWarnDays = 30;
constexpr std::int64_t kWarnDiskBytes = 5'000'000'000;

/// Prints as it goes, so that a check that hangs is seen to hang, and remembers the first failure.
class Findings {
 public:
  void Fine(const std::string& what, const std::string& detail) { Print("OK", what, detail); }
  void Warn(const std::string& what, const std::string& detail) { Print("WARN", what, detail); }
  void Fail(const std::string& what, const absl::Status& status) {
    Print("FAIL", what, std::string(status.message()));
    if (result_ == ExitCode::kSuccess) result_ = ExitCodeOf(status);
  }
  ExitCode result() const { return result_; }

 private:
  static void Print(const char* verdict, const std::string& what, const std::string& detail) {
    fmt::print("{:<4}  {:<14}  {}\n", verdict, what, detail);
    std::fflush(stdout);
  }
  ExitCode result_ = ExitCode::kSuccess;
};

/// False: without usable files there is no point in calling the server.
bool CheckCertificate(const ClientConfig& config, Findings& findings) {
  const absl::StatusOr<TlsFiles> files = LoadTlsFiles(config.certificate);
  if (!files.ok()) {
    findings.Fail("certificate", files.status());
    return false;
  }
  const absl::StatusOr<Identity> identity = IdentityOf(files->certificate);
  const absl::StatusOr<int> days = DaysUntilExpiry(files->certificate);
  if (!identity.ok() || !days.ok()) {
    findings.Fail("certificate", identity.ok() ? days.status() : identity.status());
    return false;
  }
  if (identity->role != Identity::Role::kSite || identity->name != config.site) {
    findings.Fail("certificate",
                  absl::FailedPreconditionError(fmt::format(
                      "{} is for {}, client.toml says site = \"{}\"",
                      config.certificate.certificate.string(), ToUri(*identity), config.site)));
    return false;
  }
  if (*days < 0) {
    findings.Fail(
        "certificate",
        absl::PermissionDeniedError(fmt::format(
            "ended {} days ago; ask the coordinator for an invitation and enrol again", -*days)));
    return false;
  }
  const std::string valid = fmt::format("{}, {} days left", ToUri(*identity), *days);
  if (*days < kWarnDays) {
    findings.Warn("certificate", valid + "; ask the coordinator for a new one soon");
  } else {
    findings.Fine("certificate", valid);
  }
  return true;
}

std::vector<OfferedStudy> CheckServer(const ClientConfig& config, Findings& findings,
                                      const std::stop_token& stop) {
  const absl::StatusOr<std::unique_ptr<FederationSession>> session =
      OpenSession(config, RetryPolicy::Once());
  if (!session.ok()) {
    findings.Fail("server", session.status());
    return {};
  }
  const absl::StatusOr<ServerGreeting> greeting = (*session)->Hello(stop);
  if (!greeting.ok()) {
    findings.Fail("server", greeting.status());
    return {};
  }
  const std::string proxy = ProxyFor(config.server);
  findings.Fine("server", fmt::format("{}{} answers: isoscan {} (this client: {}), knows this site "
                                      "as {}",
                                      config.server,
                                      proxy.empty() ? "" : fmt::format(" through proxy {}", proxy),
                                      greeting->program_version, kVersion, greeting->site));
  absl::StatusOr<std::vector<OfferedStudy>> studies = (*session)->Studies(stop);
  if (!studies.ok()) {
    findings.Fail("studies", studies.status());
    return {};
  }
  if (studies->empty()) findings.Warn("studies", "none is offered to this site yet");
  return *std::move(studies);
}

void CheckMachine(const ClientConfig& config, Findings& findings) {
  const int cores = AvailableCores();
  const int threads = config.device.threads == 0 ? cores : config.device.threads;
  const std::string words =
      fmt::format("{} of {} cores for training, device {}", threads, cores, config.device.name);
  if (threads > cores) {
    findings.Warn("cores",
                  words + "; more threads than cores make training slower: set threads = 0");
  } else {
    findings.Fine("cores", words);
  }
  findings.Fine("memory", fmt::format("{} free", Gibibytes(AvailableMemoryBytes())));
  const absl::StatusOr<std::int64_t> disk = FreeDiskBytes(config.state);
  const absl::Status writable = SiteStateFolder(config.state).TryToWrite();
  if (!disk.ok() || !writable.ok()) {
    findings.Fail("disk", disk.ok() ? writable : disk.status());
  } else if (*disk < kWarnDiskBytes) {
    findings.Warn("disk", fmt::format("{} free for {}; a study needs twice its model",
                                      Gibibytes(*disk), config.state.string()));
  } else {
    findings.Fine("disk", fmt::format("{} free for {}", Gibibytes(*disk), config.state.string()));
  }
}

/// False: without usable folders no study fits, and saying so for each would hide why.
bool CheckFolders(const ClientConfig& config, Findings& findings) {
  bool usable = !config.cohorts.empty();
  if (config.cohorts.empty()) {
    findings.Fail("cohort", absl::InvalidArgumentError(
                                "client.toml names no folder of MRI; add [[cohort]] with folder = "
                                "\"/path\""));
  }
  for (const CohortFolder& cohort : config.cohorts) {
    std::error_code error;
    const fs::directory_iterator entries(cohort.folder, error);
    if (error) {
      usable = false;
      findings.Fail("cohort",
                    absl::NotFoundError(fmt::format("{}: {}; correct `folder` in client.toml",
                                                    cohort.folder.string(), error.message())));
    } else if (entries == fs::directory_iterator()) {
      usable = false;
      findings.Fail("cohort",
                    absl::NotFoundError(fmt::format("{} is empty; correct `folder` in client.toml",
                                                    cohort.folder.string())));
    } else {
      findings.Fine("cohort", cohort.folder.string());
    }
  }
  return usable;
}

/// The site's folders, as this study would read them.
void CheckStudy(const ClientConfig& config, const OfferedStudy& offered, Findings& findings) {
  const std::string what = "study";
  const absl::StatusOr<Study> study =
      ParseStudy(offered.toml, fmt::format("study {}", offered.name));
  if (!study.ok()) return findings.Fail(what, study.status());
  const absl::StatusOr<SiteCases> cases = ListSiteCases(config, *study);
  if (!cases.ok()) {
    return findings.Fail(what, absl::Status(cases.status().code(),
                                            fmt::format("{}: {}", study->name,
                                                        std::string(cases.status().message()))));
  }
  const auto held_out = std::count(cases->held_out.begin(), cases->held_out.end(), true);
  const std::string words = fmt::format(
      "{} ({}, {}): {} cases here, {} for training, {} held out; "
      "`isoscan-client inspect` looks into them",
      study->name, ToString(offered.phase), offered.approved ? "approved" : "not approved yet",
      cases->files.size(), static_cast<std::int64_t>(cases->files.size()) - held_out, held_out);
  if (study->planning.has_value()) {
    return findings.Fine(what, words + "; a draft, whose memory is known once it is planned");
  }
  if (DraftWasApproved(config, offered)) {
    findings.Warn(what, fmt::format("{0} has been planned since its draft was approved here: "
                                    "`isoscan-client study show {0}`, then `study approve {0}`",
                                    study->name));
  }
  const absl::StatusOr<std::unique_ptr<StudyTrainer>> trainer =
      MakeDeviceTrainer(*study, config.device);
  if (absl::IsResourceExhausted(trainer.status())) {
    return findings.Fail("memory", trainer.status());
  }
  if (!trainer.ok()) return findings.Fail("device", trainer.status());
  findings.Fine("device", (*trainer)->device_name());
  findings.Fine(what, words);
  const CasePlace place = config.cache_cases ? CasePlace::kMapped : CasePlace::kMemory;
  const std::int64_t needed =
      EstimateCohortMemory(*cases, *study, place) + (*trainer)->memory_bytes();
  const absl::Status memory = CheckMemory(fmt::format("study {}", study->name), needed);
  if (!memory.ok()) return findings.Fail("memory", memory);
  findings.Fine("memory", fmt::format("study {} needs about {}", study->name, Gibibytes(needed)));
}

}  // namespace

ExitCode CheckSite(const fs::path& config_path, std::stop_token stop) {
  Findings findings;
  const absl::StatusOr<ClientConfig> config = LoadClientConfig(config_path);
  if (!config.ok()) {
    findings.Fail("configuration", config.status());
    return findings.result();
  }
  findings.Fine("configuration", fmt::format("{}: site {}, server {}", config_path.string(),
                                             config->site, config->server));
  CheckMachine(*config, findings);
  const bool has_folders = CheckFolders(*config, findings);
  if (CheckCertificate(*config, findings)) {
    for (const OfferedStudy& offered : CheckServer(*config, findings, stop)) {
      if (stop.stop_requested()) return ExitCode::kInterrupted;
      if (!has_folders || offered.ended() || offered.withdrawn) continue;
      CheckStudy(*config, offered, findings);
    }
  }
  return stop.stop_requested() ? ExitCode::kInterrupted : findings.result();
}

}  // namespace isoscan
