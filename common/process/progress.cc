#include "common/process/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include <unistd.h>

namespace isoscan {
namespace {

using std::chrono::steady_clock;

constexpr auto kSilentFor = std::chrono::seconds(1);
constexpr auto kRedrawEvery = std::chrono::milliseconds(100);
constexpr auto kLineEvery = std::chrono::seconds(10);
constexpr std::int64_t kBarWidth = 24;

std::string Duration(steady_clock::duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration).count();
  if (seconds < 3600) return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

}  // namespace

Progress::Progress(std::string title, std::int64_t total)
    : title_(std::move(title)),
      total_(std::max<std::int64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(steady_clock::now()),
      last_drawn_(start_) {}

Progress::~Progress() {
  if (terminal_ && drawn_) std::fputc('\n', stderr);
}

void Progress::Advance(std::int64_t done, const std::string& note) {
  const steady_clock::time_point now = steady_clock::now();
  const bool last = done >= total_;
  if (now - start_ < kSilentFor) return;
  if (now - last_drawn_ < (terminal_ ? kRedrawEvery : kLineEvery) && !last) return;

  const std::string tail = note.empty() ? "" : "  " + note;
  const std::string elapsed = Duration(now - start_);
  if (terminal_) {
    const std::int64_t filled = std::clamp<std::int64_t>(kBarWidth * done / total_, 0, kBarWidth);
    // Erases what a longer line left behind.
    fmt::print(stderr, "\r{} [{:#<{}}{:<{}}] {}/{}  {}{}\x1b[K", title_, "", filled, "",
               kBarWidth - filled, done, total_, elapsed, tail);
    std::fflush(stderr);
  } else {
    fmt::print(stderr, "{}: {} of {}, {}{}\n", title_, done, total_, elapsed, tail);
  }
  drawn_ = true;
  last_drawn_ = now;
}

}  // namespace isoscan
