#include "client/control_variates.h"

#include <gtest/gtest.h>

namespace isoscan {
namespace {

NamedTensors One(float value) { return {{"w", {{1}, {value}}}}; }
float Value(const NamedTensors& tensors) { return tensors.at("w").values.at(0); }

// NVFlare's vector (scaffold_test.py): w = 1, one step of gradient -3 at rate 0.1, c = 2, c_i =
// 0.5.
TEST(ControlVariates, AreThoseOfOptionTwo) {
  const NamedTensors c = One(2);
  NamedTensors own = One(0.5F);

  const float corrected = -3 + Value(GradientCorrection(c, own));
  const float after = 1 - 0.1F * corrected;
  const NamedTensors change = ControlChange(c, One(1), One(after), /*learning_rate_sum=*/0.1);
  AddTo(own, change);

  EXPECT_FLOAT_EQ(after, 1.15F);
  EXPECT_NEAR(Value(change), -3.5, 1e-5);
  EXPECT_NEAR(Value(own), -3, 1e-5);
}

// c_i is the mean of the gradients, however the rate falls.
TEST(ControlVariates, WeighEachGradientByItsRate) {
  const NamedTensors c = One(0.7F);
  NamedTensors own;
  const double rates[] = {0.3, 0.2, 0.1};
  const double gradients[] = {5, -1, 2};
  double w = 4;
  double mean = 0;
  for (int step = 0; step < 3; ++step) {
    w -= rates[step] * (gradients[step] + double{Value(GradientCorrection(c, own))});
    mean += rates[step] * gradients[step] / 0.6;
  }

  AddTo(own, ControlChange(c, One(4), One(static_cast<float>(w)), 0.6));

  EXPECT_NEAR(Value(own), mean, 1e-5);
}

TEST(ControlVariates, AreOfSharedParametersAlone) {
  const NamedTensors weights = {{"norm", {{1}, {9}}}, {"w", {{1}, {1}}}};

  const NamedTensors change = ControlChange(One(0), weights, weights, 1);

  EXPECT_EQ(change, One(0));
  EXPECT_EQ(GradientCorrection(One(3), {}), One(3));
}

}  // namespace
}  // namespace isoscan
