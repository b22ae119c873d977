#include "client/harmonization/n4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::HasSubstr;

/// A head of three tissues in layers that fold like a cortex, in air with a little noise.
struct Phantom {
  Volume volume;
  Mask mask;
};

Phantom Head() {
  Geometry geometry;
  geometry.size = {48, 56, 40};
  Phantom head{.volume = {.geometry = geometry, .voxels = {}}, .mask = {}};
  RandomStream random(11, "head");
  for (std::int64_t z = 0; z < geometry.size[2]; ++z) {
    for (std::int64_t y = 0; y < geometry.size[1]; ++y) {
      for (std::int64_t x = 0; x < geometry.size[0]; ++x) {
        const double r =
            std::hypot((double(x) - 23.5) / 20, (double(y) - 27.5) / 24, (double(z) - 19.5) / 17);
        const double fold = r + 0.12 * std::sin(double(x) / 2.1) * std::cos(double(y) / 2.7) *
                                    std::sin(double(z) / 1.9);
        const double tissue = r > 1 ? 0 : fold > 0.85 ? 250 : fold > 0.55 ? 600 : 850;
        head.volume.voxels.push_back(
            static_cast<float>(std::hypot(tissue + 8 * random.Normal(), 8 * random.Normal())));
        head.mask.push_back(r > 1 ? 0 : 1);
      }
    }
  }
  return head;
}

/// A quadratic coil field between `1 - strength` and `1 + strength` over the volume.
double FieldAt(const Geometry& geometry, std::size_t voxel, double strength) {
  const auto i = static_cast<std::int64_t>(voxel);
  const auto along = [&](std::size_t axis, std::int64_t index) {
    return 2 * static_cast<double>(index) / static_cast<double>(geometry.size[axis] - 1) - 1;
  };
  const double x = along(0, i % geometry.size[0]);
  const double y = along(1, i / geometry.size[0] % geometry.size[1]);
  const double z = along(2, i / (geometry.size[0] * geometry.size[1]));
  return 1 + strength * (0.7 * x + 0.5 * y * y - 0.3 * z - 0.2);
}

Volume Biased(const Volume& volume, double strength) {
  Volume result = volume;
  for (std::size_t voxel = 0; voxel < result.voxels.size(); ++voxel) {
    result.voxels[voxel] *= static_cast<float>(FieldAt(volume.geometry, voxel, strength));
  }
  return result;
}

/// Coefficient of variation, over the mask, of the factor between two volumes.
double Inhomogeneity(const Volume& volume, const Volume& truth, const Mask& mask) {
  Volume ratio = volume;
  for (std::size_t voxel = 0; voxel < mask.size(); ++voxel) {
    ratio.voxels[voxel] = mask[voxel] != 0 ? volume.voxels[voxel] / truth.voxels[voxel] : 0.0f;
  }
  const IntensityStatistics statistics = StatisticsOf(ratio, mask);
  return statistics.standard_deviation / statistics.mean;
}

/// Enough to see a field, for tests that ask how and not how well.
constexpr N4Plan kShort{.shrink = 3, .levels = 2, .iterations = 6};

class KnownField : public testing::TestWithParam<double> {};
INSTANTIATE_TEST_SUITE_P(Strengths, KnownField, testing::Values(0.2, 0.3, 0.4));

TEST_P(KnownField, IsRecoveredToTwoPercent) {
  const Phantom head = Head();
  Volume volume = Biased(head.volume, GetParam());
  const double before = Inhomogeneity(volume, head.volume, head.mask);

  ASSERT_OK_AND_ASSIGN(const BiasField field, CorrectBiasField(volume, head.mask, {.shrink = 2}));

  const double after = Inhomogeneity(volume, head.volume, head.mask);
  EXPECT_LT(after, 0.02);
  EXPECT_LT(after, before / 3);
  EXPECT_NEAR(field.standard_deviation, before, 0.02);
  EXPECT_LT(field.minimum, 1 - GetParam() / 3);
  EXPECT_GT(field.maximum, 1 + GetParam() / 3);
}

class AffineCopies : public testing::TestWithParam<std::pair<double, double>> {};
INSTANTIATE_TEST_SUITE_P(Scanners, AffineCopies,
                         testing::Values(std::pair(1e-5, 0.0), std::pair(1e5, 0.0),
                                         std::pair(1.0, 3000.0), std::pair(0.02, -7.0),
                                         std::pair(50.0, -4e5)));

TEST_P(AffineCopies, GetTheSameFieldAndAffineResults) {
  const auto [scale, bias] = GetParam();
  const Phantom head = Head();
  Volume volume = Biased(head.volume, 0.3);
  Volume copy = volume;
  for (float& voxel : copy.voxels) voxel = static_cast<float>(scale * voxel + bias);

  ASSERT_OK_AND_ASSIGN(const BiasField field, CorrectBiasField(volume, head.mask, kShort));
  ASSERT_OK_AND_ASSIGN(const BiasField of_copy, CorrectBiasField(copy, head.mask, kShort));

  const double spread = StatisticsOf(volume, head.mask).standard_deviation;
  double difference = 0;
  for (std::size_t voxel = 0; voxel < volume.voxels.size(); ++voxel) {
    const double back = (static_cast<double>(copy.voxels[voxel]) - bias) / scale;
    difference = std::max(difference, std::abs(back - static_cast<double>(volume.voxels[voxel])));
  }
  EXPECT_LT(difference / spread, 1e-4);
  EXPECT_NEAR(of_copy.minimum, field.minimum, 1e-4);
  EXPECT_NEAR(of_copy.maximum, field.maximum, 1e-4);
}

// With few samples the digits that another scale changes would grow from iteration to iteration,
// and decide how many there are.
TEST_P(AffineCopies, GetTheSameFieldAfterHoweverManyIterations) {
  const auto [scale, bias] = GetParam();
  const Phantom head = Head();
  Volume volume = Biased(head.volume, 0.3);
  Volume copy = volume;
  for (float& voxel : copy.voxels) voxel = static_cast<float>(scale * voxel + bias);

  ASSERT_OK_AND_ASSIGN(const BiasField field, CorrectBiasField(volume, head.mask, {.shrink = 8}));
  ASSERT_OK_AND_ASSIGN(const BiasField of_copy, CorrectBiasField(copy, head.mask, {.shrink = 8}));

  EXPECT_EQ(of_copy.iterations, field.iterations);
  EXPECT_EQ(of_copy.minimum, field.minimum);
  EXPECT_EQ(of_copy.maximum, field.maximum);
}

TEST(CorrectBiasField, LeavesTheUnitsOfIntensitiesAsTheyAre) {
  const Phantom head = Head();
  Volume volume = Biased(head.volume, 0.3);
  const double before = StatisticsOf(volume, head.mask).mean;

  ASSERT_OK(CorrectBiasField(volume, head.mask, kShort));

  EXPECT_NEAR(StatisticsOf(volume, head.mask).mean / before, 1, 0.02);
}

TEST(CorrectBiasField, TakesAThinStackOfSlices) {
  Phantom head = Head();
  head.volume.geometry.size = {48, 56, 3};
  head.volume.voxels.erase(head.volume.voxels.begin(), head.volume.voxels.begin() + 48 * 56 * 18);
  head.volume.voxels.resize(48 * 56 * 3);
  head.mask.erase(head.mask.begin(), head.mask.begin() + 48 * 56 * 18);
  head.mask.resize(48 * 56 * 3);
  Volume volume = Biased(head.volume, 0.3);
  const double before = Inhomogeneity(volume, head.volume, head.mask);

  ASSERT_OK(CorrectBiasField(volume, head.mask, N4Plan{.iterations = 10}));

  EXPECT_LT(Inhomogeneity(volume, head.volume, head.mask), before / 2);
}

TEST(CorrectBiasField, RefusesWhatHasNoField) {
  const Phantom head = Head();
  const auto refuses = [&](Volume volume, const Mask& mask, const char* words) {
    const std::vector<float> before = volume.voxels;
    EXPECT_THAT(CorrectBiasField(volume, mask, kShort),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words)));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), volume.voxels.begin(),
                           [](float left, float right) {
                             return left == right || (std::isnan(left) && std::isnan(right));
                           }))
        << words << ": a refused volume is left alone";
  };
  Volume broken = head.volume;
  broken.voxels[7] = std::numeric_limits<float>::quiet_NaN();
  refuses(broken, head.mask, "1 of 107520 voxels");
  Volume constant = head.volume;
  std::fill(constant.voxels.begin(), constant.voxels.end(), 3.0f);
  refuses(constant, head.mask, "one intensity");
  refuses(head.volume, Mask(head.mask.size(), 0), "0 voxels on N4's coarse grid");
  refuses(head.volume, Mask(5, 1), "the mask has 5 voxels");
  Volume slice = head.volume;
  slice.geometry.size = {48, 56, 1};
  slice.voxels.resize(48 * 56);
  refuses(slice, Mask(48 * 56, 1), "48 x 56 x 1");
}

}  // namespace
}  // namespace isoscan
