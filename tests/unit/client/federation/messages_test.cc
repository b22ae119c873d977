#include "client/federation/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/study/study.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::ElementsAre;

TEST(CohortSummary, CarriesTheFingerprintOfADraftWhole) {
  CohortDeclaration declaration;
  declaration.fingerprint = Fingerprint::Empty(2, 3);
  const std::vector<float> first = {-1, 2};
  const std::vector<float> second = {5};
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(declaration.fingerprint->AddCase({.spacing_mm = {3.6, 0.625, 0.5},
                                                .size = {20, 300, 310},
                                                .relative_size = 0.75,
                                                .foreground = {first, second}}));
  }

  const v1::Fingerprint message = ToMessage(declaration).fingerprint();

  EXPECT_EQ(message.classes(), 3);
  EXPECT_EQ(message.cases(), 5);
  const auto holds = [](const v1::Sketch& sent, const DecimalSketch& sketch) {
    std::map<std::int64_t, std::int64_t> buckets;
    for (int i = 0; i < sent.keys_size(); ++i) buckets[sent.keys(i)] = sent.counts(i);
    EXPECT_EQ(buckets, sketch.buckets());
    EXPECT_TRUE(std::is_sorted(sent.keys().begin(), sent.keys().end()));
  };
  const Fingerprint& fingerprint = *declaration.fingerprint;
  for (int axis = 0; axis < 3; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    holds(message.spacing_mm(axis), fingerprint.spacing_mm[at]);
    holds(message.size(axis), fingerprint.size[at]);
    holds(message.extent_mm(axis), fingerprint.extent_mm[at]);
  }
  holds(message.relative_size(), fingerprint.relative_size);
  ASSERT_EQ(message.intensities_size(), 2);
  holds(message.intensities(0).draws(), fingerprint.intensities[0].quantiles);
  EXPECT_EQ(message.intensities(0).mean(), fingerprint.intensities[0].moments.mean);
  EXPECT_EQ(message.intensities(0).squared_deviations(),
            fingerprint.intensities[0].moments.squared_deviations);
  EXPECT_THAT(message.intensities(1).draws().counts(), ElementsAre(50'000));
}

TEST(CohortSummary, HasNoFingerprintOfAnotherStudy) {
  EXPECT_FALSE(ToMessage(CohortDeclaration()).has_fingerprint());
}

}  // namespace
}  // namespace isoscan
