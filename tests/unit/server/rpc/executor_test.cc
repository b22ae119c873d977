#include "server/rpc/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

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

TEST(Executor, ServesQuickTasksWhileEveryThreadOfTheSlowLaneWaits) {
  absl::Notification go;
  absl::Notification served;
  Executor executor(/*threads=*/1, /*waiting_limit=*/1);
  executor.Run([&] { go.WaitForNotification(); }, Executor::Lane::kSlow);
  executor.Run([] {}, Executor::Lane::kSlow);

  EXPECT_FALSE(executor.TryRun([] {}, Executor::Lane::kSlow));
  EXPECT_TRUE(executor.TryRun([&] { served.Notify(); }));
  served.WaitForNotification();
  go.Notify();
}

TEST(Executor, FinishesWhatOneLaneAddsToTheOtherWhileItStops) {
  std::atomic<int> done = 0;
  absl::Notification go;
  Executor executor(/*threads=*/1, /*waiting_limit=*/10);
  executor.Run(
      [&] {
        go.WaitForNotification();
        executor.Run([&] {
          executor.Run([&] { ++done; }, Executor::Lane::kSlow);
          ++done;
        });
        ++done;
      },
      Executor::Lane::kSlow);
  std::thread stopping([&] { executor.Stop(); });
  go.Notify();
  stopping.join();

  EXPECT_EQ(done, 3);
}

}  // namespace
}  // namespace isoscan
