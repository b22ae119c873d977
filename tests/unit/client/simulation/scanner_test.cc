#include "client/simulation/scanner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "tests/support/status_matchers.h"
#include <omp.h>

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

/// A box of white matter with a plate of CSF in it, 40 x 40 x 40.
Anatomy Brain() {
  const Geometry grid{.size = {40, 40, 40}};
  Anatomy brain{.field_of_view = grid,
                .labels = {.geometry = grid, .voxels = std::vector<std::uint8_t>(64000)},
                .image = {},
                .tissue = std::vector<TissueShares>(64000)};
  for (std::size_t i = 0; i < brain.tissue.size(); ++i) {
    brain.tissue[i][IndexOf(i < 8000 ? Tissue::kCsf : Tissue::kWhite)] = 1;
  }
  return brain;
}

Volume ScanOf(const Anatomy& brain, const std::string& scanner, std::uint64_t seed = 1) {
  const Scanner parsed = *ParseScanner(scanner);
  const Protocol& protocol = parsed.protocols[0];
  return Scan(brain, TissuesAt(protocol.field), protocol, parsed, RandomStream(seed, "scan"));
}

TEST(Scanner, ReadsProtocolsAndGeometry) {
  const auto scanner = ParseScanner(
      "north:protocol=E+3T-flair,spacing=1x1x4,thickness=5,psf=1.5,oblique=-20,orientation=RAS,"
      "transmit=0.1");

  ASSERT_OK(scanner);
  ASSERT_EQ(scanner->protocols.size(), 2);
  EXPECT_EQ(scanner->protocols[0].name, "3T-mprage");
  EXPECT_EQ(scanner->protocols[1].letter, "H");
  EXPECT_THAT(scanner->spacing_mm, ::testing::ElementsAre(1, 1, 4));
  EXPECT_EQ(scanner->thickness, 5);
  EXPECT_EQ(scanner->psf, 1.5);
  EXPECT_EQ(scanner->oblique, -20);
  EXPECT_EQ(scanner->orientation, "RAS");
  EXPECT_EQ(scanner->transmit, 0.1);
  EXPECT_EQ(scanner->bits, 12);
  EXPECT_EQ(ParseScanner("north:protocol=E,bits=0")->bits, 0);
  EXPECT_EQ(ParseScanner("north:scale=2")->bits, 0);
  EXPECT_THAT(ParseScanner("north:spacing=2")->spacing_mm, ::testing::ElementsAre(2, 2, 2));
}

TEST(Scanner, RefusesWhatNoScannerDoes) {
  for (const char* const wrong :
       {"protocol=7T", "protocol=A+E", "spacing=1x1", "spacing=0", "orientation=LRS", "bits=20",
        "oblique=90", "noise=-1", "field=1", "scale=nan", "scale", "protocol="}) {
    EXPECT_THAT(ParseScanner(std::string("north:") + wrong),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("north")))
        << wrong;
  }
}

TEST(Scan, ShowsTheProtocolsSignals) {
  const Volume scan = ScanOf(Brain(), "north:protocol=E,bits=0");

  EXPECT_NEAR(scan.voxels.front(), 15.6, 0.05);
  EXPECT_NEAR(scan.voxels.back(), 100, 1e-3);
}

TEST(Scan, MixesSignalsLinearly) {
  Anatomy brain = Brain();
  for (TissueShares& voxel : brain.tissue) voxel = {0.25, 0, 0.5};  // The rest is bone.

  const Volume scan = ScanOf(brain, "north:protocol=J,bits=0");

  EXPECT_NEAR(scan.voxels[0], 0.25 * 316.2 + 0.5 * 100, 0.05);
}

TEST(Scan, OfAnotherScaleAndBiasIsAnAffineMapOfTheFirst) {
  const char* const common = "protocol=D,noise=0.05,field=0.2,transmit=0.2,gamma=1.1";
  const Volume first = ScanOf(Brain(), std::string("north:") + common);
  const Volume second = ScanOf(Brain(), std::string("north:scale=4,bias=-70,") + common);

  for (std::size_t i = 0; i < first.voxels.size(); ++i) {
    ASSERT_NEAR(second.voxels[i], 4 * first.voxels[i] - 70, 1e-4 * (1 + second.voxels[i] + 140));
  }
}

TEST(Scan, StoresTwelveBits) {
  const Volume scan = ScanOf(Brain(), "north:protocol=E,noise=0.05");

  const float top = *std::max_element(scan.voxels.begin(), scan.voxels.end());
  for (const float voxel : scan.voxels) {
    const float level = voxel / top * 4095;
    ASSERT_NEAR(level, std::round(level), 1e-2);
  }
}

TEST(Scan, NoiseIsRicianAndAFractionOfTheReferenceTissue) {
  Anatomy brain = Brain();
  for (std::size_t i = 32000; i < 64000; ++i) brain.tissue[i] = {};  // Half is air.

  const Volume scan = ScanOf(brain, "north:protocol=E,noise=0.05,bits=0");

  const auto moments = [&](std::size_t first, std::size_t last) {
    double sum = 0;
    double squares = 0;
    for (std::size_t i = first; i < last; ++i) {
      sum += scan.voxels[i];
      squares += static_cast<double>(scan.voxels[i]) * scan.voxels[i];
    }
    const double mean = sum / static_cast<double>(last - first);
    return std::array{mean, std::sqrt(squares / static_cast<double>(last - first) - mean * mean)};
  };
  // sigma is 5: white matter's 100 has it, and air is Rayleigh: sqrt(pi/2), sqrt(2 - pi/2) sigma.
  EXPECT_NEAR(moments(8000, 32000)[1], 5, 0.1);
  EXPECT_NEAR(moments(32000, 64000)[0], 5 * 1.2533, 0.1);
  EXPECT_NEAR(moments(32000, 64000)[1], 5 * 0.6551, 0.1);
}

TEST(Scan, TransmitFieldChangesContrastAndReceiveFieldDoesNot) {
  Anatomy brain = Brain();
  // CSF and white matter beside each other everywhere.
  for (std::size_t i = 0; i < brain.tissue.size(); ++i) {
    brain.tissue[i] = {};
    brain.tissue[i][IndexOf(i % 2 == 0 ? Tissue::kCsf : Tissue::kWhite)] = 1;
  }
  const auto spread_of_contrast = [&](const std::string& scanner) {
    const Volume scan = ScanOf(brain, scanner);
    double lowest = 1e9;
    double highest = 0;
    for (std::size_t i = 0; i < scan.voxels.size(); i += 2) {
      const double contrast = scan.voxels[i] / scan.voxels[i + 1];
      lowest = std::min(lowest, contrast);
      highest = std::max(highest, contrast);
    }
    return highest / lowest;
  };

  EXPECT_LT(spread_of_contrast("north:protocol=E,field=0.4,bits=0"), 1.1);
  EXPECT_GT(spread_of_contrast("north:protocol=E,transmit=0.4,bits=0"), 1.2);
}

TEST(Scan, IsTheSameForAnyNumberOfThreads) {
  const char* const scanner = "north:protocol=E,noise=0.05,field=0.2,transmit=0.2";
  omp_set_num_threads(1);
  const Volume one = ScanOf(Brain(), scanner);
  omp_set_num_threads(3);
  const Volume three = ScanOf(Brain(), scanner);
  omp_set_num_threads(omp_get_num_procs());

  EXPECT_EQ(one.voxels, three.voxels);
  EXPECT_NE(one.voxels, ScanOf(Brain(), scanner, 2).voxels);
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
      Rescan(anatomy, {.name = "north", .scale = 3, .bias = 200}, RandomStream(1, "test"));

  for (std::size_t i = 0; i < anatomy.voxels.size(); ++i) {
    EXPECT_NEAR(scan.voxels[i], 3 * anatomy.voxels[i] + 200, 1e-3);
  }
}

TEST(Scanner, ContrastCurveKeepsTheOrderOfIntensities) {
  const Volume anatomy = Ramp();

  const Volume scan = Rescan(anatomy, {.name = "north", .gamma = 0.7}, RandomStream(1, "test"));

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

  const Volume scan = Rescan(bright, {.name = "north", .noise = 0.05}, RandomStream(7, "noise"));

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

  const Volume scan = Rescan(flat, {.name = "north", .field = 0.2}, RandomStream(3, "field"));

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
