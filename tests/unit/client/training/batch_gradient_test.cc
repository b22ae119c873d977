#include "client/training/batch_gradient.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace isoscan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr std::int64_t kPatches = 5;

/// A loss that is a mean over patches, on a machine whose memory holds so many at once.
class BatchGradientTest : public testing::Test {
 protected:
  BatchGradientTest() {
    weight_.set_requires_grad(true);
    options_.batch_size = kPatches;
    options_.on_trouble = [this](const absl::Status& status) { troubles_.push_back(status); };
    options_.release_memory = [this] { ++released_; };
  }

  double Compute(BatchGradient& gradient) {
    const absl::StatusOr<double> mean = gradient.Compute(
        [this](std::int64_t first, std::int64_t count) {
          const torch::Tensor piece = patches_.narrow(0, first, count);
          const torch::Tensor loss = at::matmul(piece, weight_).square().mean();
          pieces_.emplace_back(first, count);
          if (!fails_in_backward_) {
            TORCH_CHECK_WITH(OutOfMemoryError, count <= memory_, "CUDA out of memory");
          } else if (count > memory_) {
            return FailingInBackward(loss);
          }
          return loss;
        },
        0, {});
    EXPECT_OK(mean);
    return mean.value_or(-1);
  }

  static torch::Tensor FailingInBackward(const torch::Tensor& loss) {
    const torch::Tensor late = loss * 1;
    late.register_hook([](const torch::Tensor& outer) -> torch::Tensor {
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory");
      return outer;
    });
    return late;
  }

  const torch::Tensor patches_ =
      torch::tensor({1.0F, 2.0F, -1.0F, 0.5F, 3.0F, 1.5F, 2.5F, -2.0F, 0.25F, 1.0F})
          .view({kPatches, 2});
  torch::Tensor weight_ = torch::tensor({0.7F, -0.3F});
  BatchGradient::Options options_;
  std::int64_t memory_ = kPatches;
  bool fails_in_backward_ = false;
  int released_ = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> pieces_;
  std::vector<absl::Status> troubles_;
};

TEST_F(BatchGradientTest, IsTheSameInPiecesButForRounding) {
  BatchGradient whole({weight_}, options_);
  const double loss = Compute(whole);
  const torch::Tensor expected = weight_.grad().clone();
  for (std::int64_t at_once = 1; at_once <= kPatches; ++at_once) {
    options_.patches_at_once = at_once;
    BatchGradient pieces({weight_}, options_);

    EXPECT_NEAR(Compute(pieces), loss, 1e-6) << at_once;
    EXPECT_TRUE(torch::allclose(weight_.grad(), expected, 1e-6, 1e-6)) << at_once;
  }
}

TEST_F(BatchGradientTest, TakesHalfOfItWhenMemoryEndsAndRemembersThat) {
  BatchGradient whole({weight_}, options_);
  const double loss = Compute(whole);
  const torch::Tensor expected = weight_.grad().clone();
  for (const bool in_backward : {false, true}) {
    memory_ = 2;
    fails_in_backward_ = in_backward;
    released_ = 0;
    troubles_.clear();
    pieces_.clear();
    BatchGradient gradient({weight_}, options_);

    EXPECT_NEAR(Compute(gradient), loss, 1e-6);

    EXPECT_TRUE(torch::allclose(weight_.grad(), expected, 1e-6, 1e-6))
        << "what the failed attempts left was not cleared";
    EXPECT_THAT(pieces_, ElementsAre(Pair(0, 5), Pair(0, 3), Pair(0, 2), Pair(2, 2), Pair(4, 1)));
    EXPECT_EQ(released_, 2);
    EXPECT_THAT(troubles_,
                ElementsAre(StatusIs(absl::StatusCode::kResourceExhausted,
                                     AllOf(HasSubstr("5 patches"), HasSubstr("with 3"))),
                            StatusIs(absl::StatusCode::kResourceExhausted,
                                     AllOf(HasSubstr("3 patches"), HasSubstr("with 2")))));
    pieces_.clear();
    Compute(gradient);
    EXPECT_THAT(pieces_, ElementsAre(Pair(0, 2), Pair(2, 2), Pair(4, 1)));
  }
}

TEST_F(BatchGradientTest, GivesUpWhenOnePatchIsTooLarge) {
  memory_ = 0;
  BatchGradient gradient({weight_}, options_);

  EXPECT_THROW(Compute(gradient), c10::OutOfMemoryError);
  EXPECT_EQ(pieces_.back(), std::pair(std::int64_t{0}, std::int64_t{1}));
}

TEST_F(BatchGradientTest, NeverDividesABatchWhosePatchesDependOnEachOther) {
  memory_ = 4;
  options_.divisible = false;
  options_.patches_at_once = 1;
  BatchGradient gradient({weight_}, options_);

  EXPECT_THROW(Compute(gradient), c10::OutOfMemoryError);
  EXPECT_THAT(pieces_, ElementsAre(Pair(0, 5)));
}

}  // namespace
}  // namespace isoscan
