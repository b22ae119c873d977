#include "client/cohort/sidecars.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "client/cohort/layouts.h"
#include "common/status/printable.h"

namespace isoscan {
namespace {

using nlohmann::json;

/// "sub-01_run-2_T1w": entities and suffix. Other parts than the last count as entities: the
/// sidecar of nnU-Net's "b_0000" is not that of "a_0000".
std::pair<std::set<std::string>, std::string> PartsOf(const std::string& stem) {
  std::set<std::string> entities;
  std::string suffix;
  std::istringstream stream(stem);
  for (std::string part; std::getline(stream, part, '_');) {
    if (part.find('-') != std::string::npos) {
      entities.insert(part);
    } else {
      if (!suffix.empty()) entities.insert(std::move(suffix));
      suffix = part;
    }
  }
  return {std::move(entities), std::move(suffix)};
}

/// As acquisition.h promises: printable, at most 64 characters.
std::string Short(const std::string& text) { return Printable(text.substr(0, 64)); }

std::string TextOf(const json& sidecar, const char* key) {
  const auto value = sidecar.find(key);
  return value != sidecar.end() && value->is_string() ? Short(value->get<std::string>()) : "";
}

/// A number, or a text that is one, as some converters write it.
std::optional<double> NumberOf(const json& sidecar, const char* key) {
  const auto value = sidecar.find(key);
  if (value == sidecar.end()) return std::nullopt;
  double number = NAN;
  if (value->is_number()) number = value->get<double>();
  if (value->is_string())
    number = std::strtod(value->get_ref<const std::string&>().c_str(), nullptr);
  return std::isfinite(number) && number > 0 ? std::optional(number) : std::nullopt;
}

/// BIDS writes times in seconds.
std::optional<double> MillisecondsOf(const json& sidecar, const char* key) {
  const std::optional<double> seconds = NumberOf(sidecar, key);
  return seconds.has_value() ? std::optional(*seconds * 1000) : std::nullopt;
}

/// "GR\\IR" or "GR_IR", as converters write DICOM's several values, or an array.
std::vector<std::string> CodesOf(const json& sidecar, const char* key) {
  std::vector<std::string> codes;
  const auto value = sidecar.find(key);
  if (value == sidecar.end()) return codes;
  if (value->is_array()) {
    for (const json& code : *value) {
      if (code.is_string()) codes.push_back(Short(code.get<std::string>()));
    }
    return codes;
  }
  std::string text = TextOf(sidecar, key);
  std::replace(text.begin(), text.end(), '_', '\\');
  std::istringstream stream(text);
  for (std::string code; std::getline(stream, code, '\\');) codes.push_back(code);
  return codes;
}

}  // namespace

Sidecars::Sidecars(std::filesystem::path root) : root_(root.lexically_normal()) {}

const std::vector<Sidecars::File>& Sidecars::FilesIn(const std::filesystem::path& folder) {
  const auto [entry, inserted] = folders_.try_emplace(folder);
  if (!inserted) return entry->second;
  for (const std::filesystem::path& path : SortedEntries(folder)) {
    if (path.extension() != ".json") continue;
    auto [entities, suffix] = PartsOf(path.stem().string());
    entry->second.push_back(
        {.path = path, .entities = std::move(entities), .suffix = std::move(suffix)});
  }
  std::stable_sort(entry->second.begin(), entry->second.end(),
                   [](const File& left, const File& right) {
                     return left.entities.size() < right.entities.size();
                   });
  return entry->second;
}

Sidecar Sidecars::Of(const std::filesystem::path& image) {
  const std::filesystem::path file = image.lexically_normal();
  std::vector<std::filesystem::path> folders;
  for (std::filesystem::path folder = file.parent_path();; folder = folder.parent_path()) {
    folders.push_back(folder);
    if (folder == root_ || folder == folder.parent_path() || folder.empty()) break;
  }
  const auto [entities, suffix] = PartsOf(StemOf(file));
  json merged = json::object();
  Sidecar sidecar;
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
    for (const File& candidate : FilesIn(*folder)) {
      if (candidate.suffix != suffix ||
          !std::includes(entities.begin(), entities.end(), candidate.entities.begin(),
                         candidate.entities.end())) {
        continue;
      }
      std::error_code error;
      // Opening a pipe would wait for its writer; no sidecar has a megabyte.
      const bool is_small_file = std::filesystem::is_regular_file(candidate.path, error) &&
                                 std::filesystem::file_size(candidate.path, error) <= 1'000'000;
      json read;
      if (is_small_file) {
        std::ifstream stream(candidate.path);
        read = json::parse(stream, nullptr, /*allow_exceptions=*/false);
      }
      if (read.is_object()) {
        merged.update(read);
      } else {
        sidecar.fault =
            fmt::format("{} is not a JSON object of at most 1 MB", candidate.path.string());
      }
    }
  }
  Acquisition& acquisition = sidecar.acquisition;
  acquisition.modality = TextOf(merged, "Modality");
  acquisition.manufacturer = TextOf(merged, "Manufacturer");
  acquisition.model = TextOf(merged, "ManufacturersModelName");
  acquisition.software = TextOf(merged, "SoftwareVersions");
  acquisition.receive_coil = TextOf(merged, "ReceiveCoilName");
  acquisition.field_tesla = NumberOf(merged, "MagneticFieldStrength");
  acquisition.repetition_ms = MillisecondsOf(merged, "RepetitionTime");
  acquisition.echo_ms = MillisecondsOf(merged, "EchoTime");
  acquisition.inversion_ms = MillisecondsOf(merged, "InversionTime");
  acquisition.flip_degrees = NumberOf(merged, "FlipAngle");
  acquisition.dimensions = TextOf(merged, "MRAcquisitionType");
  acquisition.sequence = CodesOf(merged, "ScanningSequence");
  acquisition.sequence_variant = CodesOf(merged, "SequenceVariant");
  acquisition.image_type = CodesOf(merged, "ImageType");
  for (const char* key : {"SeriesDescription", "ProtocolName"}) {
    const std::string text = TextOf(merged, key);
    if (text.empty() || text == sidecar.description) continue;
    sidecar.description += (sidecar.description.empty() ? "" : "; ") + text;
  }
  return sidecar;
}

}  // namespace isoscan
