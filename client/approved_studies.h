#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/study/study.h"

namespace isoscan {

/// The studies that this site has approved: their texts, one file each, so that what was approved
/// can be read and no text but this one is ever worked on (its SHA-256 is the digest).
///
/// Another process may add or remove one at any time; each method looks at the folder anew.
class ApprovedStudies {
 public:
  explicit ApprovedStudies(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Sorted by name. A text that this version cannot read is logged and left out.
  absl::StatusOr<std::vector<Study>> All() const;

  /// nullopt: not approved.
  absl::StatusOr<std::optional<Study>> Find(const std::string& name) const;

  absl::Status Add(const Study& study) const;
  /// OK when there is none of this name.
  absl::Status Remove(const std::string& name) const;

 private:
  std::filesystem::path PathOf(const std::string& name) const;
  std::filesystem::path folder_;
};

}  // namespace isoscan
