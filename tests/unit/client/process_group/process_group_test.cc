#include "client/process_group/process_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/random/philox.h"
#include "tests/support/free_port.h"
#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

const ProcessGroup::Limits kLimits{.join = std::chrono::seconds(60),
                                   .collective = std::chrono::seconds(60)};

Launch RankOf(int rank, int size, std::uint16_t port) {
  return {.rank = rank, .world_size = size, .master_address = "127.0.0.1", .master_port = port};
}

/// Every rank in a thread of its own; processes are what client/training's tests have.
void WithRanks(int size, const std::function<void(ProcessGroup&)>& work) {
  const std::uint16_t port = FreePort();
  std::vector<std::jthread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([=, &work] {
      const auto group = ProcessGroup::Join(RankOf(rank, size, port), "same", kLimits, {});
      ASSERT_OK(group);
      work(**group);
    });
  }
}

class ProcessGroups : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ProcessGroups, testing::Values(2, 3, 5));

TEST_P(ProcessGroups, AddUpInTheOrderOfTheRanksToTheSameBits) {
  const int size = GetParam();
  constexpr std::int64_t kLength = 1001;  // Not a multiple of any number of ranks.
  // Of many magnitudes, so that another order gives other bits.
  std::vector<torch::Tensor> given;
  for (int rank = 0; rank < size; ++rank) {
    RandomStream random(7, "gradient", static_cast<std::uint64_t>(rank));
    torch::Tensor values = torch::empty({kLength});
    for (std::int64_t i = 0; i < kLength; ++i) {
      values.data_ptr<float>()[i] = static_cast<float>(std::exp(4 * random.Normal()));
    }
    given.push_back(values);
  }
  torch::Tensor expected = given[0].clone();
  for (int rank = 1; rank < size; ++rank) expected += given[static_cast<std::size_t>(rank)];
  if (size > 2) {
    torch::Tensor other = given.back().clone();
    for (int rank = size - 2; rank >= 0; --rank) other += given[static_cast<std::size_t>(rank)];
    ASSERT_FALSE(torch::equal(other, expected)) << "any order would pass";
  }

  WithRanks(size, [&](ProcessGroup& group) {
    torch::Tensor values = given[static_cast<std::size_t>(group.rank())].clone();
    ASSERT_OK(group.Sum(values));
    EXPECT_TRUE(torch::equal(values, expected)) << group.rank();
  });
}

TEST_P(ProcessGroups, GatherAndBroadcast) {
  const int size = GetParam();
  WithRanks(size, [&](ProcessGroup& group) {
    const std::vector<double> own = {group.rank() + 0.5, -1.0 * group.rank()};
    ASSERT_OK_AND_ASSIGN(const std::vector<double> all, group.Gather(own));
    ASSERT_EQ(all.size(), static_cast<std::size_t>(2 * size));
    for (int rank = 0; rank < size; ++rank) {
      EXPECT_EQ(all[static_cast<std::size_t>(2 * rank)], rank + 0.5);
      EXPECT_EQ(all[static_cast<std::size_t>(2 * rank + 1)], -1.0 * rank);
    }
    for (const std::string& text :
         {std::string("a study"), std::string(), std::string(9999, 'x')}) {
      std::string received = group.rank() == 0 ? text : "what was there";
      ASSERT_OK(group.Broadcast(received));
      EXPECT_EQ(received, text);
    }
  });
}

TEST(ProcessGroup, OthersWaitForWhatRankZeroAnnouncesAndForItsEnd) {
  WithRanks(2, [](ProcessGroup& group) {
    if (group.rank() == 0) {
      ASSERT_OK(group.Announce());
      ASSERT_OK(group.Announce());
      return;
    }
    EXPECT_THAT(group.Await({}), IsOkAndHolds(true));
    EXPECT_THAT(group.Await({}), IsOkAndHolds(true));
    EXPECT_THAT(group.Await({}), IsOkAndHolds(false));
  });
}

TEST(ProcessGroup, NamesTheRanksThatDoNotCome) {
  const auto group =
      ProcessGroup::Join(RankOf(0, 3, FreePort()), "same",
                         {.join = milliseconds(300), .collective = kLimits.collective}, {});

  EXPECT_THAT(group, StatusIs(absl::StatusCode::kAborted,
                              AllOf(HasSubstr("of 3 ranks"), HasSubstr("1, 2"))));
}

TEST(ProcessGroup, SaysThatRankZeroIsNotThere) {
  const auto group =
      ProcessGroup::Join(RankOf(1, 2, FreePort()), "same",
                         {.join = milliseconds(300), .collective = kLimits.collective}, {});

  EXPECT_THAT(group, StatusIs(absl::StatusCode::kAborted,
                              AllOf(HasSubstr("rank 1"), HasSubstr("127.0.0.1"))));
}

TEST(ProcessGroup, RefusesARankThatRunsAnotherProgram) {
  const std::uint16_t port = FreePort();
  const auto refused = StatusIs(absl::StatusCode::kFailedPrecondition,
                                AllOf(HasSubstr("program one"), HasSubstr("program two")));
  std::jthread other([&] {
    EXPECT_THAT(ProcessGroup::Join(RankOf(1, 2, port), "program two", kLimits, {}), refused);
  });

  EXPECT_THAT(ProcessGroup::Join(RankOf(0, 2, port), "program one", kLimits, {}), refused);
}

TEST(ProcessGroup, StopsWaitingForOthersWhenAsked) {
  std::stop_source stop;
  stop.request_stop();

  EXPECT_THAT(ProcessGroup::Join(RankOf(0, 2, FreePort()), "same", kLimits, stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
}

}  // namespace
}  // namespace isoscan
