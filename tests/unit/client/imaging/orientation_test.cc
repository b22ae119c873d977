#include "client/imaging/orientation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "client/imaging/image_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

/// One of the 48 orders in which a scanner may store the same anatomy.
struct StoredOrder {
  std::array<std::size_t, 3> axis;  ///< Stored axis a runs along canonical axis[a].
  std::array<bool, 3> flipped;
};

std::vector<StoredOrder> AllOrders() {
  std::vector<StoredOrder> orders;
  std::array<std::size_t, 3> axis{0, 1, 2};
  do {
    for (unsigned bits = 0; bits < 8; ++bits) {
      orders.push_back({axis, {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0}});
    }
  } while (std::next_permutation(axis.begin(), axis.end()));
  return orders;
}

/// The anatomy of SmoothVolume on the grid that stores `canonical` in `order`.
Geometry StoredGeometry(const Geometry& canonical, const StoredOrder& order) {
  Geometry stored = canonical;
  std::array<double, 3> first{};
  for (std::size_t a = 0; a < 3; ++a) {
    const std::size_t from = order.axis[a];
    stored.size[a] = canonical.size[from];
    stored.spacing_mm[a] = canonical.spacing_mm[from];
    for (std::size_t row = 0; row < 3; ++row) {
      stored.direction[row][a] = canonical.direction[row][from] * (order.flipped[a] ? -1 : 1);
    }
    if (order.flipped[a]) first[from] = static_cast<double>(canonical.size[from] - 1);
  }
  stored.origin_mm = PhysicalPoint(canonical, first);
  return stored;
}

std::string BytesOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class EveryStoredOrder : public testing::TestWithParam<std::size_t> {
 protected:
  const Geometry canonical_ = ObliqueGeometry({7, 5, 4});
  const Geometry stored_ = StoredGeometry(canonical_, AllOrders()[GetParam()]);
};

INSTANTIATE_TEST_SUITE_P(Orientation, EveryStoredOrder, testing::Range<std::size_t>(0, 48));

TEST_P(EveryStoredOrder, BecomesTheCanonicalGrid) {
  const Geometry geometry = CanonicalGeometry(stored_);

  EXPECT_EQ(geometry.size, canonical_.size);
  EXPECT_EQ(geometry.spacing_mm, canonical_.spacing_mm);
  EXPECT_TRUE(SameGrid(geometry, canonical_, 1e-9));
}

TEST_P(EveryStoredOrder, KeepsEveryVoxelAtItsPlaceInThePatient) {
  const Volume canonical = ToCanonical(SmoothVolume(stored_));

  const Volume expected = SmoothVolume(canonical_);
  ASSERT_EQ(canonical.voxels.size(), expected.voxels.size());
  for (std::size_t i = 0; i < expected.voxels.size(); ++i) {
    EXPECT_NEAR(canonical.voxels[i], expected.voxels[i], 1e-4) << "voxel " << i;
  }
}

TEST_P(EveryStoredOrder, BecomesTheSameWithoutASecondBuffer) {
  const Volume numbered = NumberedVolume(stored_);

  const Volume expected = ToCanonical(numbered);
  const Volume moved = ToCanonical(Volume(numbered));

  EXPECT_EQ(moved.geometry, expected.geometry);
  EXPECT_EQ(moved.voxels, expected.voxels);
}

TEST_P(EveryStoredOrder, ComesBackExactly) {
  LabelMap labels{.geometry = stored_, .voxels = {}};
  for (std::int64_t i = 0; i < stored_.voxels(); ++i) {
    labels.voxels.push_back(static_cast<std::uint8_t>(i));
  }

  const LabelMap back = FromCanonical(ToCanonical(labels), stored_);

  EXPECT_EQ(back.geometry, stored_);
  EXPECT_EQ(back.voxels, labels.voxels);
}

// A prediction's way: read, canonical, and back into the file's own grid.
TEST_P(EveryStoredOrder, ComesBackThroughAFile) {
  const TemporaryDirectory folder;
  const std::filesystem::path input = folder.path() / "input.nii";
  const std::filesystem::path output = folder.path() / "output.nii";
  const LabelMap labels = BoxLabels(stored_);
  ASSERT_OK(WriteLabelMap(input, labels));

  ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(input));
  const Volume canonical = ToCanonical(read);
  LabelMap predicted{.geometry = canonical.geometry, .voxels = {}};
  for (const float value : canonical.voxels) {
    predicted.voxels.push_back(static_cast<std::uint8_t>(value));
  }
  ASSERT_OK(WriteLabelMapLike(input, output, FromCanonical(predicted, read.geometry)));
  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(output));

  EXPECT_LT(GreatestCornerDistance(read.geometry, stored_), 1e-3);
  EXPECT_LT(GreatestCornerDistance(canonical.geometry, canonical_), 1e-3);
  EXPECT_LT(audit.disagreement_mm, 1e-3);
  EXPECT_EQ(audit.geometry, read.geometry);
  EXPECT_EQ(BytesOf(output), BytesOf(input));
}

TEST(Orientation, IsIdempotent) {
  const Volume once = ToCanonical(
      NumberedVolume(StoredGeometry(ObliqueGeometry({6, 3, 5}), {{2, 0, 1}, {true, false, true}})));

  const Volume twice = ToCanonical(once);

  EXPECT_EQ(twice.geometry, once.geometry);
  EXPECT_EQ(twice.voxels, once.voxels);
}

TEST(Orientation, OfAxesHalfwayBetweenIsStillOneOfThem) {
  Geometry halfway = ObliqueGeometry({4, 4, 2});
  const double s = 0.70710678118654752;
  halfway.direction = {{{s, -s, 0}, {s, s, 0}, {0, 0, 1}}};

  const Geometry canonical = CanonicalGeometry(halfway);

  EXPECT_EQ(CanonicalGeometry(canonical), canonical);
  EXPECT_EQ(canonical.voxels(), halfway.voxels());
}

}  // namespace
}  // namespace isoscan
