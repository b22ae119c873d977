// What each normaliser removes, and what it refuses; its numbers are in
// intensity_normalization_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "client/harmonization/fuzzy_c_means.h"
#include "client/harmonization/intensity_map.h"
#include "client/harmonization/least_squares.h"
#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/nyul.h"
#include "client/harmonization/tissue_mode.h"
#include "client/harmonization/white_stripe.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/harmonization/brain_phantom.h"
#include "tests/unit/client/imaging/phantom.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::HasSubstr;

constexpr NyulLandmarks kScale{1, 10, 17, 30, 41, 48, 55, 70, 83, 92, 100};
constexpr std::array<double, kTissueClasses> kStandard{1, 1.9, 2.6};

template <typename Map>
absl::StatusOr<Volume> After(const absl::StatusOr<Map>& map, const Volume& volume) {
  if (!map.ok()) return map.status();
  Volume result = volume;
  Apply(*map, result);
  return result;
}

struct Normalizer {
  std::string name;
  std::function<absl::StatusOr<Volume>(const Volume&, const Mask&)> apply;
};

std::ostream& operator<<(std::ostream& out, const Normalizer& method) { return out << method.name; }

const Normalizer kZScore{
    "z_score", [](const Volume& volume, const Mask& mask) {
      Volume result = volume;
      const absl::Status status =
          NormalizeOverMask(result, mask, HarmonizationPlan::Outside::kKeep).status();
      return status.ok() ? absl::StatusOr<Volume>(result) : status;
    }};
const Normalizer kNyul{"nyul", [](const Volume& volume, const Mask& mask) {
                         return After(FitNyul(volume, mask, kScale), volume);
                       }};
const Normalizer kWhiteStripe{
    "white_stripe", [](const Volume& volume, const Mask& mask) -> absl::StatusOr<Volume> {
      ASSIGN_OR_RETURN(const WhiteStripe stripe, FitWhiteStripe(volume, mask, Contrast::kT1w));
      return After(absl::StatusOr<AffineMap>(stripe.Map()), volume);
    }};
const Normalizer kKde{"kde", [](const Volume& volume, const Mask& mask) {
                        return After(FitTissueMode(volume, mask, Contrast::kT1w, Bandwidth::kScott),
                                     volume);
                      }};
const Normalizer kFcm{
    "fcm", [](const Volume& volume, const Mask& mask) {
      return After(FitTissueMean(volume, mask, HarmonizationPlan::Tissue::kWhiteMatter), volume);
    }};
const Normalizer kLsq{"lsq", [](const Volume& volume, const Mask& mask) {
                        return After(FitLeastSquares(volume, mask, kStandard), volume);
                      }};

/// Greatest change of a normalised brain when its scanner turns x into scale * x + bias, as a share
/// of the normalised brain's range.
double ChangeUnder(const Normalizer& method, double scale, double bias) {
  const Brain brain = PhantomBrain(0);
  const auto before = method.apply(brain.volume, brain.mask);
  const auto after = method.apply(Mapped(brain.volume, scale, bias), brain.mask);
  EXPECT_OK(before);
  EXPECT_OK(after);
  if (!before.ok() || !after.ok()) return NAN;
  const auto [low, high] = std::minmax_element(before->voxels.begin(), before->voxels.end());
  double greatest = 0;
  for (std::size_t i = 0; i < before->voxels.size(); ++i) {
    greatest = std::max(greatest, std::abs(double(before->voxels[i]) - after->voxels[i]));
  }
  return greatest / (double(*high) - *low);
}

class EveryNormalizer : public testing::TestWithParam<Normalizer> {};
INSTANTIATE_TEST_SUITE_P(Methods, EveryNormalizer,
                         testing::Values(kZScore, kNyul, kWhiteStripe, kKde, kFcm, kLsq),
                         testing::PrintToStringParamName());

TEST_P(EveryNormalizer, RemovesAPositiveScale) {
  for (const double scale : {1e-5, 0.013, 0.5, 3.7, 1e5}) {
    EXPECT_LT(ChangeUnder(GetParam(), scale, 0), 1e-6) << "scale " << scale;
  }
}

class RemovesBias : public testing::TestWithParam<Normalizer> {};
INSTANTIATE_TEST_SUITE_P(Methods, RemovesBias, testing::Values(kZScore, kNyul, kWhiteStripe),
                         testing::PrintToStringParamName());

TEST_P(RemovesBias, OfEitherSignTogetherWithTheScale) {
  for (const double scale : {1e-5, 0.5, 3.7, 1e5}) {
    for (const double bias : {-7000.0, -1100.0, 13.0, 900.0, 20000.0}) {
      // Float32 keeps 24 bits of the biased voxel.
      EXPECT_LT(ChangeUnder(GetParam(), scale, scale * bias), 1e-6 * (1 + std::abs(bias) / 300))
          << "scale " << scale << ", bias " << bias;
    }
  }
}

class KeepsBias : public testing::TestWithParam<Normalizer> {};
INSTANTIATE_TEST_SUITE_P(Methods, KeepsBias, testing::Values(kKde, kFcm, kLsq),
                         testing::PrintToStringParamName());

TEST_P(KeepsBias, SoThatABrainLooksOther) { EXPECT_GT(ChangeUnder(GetParam(), 1, 400), 0.1); }

TEST_P(KeepsBias, AndIsRefusedWhereItWouldTurnTheContrastOver) {
  const Brain brain = PhantomBrain(0);

  EXPECT_THAT(GetParam().apply(Mapped(brain.volume, 1, -5000), brain.mask),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("turn the contrast over")));
}

TEST(TissueMode, WithThePackagesBandwidthDoesNotFollowAScale) {
  const Brain brain = PhantomBrain(0);
  const auto mode = [&](double scale, Bandwidth bandwidth) {
    return *TissueMode(Mapped(brain.volume, scale, 0), brain.mask, Contrast::kT1w, bandwidth) /
           scale;
  };

  EXPECT_NEAR(mode(0.001, Bandwidth::kScott), mode(1, Bandwidth::kScott), 1e-3);
  EXPECT_GT(mode(0.001, Bandwidth::kPackage) - mode(1, Bandwidth::kPackage), 300)
      << "from the mean to white matter";
}

TEST_P(EveryNormalizer, MapsEveryVoxelAlsoOutsideTheMask) {
  const Brain brain = PhantomBrain(0);
  Volume probe = brain.volume;

  ASSERT_OK_AND_ASSIGN(const Volume result, GetParam().apply(probe, brain.mask));

  // Equal intensities inside and outside the mask stay equal.
  std::map<float, float> seen;
  for (std::size_t i = 0; i < probe.voxels.size(); ++i) {
    const auto [place, is_new] = seen.emplace(probe.voxels[i], result.voxels[i]);
    ASSERT_EQ(place->second, result.voxels[i]);
  }
  float last = -std::numeric_limits<float>::infinity();
  for (const auto& [before, after] : seen) {
    EXPECT_GT(after, last) << "at " << before;
    last = after;
  }
}

TEST_P(EveryNormalizer, HasTheSameBitsOnAnyNumberOfThreads) {
  Volume volume = SmoothVolume(ObliqueGeometry({101, 99, 67}));
  const Mask mask(volume.voxels.size(), 1);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = GetParam().apply(volume, mask);
  omp_set_num_threads(5);
  const auto five = GetParam().apply(volume, mask);
  omp_set_num_threads(threads);

  ASSERT_OK(one);
  ASSERT_OK(five);
  EXPECT_EQ(one->voxels, five->voxels);
}

TEST_P(EveryNormalizer, RefusesNanConstantAndEmpty) {
  Brain brain = PhantomBrain(0);
  const auto refuses = [&](const Volume& volume, const Mask& mask, const std::string& reason) {
    EXPECT_THAT(GetParam().apply(volume, mask),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
  };
  refuses(brain.volume, Mask(brain.mask.size(), 0), "none of 13440 voxels");
  refuses(brain.volume, Mask(7, 1), "the mask has 7 voxels, the volume 13440");
  Volume constant = brain.volume;
  std::fill(constant.voxels.begin(), constant.voxels.end(), 1000.0f);
  refuses(constant, brain.mask, "intensity 1000");
  for (std::size_t i = 0; i < constant.voxels.size(); i += 2) {
    constant.voxels[i] = std::nextafter(1000.0f, 2000.0f);
  }
  refuses(constant, brain.mask, "constant volume");
  brain.volume.voxels[3] = std::numeric_limits<float>::quiet_NaN();
  refuses(brain.volume, brain.mask, "1 of 13440 voxels are NaN");
}

/// Whole numbers from 0 to values - 1, as often one as the other.
Volume FewValues(int values) {
  Volume volume = NumberedVolume(ObliqueGeometry({12, 10, 10}));
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    volume.voxels[i] = static_cast<float>(static_cast<int>(i) % values);
  }
  return volume;
}

TEST(FuzzyCMeans, NeedsThreeDistinctValues) {
  EXPECT_THAT(FindTissueClasses(FewValues(2), Mask(1200, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("1200 voxels under the mask have 2 distinct intensities")));
  ASSERT_OK_AND_ASSIGN(const TissueClasses classes, FindTissueClasses(FewValues(3), Mask(1200, 1)));
  EXPECT_THAT(classes.means,
              testing::Pointwise(testing::DoubleNear(1e-9), std::vector<double>{0, 1, 2}));
}

TEST(Nyul, NeedsLandmarksThatLieApartAtTheEnds) {
  Volume air = FewValues(100);
  for (std::size_t i = 0; i < air.voxels.size() / 2; ++i) air.voxels[i] = 0;

  EXPECT_THAT(FindLandmarks(air, Mask(1200, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("percentiles 1 and 10 of 1200 voxels under the mask are both 0")));
  EXPECT_THAT(FindLandmarks(FewValues(2), Mask(1200, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("percentiles 1 and 10")));
}

TEST(Nyul, JumpsWhereInnerLandmarksCoincide) {
  const PiecewiseLinearMap map{.from = {0, 10, 20, 20, 30}, .to = {1, 2, 4, 7, 8}};
  Volume volume = NumberedVolume(ObliqueGeometry({5, 1, 1}));
  volume.voxels = {20, 20.001f, 15, -10, 40};

  Apply(map, volume);

  EXPECT_THAT(volume.voxels,
              testing::Pointwise(testing::FloatNear(1e-3f), std::vector<float>{4, 7, 3, 0, 9}));
}

TEST(Nyul, BringsTheCasesOwnLandmarksToTheScale) {
  const Brain brain = PhantomBrain(4);
  ASSERT_OK_AND_ASSIGN(const Volume result, kNyul.apply(brain.volume, brain.mask));

  ASSERT_OK_AND_ASSIGN(const NyulLandmarks landmarks, FindLandmarks(result, brain.mask));

  // A percentile lies between two voxels, where the map may bend.
  EXPECT_THAT(landmarks, testing::Pointwise(testing::DoubleNear(0.5), kScale));
}

TEST(WhiteStripe, NeedsTwoDistinctValuesInItsStripe) {
  Volume volume = FewValues(3);

  EXPECT_THAT(
      FitWhiteStripe(volume, Mask(1200, 1), Contrast::kT1w),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too few distinct values there")));
}

// intensity-normalization multiplies by the mask first, so a stripe that holds 0 takes in all air.
TEST(WhiteStripe, LeavesOutVoxelsBeyondTheMaskAlsoWhereItHoldsZero) {
  Brain brain = PhantomBrain(0);
  ASSERT_OK_AND_ASSIGN(const WhiteStripe stripe,
                       FitWhiteStripe(brain.volume, brain.mask, Contrast::kT1w));
  const Volume moved = Mapped(brain.volume, 1, -std::round(stripe.mean));

  ASSERT_OK_AND_ASSIGN(const WhiteStripe around_zero,
                       FitWhiteStripe(moved, brain.mask, Contrast::kT1w));

  EXPECT_EQ(around_zero.voxels, stripe.voxels);
  EXPECT_NEAR(around_zero.standard_deviation, stripe.standard_deviation, 1e-9);
}

}  // namespace
}  // namespace isoscan
