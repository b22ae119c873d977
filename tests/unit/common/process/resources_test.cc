#include "common/process/resources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <sched.h>
#include <sys/resource.h>

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Ge;
using testing::Gt;
using testing::HasSubstr;
using testing::Le;

constexpr std::int64_t kMib = 1 << 20;
constexpr std::size_t kPageBytes = 4096;

long PageFaults() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

/// Takes a block and writes to each of its pages, which a compiler may not leave out.
class TouchedBlock {
 public:
  explicit TouchedBlock(std::size_t bytes) : block_(static_cast<char*>(std::malloc(bytes))) {
    volatile char* const pages = block_.get();
    for (std::size_t i = 0; i < bytes; i += kPageBytes) pages[i] = 1;
  }

 private:
  struct Free {
    void operator()(char* block) const { std::free(block); }
  };
  std::unique_ptr<char, Free> block_;
};

/// Page faults of taking, touching and freeing `bytes` ten times, after it was done once.
long PageFaultsOfReuse(std::size_t bytes) {
  { const TouchedBlock first(bytes); }
  const long before = PageFaults();
  for (int i = 0; i < 10; ++i) const TouchedBlock again(bytes);
  return PageFaults() - before;
}

TEST(AvailableCores, IsAtMostTheAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  EXPECT_THAT(AvailableCores(), AllOf(Ge(1), Le(CPU_COUNT(&before))));

  int first = 0;
  while (CPU_ISSET(first, &before) == 0) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(AvailableCores(), 1);
  sched_setaffinity(0, sizeof(before), &before);
}

TEST(AvailableMemory, IsBetweenNothingAndTheMachines) {
  EXPECT_THAT(AvailableMemoryBytes(), AllOf(Gt(kMib), Le(std::int64_t{1} << 50)));
}

TEST(PeakMemory, GrowsWithABlockThatIsFilledAndStaysAfterIt) {
  const std::int64_t before = PeakMemoryBytes();
  { const TouchedBlock block(static_cast<std::size_t>(before + 64 * kMib)); }
  EXPECT_THAT(PeakMemoryBytes(), Ge(before + 64 * kMib));
}

TEST(FreeDisk, IsThatOfTheNearestExistingParent) {
  const TemporaryDirectory folder;

  EXPECT_THAT(FreeDiskBytes(folder.path()), IsOkAndHolds(Gt(0)));
  EXPECT_THAT(FreeDiskBytes(folder.path() / "not" / "yet"), IsOkAndHolds(Gt(0)));
  EXPECT_THAT(FreeDiskBytes("not/yet"), IsOkAndHolds(Gt(0)));
}

TEST(CheckMemory, NamesThePurposeAndBothAmounts) {
  EXPECT_OK(CheckMemory("training", 1));
  EXPECT_THAT(CheckMemory("training with patches of 96x96x96", std::int64_t{1} << 60),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("training with patches of 96x96x96 needs 1073741824.0 GiB "
                                       "of memory and "),
                             HasSubstr(" GiB can be had"))));
}

// Exactly what a training step does: the same large blocks, over and over, in whichever thread.
TEST(KeepFreedMemoryDeathTest, LargeBlocksAreUsedAgainWithoutPageFaults) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers bring an allocator of their own";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        KeepFreedMemory();
        const std::size_t bytes = 100 * kMib;
        const long in_main_thread = PageFaultsOfReuse(bytes);
        long in_other_thread = 0;
        std::thread([&] { in_other_thread = PageFaultsOfReuse(bytes); }).join();
        std::fprintf(stderr, "page faults: %ld, %ld\n", in_main_thread, in_other_thread);
        std::_Exit(in_main_thread < 20 && in_other_thread < 20 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "page faults");
}

TEST(KeepFreedMemoryDeathTest, WithoutItEveryUseFaultsAgain) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers bring an allocator of their own";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        // Huge pages, where the kernel gives them, are 2 MiB each.
        std::_Exit(PageFaultsOfReuse(100 * kMib) > 10 * 100 / 2 / 2 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(GiveFreedMemoryBackDeathTest, UndoesThatFreedMemoryIsKept) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers bring an allocator of their own";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        KeepFreedMemory();
        const long kept = PageFaultsOfReuse(100 * kMib);
        GiveFreedMemoryBack();
        const long given_back = PageFaultsOfReuse(200 * kMib);
        std::fprintf(stderr, "page faults: %ld, %ld\n", kept, given_back);
        // Huge pages, where the kernel gives them, are 2 MiB each.
        std::_Exit(kept < 20 && given_back > 10 * 200 / 2 / 2 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "page faults");
}

}  // namespace
}  // namespace isoscan
