#include "common/process/apart.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {
namespace {

/// How the copy ends where it is not killed.
enum Ending { kDone, kFailed, kNoMemory, kThrew };

/// Of addresses, as RLIMIT_AS counts them.
[[maybe_unused]] std::int64_t AddressBytes() {
  std::array<char, 64> pages{};
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  const ssize_t count = read(file, pages.data(), pages.size() - 1);
  close(file);
  return count > 0 ? std::strtoll(pages.data(), nullptr, 10) * sysconf(_SC_PAGESIZE) : 0;
}

/// In the child.
void Confine(std::chrono::seconds limit, std::int64_t memory_bytes) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  sigset_t free;
  sigemptyset(&free);
  // The parent's handlers for the last two ask the parent's threads to stop: here there are none.
  for (const int number : {SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGINT, SIGTERM}) {
    std::signal(number, SIG_DFL);
    sigaddset(&free, number);
  }
  sigprocmask(SIG_UNBLOCK, &free, nullptr);
  alarm(static_cast<unsigned>(limit.count()));
#ifndef __SANITIZE_ADDRESS__  // It reserves terabytes of addresses.
  // Counted here: between a count in the parent and fork(), its other threads may map more.
  const auto addresses = static_cast<rlim_t>(AddressBytes() + memory_bytes);
  const struct rlimit memory { addresses, addresses };
  setrlimit(RLIMIT_AS, &memory);
#else
  (void)memory_bytes;
#endif
}

absl::Status NoCopy(const char* call, int error) {
  return absl::ResourceExhaustedError(
      fmt::format("no process could be made for it ({}: {})", call, std::strerror(error)));
}

/// What a wait status means.
absl::Status MeaningOf(int status, std::chrono::seconds limit, std::int64_t memory_bytes) {
  if (WIFSIGNALED(status)) {
    switch (const int number = WTERMSIG(status)) {
      case SIGALRM:
        return absl::DeadlineExceededError(fmt::format("it took longer than {} s", limit.count()));
      case SIGKILL:
        return absl::ResourceExhaustedError(
            "its process was killed, as the system does when memory is short");
      case SIGINT:
      case SIGTERM:
        return absl::CancelledError("interrupted");
      default:
        return absl::AbortedError(fmt::format("it crashed with signal {}", number));
    }
  }
  switch (WEXITSTATUS(status)) {
    case kDone:
      return absl::OkStatus();
    case kNoMemory:
      return absl::AbortedError(
          fmt::format("it took more than {} MiB of memory", memory_bytes >> 20));
    case kThrew:
      return absl::AbortedError("it threw an exception");
    default:
      return absl::AbortedError("it was refused");
  }
}

}  // namespace

absl::Status RunApart(std::span<std::byte> result, std::chrono::seconds limit,
                      std::int64_t memory_bytes,
                      const std::function<bool(std::span<std::byte> result)>& work) {
  void* const shared =
      mmap(nullptr, result.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return NoCopy("mmap", errno);
  const pid_t child = fork();
  if (child == 0) {
    Confine(limit, memory_bytes);
    Ending ending = kThrew;
    try {
      ending = work({static_cast<std::byte*>(shared), result.size()}) ? kDone : kFailed;
    } catch (const std::bad_alloc&) {
      ending = kNoMemory;
    } catch (...) {
    }
    _exit(ending);
  }
  absl::Status ended = child < 0 ? NoCopy("fork", errno) : absl::OkStatus();
  if (child > 0) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
      if (errno == EINTR) continue;
      ended = absl::AbortedError(fmt::format("it was lost (waitpid: {})", std::strerror(errno)));
      break;
    }
    if (ended.ok()) ended = MeaningOf(status, limit, memory_bytes);
  }
  if (ended.ok()) std::memcpy(result.data(), shared, result.size());
  munmap(shared, result.size());
  return ended;
}

}  // namespace isoscan
