#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"

#include "client/approved_studies.h"
#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/session.h"
#include "client/commands/study_choice.h"
#include "client/commands/study_summary.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "common/process/progress.h"
#include "common/process/resources.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include <unistd.h>

namespace isoscan {
namespace {

absl::StatusOr<OfferedStudy> FindOffered(FederationSession& session, const std::string& name,
                                         const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> studies, session.Studies(stop));
  std::string names;
  for (const OfferedStudy& study : studies) {
    if (study.name == name) return study;
    names += (names.empty() ? "" : ", ") + study.name;
  }
  return absl::NotFoundError(
      fmt::format("the server offers no study named {}; it offers {}", name,
                  names.empty() ? "none to this site yet: ask the coordinator" : names));
}

/// The study's text is what is approved: what the server says about it must be what it says.
absl::StatusOr<Study> ReadOffered(const OfferedStudy& offered) {
  ASSIGN_OR_RETURN(Study study, ParseStudy(offered.toml, fmt::format("study {}", offered.name)));
  if (study.digest != offered.digest || study.name != offered.name) {
    return absl::DataLossError(
        fmt::format("the server announces study {} with digest {}, its text is {} with digest {}; "
                    "tell the coordinator",
                    offered.name, offered.digest, study.name, study.digest));
  }
  return study;
}

std::string StateWords(const ClientConfig& config, const OfferedStudy& study) {
  if (study.withdrawn) return "withdrawn";
  if (study.approved) return "approved";
  return DraftWasApproved(config, study) ? "planned, approve again" : "not approved";
}

/// What stays on the site and what goes, in the words of the command.
std::string SentWords(const CohortDeclaration& declaration) {
  if (declaration.fingerprint.has_value()) {
    const std::int64_t described = declaration.fingerprint->described_cases();
    return fmt::format(
        "these three counts and {}; no image, case name, path or date (docs/planning.md)",
        described == 0
            ? fmt::format("no distribution: {} training cases are too few",
                          declaration.training_cases)
            : fmt::format("the fingerprint of {} training cases: how often each spacing, size and "
                          "intensity occurs",
                          described));
  }
  return fmt::format(
      "these three counts and two histograms now{}; weights, loss and the scores of held-out cases "
      "(by number and [[cohort]] name) each round; no image, case name, path or date",
      declaration.standard.cases > 0
          ? fmt::format(", and the sum over {} cases of {} numbers for the study's standard",
                        declaration.standard.cases, declaration.standard.sum.size())
          : "");
}

/// Prints what the study takes here. Errors: RESOURCE_EXHAUSTED this site's memory cannot hold it,
/// with both numbers.
absl::Status CheckMemoryOf(const ClientConfig& config, const Study& study, const SiteCases& cases) {
  const std::int64_t cases_bytes = EstimateCohortMemory(
      cases, study, config.cache_cases ? CasePlace::kMapped : CasePlace::kMemory);
  std::int64_t training_bytes = 0;
  if (!study.planning.has_value()) {
    ASSIGN_OR_RETURN(const auto trainer, MakeDeviceTrainer(study, config.device));
    training_bytes = trainer->memory_bytes();
  }
  fmt::print("this site\n  memory      {} for {} cases, {} for training; {} are free\n",
             Gibibytes(cases_bytes), cases.files.size(), Gibibytes(training_bytes),
             Gibibytes(AvailableMemoryBytes()));
  std::fflush(stdout);
  return CheckMemory(fmt::format("study {}", study.name), cases_bytes + training_bytes);
}

bool AskYesNo(const std::string& question) {
  fmt::print(stderr, "{} [y/N] ", question);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

/// What the site should look at before it approves; this is its own terminal.
void PrintRefused(const StudyCohort& cohort) {
  for (const std::string& label : cohort.missing_labels) {
    fmt::print(
        stderr,
        "  label {} is in none of this site's training cases; it is learnt from other sites\n",
        Printable(label));
  }
  for (const RefusedCase& refused : cohort.refused) {
    fmt::print(stderr, "  refused {}: {}\n", Printable(refused.name), Printable(refused.reason));
  }
}

}  // namespace

absl::Status ListStudies(const ClientConfig& config, bool json, std::stop_token stop) {
  ASSIGN_OR_RETURN(const auto session, GreetServer(config, stop));
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> studies, session->Studies(stop));
  if (json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const OfferedStudy& study : studies) {
      list.push_back({{"name", study.name},
                      {"digest", study.digest},
                      {"phase", ToString(study.phase)},
                      {"round", study.round},
                      {"rounds", study.rounds},
                      {"approved", study.approved},
                      {"draft_was_approved", DraftWasApproved(config, study)},
                      {"withdrawn", study.withdrawn},
                      {"waiting_for", study.waiting_for}});
    }
    fmt::print("{}\n", list.dump(2));
    return absl::OkStatus();
  }
  if (studies.empty()) {
    fmt::print("the server offers no study to this site yet\n");
    return absl::OkStatus();
  }
  fmt::print("{:<24}  {:<9}  {:<9}  {:<22}  {}\n", "study", "phase", "round", "this site",
             "waiting for");
  for (const OfferedStudy& study : studies) {
    fmt::print("{:<24}  {:<9}  {:<9}  {:<22}  {}\n", study.name, ToString(study.phase),
               fmt::format("{}/{}", std::min(study.round, study.rounds), study.rounds),
               StateWords(config, study), study.waiting_for);
  }
  return absl::OkStatus();
}

absl::Status ShowStudy(const ClientConfig& config, const std::string& name, bool text_only,
                       std::stop_token stop) {
  ASSIGN_OR_RETURN(const auto session, GreetServer(config, stop));
  ASSIGN_OR_RETURN(const OfferedStudy offered, FindOffered(*session, name, stop));
  ASSIGN_OR_RETURN(const Study study, ReadOffered(offered));
  if (text_only) {
    fmt::print("{}", offered.toml);
    return absl::OkStatus();
  }
  fmt::print("{}  state       {}, round {} of {}, {}\n\n{}", Summarize(study),
             ToString(offered.phase), std::min(offered.round, offered.rounds), offered.rounds,
             StateWords(config, offered), offered.toml);
  return absl::OkStatus();
}

absl::Status ApproveStudy(const ClientConfig& config, const std::string& name, bool yes,
                          std::stop_token stop) {
  const bool can_ask = isatty(STDIN_FILENO) != 0;
  if (!yes && !can_ask) {
    return absl::InvalidArgumentError(
        "an approval is a decision: without a terminal to ask on, say --yes");
  }
  ASSIGN_OR_RETURN(const auto session, GreetServer(config, stop));
  ASSIGN_OR_RETURN(const OfferedStudy offered, FindOffered(*session, name, stop));
  ASSIGN_OR_RETURN(const Study study, ReadOffered(offered));
  fmt::print("{}", Summarize(study));

  ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config, study));
  RETURN_IF_ERROR(CheckMemoryOf(config, study, cases));

  const std::filesystem::path prepared = SiteStateFolder(config.state).PreparedCases(name);
  PreparedCache cache(prepared, SiteStateFolder::RoundBytes(study),
                      [](const absl::Status& trouble) {
                        fmt::print(stderr, "  {}\n", std::string(trouble.message()));
                      });
  // Copies of scans stay only for a study that this site takes part in.
  absl::Cleanup forget_cases = [&prepared] {
    std::error_code ignored;
    std::filesystem::remove_all(prepared, ignored);
  };
  StudyCohort cohort;
  {
    Progress progress("reading cases", static_cast<std::int64_t>(cases.files.size()));
    ASSIGN_OR_RETURN(cohort, PrepareStudyCohort(
                                 cases, study, stop,
                                 [&](std::int64_t done, std::int64_t) { progress.Advance(done); },
                                 config.cache_cases ? &cache : nullptr));
  }
  PrintRefused(cohort);
  if (!cases.left_out.empty()) {
    fmt::print(stderr,
               "  {} scans lack a file and are left out; `isoscan-client inspect` lists them\n",
               cases.left_out.size());
  }
  const CohortDeclaration& declaration = cohort.declaration;
  fmt::print("  cases       {} for training, {} held out, {} refused\n", declaration.training_cases,
             declaration.held_out_cases, declaration.refused_cases);
  fmt::print("  is sent     {}\n", SentWords(declaration));
  std::fflush(stdout);
  const bool is_draft = study.planning.has_value();
  if (!yes && !AskYesNo(is_draft ? fmt::format("send this, for {} to be planned?", name)
                                 : fmt::format("take part in {}?", name))) {
    return absl::CancelledError("not approved; nothing was sent");
  }

  // First here: a client that runs already must find the approval when the server asks it for work.
  const ApprovedStudies approved(SiteStateFolder(config.state).approved());
  ASSIGN_OR_RETURN(const std::optional<Study> before, approved.Find(name));
  RETURN_IF_ERROR(approved.Add(study));
  const absl::Status sent = session->Approve(name, study.digest, declaration, stop);
  if (!sent.ok()) {
    RETURN_IF_ERROR(before.has_value() ? approved.Add(*before) : approved.Remove(name));
    return sent;
  }
  std::move(forget_cases).Cancel();
  fmt::print("approved {}; {}\n", name,
             is_draft ? fmt::format("once it is planned, `isoscan-client study show {}` shows the "
                                    "plan and `study approve {}` takes part",
                                    name, name)
                      : "`isoscan-client run` works on it");
  return absl::OkStatus();
}

absl::Status WithdrawFromStudy(const ClientConfig& config, const std::string& name,
                               std::stop_token stop) {
  // First here: whatever the server answers, this site works on it no more.
  const SiteStateFolder folder(config.state);
  if (!IsName(name)) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is no study's name", name));
  }
  RETURN_IF_ERROR(ApprovedStudies(folder.approved()).Remove(name));
  std::error_code ignored;
  std::filesystem::remove_all(folder.PreparedCases(name), ignored);
  ASSIGN_OR_RETURN(const auto session, GreetServer(config, stop));
  RETURN_IF_ERROR(session->Withdraw(name, stop));
  fmt::print("withdrawn from {}; what this site gave to closed rounds stays in the model\n", name);
  return absl::OkStatus();
}

}  // namespace isoscan
