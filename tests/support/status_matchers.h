/// GoogleTest matchers for absl::Status and absl::StatusOr.
///
/// There is no EXPECT_NOT_OK on purpose: a test says which error it expects, by code and words.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status/status_macros.h"

namespace isoscan {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

namespace status_matchers_internal {

class StatusIsMatcher {
 public:
  using is_gtest_matcher = void;

  StatusIsMatcher(absl::StatusCode code, testing::Matcher<std::string> message)
      : code_(code), message_(std::move(message)) {}

  template <typename StatusOrResult>
  bool MatchAndExplain(const StatusOrResult& actual, testing::MatchResultListener* listener) const {
    const absl::Status& status = StatusOf(actual);
    *listener << "whose status is " << status.ToString();
    return status.code() == code_ && message_.Matches(std::string(status.message()));
  }
  void DescribeTo(std::ostream* out) const {
    *out << "has the status " << absl::StatusCodeToString(code_) << " and a message that ";
    message_.DescribeTo(out);
  }
  void DescribeNegationTo(std::ostream* out) const {
    *out << "has not the status " << absl::StatusCodeToString(code_) << " or has a message that ";
    message_.DescribeNegationTo(out);
  }

 private:
  absl::StatusCode code_;
  testing::Matcher<std::string> message_;
};

class IsOkMatcher {
 public:
  using is_gtest_matcher = void;

  template <typename StatusOrResult>
  bool MatchAndExplain(const StatusOrResult& actual, testing::MatchResultListener* listener) const {
    const absl::Status& status = StatusOf(actual);
    if (!status.ok()) *listener << "whose status is " << status.ToString();
    return status.ok();
  }
  void DescribeTo(std::ostream* out) const { *out << "is OK"; }
  void DescribeNegationTo(std::ostream* out) const { *out << "is not OK"; }
};

template <typename InnerMatcher>
class IsOkAndHoldsMatcher {
 public:
  using is_gtest_matcher = void;

  explicit IsOkAndHoldsMatcher(InnerMatcher inner) : inner_(std::move(inner)) {}

  template <typename T>
  bool MatchAndExplain(const absl::StatusOr<T>& actual,
                       testing::MatchResultListener* listener) const {
    if (!actual.ok()) {
      *listener << "whose status is " << actual.status().ToString();
      return false;
    }
    *listener << "which holds the value " << testing::PrintToString(*actual) << " ";
    return testing::SafeMatcherCast<const T&>(inner_).MatchAndExplain(*actual, listener);
  }
  void DescribeTo(std::ostream* out) const { *out << "is OK and holds the expected value"; }
  void DescribeNegationTo(std::ostream* out) const {
    *out << "is not OK or does not hold the expected value";
  }

 private:
  InnerMatcher inner_;
};

}  // namespace status_matchers_internal

/// Matches a Status or StatusOr of `code` whose message satisfies `message` (a matcher or text):
///   EXPECT_THAT(Load("x"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("x")));
inline auto StatusIs(absl::StatusCode code, testing::Matcher<std::string> message = testing::_) {
  return status_matchers_internal::StatusIsMatcher(code, std::move(message));
}

/// Matches a Status or StatusOr that is OK.
inline auto IsOk() { return status_matchers_internal::IsOkMatcher(); }

/// Matches a StatusOr that is OK and whose value satisfies `inner` (a matcher or a value).
template <typename InnerMatcher>
auto IsOkAndHolds(InnerMatcher&& inner) {
  return status_matchers_internal::IsOkAndHoldsMatcher<std::decay_t<InnerMatcher>>(
      std::forward<InnerMatcher>(inner));
}

}  // namespace isoscan

#define EXPECT_OK(expression) EXPECT_THAT((expression), ::isoscan::IsOk())
#define ASSERT_OK(expression) ASSERT_THAT((expression), ::isoscan::IsOk())

/// Declares or assigns `target` from a StatusOr, or fails the test with its error.
#define ASSERT_OK_AND_ASSIGN(target, expression) \
  ISOSCAN_ASSERT_OK_AND_ASSIGN(ISOSCAN_JOIN(isoscan_result_, __LINE__), target, expression)

#define ISOSCAN_ASSERT_OK_AND_ASSIGN(result, target, expression) \
  auto result = (expression);                                    \
  ASSERT_TRUE(result.ok()) << result.status();                   \
  target = *std::move(result)
