/// What isoscan-admin does, one function per command; each prints its result to standard output.
#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/status.h"

#include "server/admin/operator_session.h"
#include "server/admin/presentation.h"

namespace isoscan {

struct Invitation {
  std::string site;
  std::string server;  ///< HOST:PORT that the site will dial.
  std::filesystem::path out;
  int valid_hours = 72;
};
/// Writes the invitation file (mode 0600): TOML with server, site, token and authority.
absl::Status InviteSite(OperatorSession& session, const Invitation& invitation, Format format);

/// Errors also: INVALID_ARGUMENT with the file's name and line, before anything is sent.
absl::Status CreateStudy(OperatorSession& session, const std::filesystem::path& file,
                         Format format);

/// Has a draft planned from what its sites sent, and shows the plan; writes the planned study.toml
/// to `out` unless that is empty. A study that is planned is shown as it is.
absl::Status PlanStudy(OperatorSession& session, const std::string& study,
                       const std::filesystem::path& out, Format format);

/// Prints a line per change until the study has ended; a server that restarts meanwhile is waited
/// for.
absl::Status WatchStudy(OperatorSession& session, const std::string& study, Format format,
                        const std::stop_token& stop);

/// Writes report.html and report.json into `folder`, which is made if need be.
absl::Status WriteReport(OperatorSession& session, const std::string& study,
                         const std::filesystem::path& folder, Format format);

/// The last one unless a member says otherwise.
struct WhichModel {
  std::optional<int> round = std::nullopt;
  bool best = false;
};
absl::Status DownloadModel(OperatorSession& session, const std::string& study,
                           const WhichModel& which, const std::filesystem::path& out,
                           Format format);

}  // namespace isoscan
