#include "common/process/interrupt.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

#include "common/process/exit_code.h"
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace isoscan {
namespace {

// Globals, since a signal handler is given nothing else to reach.
std::atomic<int> stop_event = -1;
std::atomic<int> signals_seen = 0;

// Only calls that are safe in a signal handler: the stop request itself runs callbacks and locks.
extern "C" void OnStopSignal(int /*signal*/) {
  const int saved_errno = errno;
  if (signals_seen.fetch_add(1) > 0) _exit(static_cast<int>(ExitCode::kInterrupted));
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_event.load(), &one, sizeof(one));
  errno = saved_errno;
}

void WaitForStopSignal(std::stop_source source) {
  std::uint64_t count = 0;
  while (read(stop_event.load(), &count, sizeof(count)) < 0 && errno == EINTR) {
  }
  if (isatty(STDERR_FILENO) != 0) {
    std::fputs("\nstopping; once more ends it at once\n", stderr);
  }
  source.request_stop();
}

}  // namespace

std::stop_token StopOnInterrupt() {
  stop_event = eventfd(0, EFD_CLOEXEC);
  if (stop_event < 0) {
    std::perror("eventfd");
    std::abort();
  }
  std::stop_source source;
  std::stop_token token = source.get_token();
  // Detached: it may still wait when main() returns.
  std::thread(WaitForStopSignal, std::move(source)).detach();

  // Handlers, unlike a blocked signal mask, do not pass to the programs that this one starts.
  struct sigaction action = {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return token;
}

}  // namespace isoscan
