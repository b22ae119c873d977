#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/rounds/journal.h"

namespace isoscan {

/// Global models on disk, each under its digest: `DIGEST.safetensors`. A file under its final name
/// is whole and never changes.
class ModelFolder {
 public:
  explicit ModelFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::filesystem::path PathOf(const std::string& digest) const;

  /// Where a model is written before its digest is known. One name per study: a half-written file
  /// of a killed server is overwritten by the next attempt.
  std::filesystem::path DraftOf(const std::string& study) const;

  /// Gives a draft its final name, and tells digest and size.
  /// Errors: RESOURCE_EXHAUSTED disk full; UNAVAILABLE other I/O errors.
  absl::StatusOr<GlobalModelRecord> Keep(const std::filesystem::path& draft, int round) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace isoscan
