// The theorem: a scanner's scale and bias change neither what a network says nor what a federation
// learns.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stop_token>
#include <utility>
#include <vector>

#include "client/inference/predictor.h"
#include "client/training/trainer.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/training/training_phantom.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

/// Scores of a network with the starting weights, over the whole volume.
torch::Tensor ScoresOf(const Study& study, const PreparedCase& prepared) {
  absl::StatusOr<Predictor> predictor = Predictor::Create(study, InitialWeights(study), "cpu", 2);
  EXPECT_OK(predictor);
  const absl::StatusOr<std::vector<float>> scores = predictor->Scores(prepared);
  EXPECT_OK(scores);
  return at::tensor(*scores);
}

double DeviationOf(const PreparedCase& prepared) {
  return at::from_blob(const_cast<float*>(prepared.image.data()),
                       {static_cast<std::int64_t>(prepared.image.size())})
      .to(torch::kFloat64)
      .std()
      .item<double>();
}

TEST(Invariance, ScoresIgnoreTheScannersScaleAndBias) {
  const Study study = PhantomStudy();
  for (const std::uint64_t number : {1U, 2U}) {
    const PreparedCase phantom = Phantom(number);
    const torch::Tensor scores = ScoresOf(study, Harmonized(phantom, study));
    const double spread = scores.std().item<double>();
    ASSERT_GT(spread, 0);
    for (const double scale : {1e-5, 1e-2, 1.0, 3.0, 1e3, 1e5}) {
      for (const double shift : {-1e2, -1.0, 0.0, 10.0, 1e2}) {
        const double bias = shift * scale * DeviationOf(phantom);

        const PreparedCase scanned = AsScannedBy(phantom, scale, bias);
        const torch::Tensor moved = ScoresOf(study, Harmonized(scanned, study)) - scores;

        EXPECT_LT(moved.abs().max().item<double>(), 1e-4 * spread)
            << "scale " << scale << ", bias " << bias;
      }
    }
  }
}

TEST(Invariance, ScoresWithoutHarmonizationDoNot) {
  Study study = PhantomStudy();
  study.harmonization.normalize = HarmonizationPlan::Normalizer::kNone;
  const PreparedCase phantom = Phantom(1);
  const torch::Tensor scores = ScoresOf(study, Harmonized(phantom, study));

  const torch::Tensor moved =
      ScoresOf(study, Harmonized(AsScannedBy(phantom, 1, 1000), study)) - scores;

  EXPECT_GT(moved.abs().max().item<double>(), 0.1 * scores.std().item<double>());
}

TEST(Invariance, AFederationOfScannersLearnsInOneRoundWhatOneSiteLearns) {
  struct Scanner {
    double scale;
    double bias;
  };
  Study study = PhantomStudy();
  study.training.random_numbers = TrainingPlan::RandomNumbers::kShared;
  const std::vector<Scanner> scanners{{1, 0}, {2.5, 300}, {0.004, -0.3}};
  constexpr std::uint64_t kCases = 4;
  const NamedTensors start = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

  std::vector<NamedTensors> updates;
  for (const Scanner& scanner : scanners) {
    std::vector<PreparedCase> cases;
    for (std::uint64_t i = 0; i < kCases; ++i) {
      cases.push_back(Harmonized(AsScannedBy(Phantom(i), scanner.scale, scanner.bias), study));
    }
    const TrainingTask task{
        .steps = 10, .total_steps = 100, .random_stream = "site-" + std::to_string(updates.size())};
    ASSERT_OK_AND_ASSIGN(TrainingResult result, trainer.Train(start, cases, task, {}, {}));
    updates.push_back(std::move(result.weights));
  }

  const NamedTensors& alone = updates.front();
  double moved = 0;
  for (const auto& [name, tensor] : alone) {
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      double mean = 0;  // federated averaging of sites with the same number of cases
      for (const NamedTensors& update : updates) mean += update.at(name).values[i];
      mean /= static_cast<double>(updates.size());
      ASSERT_NEAR(mean, tensor.values[i], 1e-5) << name;
      moved = std::max(moved, std::abs(double{tensor.values[i]} - start.at(name).values[i]));
    }
  }
  EXPECT_GT(moved, 1e-3);  // it did learn
}

}  // namespace
}  // namespace isoscan
