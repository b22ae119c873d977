// A draft over the wire: what a site sends of its cohort, and what the server makes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/planning/planned_study.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/running_server.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using FederationStub = v1::Federation::Stub;
using OperationsStub = v1::Operations::Stub;

constexpr char kDraft[] =
    "name = \"tiny\"\nchannels = [\"T1w\"]\nlabels = [\"ball\"]\n[planning]\nmemory_gb = 0.05\n";

Fingerprint Example(std::int64_t cases) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 2);
  const std::vector<float> intensities = {-1, 2, 3};
  for (std::int64_t i = 0; i < cases; ++i) {
    EXPECT_OK(fingerprint.AddCase(
        {.spacing_mm = {2, 1, 1}, .size = {16, 24 + i, 20}, .foreground = {intensities}}));
  }
  return fingerprint;
}

void Send(const DecimalSketch& sketch, v1::Sketch* message) {
  for (const auto& [key, count] : sketch.buckets()) {
    message->add_keys(key);
    message->add_counts(count);
  }
}

v1::Fingerprint MessageOf(const Fingerprint& fingerprint) {
  v1::Fingerprint message;
  message.set_classes(fingerprint.classes);
  message.set_cases(fingerprint.cases);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    Send(fingerprint.spacing_mm[axis], message.add_spacing_mm());
    Send(fingerprint.size[axis], message.add_size());
    Send(fingerprint.extent_mm[axis], message.add_extent_mm());
  }
  Send(fingerprint.relative_size, message.mutable_relative_size());
  for (const ForegroundIntensities& channel : fingerprint.intensities) {
    v1::ForegroundIntensities& sent = *message.add_intensities();
    Send(channel.quantiles, sent.mutable_draws());
    sent.set_mean(channel.moments.mean);
    sent.set_squared_deviations(channel.moments.squared_deviations);
  }
  return message;
}

class Planning : public testing::Test {
 protected:
  void SetUp() override {
    north_ = server_.Federation(server_.Enrol("north"));
    operations_ = server_.Operations(server_.Operator());
    v1::CreateStudyRequest request;
    request.set_toml(kDraft);
    ASSERT_OK_AND_ASSIGN(const v1::CreateStudyResponse created,
                         Call(*operations_, &OperationsStub::CreateStudy, request));
    digest_ = created.digest();
  }

  absl::Status Approve(const v1::Fingerprint& fingerprint) {
    v1::ApproveStudyRequest approval;
    approval.set_study("tiny");
    approval.set_digest(digest_);
    approval.mutable_cohort()->set_training_cases(fingerprint.cases());
    approval.mutable_cohort()->set_held_out_cases(1);
    *approval.mutable_cohort()->mutable_fingerprint() = fingerprint;
    return Call(*north_, &FederationStub::ApproveStudy, approval).status();
  }
  absl::StatusOr<v1::StudyState> Plan() {
    v1::StudyRequest request;
    request.set_study("tiny");
    return Call(*operations_, &OperationsStub::PlanStudy, request);
  }

  RunningServer server_;
  std::unique_ptr<FederationStub> north_;
  std::unique_ptr<OperationsStub> operations_;
  std::string digest_;
};

TEST_F(Planning, MakesTheStudyOfTheFingerprintThatWasSent) {
  ASSERT_OK(Approve(MessageOf(Example(7))));
  ASSERT_OK_AND_ASSIGN(const v1::StudyState state, Plan());

  ASSERT_OK_AND_ASSIGN(const Study draft, ParseStudy(kDraft, "draft"));
  ASSERT_OK_AND_ASSIGN(const Study expected, PlannedStudy(draft, {{"north", Example(7)}}));
  EXPECT_EQ(state.toml(), expected.toml);
  EXPECT_EQ(state.digest(), expected.digest);
  ASSERT_EQ(state.sites_size(), 0) << "nobody has approved the plan";
}

TEST_F(Planning, RefusesWhatIsNoFingerprintByNameAndNumber) {
  const auto refuses = [this](const std::function<void(v1::Fingerprint&)>& tamper,
                              const std::string& reason) {
    v1::Fingerprint message = MessageOf(Example(7));
    tamper(message);
    EXPECT_THAT(Approve(message), StatusIs(StatusCode::kInvalidArgument,
                                           AllOf(HasSubstr("north"), HasSubstr(reason))));
  };
  refuses([](v1::Fingerprint& sent) { sent.mutable_spacing_mm()->RemoveLast(); },
          "distributions along 2 axes, expected 3");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->add_keys(1); },
          "2 buckets with 1 counts");
  refuses(
      [](v1::Fingerprint& sent) {
        v1::Sketch& sketch = *sent.mutable_size(1);
        sketch.mutable_keys()->SwapElements(0, 6);
      },
      "does not follow");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->set_keys(0, 12); },
          "12 is no bucket of 4 significant digits");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->set_keys(0, INT64_MIN); },
          "is no bucket");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->set_counts(0, -7); },
          "holds -7 values");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->set_counts(0, INT64_MAX); },
          "holds 9223372036854775807 values");
  refuses([](v1::Fingerprint& sent) { sent.mutable_size(0)->set_counts(0, 8); },
          "a distribution of 8 cases, expected 7");
  refuses([](v1::Fingerprint& sent) { sent.set_cases(-1); }, "-1");
  refuses([](v1::Fingerprint& sent) { sent.set_classes(9); }, "9 classes, expected 1 and 2");
  refuses([](v1::Fingerprint& sent) { sent.clear_intensities(); }, "of 0 channels");
  refuses(
      [](v1::Fingerprint& sent) {
        for (int i = 0; i < 100'000; ++i) sent.add_intensities();
      },
      "100001 channels");
  refuses([](v1::Fingerprint& sent) { sent.mutable_intensities(0)->set_mean(1e300); }, "1e+300");

  // What is not refused still stands for itself: the server has not been hurt.
  ASSERT_OK(Approve(MessageOf(Example(7))));
  EXPECT_OK(Plan());
}

TEST_F(Planning, TakesNoMessageOfAnySize) {
  v1::Fingerprint message = MessageOf(Example(7));
  for (std::int64_t i = 0; i < 2'000'000; ++i) message.mutable_size(0)->add_keys(i);

  EXPECT_THAT(Approve(message), StatusIs(StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace isoscan
