#include "server/rounds/journal.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>

namespace isoscan {

absl::Status JournalTrouble(const absl::Status& status) {
  using std::chrono::steady_clock;
  if (status.ok()) return status;
  // Every site asks again and again until the journal is mended.
  static std::atomic<steady_clock::duration> next_line{steady_clock::duration::min()};
  const steady_clock::duration now = steady_clock::now().time_since_epoch();
  steady_clock::duration due = next_line;
  if (now >= due && next_line.compare_exchange_strong(due, now + std::chrono::minutes(1))) {
    spdlog::error(
        "journal trouble code={} reason=\"{}\" action=\"sites are told to wait; nothing is lost\"",
        absl::StatusCodeToString(status.code()), std::string(status.message()));
  }
  const bool is_full = absl::IsResourceExhausted(status);
  return {is_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
          is_full ? "the disk of the server's journal is full; its log says more"
                  : "the server has trouble with its journal; its log says more"};
}

}  // namespace isoscan
