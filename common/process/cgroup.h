#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

namespace isoscan {

/// What the control groups of a process leave it; nothing where they set no limit.
struct CgroupLimits {
  std::optional<double> cores;
  /// The limit less what is in use; page cache counts as free, since the kernel gives it up.
  std::optional<std::int64_t> memory_bytes;
};

/// Reads the limits of versions 1 and 2, of the group itself and of all groups above it.
///
/// `mount` is where the hierarchies are mounted (/sys/fs/cgroup), `membership` the text of
/// /proc/self/cgroup. A path that is not there, as in a container that sees only its own part of
/// the tree, counts as the mounted root. Source: docs/references.md#cgroup-v2, #cgroup-v1.
CgroupLimits ReadCgroupLimits(const std::filesystem::path& mount, std::string_view membership);

}  // namespace isoscan
