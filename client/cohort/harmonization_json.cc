#include "client/cohort/harmonization_json.h"

#include <fstream>

namespace isoscan {

using nlohmann::json;

json JsonOf(const HarmonizationRecord& done, const Geometry& grid) {
  const double voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] * grid.spacing_mm[2] / 1000;
  json record{{"statistics",
               {{"mean", done.statistics.mean},
                {"standard_deviation", done.statistics.standard_deviation},
                {"voxels", done.statistics.voxels}}},
              {"mask_ml", voxel_ml * static_cast<double>(done.statistics.voxels)}};
  if (done.bias_field.has_value()) {
    record["n4"] = {{"field_minimum", done.bias_field->minimum},
                    {"field_maximum", done.bias_field->maximum},
                    {"field_standard_deviation", done.bias_field->standard_deviation},
                    {"residual", done.bias_field->residual},
                    {"iterations", done.bias_field->iterations}};
  }
  return record;
}

json ReadJsonObject(const std::filesystem::path& path) {
  std::ifstream file(path);
  json read = json::parse(file, /*cb=*/nullptr, /*allow_exceptions=*/false);
  return read.is_object() ? read : json::object();
}

}  // namespace isoscan
