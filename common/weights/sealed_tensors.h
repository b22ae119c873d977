#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/named_tensors.h"
#include "common/weights/safetensors.h"

namespace isoscan {

struct SealedTensors {
  NamedTensors tensors;
  WeightsMetadata metadata;
};

/// WriteSafetensors with one more entry of metadata, `sealed`: the SHA-256 of all else in the file.
/// For what a program keeps for itself and reads after an accident.
/// Errors: those of WriteSafetensors.
absl::Status WriteSealed(const std::filesystem::path& path, const SealedTensors& content);

/// What WriteSealed wrote, bit for bit, left in its file: every byte is read once to check it,
/// without touching the mapping, and Values() are there when they are looked at. The metadata has
/// `sealed`. Errors: those of ReadSealed.
absl::StatusOr<SafetensorsFile> OpenSealed(const std::filesystem::path& path);

/// What WriteSealed wrote, bit for bit, or nothing.
/// Errors: NOT_FOUND no such file; DATA_LOSS anything else, with the file's name and what is wrong.
absl::StatusOr<SealedTensors> ReadSealed(const std::filesystem::path& path);

}  // namespace isoscan
