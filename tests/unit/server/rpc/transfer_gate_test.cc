#include "server/rpc/transfer_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace isoscan {
namespace {

using testing::ElementsAre;

class TransferGateTest : public testing::Test {
 protected:
  TransferGate::Go Note(int number) {
    return [this, number](TransferGate::Pass pass) {
      const absl::MutexLock lock(&mutex_);
      order_.push_back(number);
      passes_[number] = std::move(pass);
    };
  }

  // Ends a transfer.
  void End(int number) {
    TransferGate::Pass pass;  // Given back without the lock.
    const absl::MutexLock lock(&mutex_);
    pass.swap(passes_[number]);
  }

  std::vector<int> WaitForSoMany(std::size_t count) {
    const auto there = [&]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return order_.size() >= count; };
    const absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&there));
    return order_;
  }

  absl::Mutex mutex_;
  std::vector<int> order_ ABSL_GUARDED_BY(mutex_);
  std::map<int, TransferGate::Pass> passes_ ABSL_GUARDED_BY(mutex_);
  Executor executor_{/*threads=*/1, /*waiting_limit=*/10};
};

TEST_F(TransferGateTest, LetsSoManyInAndTheNextOneWhenOneIsDone) {
  TransferGate gate(executor_, /*at_once=*/2, std::chrono::hours(1));
  for (int number = 0; number < 5; ++number) gate.Enter(Note(number));

  EXPECT_THAT(WaitForSoMany(2), ElementsAre(0, 1));
  End(1);
  EXPECT_THAT(WaitForSoMany(3), ElementsAre(0, 1, 2));
  End(0);
  End(2);
  EXPECT_THAT(WaitForSoMany(5), ElementsAre(0, 1, 2, 3, 4));
  End(3);
  End(4);
  gate.Enter(Note(5));
  EXPECT_THAT(WaitForSoMany(6), ElementsAre(0, 1, 2, 3, 4, 5));
  End(5);
}

TEST_F(TransferGateTest, LetsInWhatHasWaitedLongEnough) {
  TransferGate gate(executor_, /*at_once=*/1, std::chrono::milliseconds(1));
  for (int number = 0; number < 3; ++number) gate.Enter(Note(number));

  EXPECT_EQ(WaitForSoMany(3).size(), 3U);
  // As many as are under way have to end before another is let in at once.
  End(0);
  End(1);
  gate.Enter(Note(3));
  End(2);
  EXPECT_THAT(WaitForSoMany(4).back(), 3);
  End(3);
}

}  // namespace
}  // namespace isoscan
