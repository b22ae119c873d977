#include "client/progress_reports.h"

#include <chrono>

namespace isoscan {
namespace {

constexpr std::chrono::seconds kSoonest{1};
constexpr std::chrono::seconds kLatest{10};

bool SameActivity(const WorkProgress& left, const WorkProgress& right) {
  return left.study == right.study && left.round == right.round && left.activity == right.activity;
}

}  // namespace

ProgressReports::ProgressReports(FederationSession& session)
    : session_(session), thread_([this](const std::stop_token& stop) { Send(stop); }) {}

void ProgressReports::Set(const WorkProgress& progress) {
  {
    const std::lock_guard lock(mutex_);
    if (!latest_.has_value() || !SameActivity(*latest_, progress)) ++activities_;
    latest_ = progress;
    ++version_;
  }
  changed_.notify_one();
}

void ProgressReports::Clear() {
  const std::lock_guard lock(mutex_);
  latest_.reset();
}

void ProgressReports::Send(const std::stop_token& stop) {
  std::uint64_t sent_version = 0;
  std::uint64_t sent_activities = 0;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    changed_.wait_for(lock, stop, kLatest, [&] { return version_ != sent_version; });
    if (stop.stop_requested()) return;
    if (!latest_.has_value()) {
      sent_version = version_;
      continue;
    }
    const WorkProgress progress = *latest_;
    sent_version = version_;
    sent_activities = activities_;
    lock.unlock();
    // The work goes on without the server knowing: nothing to be done about an error.
    session_.ReportProgress(progress, stop).IgnoreError();
    lock.lock();
    changed_.wait_for(lock, stop, kSoonest, [&] { return activities_ != sent_activities; });
  }
}

}  // namespace isoscan
