#include "client/federation/retry_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <vector>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

RetryPolicy Quick() { return {.first_delay = milliseconds(1), .longest_delay = milliseconds(2)}; }

TEST(RetryPolicy, GrowsTheDelayUpToItsLimitAndKeepsHalfOfItAtLeast) {
  const RetryPolicy policy{.first_delay = milliseconds(100), .longest_delay = milliseconds(1000)};
  RandomStream random(1, "retry");

  for (const auto& [failures, expected] :
       std::vector<std::pair<int, int>>{{1, 100}, {2, 200}, {3, 400}, {5, 1000}, {5000, 1000}}) {
    for (int draw = 0; draw < 100; ++draw) {
      const milliseconds delay = DelayAfter(policy, failures, random);
      EXPECT_GE(delay.count(), expected / 2);
      EXPECT_LE(delay.count(), expected);
    }
  }
}

TEST(RetryPolicy, DrawsOtherDelaysForOtherSites) {
  const RetryPolicy policy{.first_delay = milliseconds(100'000)};
  RandomStream north(1, "retry");
  RandomStream south(2, "retry");

  EXPECT_NE(DelayAfter(policy, 1, north), DelayAfter(policy, 1, south));
}

TEST(RetryPolicy, TriesAgainUntilItSucceedsAndTellsEachOutcome) {
  int tries = 0;
  std::vector<absl::StatusCode> outcomes;

  EXPECT_OK(Retry(
      Quick(), std::stop_token(),
      [&] { return ++tries < 4 ? absl::UnavailableError("away") : absl::OkStatus(); },
      [&](const absl::Status& outcome) { outcomes.push_back(outcome.code()); }));

  EXPECT_THAT(outcomes, ElementsAre(absl::StatusCode::kUnavailable, absl::StatusCode::kUnavailable,
                                    absl::StatusCode::kUnavailable, absl::StatusCode::kOk));
}

TEST(RetryPolicy, GivesUpAtOnceOnWhatTimeDoesNotMend) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kPermissionDenied, absl::StatusCode::kInvalidArgument,
        absl::StatusCode::kFailedPrecondition, absl::StatusCode::kUnimplemented,
        absl::StatusCode::kNotFound, absl::StatusCode::kDataLoss, absl::StatusCode::kInternal}) {
    int tries = 0;
    EXPECT_THAT(Retry(
                    Quick(), std::stop_token(),
                    [&] {
                      ++tries;
                      return absl::Status(code, "the answer");
                    },
                    [](const absl::Status&) {}),
                StatusIs(code, HasSubstr("the answer")));
    EXPECT_EQ(tries, 1);
  }
}

TEST(RetryPolicy, AnswersWithTheLastErrorWhenItsTriesAreUsedUp) {
  RetryPolicy policy = Quick();
  policy.tries = 3;
  int tries = 0;

  EXPECT_THAT(Retry(
                  policy, std::stop_token(),
                  [&] { return absl::DeadlineExceededError(std::to_string(++tries)); },
                  [](const absl::Status&) {}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "3"));
}

TEST(RetryPolicy, StopsWaitingWhenItIsStopped) {
  std::stop_source stop;
  const RetryPolicy an_hour{.first_delay = std::chrono::hours(1),
                            .longest_delay = std::chrono::hours(1)};

  EXPECT_THAT(Retry(
                  an_hour, stop.get_token(), [] { return absl::UnavailableError("away"); },
                  [&](const absl::Status&) { stop.request_stop(); }),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace isoscan
