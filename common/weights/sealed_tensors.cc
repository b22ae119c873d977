#include "common/weights/sealed_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

constexpr char kSeal[] = "sealed";

/// `visit` is called with the values of each tensor in turn, in pieces.
template <typename Visit>
absl::StatusOr<std::string> SealOf(const TensorShapes& shapes, const WeightsMetadata& metadata,
                                   const Visit& visit) {
  Sha256 digest;
  // The header has every name, shape and text, and with the shapes where each value belongs.
  digest.Update(EncodeSafetensorsHeader(shapes, metadata));
  for (const auto& [name, shape] : shapes) {
    RETURN_IF_ERROR(visit(name, [&](std::span<const float> values) {
      digest.Update({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
    }));
  }
  return std::move(digest).Finish();
}

absl::StatusOr<std::string> SealOf(const SafetensorsFile& file) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 18;
  WeightsMetadata metadata = file.metadata();
  metadata.erase(kSeal);
  std::vector<float> piece(kPiece);
  return SealOf(file.shapes(), metadata, [&](const std::string& name, const auto& take) {
    const std::int64_t count = ElementCount(file.shapes().at(name));
    for (std::int64_t first = 0; first < count; first += kPiece) {
      const std::span<float> values(piece.data(),
                                    static_cast<std::size_t>(std::min(kPiece, count - first)));
      RETURN_IF_ERROR(file.Read(name, first, values));
      take(values);
    }
    return absl::OkStatus();
  });
}

absl::Status Damaged(const std::filesystem::path& path, const std::string& how) {
  return absl::DataLossError(fmt::format("{} is damaged: {}", path.filename().string(), how));
}

}  // namespace

absl::Status WriteSealed(const std::filesystem::path& path, const SealedTensors& content) {
  WeightsMetadata metadata = content.metadata;
  ASSIGN_OR_RETURN(metadata[kSeal], SealOf(ShapesOf(content.tensors), content.metadata,
                                           [&](const std::string& name, const auto& take) {
                                             take(content.tensors.at(name).values);
                                             return absl::OkStatus();
                                           }));
  return WriteSafetensors(path, content.tensors, metadata);
}

absl::StatusOr<SafetensorsFile> OpenSealed(const std::filesystem::path& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (absl::IsNotFound(file.status())) return file.status();
  if (!file.ok()) return Damaged(path, std::string(file.status().message()));
  const absl::StatusOr<std::string> seal = SealOf(*file);
  if (!seal.ok()) return Damaged(path, std::string(seal.status().message()));
  const auto written = file->metadata().find(kSeal);
  if (written == file->metadata().end() || written->second != *seal) {
    return Damaged(path, "its SHA-256 is not the one that it was written with");
  }
  return file;
}

absl::StatusOr<SealedTensors> ReadSealed(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const SafetensorsFile file, OpenSealed(path));
  SealedTensors content{.tensors = file.ReadAll(), .metadata = file.metadata()};
  content.metadata.erase(kSeal);
  return content;
}

}  // namespace isoscan
