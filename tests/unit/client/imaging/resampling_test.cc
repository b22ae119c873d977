#include "client/imaging/resampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "client/imaging/score_labels.h"
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

/// The target's samples along one axis, the source's along the others.
Geometry AlongAxis(const Geometry& source, const Geometry& target, std::size_t axis) {
  Geometry result = source;
  result.size[axis] = target.size[axis];
  result.spacing_mm[axis] = target.spacing_mm[axis];
  double shift_mm = 0;
  for (std::size_t row = 0; row < 3; ++row) {
    shift_mm += source.direction[row][axis] * (target.origin_mm[row] - source.origin_mm[row]);
  }
  for (std::size_t row = 0; row < 3; ++row) {
    result.origin_mm[row] += source.direction[row][axis] * shift_mm;
  }
  return result;
}

// Slices that are kept between samples must be the right ones: finer, coarser and shifted grids.
TEST(Resample, EqualsResamplingOneAxisAfterTheOther) {
  const Volume volume = SmoothVolume(ObliqueGeometry({23, 31, 17}));
  Geometry shifted = volume.geometry;
  shifted.origin_mm[2] += 1.1;
  std::vector<Geometry> targets{shifted};
  for (const std::array<double, 3>& spacing_mm : std::vector<std::array<double, 3>>{
           {0.6, 0, 0}, {0, 2, 0}, {0, 0, 0.7}, {0.5, 0, 9}, {0, 0.4, 1}, {2, 2, 0}, {1, 1, 1}}) {
    targets.push_back(WithSpacing(volume.geometry, spacing_mm));
  }

  for (const Geometry& target : targets) {
    for (const ImageInterpolation interpolation : kBoth) {
      Volume by_axis = volume;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        by_axis = Resample(by_axis, AlongAxis(by_axis.geometry, target, axis), interpolation);
      }
      const Volume at_once = Resample(volume, target, interpolation);
      ASSERT_EQ(at_once.voxels.size(), by_axis.voxels.size());
      for (std::size_t i = 0; i < at_once.voxels.size(); ++i) {
        ASSERT_NEAR(at_once.voxels[i], by_axis.voxels[i], 2e-4) << "voxel " << i;
      }
    }
  }
}

// Columns are filtered several at a time.
TEST(Resample, TreatsEveryColumnAsIfItWereAlone) {
  const Volume volume = SmoothVolume(ObliqueGeometry({5, 36, 3}));
  const Geometry target = WithSpacing(volume.geometry, {0, 0.7, 0});
  const Volume resampled = Resample(volume, target, ImageInterpolation::kBSpline);

  for (std::int64_t column = 0; column < 15; ++column) {
    const auto first = [column](const Geometry& geometry) {
      return static_cast<std::size_t>(column / 5 * geometry.size[1] * 5 + column % 5);
    };
    Volume alone{.geometry = volume.geometry, .voxels = {}};
    alone.geometry.size = {1, 36, 1};
    for (std::size_t k = 0; k < 36; ++k) {
      alone.voxels.push_back(volume.voxels[first(volume.geometry) + 5 * k]);
    }
    Geometry alone_target = target;
    alone_target.size = {1, target.size[1], 1};
    const Volume expected = Resample(alone, alone_target, ImageInterpolation::kBSpline);
    for (std::size_t k = 0; k < expected.voxels.size(); ++k) {
      ASSERT_EQ(resampled.voxels[first(target) + 5 * k], expected.voxels[k]);
    }
  }
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

// Rows of one label are filled at once.
TEST(ResampleLabels, EqualTheArgMaxOfTheirResampledIndicators) {
  LabelMap labels = BoxLabels(ObliqueGeometry({12, 13, 11}));
  std::fill_n(labels.voxels.begin() + 5 * 13 * 12, 6 * 12, std::uint8_t{2});  // Six whole rows.
  const Geometry target = WithSpacing(labels.geometry, {0.57, 0.71, 1.93});
  constexpr std::int64_t kClasses = 4;
  std::vector<float> indicators;
  for (std::int64_t label = 0; label < kClasses; ++label) {
    for (const std::uint8_t voxel : labels.voxels)
      indicators.push_back(voxel == label ? 1.0f : 0.0f);
  }

  const LabelMap resampled = Resample(labels, target);

  const LabelMap expected = ArgMaxResampled(indicators, kClasses, labels.geometry, target);
  EXPECT_EQ(resampled.voxels, expected.voxels);
}

}  // namespace
}  // namespace isoscan
