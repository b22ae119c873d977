#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// Cores that this process may use: the smaller of its CPU affinity and its cgroup's quota.
int AvailableCores();

/// Bytes that this process may still take: the smallest of the machine's available memory, what its
/// cgroup leaves, and what its limit of address space (`ulimit -v`) leaves.
std::int64_t AvailableMemoryBytes();

/// Greatest resident memory of this process so far (VmHWM), in bytes.
std::int64_t PeakMemoryBytes();

/// Free bytes for this user on the file system that holds `path` (or its nearest existing parent).
absl::StatusOr<std::int64_t> FreeDiskBytes(const std::filesystem::path& path);

/// OK when `needed_bytes` of memory can be had.
/// Errors: RESOURCE_EXHAUSTED naming `purpose`, what it needs and what there is, in GiB.
absl::Status CheckMemory(const std::string& purpose, std::int64_t needed_bytes);

/// Tells glibc to keep freed memory instead of giving it back after each training step: page faults
/// otherwise double the time of a step (docs/performance.md). All threads then share one heap,
/// which stays as large as it once was. Call first thing in main() of programs that train.
void KeepFreedMemory();

/// The opposite, for work that takes and frees one large volume after the other: one heap that
/// keeps its memory also keeps the holes that volumes leave, in which a few small blocks soon lie,
/// so that the next volume takes more. Blocks of 1 MiB and more go back to the system when they are
/// freed; the process never holds more than it uses. May be called after KeepFreedMemory().
void GiveFreedMemoryBack();

/// For programs that pass large messages on: their memory stays in the process (a few tens of MiB)
/// instead of being mapped, filled with zeros and unmapped for each of them; and abseil's mutexes,
/// which gRPC's are too, stop looking for deadlocks, as they do in Debian's build (a tenth of a
/// transfer's processor time, together: docs/performance.md). Call first thing in main().
void PrepareForMessages();

}  // namespace isoscan
