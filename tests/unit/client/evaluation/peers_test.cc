// Our numbers beside those of the libraries that use the same definition, on pairs of small masks:
// tests/interop/surface_metrics.py asked them.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "client/evaluation/surface_areas.h"
#include "client/evaluation/surface_metrics.h"
#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

using nlohmann::json;

// "cases" or "areas".
std::vector<json> Golden(const std::string& kind) {
  std::ifstream file(GOLDEN_FOLDER "/evaluation/surface_metrics.json");
  std::vector<json> golden = json::parse(file)[kind];
  EXPECT_FALSE(golden.empty());
  return golden;
}

// Run lengths: outside, inside, outside, ...
LabelMap MaskOf(const json& golden, const std::string& side) {
  LabelMap mask = EmptyMap(golden["size"], golden["spacing_mm"]);
  auto voxel = mask.voxels.begin();
  std::uint8_t inside = 0;
  for (const std::int64_t run : golden[side]) {
    voxel = std::fill_n(voxel, run, inside);
    inside ^= 1;
  }
  EXPECT_EQ(voxel, mask.voxels.end());
  return mask;
}

// `tolerance` is relative: MONAI computes in single precision.
void ExpectScore(const json& golden, SurfaceDefinition definition, const json& peer,
                 double tolerance) {
  const SurfaceOptions options{.definition = definition, .tolerances_mm = golden["tolerances_mm"]};
  const LabelScore score =
      ScoreLabels(MaskOf(golden, "reference"), MaskOf(golden, "predicted"), 1, options)[0];

  const double hd = peer["hd_mm"];
  EXPECT_NEAR(score.hd_mm, hd, tolerance * hd);
  EXPECT_NEAR(score.hd95_mm, peer["hd95_mm"], tolerance * hd);
  for (std::size_t i = 0; i < score.nsd.size(); ++i) {
    EXPECT_NEAR(score.nsd[i], peer["nsd"][i], tolerance) << options.tolerances_mm[i] << " mm";
  }
  double assd = 0;
  if (definition == SurfaceDefinition::kVoxels) {
    assd = peer["assd_mm"];
  } else {
    // DeepMind's has the mean of each surface by itself.
    const std::vector<double> area = peer["area_mm2"];
    const std::vector<double> mean = peer["mean_mm"];
    assd = (area[0] * mean[0] + area[1] * mean[1]) / (area[0] + area[1]);
  }
  EXPECT_NEAR(score.assd_mm, assd, tolerance * hd);
}

TEST(Peers, DeepMindMeasuresTheSameBySurfaceElements) {
  for (const json& golden : Golden("cases")) {
    SCOPED_TRACE(golden["name"]);
    ExpectScore(golden, SurfaceDefinition::kElements, golden["elements"], 1e-11);
  }
}

TEST(Peers, MonaiMeasuresTheSameByVoxels) {
  for (const json& golden : Golden("cases")) {
    SCOPED_TRACE(golden["name"]);
    ExpectScore(golden, SurfaceDefinition::kVoxels, golden["voxels"], 2e-6);
  }
}

TEST(Peers, DeepMindHasTheSameAreaForEveryNeighbourhood) {
  for (const json& golden : Golden("areas")) {
    const std::array<double, 256> areas = SurfaceAreas(golden["spacing_mm"]);
    for (std::size_t code = 0; code < areas.size(); ++code) {
      EXPECT_NEAR(areas[code], golden["mm2"][code], 1e-10) << code;
    }
  }
}

}  // namespace
}  // namespace isoscan
