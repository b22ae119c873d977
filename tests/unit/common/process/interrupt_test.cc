#include "common/process/interrupt.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include <signal.h>

namespace isoscan {
namespace {

/// In a process of its own (a death test): handlers are for life.
void AwaitStop(int first_signal) {
  const std::stop_token token = StopOnInterrupt();
  raise(first_signal);
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any stopped;
  stopped.wait(lock, token, [] { return false; });  // Returns at the stop request.
}

TEST(InterruptDeathTest, TheFirstSignalAsksToStop) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int first_signal : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          AwaitStop(first_signal);
          std::_Exit(17);
        },
        testing::ExitedWithCode(17), "");
  }
}

TEST(InterruptDeathTest, TheSecondSignalEndsTheProgramAtOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        AwaitStop(SIGINT);
        raise(SIGTERM);
        std::_Exit(17);
      },
      testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace isoscan
