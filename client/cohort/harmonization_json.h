#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

#include "client/harmonization/harmonize.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// What was done to an image, as its record tells it: the statistics, the mask's volume in mL and,
/// where there is one, N4's field.
nlohmann::json JsonOf(const HarmonizationRecord& done, const Geometry& grid);

/// The text of a file as an object; an empty one where it is none.
nlohmann::json ReadJsonObject(const std::filesystem::path& path);

}  // namespace isoscan
