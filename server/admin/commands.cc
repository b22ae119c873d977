#include "server/admin/commands.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <optional>
#include <system_error>

#include "common/status/status_macros.h"
#include "common/study/plan_words.h"
#include "common/study/study.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

using Json = nlohmann::ordered_json;

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);  // Somebody may be reading a pipe.
}

void Print(Format format, const Json& json, const std::string& text) {
  Print((format == Format::kJson ? json.dump(2) : text) + "\n");
}

std::string InvitationToml(const Invitation& invitation, const v1::InviteSiteResponse& response,
                           const std::string& valid_until) {
  return fmt::format(
      "# Invitation of {0} to the Isoscan federation at {1}.\n"
      "# It holds a secret, valid once and until {2}: hand it over as you would a password.\n"
      "# At the hospital: isoscan-client enrol THIS_FILE --folder FOLDER\n"
      "server = \"{1}\"\n"
      "site = \"{0}\"\n"
      "token = \"{3}\"\n"
      "authority = \"\"\"\n{4}\"\"\"\n",
      invitation.site, invitation.server, valid_until, response.token(), response.authority_pem());
}

/// Before the server is asked for what is to be written there: a secret that nobody keeps would be
/// lost.
absl::Status CheckWritable(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(
        fmt::format("cannot write {}: it is a folder; name a file with --out", path.string()));
  }
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(
        fmt::format("cannot write {}: there is no folder {}", path.string(), folder.string()));
  }
  return absl::OkStatus();
}

std::string TimeOfDay() {
  const std::time_t now = std::time(nullptr);
  return fmt::format("{:%H:%M:%S}", fmt::localtime(now));
}

/// False when a stop was requested meanwhile.
bool Pause(std::chrono::seconds duration, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop, duration, [] { return false; });
  return !stop.stop_requested();
}

/// Prints what changed. Steps alone are told every ten seconds only, so that a log stays readable.
class ProgressPrinter {
 public:
  explicit ProgressPrinter(Format format) : format_(format) {}

  void Show(const v1::StudyState& study) {
    constexpr auto kBetweenSteps = std::chrono::seconds(10);
    const auto now = std::chrono::steady_clock::now();
    const bool is_news = !last_.has_value() || DiffersBeyondSteps(*last_, study);
    if (!is_news && now - printed_ < kBetweenSteps) return;
    last_ = study;
    printed_ = now;
    if (format_ == Format::kJson) {
      // One object per line.
      Print(Json::parse(Present(study, Format::kJson)).dump() + "\n");
    } else {
      Print(fmt::format("{}  {}\n", TimeOfDay(), ProgressLine(study)));
    }
  }

  const std::optional<v1::StudyState>& last() const { return last_; }

 private:
  const Format format_;
  std::optional<v1::StudyState> last_;
  std::chrono::steady_clock::time_point printed_;
};

}  // namespace

absl::Status InviteSite(OperatorSession& session, const Invitation& invitation, Format format) {
  const auto valid = std::chrono::hours(invitation.valid_hours);
  v1::InviteSiteRequest request;
  request.set_site(invitation.site);
  request.set_valid_seconds(std::chrono::seconds(valid).count());
  RETURN_IF_ERROR(CheckWritable(invitation.out));
  ASSIGN_OR_RETURN(const v1::InviteSiteResponse response, session.InviteSite(request));
  const std::time_t ends =
      std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() + valid);
  const std::string valid_until = fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(ends));
  RETURN_IF_ERROR(WriteSecret(invitation.out, InvitationToml(invitation, response, valid_until)));
  const std::string file = invitation.out.string();
  Print(format,
        {{"site", invitation.site},
         {"server", invitation.server},
         {"file", file},
         {"valid_until", valid_until}},
        fmt::format("invited {} to {}, until {}\ninvitation: {}\nHand it over as you would a "
                    "password; at the hospital: isoscan-client enrol {} --folder FOLDER",
                    invitation.site, invitation.server, valid_until, file,
                    invitation.out.filename().string()));
  return absl::OkStatus();
}

absl::Status CreateStudy(OperatorSession& session, const std::filesystem::path& file,
                         Format format) {
  ASSIGN_OR_RETURN(const Study study, LoadStudy(file));
  ASSIGN_OR_RETURN(const v1::CreateStudyResponse created, session.CreateStudy(study.toml));
  Print(
      format, {{"study", created.name()}, {"digest", created.digest()}},
      fmt::format("created {} {} (SHA-256 {})\nNext: each site runs isoscan-client study "
                  "approve {}, then isoscan-admin study {} {}",
                  study.planning.has_value() ? "draft" : "study", created.name(), created.digest(),
                  created.name(), study.planning.has_value() ? "plan" : "start", created.name()));
  return absl::OkStatus();
}

absl::Status PlanStudy(OperatorSession& session, const std::string& study,
                       const std::filesystem::path& out, Format format) {
  if (!out.empty()) RETURN_IF_ERROR(CheckWritable(out));
  ASSIGN_OR_RETURN(const v1::StudyState state, session.PlanStudy(study));
  ASSIGN_OR_RETURN(const Study planned, ParseStudy(state.toml(), fmt::format("study {}", study)));
  if (!out.empty()) RETURN_IF_ERROR(WriteFileAtomically(out, planned.toml));
  const NetworkPlan& network = planned.network;
  const bool is_next = state.phase() == v1::STUDY_PHASE_CREATED;
  Print(
      format,
      {{"study", planned.name},
       {"digest", planned.digest},
       {"spacing_mm", planned.harmonization.spacing_mm},
       {"patch_size", planned.training.patch_size},
       {"batch_size", planned.training.batch_size},
       {"features", network.features},
       {"strides", network.strides},
       {"kernels", network.kernels},
       {"toml", planned.toml}},
      fmt::format("study {} (SHA-256 {})\n{}{}", planned.name, planned.digest, PlanInWords(planned),
                  is_next ? fmt::format("Next: each site reads this plan and runs isoscan-client "
                                        "study approve {}, then isoscan-admin study start {}",
                                        study, study)
                          : fmt::format("It is {}.", WordOf(state.phase()))));
  return absl::OkStatus();
}

absl::Status WatchStudy(OperatorSession& session, const std::string& study, Format format,
                        const std::stop_token& stop) {
  constexpr auto kBetweenTries = std::chrono::seconds(2);
  ProgressPrinter printer(format);
  bool outage = false;
  while (true) {
    const absl::Status status = session.WatchStudy(study, [&](const v1::StudyState& state) {
      outage = false;
      printer.Show(state);
    });
    if (status.ok()) break;
    // Before the first answer, a wrong address is likelier than a restart.
    if (!absl::IsUnavailable(status) || !printer.last().has_value()) return status;
    if (!outage) fmt::print(stderr, "{}; trying again\n", std::string(status.message()));
    outage = true;
    if (!Pause(kBetweenTries, stop)) return absl::CancelledError("interrupted");
  }
  if (format == Format::kTable && printer.last().has_value()) {
    Print(fmt::format("study {} {}\n", study, WordOf(printer.last()->phase())));
  }
  return absl::OkStatus();
}

absl::Status WriteReport(OperatorSession& session, const std::string& study,
                         const std::filesystem::path& folder, Format format) {
  ASSIGN_OR_RETURN(const OperatorSession::Report report, session.GetReport(study));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::NotFoundError(
        fmt::format("cannot make the folder {}: {}", folder.string(), error.message()));
  }
  const std::filesystem::path html = folder / "report.html";
  const std::filesystem::path json = folder / "report.json";
  RETURN_IF_ERROR(WriteFileAtomically(html, report.html));
  RETURN_IF_ERROR(WriteFileAtomically(json, report.json));
  Print(format, {{"html", html.string()}, {"json", json.string()}},
        fmt::format("report: {}\ndata:   {}", html.string(), json.string()));
  return absl::OkStatus();
}

absl::Status DownloadModel(OperatorSession& session, const std::string& study,
                           const WhichModel& which, const std::filesystem::path& out,
                           Format format) {
  RETURN_IF_ERROR(CheckWritable(out));
  int round = which.round.value_or(0);
  if (which.best) {
    ASSIGN_OR_RETURN(const v1::BestModelResponse best, session.GetBestModel(study));
    round = best.model().round();
  } else if (!which.round.has_value()) {
    ASSIGN_OR_RETURN(const v1::ListModelsResponse models, session.ListModels(study));
    round = models.models_size() - 1;
  }
  ASSIGN_OR_RETURN(const std::string digest, session.DownloadModel(study, round, out));
  Print(format, {{"study", study}, {"round", round}, {"digest", digest}, {"file", out.string()}},
        fmt::format("model of {} after round {}: {}\nSHA-256 {}", study, round, out.string(),
                    digest));
  return absl::OkStatus();
}

}  // namespace isoscan
