#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/cohort/cohort.h"
#include "client/cohort/scans.h"
#include "client/commands/commands.h"
#include "client/commands/inspect_report.h"
#include "client/commands/study_choice.h"
#include "client/intake/cohort_findings.h"
#include "client/intake/intake.h"
#include "client/state_folder.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

bool IsFile(const std::string& study) {
  std::error_code ignored;
  return study.ends_with(".toml") || std::filesystem::exists(study, ignored);
}

/// The study that is asked for; without a name the only approved one, if there is one.
absl::StatusOr<std::optional<Study>> StudyOf(const std::optional<ClientConfig>& config,
                                             const std::string& name) {
  if (name.empty()) {
    if (!config.has_value()) return std::nullopt;
    ASSIGN_OR_RETURN(const std::vector<Study> approved,
                     ApprovedStudies(SiteStateFolder(config->state).approved()).All());
    if (approved.size() != 1) {
      fmt::print(stderr, "{} studies are approved; --study NAME inspects for one of them\n",
                 approved.size());
      return std::nullopt;
    }
  }
  ASSIGN_OR_RETURN(Study study, ChooseStudy(config.value_or(ClientConfig()), name));
  return study;
}

/// The folders to look at: the one that is named, as client.toml describes it where it does, or all
/// of client.toml.
absl::StatusOr<std::vector<CohortFolder>> ChooseFolders(const std::optional<ClientConfig>& config,
                                                        const std::filesystem::path& folder) {
  if (folder.empty()) {
    if (!config->cohorts.empty()) return config->cohorts;
    return absl::InvalidArgumentError(
        "client.toml names no folder of MRI; add one: [[cohort]] and folder = \"/path\", or "
        "inspect "
        "FOLDER");
  }
  if (config.has_value()) {
    for (const CohortFolder& known : config->cohorts) {
      std::error_code ignored;
      if (std::filesystem::equivalent(known.folder, folder, ignored)) return std::vector{known};
    }
  }
  return std::vector{CohortFolder{.name = "", .folder = folder, .labels = {}, .channels = {}}};
}

/// Fills the report's cohorts and what was left out; with a study the cases are its own.
absl::StatusOr<std::vector<ScanFiles>> List(const std::vector<CohortFolder>& folders,
                                            const std::optional<Study>& study,
                                            const ClientConfig& config, const std::stop_token& stop,
                                            InspectReport& report) {
  std::vector<ScanFiles> scans;
  std::vector<CaseFiles> cases;
  for (const CohortFolder& folder : folders) {
    report.cohorts.push_back(
        {.name = folder.name, .folder = folder.folder.string(), .layout = "", .advice = {}});
    std::optional<Progress> progress;  // How much there is to list is known once it begins.
    const ListingControl control{
        .threads = report.threads,
        .stop = stop,
        .observe = [&progress, &study](std::int64_t done, std::int64_t total) {
          if (!progress.has_value()) {
            progress.emplace(study.has_value() ? "listing DICOM cases" : "listing DICOM files",
                             total);
          }
          progress->Advance(done);
        }};
    if (!study.has_value()) {
      ASSIGN_OR_RETURN(CohortScans found, ListScans(folder, control));
      report.cohorts.back().layout = found.layout;
      std::move(found.scans.begin(), found.scans.end(), std::back_inserter(scans));
      std::move(found.left_out.begin(), found.left_out.end(), std::back_inserter(report.left_out));
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<CaseFiles> found,
                     ListCases(folder, *study, &report.left_out, control));
    report.cohorts.back().layout = "as the study reads it";
    Sidecars sidecars(folder.folder);
    for (CaseFiles& files : found) {
      scans.push_back(AsScan(files, *study, sidecars));
      cases.push_back(std::move(files));
    }
  }
  if (study.has_value()) {
    // What is wrong with the cases is told all the same: that is when the table is needed.
    absl::StatusOr<std::vector<bool>> held_out =
        HeldOut(cases, study->held_out, config.held_out_cases);
    report.held_out_status = held_out.status();
    report.held_out = held_out.ok() ? *std::move(held_out) : std::vector<bool>(cases.size(), false);
  }
  return scans;
}

/// Headers, then voxels, then the cases beside each other.
absl::Status LookAt(std::vector<ScanFiles> scans, const std::stop_token& stop,
                    InspectReport& report) {
  {
    Progress progress("reading headers", static_cast<std::int64_t>(scans.size()));
    ASSIGN_OR_RETURN(report.cases,
                     InspectHeaders(std::move(scans), report.threads, stop,
                                    [&progress](auto done, auto) { progress.Advance(done); }));
  }
  if (!report.headers_only) {
    const ReadingPlan plan =
        PlanReading(report.cases, report.threads, AvailableMemoryBytes() / 10 * 9);
    report.budget_bytes = PeakMemoryBytes() + plan.bytes;
    fmt::print(
        stderr,
        "reading {} cases, {} at a time, in at most {:.0f} MB (the program {:.0f} MB, the largest "
        "case {:.0f} MB)\n",
        report.cases.size(), plan.threads, static_cast<double>(report.budget_bytes) / 1e6,
        static_cast<double>(report.budget_bytes - plan.bytes) / 1e6,
        static_cast<double>(plan.largest_bytes) / 1e6);
    Progress progress("reading voxels", static_cast<std::int64_t>(report.cases.size()));
    RETURN_IF_ERROR(InspectVoxels(report.cases, plan, stop,
                                  [&progress](auto done, auto) { progress.Advance(done); }));
  }
  CompareCases(report.cases);
  for (InspectReport::Cohort& cohort : report.cohorts) {
    std::vector<const CaseSight*> of_cohort;
    for (const CaseSight& sight : report.cases) {
      if (sight.files.cohort == cohort.name && !sight.quarantined()) of_cohort.push_back(&sight);
    }
    cohort.advice = AdviseMask(of_cohort);
  }
  return absl::OkStatus();
}

/// OK when something can be used: with a study, on both sides of the held-out split.
absl::Status CheckThatSomeAreLeft(const InspectReport& report) {
  RETURN_IF_ERROR(report.held_out_status);
  std::size_t usable = 0;
  std::size_t held_out = 0;
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    if (report.cases[i].quarantined()) continue;
    ++usable;
    held_out += !report.held_out.empty() && report.held_out[i] ? 1 : 0;
  }
  if (usable > 0 && report.held_out.empty()) return absl::OkStatus();
  if (held_out > 0 && held_out < usable) return absl::OkStatus();
  const char* const side = report.held_out.empty() ? ""
                           : held_out == usable    ? "training "
                                                   : "held-out ";
  return absl::DataLossError(
      fmt::format("no {}case can be used: mend the quarantined ones, or add cases", side));
}

}  // namespace

absl::Status Inspect(const InspectRequest& request, std::stop_token stop) {
  const auto start = std::chrono::steady_clock::now();
  GiveFreedMemoryBack();
  std::optional<ClientConfig> config;
  if (request.folder.empty() || (!request.study.empty() && !IsFile(request.study))) {
    ASSIGN_OR_RETURN(config, LoadClientConfig(request.config));
  }
  ASSIGN_OR_RETURN(const std::optional<Study> study, StudyOf(config, request.study));
  ASSIGN_OR_RETURN(std::vector<CohortFolder> folders, ChooseFolders(config, request.folder));
  if (request.geometry.has_value()) {
    for (CohortFolder& folder : folders) folder.geometry = *request.geometry;
  }

  InspectReport report;
  report.study = study.has_value() ? study->name : "";
  report.headers_only = request.headers_only;
  report.threads = request.threads > 0 ? request.threads : AvailableCores();
  ASSIGN_OR_RETURN(std::vector<ScanFiles> scans,
                   List(folders, study, config.value_or(ClientConfig()), stop, report));
  RETURN_IF_ERROR(LookAt(std::move(scans), stop, report));
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_bytes = PeakMemoryBytes();
  if (request.json) {
    PrintInspectJson(report);
  } else {
    PrintInspectTable(report);
  }
  return CheckThatSomeAreLeft(report);
}

}  // namespace isoscan
