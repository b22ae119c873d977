#include "client/intake/intake.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace isoscan {
namespace {

/// Tells the observer, one call at a time.
class Counter {
 public:
  Counter(std::size_t total, const IntakeObserver& observe)
      : total_(static_cast<std::int64_t>(total)), observe_(observe) {}

  void Advance() {
    const absl::MutexLock lock(&mutex_);
    observe_(++done_, total_);
  }

 private:
  absl::Mutex mutex_;
  std::int64_t done_ = 0;
  const std::int64_t total_;
  const IntakeObserver& observe_;
};

/// The memory that cases in work may take together.
class Budget {
 public:
  explicit Budget(std::int64_t bytes) : free_(bytes) {}

  void Take(std::int64_t bytes) {
    const auto fits = [this, bytes] { return free_ >= bytes; };
    const absl::MutexLock lock(&mutex_, absl::Condition(&fits));
    free_ -= bytes;
  }
  void GiveBack(std::int64_t bytes) {
    const absl::MutexLock lock(&mutex_);
    free_ += bytes;
  }

 private:
  absl::Mutex mutex_;
  std::int64_t free_;
};

/// Calls work(i) for 0 .. count - 1 on `threads` threads, until `stop`. OpenMP, so that what runs
/// inside keeps to its own thread; an exception that left it would end the program.
template <typename Work>
absl::Status ForEachCase(std::size_t count, int threads, const std::stop_token& stop, Work work) {
  const auto cases = static_cast<std::int64_t>(count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < cases; ++i) {
    if (!stop.stop_requested()) work(static_cast<std::size_t>(i));
  }
  return stop.stop_requested() ? absl::CancelledError("interrupted") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<CaseSight>> InspectHeaders(std::vector<ScanFiles> scans, int threads,
                                                      const std::stop_token& stop,
                                                      const IntakeObserver& observe) {
  std::vector<CaseSight> sights(scans.size());
  Counter counter(scans.size(), observe);
  const absl::Status status = ForEachCase(scans.size(), threads, stop, [&](std::size_t i) {
    sights[i] = LookAtHeaders(std::move(scans[i]));
    counter.Advance();
  });
  if (!status.ok()) return status;
  return sights;
}

ReadingPlan PlanReading(const std::vector<CaseSight>& sights, int threads,
                        std::int64_t available_bytes) {
  ReadingPlan plan;
  plan.available_bytes = available_bytes;
  for (const CaseSight& sight : sights) {
    if (sight.bytes <= available_bytes) {
      plan.largest_bytes = std::max(plan.largest_bytes, sight.bytes);
    }
  }
  plan.threads = std::max(1, std::min<int>(threads, static_cast<int>(sights.size())));
  plan.bytes = std::min(plan.largest_bytes * plan.threads, available_bytes);
  return plan;
}

absl::Status InspectVoxels(std::vector<CaseSight>& sights, const ReadingPlan& plan,
                           const std::stop_token& stop, const IntakeObserver& observe) {
  Counter counter(sights.size(), observe);
  Budget budget(plan.bytes);
  return ForEachCase(sights.size(), plan.threads, stop, [&](std::size_t i) {
    CaseSight& sight = sights[i];
    if (sight.bytes > plan.available_bytes) {
      sight.Quarantine(Fault::kMemory, sight.images.front().file.path,
                       fmt::format("it takes {:.1f} GiB of memory to read, and {:.1f} GiB can be "
                                   "had",
                                   static_cast<double>(sight.bytes) / (1 << 30),
                                   static_cast<double>(plan.available_bytes) / (1 << 30)));
    } else if (!sight.quarantined()) {
      budget.Take(sight.bytes);
      LookAtVoxels(sight);
      budget.GiveBack(sight.bytes);
    }
    counter.Advance();
  });
}

}  // namespace isoscan
