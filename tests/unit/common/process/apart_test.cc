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
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

namespace isoscan {
namespace {

using std::chrono::seconds;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

using Work = std::function<bool(std::span<std::byte>)>;

TEST(RunApart, TakesOverWhatWasWrittenAndNothingElse) {
  std::array<std::byte, 5000> result{};
  int changed = 0;

  EXPECT_OK(RunApart(result, seconds(60), 1 << 30, [&](std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{7});
    changed = 1;
    return true;
  }));

  EXPECT_THAT(result, Each(std::byte{7}));
  EXPECT_EQ(changed, 0);
}

struct Ending {
  std::string name;
  absl::StatusCode code;
  Work work;
};
void PrintTo(const Ending& ending, std::ostream* out) { *out << ending.name; }

class BadEnding : public testing::TestWithParam<Ending> {};

TEST_P(BadEnding, IsNamedAndSilent) {
  std::array<std::byte, 16> result{};
  const seconds limit(GetParam().code == absl::StatusCode::kDeadlineExceeded ? 1 : 60);
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();

  const absl::Status status = RunApart(result, limit, 64 << 20, GetParam().work);

  EXPECT_THAT(testing::internal::GetCapturedStdout(), IsEmpty());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
  EXPECT_EQ(status.code(), GetParam().code) << status;
}

INSTANTIATE_TEST_SUITE_P(Ways, BadEnding,
                         testing::Values(Ending{"Fails", absl::StatusCode::kAborted,
                                                [](std::span<std::byte>) { return false; }},
                                         Ending{"Throws", absl::StatusCode::kAborted,
                                                [](std::span<std::byte>) -> bool { throw 7; }},
                                         Ending{"Aborts", absl::StatusCode::kAborted,
                                                [](std::span<std::byte>) -> bool {
                                                  std::fputs("assertion failed\n", stderr);
                                                  std::abort();
                                                }},
                                         Ending{"Crashes", absl::StatusCode::kAborted,
                                                [](std::span<std::byte>) {
                                                  std::raise(SIGSEGV);
                                                  return true;
                                                }},
                                         Ending{"HangsForEver", absl::StatusCode::kDeadlineExceeded,
                                                [](std::span<std::byte> bytes) {
                                                  for (volatile bool goes_on = true; goes_on;)
                                                    bytes[0] = std::byte{1};
                                                  return true;
                                                }},
                                         Ending{"IsKilled", absl::StatusCode::kResourceExhausted,
                                                [](std::span<std::byte>) {
                                                  std::raise(SIGKILL);
                                                  return true;
                                                }},
                                         Ending{"Prints", absl::StatusCode::kAborted,
                                                [](std::span<std::byte>) {
                                                  std::fputs("to stderr", stderr);
                                                  std::fputs("to stdout", stdout);
                                                  std::fflush(nullptr);
                                                  return false;
                                                }}),
                         [](const testing::TestParamInfo<Ending>& way) { return way.param.name; });

// With a handler and a mask as a program has them whose threads stop at Ctrl-C: the copy has none
// that could.
TEST(RunApart, EndsAtAnInterruptThatTheParentHandles) {
  std::array<std::byte, 16> result{};
  const auto before = std::signal(SIGINT, [](int) {});
  sigset_t interrupt;
  sigset_t mask;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, &mask);

  const absl::Status status = RunApart(result, seconds(60), 64 << 20, [](std::span<std::byte>) {
    std::raise(SIGINT);
    return true;
  });

  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  std::signal(SIGINT, before);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

#ifndef __SANITIZE_ADDRESS__
Work Take(std::size_t bytes) {
  return [bytes](std::span<std::byte> first) {
    const std::vector<std::byte> taken(bytes);
    first[0] = taken[bytes / 2];
    return true;
  };
}

TEST(RunApart, GivesNoMoreMemoryThanItWasTold) {
  std::array<std::byte, 16> result{};

  EXPECT_OK(RunApart(result, seconds(60), 512 << 20, Take(64 << 20)));
  EXPECT_THAT(RunApart(result, seconds(60), 64 << 20, Take(512 << 20)),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("64 MiB")));
}

// As another thread's volume would that is mapped at the worst moment.
std::size_t mapped_before_fork = 0;
void MapBeforeFork() {
  if (mapped_before_fork == 0) return;
  void* const more = mmap(nullptr, std::exchange(mapped_before_fork, 0), PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  EXPECT_NE(more, MAP_FAILED);
}

TEST(RunApart, GivesTheSameMemoryWhateverTheParentMapsMeanwhile) {
  std::array<std::byte, 16> result{};
  ASSERT_EQ(pthread_atfork(MapBeforeFork, nullptr, nullptr), 0);
  mapped_before_fork = std::size_t{1} << 30;

  EXPECT_OK(RunApart(result, seconds(60), 512 << 20, Take(64 << 20)));
}

TEST(RunApart, TellsThatNoProcessCouldBeMade) {
  std::vector<std::byte> result(64 << 20);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit none{1 << 20, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &none), 0);

  const absl::Status status =
      RunApart(result, seconds(60), 64 << 20, [](std::span<std::byte>) { return true; });

  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("no process")));
}
#endif

}  // namespace
}  // namespace isoscan
