#include "client/intake/label_slices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::Each;
using testing::SizeIs;

using Voxels = std::vector<std::uint8_t>;

TEST(LabelSlices, AreBackgroundUntilTheyAreWritten) {
  const LabelSlices slices({5, 4, 3});
  Voxels read{9};

  slices.Read(2, read);

  EXPECT_THAT(read, SizeIs(20));
  EXPECT_THAT(read, Each(0));
  EXPECT_TRUE(LabelSlices().empty());
  EXPECT_FALSE(slices.empty());
}

// Runs of every length around the greatest that a pair can say, and noise that runs cannot shorten.
TEST(LabelSlices, GiveBackWhatWasWritten) {
  std::vector<Voxels> written;
  for (const std::size_t run : {1, 2, 3, 127, 128, 255, 256, 257, 511, 512, 513, 2000}) {
    Voxels& voxels = written.emplace_back(2000);
    for (std::size_t i = 0; i < voxels.size(); ++i) {
      voxels[i] = static_cast<std::uint8_t>(i / run * 37 % 256);
    }
  }
  RandomStream random(/*seed=*/5, "labels", 0);
  Voxels& noise = written.emplace_back(2000);
  for (std::uint8_t& voxel : noise) voxel = static_cast<std::uint8_t>(4 * random.Uniform());
  LabelSlices slices({50, 40, static_cast<std::int64_t>(written.size())});

  for (std::size_t z = 0; z < written.size(); ++z) {
    slices.Write(static_cast<std::int64_t>(z), written[written.size() - 1 - z]);
    slices.Write(static_cast<std::int64_t>(z), written[z]);
  }

  Voxels read;
  for (std::size_t z = 0; z < written.size(); ++z) {
    slices.Read(static_cast<std::int64_t>(z), read);
    EXPECT_EQ(read, written[z]) << z;
  }
}

TEST(LabelSlices, HoldASliceOfOneVoxel) {
  LabelSlices slices({1, 1, 2});
  Voxels read;

  slices.Write(1, {200});

  slices.Read(1, read);
  EXPECT_EQ(read, Voxels{200});
}

}  // namespace
}  // namespace isoscan
