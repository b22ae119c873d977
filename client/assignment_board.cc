#include "client/assignment_board.h"

#include <algorithm>
#include <utility>

namespace isoscan {

void AssignmentBoard::Replace(std::vector<SiteAssignment> assignments) {
  {
    const std::lock_guard lock(mutex_);
    assignments_ = std::move(assignments);
    std::erase_if(done_, [this](const SiteAssignment& done) { return !IsAsked(done); });
    if (current_.has_value() && !IsAsked(*current_)) current_stop_.request_stop();
  }
  changed_.notify_all();
}

void AssignmentBoard::EndWatch(absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    watch_ended_ = std::move(status);
    current_stop_.request_stop();
  }
  changed_.notify_all();
}

absl::StatusOr<AssignmentBoard::Task> AssignmentBoard::Next(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  current_.reset();
  const SiteAssignment* next = nullptr;
  changed_.wait(lock, stop, [&] {
    next = FirstNotDone();
    return next != nullptr || watch_ended_.has_value();
  });
  if (stop.stop_requested()) return absl::CancelledError("interrupted");
  if (watch_ended_.has_value()) return *watch_ended_;
  current_ = *next;
  current_stop_ = std::stop_source();
  return Task{.assignment = *current_, .stop = current_stop_};
}

absl::Status AssignmentBoard::watch_status() {
  const std::lock_guard lock(mutex_);
  return watch_ended_.value_or(absl::OkStatus());
}

void AssignmentBoard::MarkDone(const SiteAssignment& assignment) {
  const std::lock_guard lock(mutex_);
  done_.push_back(assignment);
}

bool AssignmentBoard::IsAsked(const SiteAssignment& assignment) const {
  return std::find(assignments_.begin(), assignments_.end(), assignment) != assignments_.end();
}

const SiteAssignment* AssignmentBoard::FirstNotDone() const {
  const auto first =
      std::find_if(assignments_.begin(), assignments_.end(), [this](const SiteAssignment& entry) {
        return std::find(done_.begin(), done_.end(), entry) == done_.end();
      });
  return first == assignments_.end() ? nullptr : &*first;
}

}  // namespace isoscan
