#include "deploy/sandbox/federation_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/study/plan_words.h"
#include "common/study/study.h"
#include "common/transfer/chunks.h"
#include "common/weights/safetensors.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

/// Where this program lies; the others lie beside it.
fs::path ProgramFolder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

/// The steps of the by-hand guide (docs/operations.md, docs/hospital.md), in order.
class Run {
 public:
  Run(const FederationRun& plan, const Study& study, std::stop_token stop)
      : plan_(plan),
        study_(study),
        stop_(std::move(stop)),
        state_(plan.out / "state"),
        federation_(ProgramFolder(), state_, plan.out / "logs") {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  /// Tells every client to stop before the first is waited for.
  ~Run() {
    for (const ChildProcess& client : clients_) client.Interrupt();
  }

  absl::Status StartServerAndEnrol();
  absl::Status Approve();
  absl::Status ApproveAtSites();
  absl::Status Train();
  absl::Status CollectResults();

  std::int64_t server_peak_bytes() const { return server_peak_bytes_; }

 private:
  ChildProcess& server() { return federation_.server(); }
  Command Client(const SandboxSite& site, std::vector<std::string> arguments) const;
  absl::Status WaitForEnd(ChildProcess& child);
  /// The error of the first process that ended badly; OK while all run or have ended well.
  absl::Status CheckProcesses();

  const FederationRun& plan_;
  const Study& study_;
  std::stop_token stop_;
  fs::path state_;
  LocalFederation federation_;
  std::vector<ChildProcess> clients_;
  std::int64_t server_peak_bytes_ = 0;
};

Command Run::Client(const SandboxSite& site, std::vector<std::string> arguments) const {
  const std::vector<std::string> config{
      "--config", (federation_.site_folder(site.name) / "client.toml").string()};
  arguments.insert(arguments.begin(), config.begin(), config.end());
  return federation_.Client(site.name, std::move(arguments));
}

absl::Status Run::WaitForEnd(ChildProcess& child) {
  while (!child.WaitFor(milliseconds(1000), stop_)) {
    if (stop_.stop_requested()) return absl::CancelledError("interrupted");
  }
  return child.Outcome();
}

absl::Status Run::StartServerAndEnrol() {
  std::error_code error;
  fs::remove_all(state_, error);
  fs::remove_all(plan_.out / "logs", error);
  RETURN_IF_ERROR(federation_.InitServer(stop_));
  if (!plan_.initial_weights.empty()) {
    RETURN_IF_ERROR(federation_.ImportWeights(plan_.initial_weights, stop_));
  }
  const int share = std::max(1, AvailableCores() / static_cast<int>(plan_.sites.size()));
  for (const SandboxSite& site : plan_.sites) {
    RETURN_IF_ERROR(federation_.Enrol(site.name, stop_));
    RETURN_IF_ERROR(federation_.Configure(
        site, plan_.device, plan_.threads_per_site > 0 ? plan_.threads_per_site : share));
  }
  return absl::OkStatus();
}

absl::Status Run::Approve() {
  const fs::path study_file = state_ / "study.toml";
  RETURN_IF_ERROR(WriteFileAtomically(study_file, plan_.study_toml));
  RETURN_IF_ERROR(RunToEnd(federation_.Admin({"study", "create", study_file.string()}), stop_));
  RETURN_IF_ERROR(ApproveAtSites());
  if (study_.planning.has_value()) {
    RETURN_IF_ERROR(WriteFileAtomically(state_ / kDraftFile, plan_.study_toml));
    RETURN_IF_ERROR(RunToEnd(
        federation_.Admin({"study", "plan", study_.name, "--out", study_file.string()}), stop_));
    ASSIGN_OR_RETURN(const Study planned, LoadStudy(study_file));
    std::cerr << "planned from the sites' fingerprints:\n" << PlanInWords(planned);
    RETURN_IF_ERROR(ApproveAtSites());
  }
  return RunToEnd(federation_.Admin({"study", "start", study_.name}), stop_);
}

absl::Status Run::ApproveAtSites() {
  std::vector<ChildProcess> approvals;
  for (const SandboxSite& site : plan_.sites) {
    ASSIGN_OR_RETURN(ChildProcess approval,
                     ChildProcess::Start(Client(site, {"study", "approve", study_.name, "--yes"})));
    approvals.push_back(std::move(approval));
  }
  for (ChildProcess& approval : approvals) RETURN_IF_ERROR(WaitForEnd(approval));
  return absl::OkStatus();
}

absl::Status Run::CheckProcesses() {
  if (server().WaitFor(milliseconds(0), {})) {
    RETURN_IF_ERROR(server().Outcome());
    return absl::AbortedError("isoscan-server ended before the study did");
  }
  for (ChildProcess& client : clients_) {
    if (client.WaitFor(milliseconds(0), {})) RETURN_IF_ERROR(client.Outcome());
  }
  return absl::OkStatus();
}

absl::Status Run::Train() {
  for (const SandboxSite& site : plan_.sites) {
    ASSIGN_OR_RETURN(ChildProcess client,
                     ChildProcess::Start(Client(site, {"run", "--until-ended"})));
    clients_.push_back(std::move(client));
  }
  Command watch = federation_.Admin({"study", "watch", study_.name});
  watch.log.clear();  // Its lines are this program's progress.
  ASSIGN_OR_RETURN(ChildProcess watcher, ChildProcess::Start(watch));
  while (!watcher.WaitFor(milliseconds(200), stop_)) {
    if (stop_.stop_requested()) return absl::CancelledError("interrupted");
    RETURN_IF_ERROR(CheckProcesses());
  }
  RETURN_IF_ERROR(watcher.Outcome());
  for (ChildProcess& client : clients_) {
    constexpr milliseconds kPatience{60'000};
    if (!client.WaitFor(kPatience, stop_)) {
      if (stop_.stop_requested()) return absl::CancelledError("interrupted");
      return absl::DeadlineExceededError(
          fmt::format("{} still runs {} s after the study ended; see {}", client.title(),
                      kPatience.count() / 1000, client.log().string()));
    }
    RETURN_IF_ERROR(client.Outcome());
  }
  return absl::OkStatus();
}

absl::Status Run::CollectResults() {
  const fs::path staging = state_ / "results";
  std::error_code error;
  fs::create_directories(staging, error);
  RETURN_IF_ERROR(
      RunToEnd(federation_.Admin({"report", study_.name, "--out", staging.string()}), stop_));
  RETURN_IF_ERROR(RunToEnd(federation_.Admin({"model", "download", study_.name, "--out",
                                              (staging / "model.safetensors").string()}),
                           stop_));
  server_peak_bytes_ = server().PeakMemoryBytes();
  server().Interrupt();
  RETURN_IF_ERROR(WaitForEnd(server()));

  fs::rename(state_ / "study.toml", staging / "plan.toml", error);
  if (!error && study_.planning.has_value()) {
    fs::rename(state_ / kDraftFile, plan_.out / kDraftFile, error);
  }
  // report.json last: who finds it finds a finished run.
  for (const char* const name : {"plan.toml", "model.safetensors", "report.html", "report.json"}) {
    if (!error) fs::rename(staging / name, plan_.out / name, error);
  }
  if (error) return FileError("cannot put the results into", plan_.out.string(), error);
  return absl::OkStatus();
}

absl::Status CheckSites(const FederationRun& run, const Study& study) {
  if (run.sites.empty()) {
    return absl::InvalidArgumentError("a federation needs at least one --site NAME=FOLDER");
  }
  std::set<std::string> names;
  for (const SandboxSite& site : run.sites) {
    if (!names.insert(site.name).second) {
      return absl::InvalidArgumentError(fmt::format("site {} is given twice", site.name));
    }
  }
  for (const std::string& declared : study.sites) {
    if (!names.contains(declared)) {
      return absl::InvalidArgumentError(
          fmt::format("{} declares the site {}, which has no --site {}=FOLDER", run.study_source,
                      declared, declared));
    }
  }
  return absl::OkStatus();
}

/// What the server would say of them once it runs.
absl::Status CheckInitialWeights(const FederationRun& run, const Study& study) {
  const std::string& declared = study.network.initial_weights;
  if (declared.empty()) return absl::OkStatus();
  if (run.initial_weights.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{} starts from the weights {}: give them with --initial-weights FILE",
                    run.study_source, declared));
  }
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(run.initial_weights));
  return CheckStartingWeights(study, run.initial_weights.string(), file.ReadAll());
}

absl::Status RunSteps(const FederationRun& run, const Study& study, std::stop_token stop,
                      FederationResult& result) {
  Run federation(run, study, std::move(stop));
  std::cerr << "starting the server and enrolling " << run.sites.size() << " sites\n";
  RETURN_IF_ERROR(federation.StartServerAndEnrol());
  std::cerr << "sites check their cohorts and approve the study " << study.name << "\n";
  RETURN_IF_ERROR(federation.Approve());
  RETURN_IF_ERROR(federation.Train());
  RETURN_IF_ERROR(federation.CollectResults());
  result.server_peak_bytes = federation.server_peak_bytes();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FederationResult> RunFederation(const FederationRun& run, std::stop_token stop) {
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const Study study, ParseStudy(run.study_toml, run.study_source));
  RETURN_IF_ERROR(CheckSites(run, study));
  RETURN_IF_ERROR(CheckInitialWeights(run, study));
  if (fs::exists(run.out / "report.json")) {
    return absl::FailedPreconditionError(fmt::format(
        "{} holds a finished run already; give another --out or remove it", run.out.string()));
  }
  FederationResult result;
  const absl::Status outcome = RunSteps(run, study, std::move(stop), result);
  // Only now do the last of its processes no longer write there.
  std::error_code error;
  if (!run.keep_state) fs::remove_all(run.out / "state", error);
  RETURN_IF_ERROR(outcome);
  result.report = run.out / "report.html";
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

absl::Status EvaluateModel(const FederationRun& run, const SandboxSite& cohort,
                           const fs::path& result, std::stop_token stop) {
  Command evaluate{
      .title = "isoscan-client evaluate",
      .arguments = {(ProgramFolder() / "isoscan-client").string(), "evaluate", "--study",
                    (run.out / "plan.toml").string(), "--model",
                    (run.out / "model.safetensors").string(), "--device", run.device, "--threads",
                    std::to_string(run.threads_per_site), "--out", result.string()},
      .log = run.out / "logs" / fmt::format("evaluate-{}.log", cohort.name),
      .environment = {{"OMP_WAIT_POLICY", "passive"}}};
  for (const SandboxSite::Cohort& folder : cohort.cohorts) {
    evaluate.arguments.push_back(folder.folder.string());
  }
  return RunToEnd(evaluate, std::move(stop));
}

}  // namespace isoscan
