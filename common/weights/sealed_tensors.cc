#include "common/weights/sealed_tensors.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "common/weights/sha256.h"

namespace isoscan {
namespace {

constexpr char kSeal[] = "sealed";

std::string SealOf(const SealedTensors& content) {
  Sha256 digest;
  // The header has every name, shape and text, and with the shapes where each value belongs.
  digest.Update(EncodeSafetensorsHeader(ShapesOf(content.tensors), content.metadata));
  for (const auto& [name, tensor] : content.tensors) {
    digest.Update(std::string_view(reinterpret_cast<const char*>(tensor.values.data()),
                                   tensor.values.size() * sizeof(float)));
  }
  return std::move(digest).Finish();
}

absl::Status Damaged(const std::filesystem::path& path, const std::string& how) {
  return absl::DataLossError(fmt::format("{} is damaged: {}", path.filename().string(), how));
}

}  // namespace

absl::Status WriteSealed(const std::filesystem::path& path, const SealedTensors& content) {
  WeightsMetadata metadata = content.metadata;
  metadata[kSeal] = SealOf(content);
  return WriteSafetensors(path, content.tensors, metadata);
}

absl::StatusOr<SealedTensors> ReadSealed(const std::filesystem::path& path) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (absl::IsNotFound(file.status())) return file.status();
  if (!file.ok()) return Damaged(path, std::string(file.status().message()));
  SealedTensors content{.tensors = file->ReadAll(), .metadata = file->metadata()};
  const auto seal = content.metadata.extract(kSeal);
  if (seal.empty() || seal.mapped() != SealOf(content)) {
    return Damaged(path, "its SHA-256 is not the one that it was written with");
  }
  return content;
}

}  // namespace isoscan
