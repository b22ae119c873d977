#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "deploy/sandbox/local_federation.h"

namespace isoscan {

/// In OUT beside plan.toml, where that was planned: the text of the study that was given.
inline constexpr const char* kDraftFile = "draft.toml";

struct FederationRun {
  std::string study_toml;
  std::string study_source;  ///< What messages call the study's file.
  std::vector<SandboxSite> sites;
  std::filesystem::path out;
  int threads_per_site = 0;  ///< 0: the cores divided over the sites, at least 1.
  std::string device = "auto";
  bool keep_state = false;  ///< Leave the server's and the sites' folders in OUT/state.
  std::filesystem::path initial_weights = {};  ///< That the study names, if it does.
};

struct FederationResult {
  std::filesystem::path report;  ///< OUT/report.html; report.json lies beside it.
  std::int64_t server_peak_bytes = 0;
  double seconds = 0;
};

/// Runs a whole federation on this machine with the programs that hospitals use: one server, one
/// client per site, mutual TLS with throw-away certificates, on loopback.
///
///   OUT/{report.html, report.json, model.safetensors, plan.toml, logs/}
///
/// A draft is approved, planned and approved again; plan.toml is what came out of it, and
/// OUT/draft.toml the draft.
///
/// The results appear in OUT at the end, together; a run that fails leaves logs/ and says which
/// process failed and how. No child outlives this call.
/// Errors: those of the study; FAILED_PRECONDITION when OUT has a report already; CANCELLED when
///         `stop` was requested; when a process failed, what it failed with
///         (StatusCodeOf its exit code).
absl::StatusOr<FederationResult> RunFederation(const FederationRun& run, std::stop_token stop);

/// Scores the model of a finished run (RUN.out/model.safetensors) on every case of a cohort that
/// had no part in it, with `isoscan-client evaluate`, into the JSON file `result`. Errors:
/// CANCELLED; what the program failed with.
absl::Status EvaluateModel(const FederationRun& run, const SandboxSite& cohort,
                           const std::filesystem::path& result, std::stop_token stop);

}  // namespace isoscan
