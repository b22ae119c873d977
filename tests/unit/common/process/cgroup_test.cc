#include "common/process/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::DoubleEq;
using testing::Eq;
using testing::Optional;

class CgroupTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  CgroupLimits Limits(std::string_view membership) {
    return ReadCgroupLimits(folder_.path(), membership);
  }

 private:
  TemporaryDirectory folder_;
};

TEST_F(CgroupTest, NoFilesMeanNoLimits) {
  const CgroupLimits limits = Limits("0::/user.slice\n4:memory:/\n");

  EXPECT_EQ(limits.cores, std::nullopt);
  EXPECT_EQ(limits.memory_bytes, std::nullopt);
}

TEST_F(CgroupTest, ReadsTheQuotaOfVersion2) {
  Write("job/cpu.max", "150000 100000\n");

  EXPECT_THAT(Limits("0::/job\n").cores, Optional(DoubleEq(1.5)));
}

TEST_F(CgroupTest, MaxIsNoLimit) {
  Write("job/cpu.max", "max 100000\n");
  Write("job/memory.max", "max\n");
  Write("job/memory.current", "1000\n");

  const CgroupLimits limits = Limits("0::/job\n");

  EXPECT_EQ(limits.cores, std::nullopt);
  EXPECT_EQ(limits.memory_bytes, std::nullopt);
}

TEST_F(CgroupTest, TheTightestGroupOnTheWayUpCounts) {
  Write("cpu.max", "800000 100000\n");
  Write("slice/cpu.max", "200000 100000\n");
  Write("slice/job/cpu.max", "400000 100000\n");
  Write("slice/memory.max", "8000\n");
  Write("slice/memory.current", "7000\n");
  Write("slice/job/memory.max", "5000\n");
  Write("slice/job/memory.current", "1000\n");

  const CgroupLimits limits = Limits("0::/slice/job\n");

  EXPECT_THAT(limits.cores, Optional(DoubleEq(2.0)));
  EXPECT_THAT(limits.memory_bytes, Optional(Eq(1000)));
}

TEST_F(CgroupTest, PageCacheCountsAsFree) {
  Write("memory.max", "10000\n");
  Write("memory.current", "9000\n");
  Write("memory.stat", "anon 4000\nactive_file 2000\ninactive_file 3000\n");

  EXPECT_THAT(Limits("0::/\n").memory_bytes, Optional(Eq(6000)));
}

TEST_F(CgroupTest, AnOverdrawnGroupLeavesNothing) {
  Write("memory.max", "10000\n");
  Write("memory.current", "12000\n");

  EXPECT_THAT(Limits("0::/\n").memory_bytes, Optional(Eq(0)));
}

TEST_F(CgroupTest, ReadsVersion1ByItsControllers) {
  Write("cpu/docker/abc/cpu.cfs_quota_us", "300000\n");
  Write("cpu/docker/abc/cpu.cfs_period_us", "100000\n");
  Write("memory/docker/abc/memory.limit_in_bytes", "5000\n");
  Write("memory/docker/abc/memory.usage_in_bytes", "4000\n");
  Write("memory/docker/abc/memory.stat", "total_active_file 100\ntotal_inactive_file 400\n");

  const CgroupLimits limits =
      Limits("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/\n");

  EXPECT_THAT(limits.cores, Optional(DoubleEq(3.0)));
  EXPECT_THAT(limits.memory_bytes, Optional(Eq(1500)));
}

TEST_F(CgroupTest, UnlimitedInVersion1IsNoLimit) {
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  Write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("memory/memory.usage_in_bytes", "4000\n");

  const CgroupLimits limits = Limits("5:cpu,cpuacct:/\n4:memory:/\n");

  EXPECT_EQ(limits.cores, std::nullopt);
  EXPECT_EQ(limits.memory_bytes, std::nullopt);
}

TEST_F(CgroupTest, AContainerThatSeesOnlyItsOwnGroupReadsItAtTheRoot) {
  Write("cpu/cpu.cfs_quota_us", "50000\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");

  EXPECT_THAT(Limits("5:cpu,cpuacct:/docker/abc\n").cores, Optional(DoubleEq(0.5)));
}

}  // namespace
}  // namespace isoscan
