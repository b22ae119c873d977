#include "common/process/resources.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>

#include "absl/synchronization/mutex.h"

#include "common/process/cgroup.h"
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The value of a line "NAME:   123 kB" of a file of /proc, in bytes.
std::optional<std::int64_t> ReadProcBytes(const fs::path& path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name) && line.substr(name.size(), 1) == ":") {
      return std::stoll(line.substr(name.size() + 1)) * 1024;
    }
  }
  return std::nullopt;
}

CgroupLimits OwnCgroupLimits() {
  return ReadCgroupLimits("/sys/fs/cgroup", ReadText("/proc/self/cgroup"));
}

int CoresByAffinity() {
  // A machine with more cores than a cpu_set_t holds answers EINVAL until the set is large enough.
  for (int capacity = CPU_SETSIZE; capacity <= 64 * CPU_SETSIZE; capacity *= 2) {
    const auto free_set = [](cpu_set_t* set) { CPU_FREE(set); };
    const std::unique_ptr<cpu_set_t, decltype(free_set)> set(
        CPU_ALLOC(static_cast<std::size_t>(capacity)), free_set);
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
    if (sched_getaffinity(0, bytes, set.get()) == 0) return CPU_COUNT_S(bytes, set.get());
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// What `ulimit -v` leaves; nothing where there is no such limit.
std::optional<std::int64_t> FreeAddressSpace() {
  struct rlimit limit {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  const std::int64_t used = ReadProcBytes("/proc/self/status", "VmSize").value_or(0);
  return std::max<std::int64_t>(static_cast<std::int64_t>(limit.rlim_cur) - used, 0);
}

double InGib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

int AvailableCores() {
  int cores = CoresByAffinity();
  // Down: with a thread more than the quota pays for, every barrier waits for a throttled one.
  if (const auto quota = OwnCgroupLimits().cores) {
    cores = std::min(cores, static_cast<int>(std::floor(*quota)));
  }
  return std::max(cores, 1);
}

std::int64_t AvailableMemoryBytes() {
  constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::max();
  const std::int64_t machine = ReadProcBytes("/proc/meminfo", "MemAvailable").value_or(kUnknown);
  return std::min({machine, OwnCgroupLimits().memory_bytes.value_or(kUnknown),
                   FreeAddressSpace().value_or(kUnknown)});
}

std::int64_t PeakMemoryBytes() { return ReadProcBytes("/proc/self/status", "VmHWM").value_or(0); }

absl::StatusOr<std::int64_t> FreeDiskBytes(const fs::path& path) {
  std::error_code error;
  fs::path existing = fs::absolute(path, error);
  while (!error && !fs::exists(existing, error) && existing.has_relative_path()) {
    error.clear();
    existing = existing.parent_path();
  }
  const fs::space_info space = fs::space(existing, error);
  if (error) {
    return absl::NotFoundError(
        fmt::format("cannot tell the free disk space at {}: {}", path.string(), error.message()));
  }
  return static_cast<std::int64_t>(space.available);
}

absl::Status CheckMemory(const std::string& purpose, std::int64_t needed_bytes) {
  const std::int64_t available = AvailableMemoryBytes();
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(fmt::format(
      "{} needs {:.1f} GiB of memory and {:.1f} GiB can be had: end other programs, raise this "
      "process's memory limit or use a larger machine",
      purpose, InGib(needed_bytes), InGib(available)));
}

void KeepFreedMemory() {
  // Blocks that are mapped one by one go back to the kernel at each free(); the heap does not
  // shrink below its trim threshold. So: no mapped blocks, no trimming, and one heap for all
  // threads, since only the first can hold blocks of more than 64 MiB.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);  // Never.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TOP_PAD, 64 << 20);  // Growing by less costs a system call each time.
}

void GiveFreedMemoryBack() {
  mallopt(M_MMAP_MAX, 1 << 16);
  mallopt(M_MMAP_THRESHOLD, 1 << 20);  // Fixed: glibc would raise it with each block that is freed.
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
  mallopt(M_TOP_PAD, 1 << 20);
}

void PrepareForMessages() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
  mallopt(M_TOP_PAD, 4 << 20);
  mallopt(M_ARENA_MAX, 4);  // Each keeps that much.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace isoscan
