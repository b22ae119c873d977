#include "client/imaging/resampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "client/imaging/volume.h"
#include "tests/unit/client/imaging/phantom.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

constexpr ImageInterpolation kBoth[] = {ImageInterpolation::kLinear, ImageInterpolation::kBSpline};

std::array<double, 3> OuterCorner(const Geometry& geometry, double side) {
  std::array<double, 3> index{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    index[axis] = side < 0 ? -0.5 : static_cast<double>(geometry.size[axis]) - 0.5;
  }
  return PhysicalPoint(geometry, index);
}

Geometry Row(std::int64_t voxels, double spacing_mm) {
  Geometry row;
  row.size = {voxels, 1, 1};
  row.spacing_mm = {spacing_mm, 1, 1};
  return row;
}

/// Root mean square of the difference, without the `margin` voxels next to the border.
double InnerDifference(const Volume& left, const Volume& right, std::int64_t margin) {
  const std::array<std::int64_t, 3>& size = left.geometry.size;
  double sum = 0;
  double count = 0;
  for (std::int64_t z = margin; z < size[2] - margin; ++z) {
    for (std::int64_t y = margin; y < size[1] - margin; ++y) {
      for (std::int64_t x = margin; x < size[0] - margin; ++x) {
        const auto i = static_cast<std::size_t>((z * size[1] + y) * size[0] + x);
        sum += std::pow(left.voxels[i] - right.voxels[i], 2);
        ++count;
      }
    }
  }
  return std::sqrt(sum / count);
}

TEST(WithSpacing, KeepsBothOuterCornersOfTheVolume) {
  const Geometry geometry = ObliqueGeometry({35, 51, 17});

  const Geometry target = WithSpacing(geometry, {1.5, 0.7, 1.0});

  EXPECT_THAT(target.size, ElementsAre(19, 80, 49));
  for (const double side : {-1.0, 1.0}) {
    const std::array<double, 3> expected = OuterCorner(geometry, side);
    const std::array<double, 3> corner = OuterCorner(target, side);
    for (std::size_t axis = 0; axis < 3; ++axis) EXPECT_NEAR(corner[axis], expected[axis], 1e-9);
  }
}

TEST(WithSpacing, KeepsAnAxisForZeroAndNeverLosesTheLastVoxel) {
  const Geometry geometry = ObliqueGeometry({9, 9, 9});

  EXPECT_EQ(WithSpacing(geometry, {0, 0, 0}), geometry);
  EXPECT_EQ(WithSpacing(geometry, {1000, 0, 0}).size[0], 1);
}

TEST(Resample, ToTheSameGridIsACopy) {
  const Volume volume = NumberedVolume(ObliqueGeometry({5, 7, 3}));

  for (const ImageInterpolation interpolation : kBoth) {
    EXPECT_EQ(Resample(volume, volume.geometry, interpolation).voxels, volume.voxels);
  }
}

// scikit-image 0.19, resize([0, 1], (4,), order=1, mode="edge"), as nnU-Net calls it.
TEST(Resample, AgreesWithTheHalfPixelConvention) {
  const Volume row{.geometry = Row(2, 2), .voxels = {0, 1}};

  const Volume fine =
      Resample(row, WithSpacing(row.geometry, {1, 0, 0}), ImageInterpolation::kLinear);

  EXPECT_THAT(fine.voxels, ElementsAre(FloatNear(0, 1e-7f), FloatNear(0.25, 1e-7f),
                                       FloatNear(0.75, 1e-7f), FloatNear(1, 1e-7f)));
}

TEST(Resample, ReproducesALinearFieldInsideTheVolume) {
  const auto field = [](const Geometry& geometry) {
    Volume volume = NumberedVolume(geometry);
    std::size_t i = 0;
    for (std::int64_t z = 0; z < geometry.size[2]; ++z) {
      for (std::int64_t y = 0; y < geometry.size[1]; ++y) {
        for (std::int64_t x = 0; x < geometry.size[0]; ++x) {
          const auto p = PhysicalPoint(geometry, {double(x), double(y), double(z)});
          volume.voxels[i++] = static_cast<float>(2 * p[0] - 3 * p[1] + 0.5 * p[2]);
        }
      }
    }
    return volume;
  };
  const Volume coarse = field(ObliqueGeometry({13, 11, 9}));
  const Geometry target = WithSpacing(coarse.geometry, {0.45, 0.7, 1.3});

  const Volume fine = Resample(coarse, target, ImageInterpolation::kLinear);

  const Volume expected = field(target);
  for (std::int64_t z = 3; z < target.size[2] - 3; ++z) {
    for (std::int64_t y = 3; y < target.size[1] - 3; ++y) {
      for (std::int64_t x = 3; x < target.size[0] - 3; ++x) {
        const auto i = static_cast<std::size_t>((z * target.size[1] + y) * target.size[0] + x);
        ASSERT_NEAR(fine.voxels[i], expected.voxels[i], 1e-3);
      }
    }
  }
}

TEST(Resample, TakesTheNearestVoxelBeyondTheBorder) {
  const Volume row{.geometry = Row(3, 1), .voxels = {4, 5, 6}};
  Geometry wide = Row(7, 1);
  wide.origin_mm = {-2, 0, 0};

  for (const ImageInterpolation interpolation : kBoth) {
    const Volume result = Resample(row, wide, interpolation);
    EXPECT_THAT(result.voxels,
                ElementsAre(FloatNear(4, 1e-5f), FloatNear(4, 1e-5f), FloatNear(4, 1e-5f),
                            FloatNear(5, 1e-5f), FloatNear(6, 1e-5f), FloatNear(6, 1e-5f),
                            FloatNear(6, 1e-5f)));
  }
}

TEST(Resample, KeepsAConstantVolumeConstant) {
  Volume volume = NumberedVolume(ObliqueGeometry({6, 40, 3}));
  std::fill(volume.voxels.begin(), volume.voxels.end(), 1234.5f);

  for (const ImageInterpolation interpolation : kBoth) {
    const Volume result =
        Resample(volume, WithSpacing(volume.geometry, {0.33, 0.9, 1.7}), interpolation);
    for (const float voxel : result.voxels) ASSERT_NEAR(voxel, 1234.5f, 1e-3);
  }
}

// With an odd factor every old voxel centre is also a new one.
TEST(Resample, BringsEveryVoxelBackFromAThreefoldFinerGrid) {
  const Volume volume = NumberedVolume(ObliqueGeometry({5, 36, 7}));
  const Geometry fine = WithSpacing(volume.geometry, {0.8 / 3, 1.1 / 3, 2.9 / 3});

  for (const ImageInterpolation interpolation : kBoth) {
    const Volume there = Resample(volume, fine, interpolation);
    const Volume back = Resample(there, volume.geometry, ImageInterpolation::kLinear);
    for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
      ASSERT_NEAR(back.voxels[i], volume.voxels[i], 2e-3) << "voxel " << i;
    }
  }
}

TEST(Resample, IsNearerToTheAnatomyWithSplinesThanWithLines) {
  const Volume volume = SmoothVolume(ObliqueGeometry({40, 31, 15}));
  const Geometry target = WithSpacing(volume.geometry, {0.6, 0.8, 1.9});
  const Volume anatomy = SmoothVolume(target);

  const double linear =
      InnerDifference(Resample(volume, target, ImageInterpolation::kLinear), anatomy, 6);
  const double spline =
      InnerDifference(Resample(volume, target, ImageInterpolation::kBSpline), anatomy, 6);

  EXPECT_LT(linear, 0.2);
  EXPECT_LT(spline, 0.05 * linear);
}

TEST(Resample, DoesNotDependOnTheNumberOfThreads) {
  const Volume volume = SmoothVolume(ObliqueGeometry({80, 70, 60}));
  const Geometry target = WithSpacing(volume.geometry, {0.9, 1.3, 2.0});
  const int threads = omp_get_max_threads();

  for (const ImageInterpolation interpolation : kBoth) {
    omp_set_num_threads(1);
    const Volume one = Resample(volume, target, interpolation);
    omp_set_num_threads(3);
    const Volume three = Resample(volume, target, interpolation);
    EXPECT_EQ(one.voxels, three.voxels);
  }
  omp_set_num_threads(threads);
}

TEST(ResampleLabels, ToTheSameGridIsACopy) {
  const LabelMap labels = BoxLabels(ObliqueGeometry({9, 8, 7}));

  EXPECT_EQ(Resample(labels, labels.geometry).voxels, labels.voxels);
}

TEST(ResampleLabels, ComeBackExactlyFromAThreefoldFinerGrid) {
  const LabelMap labels = BoxLabels(ObliqueGeometry({11, 9, 7}));
  const Geometry fine = WithSpacing(labels.geometry, {0.8 / 3, 1.1 / 3, 2.9 / 3});

  const LabelMap back = Resample(Resample(labels, fine), labels.geometry);

  EXPECT_EQ(back.voxels, labels.voxels);
}

TEST(ResampleLabels, GivesATieToTheLowerLabel) {
  const LabelMap row{.geometry = Row(2, 1), .voxels = {3, 2}};
  Geometry middle = Row(1, 1);
  middle.origin_mm = {0.5, 0, 0};

  EXPECT_THAT(Resample(row, middle).voxels, ElementsAre(2));
}

TEST(ResampleLabels, ElectsTheLabelWithTheGreatestShareOverTheNearest) {
  // The nearest voxel holds 1 with a share of 0.4; its neighbours hold 2 with 0.6 together.
  LabelMap labels{.geometry = Row(2, 1), .voxels = {1, 2, 2, 2}};
  labels.geometry.size = {2, 2, 1};
  Geometry point = Row(1, 1);
  point.origin_mm = {0.37, 0.37, 0};

  EXPECT_THAT(Resample(labels, point).voxels, ElementsAre(2));
}

TEST(ArgMaxResampled, EqualsResamplingEachClassAndTakingTheGreatest) {
  const Geometry from = ObliqueGeometry({12, 10, 6});
  const Geometry to = WithSpacing(from, {0.5, 1.7, 1.1});
  constexpr std::int64_t kClasses = 4;
  std::vector<float> scores;
  std::vector<Volume> resampled;
  for (std::int64_t label = 0; label < kClasses; ++label) {
    Volume score = SmoothVolume(from);
    for (std::size_t i = 0; i < score.voxels.size(); ++i) {
      score.voxels[i] = std::sin(score.voxels[i] * static_cast<float>(label + 1) * 0.05f);
    }
    scores.insert(scores.end(), score.voxels.begin(), score.voxels.end());
    resampled.push_back(Resample(score, to, ImageInterpolation::kLinear));
  }

  const LabelMap labels = ArgMaxResampled(scores, kClasses, from, to);

  ASSERT_EQ(labels.geometry, to);
  std::int64_t different = 0;
  for (std::size_t i = 0; i < labels.voxels.size(); ++i) {
    float greatest = resampled[0].voxels[i];
    for (const Volume& score : resampled) greatest = std::max(greatest, score.voxels[i]);
    different += resampled[labels.voxels[i]].voxels[i] < greatest - 1e-5f ? 1 : 0;
  }
  EXPECT_EQ(different, 0);
}

TEST(ArgMaxResampled, GivesATieToTheLowerLabel) {
  const Geometry voxel = Row(1, 1);

  EXPECT_THAT(ArgMaxResampled({0.5f, 0.5f, 0.1f}, 3, voxel, voxel).voxels, ElementsAre(0));
}

}  // namespace
}  // namespace isoscan
