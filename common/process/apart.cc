#include "common/process/apart.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {
namespace {

/// Of addresses, as RLIMIT_AS counts them.
std::int64_t AddressBytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

/// In the child.
void Confine(std::chrono::seconds limit, std::int64_t address_bytes) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  for (const int number : {SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) {
    std::signal(number, SIG_DFL);
  }
  sigset_t alarm_only;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &alarm_only, nullptr);
  alarm(static_cast<unsigned>(limit.count()));
#ifndef __SANITIZE_ADDRESS__  // It reserves terabytes of addresses.
  const struct rlimit memory {
    static_cast<rlim_t>(address_bytes), static_cast<rlim_t>(address_bytes)
  };
  setrlimit(RLIMIT_AS, &memory);
#else
  (void)address_bytes;
#endif
}

}  // namespace

bool RunApart(std::span<std::byte> result, std::chrono::seconds limit, std::int64_t memory_bytes,
              const std::function<bool(std::span<std::byte> result)>& work) {
  void* const shared =
      mmap(nullptr, result.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return false;
  const std::int64_t address_bytes = AddressBytes() + memory_bytes;
  const pid_t child = fork();
  if (child == 0) {
    Confine(limit, address_bytes);
    bool is_done = false;
    try {
      is_done = work({static_cast<std::byte*>(shared), result.size()});
    } catch (...) {  // No memory, for one.
    }
    _exit(is_done ? 0 : 1);
  }
  int status = -1;
  if (child > 0) {
    while (waitpid(child, &status, 0) < 0) {
      if (errno == EINTR) continue;
      status = -1;
      break;
    }
  }
  if (status == 0) std::memcpy(result.data(), shared, result.size());
  munmap(shared, result.size());
  return status == 0;
}

}  // namespace isoscan
