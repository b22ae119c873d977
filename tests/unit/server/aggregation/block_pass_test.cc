#include "server/aggregation/block_pass.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

TEST(ForEachBlock, GivesEachBlockToOneThread) {
  const TensorShapes shapes = {{"a", {}}, {"b", {10, 100}}, {"c", {0}}, {"d", {7}}};
  const std::vector<TensorBlock> blocks = CutIntoBlocks(shapes, 3);
  for (int threads = 1; threads <= 8; ++threads) {
    std::atomic<std::int64_t> values = 0;
    std::atomic<int> workers = 0;
    std::vector<std::atomic<int>> times(1000);
    ASSERT_OK(ForEachBlock(blocks, threads, [&]() -> BlockWork {
      ++workers;
      return [&](const TensorBlock& block) {
        values += block.count;
        if (block.tensor == "b") ++times[static_cast<std::size_t>(block.first)];
        return absl::OkStatus();
      };
    }));
    EXPECT_EQ(values, 1 + 1000 + 7);
    EXPECT_EQ(workers, threads);
    for (std::size_t i = 0; i < times.size(); ++i) ASSERT_EQ(times[i], i % 3 == 0 ? 1 : 0) << i;
  }
}

TEST(ForEachBlock, TellsTheFailureOfTheFirstBlockAlsoWhereALaterOneFailsSooner) {
  const TensorShapes shapes = {{"w", {10}}};
  std::atomic<bool> later_failed = false;
  const absl::Status status = ForEachBlock(CutIntoBlocks(shapes, 1), 2, [&]() -> BlockWork {
    return [&](const TensorBlock& block) -> absl::Status {
      if (block.first == 0) {
        while (!later_failed) std::this_thread::yield();
        return absl::DataLossError("the first");
      }
      later_failed = true;
      return absl::DataLossError("a later one");
    };
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, "the first"));
}

TEST(ForEachBlock, StartsNoMoreThreadsThanThereAreBlocks) {
  const TensorShapes shapes = {{"w", {2}}};
  std::atomic<int> workers = 0;
  ASSERT_OK(ForEachBlock(CutIntoBlocks(shapes, 1), 8, [&]() -> BlockWork {
    ++workers;
    return [](const TensorBlock&) { return absl::OkStatus(); };
  }));
  EXPECT_EQ(workers, 2);
}

}  // namespace
}  // namespace isoscan
