#include "server/rpc/executor.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"

namespace isoscan {
namespace {

TEST(Executor, RefusesNewCallsWhenTooManyWaitAndTakesLaterSteps) {
  absl::Notification go;
  absl::Notification busy;
  std::atomic<int> done = 0;
  Executor executor(/*threads=*/1, /*waiting_limit=*/2);
  ASSERT_TRUE(executor.TryRun([&] {
    busy.Notify();
    go.WaitForNotification();
  }));
  busy.WaitForNotification();

  EXPECT_TRUE(executor.TryRun([&] { ++done; }));
  EXPECT_TRUE(executor.TryRun([&] { ++done; }));
  EXPECT_FALSE(executor.TryRun([&] { ++done; }));
  executor.Run([&] { ++done; });
  go.Notify();
  executor.Stop();

  EXPECT_EQ(done, 3);
}

TEST(Executor, FinishesWhatTasksAddWhileItStops) {
  std::atomic<int> done = 0;
  Executor executor(/*threads=*/2, /*waiting_limit=*/10);
  executor.Run([&] {
    executor.Run([&] { ++done; });
    ++done;
  });

  executor.Stop();

  EXPECT_EQ(done, 2);
}

}  // namespace
}  // namespace isoscan
