#include "client/simulation/scanner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

Volume Ramp() {
  Volume volume{.geometry = {.size = {16, 12, 10}}, .voxels = {}};
  for (std::int64_t i = 0; i < volume.geometry.voxels(); ++i) {
    volume.voxels.push_back(static_cast<float>(i % 97));
  }
  return volume;
}

TEST(Scanner, ReadsEveryPartOfItsText) {
  const auto scanner = ParseScanner("north:scale=2.5,bias=-30,gamma=1.2,noise=0.03,field=0.1");

  ASSERT_OK(scanner);
  EXPECT_EQ(scanner->name, "north");
  EXPECT_EQ(scanner->scale, 2.5);
  EXPECT_EQ(scanner->bias, -30);
  EXPECT_EQ(scanner->gamma, 1.2);
  EXPECT_EQ(scanner->noise, 0.03);
  EXPECT_EQ(scanner->field, 0.1);
}

TEST(Scanner, NamesThePartThatIsWrong) {
  EXPECT_THAT(ParseScanner("north:scale=two"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("scale=two")));
  EXPECT_THAT(ParseScanner("north:contrast=2"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("contrast=2")));
  EXPECT_THAT(ParseScanner("north:scale=-1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("above 0")));
  EXPECT_THAT(ParseScanner(":scale=1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no name")));
  EXPECT_THAT(ParseScanner("../north:scale=1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no scanner's name")));
}

TEST(Scanner, OfScaleAndBiasAloneIsAnAffineMap) {
  const Volume anatomy = Ramp();

  const Volume scan =
      Scan(anatomy, {.name = "north", .scale = 3, .bias = 200}, RandomStream(1, "test"));

  for (std::size_t i = 0; i < anatomy.voxels.size(); ++i) {
    EXPECT_NEAR(scan.voxels[i], 3 * anatomy.voxels[i] + 200, 1e-3);
  }
}

TEST(Scanner, ContrastCurveKeepsTheOrderOfIntensities) {
  const Volume anatomy = Ramp();

  const Volume scan = Scan(anatomy, {.name = "north", .gamma = 0.7}, RandomStream(1, "test"));

  for (std::size_t i = 1; i < anatomy.voxels.size(); ++i) {
    if (anatomy.voxels[i] > anatomy.voxels[i - 1]) {
      EXPECT_GT(scan.voxels[i], scan.voxels[i - 1]);
    }
  }
}

TEST(Scanner, NoiseHasTheStatedSize) {
  Volume bright{.geometry = {.size = {40, 40, 40}}, .voxels = {}};
  bright.voxels.assign(64000, 100.0F);
  bright.voxels[0] = 0;

  const Volume scan = Scan(bright, {.name = "north", .noise = 0.05}, RandomStream(7, "noise"));

  double sum = 0;
  double squares = 0;
  for (std::size_t i = 1; i < scan.voxels.size(); ++i) {
    sum += scan.voxels[i];
    squares += static_cast<double>(scan.voxels[i]) * scan.voxels[i];
  }
  const auto count = static_cast<double>(scan.voxels.size() - 1);
  const double mean = sum / count;
  EXPECT_NEAR(std::sqrt(squares / count - mean * mean), 5, 0.1);
}

TEST(Scanner, FieldIsSmoothAndBounded) {
  Volume flat{.geometry = {.size = {30, 30, 30}}, .voxels = {}};
  flat.voxels.assign(27000, 1.0F);
  flat.voxels[0] = 0;

  const Volume scan = Scan(flat, {.name = "north", .field = 0.2}, RandomStream(3, "field"));

  for (std::size_t i = 2; i < scan.voxels.size(); ++i) {
    EXPECT_GE(scan.voxels[i], 0.8F - 1e-5F);
    EXPECT_LE(scan.voxels[i], 1.2F + 1e-5F);
    if (i % 30 != 0) {
      EXPECT_NEAR(scan.voxels[i], scan.voxels[i - 1], 0.05);
    }
  }
}

}  // namespace
}  // namespace isoscan
