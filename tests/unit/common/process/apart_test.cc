#include "common/process/apart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace isoscan {
namespace {

using std::chrono::seconds;
using testing::Each;
using testing::IsEmpty;

using Work = std::function<bool(std::span<std::byte>)>;

TEST(RunApart, TakesOverWhatWasWrittenAndNothingElse) {
  std::array<std::byte, 5000> result{};
  int changed = 0;

  EXPECT_TRUE(RunApart(result, seconds(60), 1 << 30, [&](std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{7});
    changed = 1;
    return true;
  }));

  EXPECT_THAT(result, Each(std::byte{7}));
  EXPECT_EQ(changed, 0);
}

struct Ending {
  std::string name;
  Work work;
};
void PrintTo(const Ending& ending, std::ostream* out) { *out << ending.name; }

class BadEnding : public testing::TestWithParam<Ending> {};

TEST_P(BadEnding, IsFalseAndSilent) {
  std::array<std::byte, 16> result{};
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();

  const bool is_done = RunApart(result, seconds(2), 64 << 20, GetParam().work);

  EXPECT_THAT(testing::internal::GetCapturedStdout(), IsEmpty());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
  EXPECT_FALSE(is_done);
}

INSTANTIATE_TEST_SUITE_P(
    Ways, BadEnding,
    testing::Values(Ending{"Fails", [](std::span<std::byte>) { return false; }},
                    Ending{"Throws", [](std::span<std::byte>) -> bool { throw 7; }},
                    Ending{"Aborts",
                           [](std::span<std::byte>) -> bool {
                             std::fputs("assertion failed\n", stderr);
                             std::abort();
                           }},
                    Ending{"Crashes",
                           [](std::span<std::byte>) {
                             std::raise(SIGSEGV);
                             return true;
                           }},
                    Ending{"HangsForEver",
                           [](std::span<std::byte> bytes) {
                             for (volatile bool goes_on = true; goes_on;) bytes[0] = std::byte{1};
                             return true;
                           }},
                    Ending{"Prints",
                           [](std::span<std::byte>) {
                             std::fputs("to stderr", stderr);
                             std::fputs("to stdout", stdout);
                             std::fflush(nullptr);
                             return false;
                           }}),
    [](const testing::TestParamInfo<Ending>& way) { return way.param.name; });

#ifndef __SANITIZE_ADDRESS__
TEST(RunApart, GivesNoMoreMemoryThanItWasTold) {
  std::array<std::byte, 16> result{};
  const auto take = [](std::size_t bytes) {
    return [bytes](std::span<std::byte> first) {
      const std::vector<std::byte> taken(bytes);
      first[0] = taken[bytes / 2];
      return true;
    };
  };

  EXPECT_TRUE(RunApart(result, seconds(60), 512 << 20, take(64 << 20)));
  EXPECT_FALSE(RunApart(result, seconds(60), 64 << 20, take(512 << 20)));
}
#endif

}  // namespace
}  // namespace isoscan
