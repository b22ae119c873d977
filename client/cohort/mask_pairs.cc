#include "client/cohort/mask_pairs.h"

#include <fmt/format.h>

#include <map>
#include <system_error>
#include <utility>

#include "client/cohort/layouts.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// "sub-01_ses-2_run-1" of a BIDS name; otherwise the path without its ending.
std::string NameOf(const fs::path& relative) {
  const std::string stem = StemOf(relative);
  if (!stem.starts_with("sub-")) return (relative.parent_path() / stem).generic_string();
  std::string name;
  for (std::size_t first = 0; first < stem.size();) {
    const std::size_t end = std::min(stem.find('_', first), stem.size());
    const std::string entity = stem.substr(first, end - first);
    if (entity.starts_with("sub-") || entity.starts_with("ses-") || entity.starts_with("run-")) {
      name += (name.empty() ? "" : "_") + entity;
    }
    first = end + 1;
  }
  return name;
}

absl::StatusOr<std::map<std::string, fs::path>> MasksBelow(const fs::path& folder) {
  std::map<std::string, fs::path> masks;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const fs::path& path = entry->path();
    std::error_code ignored;
    if (path.filename().string().starts_with('.')) {
      entry.disable_recursion_pending();
    } else if (IsImageFile(path) && fs::is_regular_file(path, ignored)) {
      const auto [found, inserted] =
          masks.try_emplace(NameOf(path.lexically_relative(folder)), path);
      if (inserted) continue;
      return absl::InvalidArgumentError(
          fmt::format("{} and {} would both be {}: name a folder with one mask of each case",
                      found->second.string(), path.string(), found->first));
    }
  }
  if (error) return FileError("cannot read", folder.string(), error);
  if (masks.empty()) {
    return absl::NotFoundError(
        fmt::format("no NIfTI, NRRD or MetaImage file in {}", folder.string()));
  }
  return masks;
}

}  // namespace

absl::StatusOr<std::vector<MaskPair>> PairMasks(const fs::path& predictions,
                                                const fs::path& references) {
  std::error_code error;
  const fs::file_status predicted = fs::status(predictions, error);
  if (!fs::exists(predicted)) return FileError("cannot open", predictions.string(), ENOENT);
  const fs::file_status reference = fs::status(references, error);
  if (!fs::exists(reference)) return FileError("cannot open", references.string(), ENOENT);
  if (fs::is_directory(predicted) != fs::is_directory(reference)) {
    return absl::InvalidArgumentError(fmt::format("{} and {}: name two files or two folders",
                                                  predictions.string(), references.string()));
  }
  if (!fs::is_directory(predicted)) {
    return std::vector<MaskPair>{
        {.name = StemOf(predictions), .predicted = predictions, .reference = references}};
  }
  ASSIGN_OR_RETURN(const auto found, MasksBelow(predictions));
  ASSIGN_OR_RETURN(const auto expected, MasksBelow(references));
  std::map<std::string, MaskPair> pairs;
  for (const auto& [name, path] : found) pairs[name].predicted = path;
  for (const auto& [name, path] : expected) pairs[name].reference = path;
  std::vector<MaskPair> sorted;
  for (auto& [name, pair] : pairs) {
    pair.name = name;
    sorted.push_back(std::move(pair));
  }
  return sorted;
}

}  // namespace isoscan
