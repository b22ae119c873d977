#include "client/hospital_client.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/assignment_board.h"
#include "client/progress_reports.h"
#include "client/state_folder.h"
#include "client/study_work.h"
#include "common/process/fault_point.h"
#include "common/status/status_macros.h"

namespace isoscan {

struct HospitalClient::State {
  State(ClientConfig site_config, FederationSession& site_session, TrainerFactory factory)
      : config(std::move(site_config)),
        session(site_session),
        make_trainer(std::move(factory)),
        folder(config.state),
        approved(folder.approved()) {}

  absl::Status Run(bool until_ended, const std::stop_token& stop);
  absl::Status Greet(const std::stop_token& stop);
  absl::Status CompareApprovals(bool until_ended, const std::stop_token& stop);
  absl::Status WorkThroughBoard(AssignmentBoard& board, bool until_ended,
                                const std::stop_token& stop);
  absl::Status Answer(const SiteAssignment& assignment, StudyWork& work,
                      const std::stop_token& stop);
  absl::StatusOr<bool> AllEnded() const;

  const ClientConfig config;
  FederationSession& session;
  const TrainerFactory make_trainer;
  const SiteStateFolder folder;
  const ApprovedStudies approved;
  std::set<std::string> ended;
};

HospitalClient::HospitalClient(ClientConfig config, FederationSession& session,
                               TrainerFactory make_trainer)
    : state_(std::make_unique<State>(std::move(config), session, std::move(make_trainer))) {}

HospitalClient::~HospitalClient() = default;

absl::Status HospitalClient::Run(bool until_ended, std::stop_token stop) {
  return state_->Run(until_ended, stop);
}

absl::Status HospitalClient::State::Run(bool until_ended, const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const SiteStateFolder::Lock lock, folder.Acquire());
  RETURN_IF_ERROR(Greet(stop));
  RETURN_IF_ERROR(CompareApprovals(until_ended, stop));

  AssignmentBoard board;
  const std::jthread watcher([this, &board](const std::stop_token& watch_stop) {
    board.EndWatch(session.Watch(
        [&board](std::vector<SiteAssignment> assignments) {
          board.Replace(std::move(assignments));
        },
        watch_stop));
  });
  return WorkThroughBoard(board, until_ended, stop);
}

absl::Status HospitalClient::State::Greet(const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const ServerGreeting greeting, session.Hello(stop));
  if (greeting.site != config.site) {
    return absl::FailedPreconditionError(fmt::format(
        "the certificate {} is of site {}, client.toml says site = \"{}\"; correct one of the two",
        config.certificate.certificate.string(), greeting.site, config.site));
  }
  spdlog::info("connected server={} version={} site={}", config.server, greeting.program_version,
               greeting.site);
  return absl::OkStatus();
}

absl::Status HospitalClient::State::CompareApprovals(bool until_ended,
                                                     const std::stop_token& stop) {
  ASSIGN_OR_RETURN(const std::vector<Study> own, approved.All());
  if (own.empty() && until_ended) {
    return absl::FailedPreconditionError(
        "no study is approved, so there is nothing to wait for; `isoscan-client study list` shows "
        "what is offered, `isoscan-client study approve NAME` takes part");
  }
  if (own.empty()) {
    spdlog::info(
        "no_study_approved action=\"waiting for one: study list shows what is offered, study "
        "approve takes part\"");
  }
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> offered, session.Studies(stop));
  for (const Study& study : own) {
    const auto same = std::find_if(offered.begin(), offered.end(), [&](const OfferedStudy& entry) {
      return entry.name == study.name && entry.digest == study.digest;
    });
    if (std::any_of(offered.begin(), offered.end(),
                    [&](const OfferedStudy& entry) { return IsPlanOf(entry, study); })) {
      spdlog::warn("study_planned study={0} action=\"study show {0}, then study approve {0}\"",
                   study.name);
      continue;
    }
    if (same == offered.end()) {
      spdlog::warn(
          "study_not_offered study={} action=\"the server has no such study with the text approved "
          "here; see study list, then study withdraw or approve\"",
          study.name);
      continue;
    }
    if (same->ended()) ended.insert(study.name);
    if (!same->ended() && !same->approved) {
      spdlog::warn("approval_unknown_to_server study={} action=\"study approve {}\"", study.name,
                   study.name);
    }
    spdlog::info("study study={} phase={} round={} rounds={}", study.name, ToString(same->phase),
                 same->round, same->rounds);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> HospitalClient::State::AllEnded() const {
  ASSIGN_OR_RETURN(const std::vector<Study> own, approved.All());
  return std::all_of(own.begin(), own.end(),
                     [this](const Study& study) { return ended.contains(study.name); });
}

absl::Status HospitalClient::State::WorkThroughBoard(AssignmentBoard& board, bool until_ended,
                                                     const std::stop_token& stop) {
  ProgressReports reports(session);
  StudyWork work(config, session, reports, make_trainer, stop);
  while (true) {
    if (until_ended) {
      ASSIGN_OR_RETURN(const bool all_ended, AllEnded());
      if (all_ended) return absl::OkStatus();
    }
    reports.Clear();
    ASSIGN_OR_RETURN(AssignmentBoard::Task task, board.Next(stop));
    ISOSCAN_FAULT_POINT("work.asked");
    absl::Status outcome;
    {
      const std::stop_callback forward(stop, [&task] { task.stop.request_stop(); });
      outcome = Answer(task.assignment, work, task.stop.get_token());
    }
    if (stop.stop_requested() && !outcome.ok()) {
      spdlog::info("interrupted study={} round={} action=\"the next run goes on from here\"",
                   task.assignment.study, task.assignment.round);
      return absl::CancelledError("interrupted; the next `isoscan-client run` goes on from here");
    }
    if (absl::IsCancelled(outcome) && task.stop.stop_requested()) {
      RETURN_IF_ERROR(board.watch_status());
      spdlog::info(
          "work_dropped study={} round={} kind={} reason=\"the server asks for something "
          "else now\"",
          task.assignment.study, task.assignment.round, ToString(task.assignment.kind));
      continue;
    }
    RETURN_IF_ERROR(outcome);
    ISOSCAN_FAULT_POINT("work.done");
    board.MarkDone(task.assignment);
  }
}

absl::Status HospitalClient::State::Answer(const SiteAssignment& assignment, StudyWork& work,
                                           const std::stop_token& stop) {
  if (assignment.kind == SiteAssignment::Kind::kStudyEnded) {
    if (ended.insert(assignment.study).second) {
      spdlog::info("study_ended study={}", assignment.study);
    }
    work.Forget(assignment.study);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<Study> study, approved.Find(assignment.study));
  if (study.has_value() && study->digest == assignment.study_digest) {
    return work.Do(*study, assignment, stop);
  }
  spdlog::warn(
      "assignment_refused study={} round={} reason=\"{}\" action=\"isoscan-client study show {}, "
      "then study approve {}\"",
      assignment.study, assignment.round,
      study.has_value() ? "the server's study is not the text that this site approved"
                        : "this site has not approved the study",
      assignment.study, assignment.study);
  return absl::OkStatus();
}

}  // namespace isoscan
