#include "common/process/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

// Version 1 says "no limit" with the greatest multiple of the page size.
constexpr std::int64_t kNoLimit = std::int64_t{1} << 60;

std::optional<std::int64_t> ReadNumber(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  if (!(file >> number)) return std::nullopt;  // No such file, or "max".
  return number;
}

std::int64_t ReadStatistic(const fs::path& path, std::string_view wanted) {
  std::ifstream file(path);
  std::string name;
  std::int64_t value = 0;
  while (file >> name >> value) {
    if (name == wanted) return value;
  }
  return 0;
}

template <typename T>
void Tighten(std::optional<T>& limit, std::optional<T> other) {
  if (other) limit = limit ? std::min(*limit, *other) : *other;
}

std::optional<double> Cores(std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<std::int64_t> MemoryLeft(std::optional<std::int64_t> limit,
                                       std::optional<std::int64_t> used, std::int64_t page_cache) {
  if (!limit || !used || *limit >= kNoLimit) return std::nullopt;
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *used - page_cache));
}

std::optional<double> CoresOfVersion2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (!(file >> quota >> period)) return std::nullopt;  // "max 100000" is no limit.
  return Cores(quota, period);
}

std::optional<std::int64_t> MemoryOfVersion2(const fs::path& group) {
  const fs::path statistics = group / "memory.stat";
  return MemoryLeft(
      ReadNumber(group / "memory.max"), ReadNumber(group / "memory.current"),
      ReadStatistic(statistics, "inactive_file") + ReadStatistic(statistics, "active_file"));
}

std::optional<double> CoresOfVersion1(const fs::path& group) {
  return Cores(ReadNumber(group / "cpu.cfs_quota_us"), ReadNumber(group / "cpu.cfs_period_us"));
}

std::optional<std::int64_t> MemoryOfVersion1(const fs::path& group) {
  const fs::path statistics = group / "memory.stat";
  return MemoryLeft(ReadNumber(group / "memory.limit_in_bytes"),
                    ReadNumber(group / "memory.usage_in_bytes"),
                    ReadStatistic(statistics, "total_inactive_file") +
                        ReadStatistic(statistics, "total_active_file"));
}

/// Calls `visit` with the folder of the group `path` and of every group above it.
template <typename Visit>
void VisitGroups(const fs::path& root, const fs::path& path, const Visit& visit) {
  fs::path group = path.relative_path();
  while (!group.empty()) {
    visit(root / group);
    group = group.parent_path();
  }
  visit(root);
}

}  // namespace

CgroupLimits ReadCgroupLimits(const fs::path& mount, std::string_view membership) {
  CgroupLimits limits;
  std::istringstream lines{std::string(membership)};
  // Each line is "NUMBER:CONTROLLERS:PATH"; version 2 has no controllers.
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path path = line.substr(second + 1);

    if (controllers.empty()) {
      VisitGroups(mount, path, [&limits](const fs::path& group) {
        Tighten(limits.cores, CoresOfVersion2(group));
        Tighten(limits.memory_bytes, MemoryOfVersion2(group));
      });
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name == "cpu") {
        VisitGroups(mount / "cpu", path, [&limits](const fs::path& group) {
          Tighten(limits.cores, CoresOfVersion1(group));
        });
      } else if (name == "memory") {
        VisitGroups(mount / "memory", path, [&limits](const fs::path& group) {
          Tighten(limits.memory_bytes, MemoryOfVersion1(group));
        });
      }
    }
  }
  return limits;
}

}  // namespace isoscan
