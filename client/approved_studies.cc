#include "client/approved_studies.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"

namespace isoscan {

namespace fs = std::filesystem;

fs::path ApprovedStudies::PathOf(const std::string& name) const {
  return folder_ / (name + ".toml");
}

absl::StatusOr<std::vector<Study>> ApprovedStudies::All() const {
  std::vector<Study> studies;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    if (entry.path().extension() != ".toml") continue;
    absl::StatusOr<Study> study = LoadStudy(entry.path());
    if (absl::IsNotFound(study.status())) continue;  // Withdrawn at this moment.
    if (absl::IsInvalidArgument(study.status())) {
      // One that another version has approved; the other studies need not wait for it.
      spdlog::warn("study_set_aside study={0} reason=\"{1}\" action=\"study withdraw {0}\"",
                   entry.path().stem().string(), std::string(study.status().message()));
      continue;
    }
    RETURN_IF_ERROR(study.status());
    studies.push_back(*std::move(study));
  }
  std::sort(studies.begin(), studies.end(),
            [](const Study& left, const Study& right) { return left.name < right.name; });
  return studies;
}

absl::StatusOr<std::optional<Study>> ApprovedStudies::Find(const std::string& name) const {
  // A name that the server sends becomes part of a path.
  if (!IsName(name)) return std::nullopt;
  absl::StatusOr<Study> study = LoadStudy(PathOf(name));
  if (absl::IsNotFound(study.status())) return std::nullopt;
  RETURN_IF_ERROR(study.status());
  return *std::move(study);
}

absl::Status ApprovedStudies::Add(const Study& study) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) return FileError("cannot make the folder", folder_.string(), error);
  return WriteFileAtomically(PathOf(study.name),
                             std::string_view(study.toml.data(), study.toml.size()));
}

absl::Status ApprovedStudies::Remove(const std::string& name) const {
  if (!IsName(name)) return absl::OkStatus();
  std::error_code error;
  fs::remove(PathOf(name), error);
  if (error) return FileError("cannot remove", PathOf(name).string(), error);
  return absl::OkStatus();
}

}  // namespace isoscan
