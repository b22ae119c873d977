#include "client/cohort/case_fingerprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Two channels of 5 x 4 x 6 voxels (x, y, z), 0 but where the tests say.
LoadedCase EmptyCase() {
  const Geometry grid{.size = {5, 4, 6}, .spacing_mm = {0.5, 0.75, 3}};
  const Volume channel{.geometry = grid, .voxels = std::vector<float>(120, 0.0F)};
  return {.channels = {channel, channel},
          .labels = {.geometry = grid, .voxels = std::vector<std::uint8_t>(120, 0)},
          .stored = grid,
          .mask = {}};
}

std::size_t At(std::size_t x, std::size_t y, std::size_t z) { return (z * 4 + y) * 5 + x; }

std::vector<double> GridsOf(const Fingerprint& fingerprint) {
  std::vector<double> values;
  for (std::size_t i = 0; i < kSketchesOfGrids; ++i) {
    values.push_back(Sketches(fingerprint)[i]->ValueAt(0));
  }
  return values;
}

TEST(AddToFingerprint, MeasuresWhatIsLeftBesideTheRimOfZeros) {
  LoadedCase loaded = EmptyCase();
  loaded.channels[0].voxels[At(1, 2, 3)] = 7;   // One channel has something here,
  loaded.channels[1].voxels[At(3, 1, 4)] = -2;  // the other one there.
  Fingerprint fingerprint = Fingerprint::Empty(2, 2);

  ASSERT_OK(AddToFingerprint(loaded, fingerprint));

  EXPECT_THAT(GridsOf(fingerprint),
              ElementsAre(3, 0.75, 0.5,        // Spacing: z, y, x.
                          2, 2, 3,             // Slices 3 and 4, rows 1 and 2, columns 1 to 3.
                          6, 1.5, 1.5, 0.1));  // 12 of 120 voxels.
  EXPECT_EQ(fingerprint.intensities[0].moments.count, 0) << "nothing is labelled";
}

TEST(AddToFingerprint, TakesTheIntensitiesUnderTheLabelsThere) {
  LoadedCase loaded = EmptyCase();
  loaded.channels[0].voxels[At(1, 1, 1)] = 10;
  loaded.channels[0].voxels[At(3, 3, 3)] = 30;
  loaded.labels.voxels[At(1, 1, 1)] = 2;
  loaded.labels.voxels[At(3, 3, 3)] = 1;
  loaded.labels.voxels[At(2, 2, 2)] = 1;  // 0 within the box counts,
  loaded.labels.voxels[At(4, 3, 5)] = 1;  // beyond it not.
  Fingerprint fingerprint = Fingerprint::Empty(2, 3);

  ASSERT_OK(AddToFingerprint(loaded, fingerprint));

  const DecimalSketch& draws = fingerprint.intensities[0].quantiles;
  EXPECT_NEAR(fingerprint.intensities[0].moments.mean, 40.0 / 3, 1e-12);
  EXPECT_EQ(draws.ValueAt(0), 0);
  EXPECT_EQ(draws.ValueAt(5000), 10);
  EXPECT_EQ(draws.ValueAt(9999), 30);
  EXPECT_EQ(fingerprint.intensities[1].quantiles.ValueAt(9999), 0);
}

TEST(AddToFingerprint, CropsNothingOfAnEmptyCase) {
  Fingerprint fingerprint = Fingerprint::Empty(2, 2);

  ASSERT_OK(AddToFingerprint(EmptyCase(), fingerprint));

  EXPECT_THAT(GridsOf(fingerprint), ElementsAre(3, 0.75, 0.5, 6, 4, 5, 18, 3, 2.5, 1));
}

TEST(AddToFingerprint, RefusesAnIntensityThatNoSketchHolds) {
  LoadedCase loaded = EmptyCase();
  loaded.channels[0].voxels[At(1, 1, 1)] = 3e12F;
  loaded.labels.voxels[At(1, 1, 1)] = 1;
  Fingerprint fingerprint = Fingerprint::Empty(2, 2);

  EXPECT_THAT(
      AddToFingerprint(loaded, fingerprint),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("an intensity of 3000000000000")));

  EXPECT_EQ(fingerprint, Fingerprint::Empty(2, 2));
}

}  // namespace
}  // namespace isoscan
