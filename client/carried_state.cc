#include "client/carried_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <system_error>
#include <utility>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include "common/weights/sealed_tensors.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

constexpr char kDigestKey[] = "study_digest";
constexpr char kModelKey[] = "model_digest";

/// The round of a file that counts; 0: it is none.
int RoundOf(const fs::path& path) {
  const std::string name = path.filename().string();
  int round = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), round);
  return error == std::errc() && std::string(end) == ".safetensors" ? round : 0;
}

}  // namespace

fs::path CarriedState::PathOf(int round) const {
  return folder_ / fmt::format("{}.safetensors", round);
}

fs::path CarriedState::PendingPathOf(int round) const {
  return folder_ / fmt::format("{}.pending", round);
}

absl::StatusOr<NamedTensors> CarriedState::Before(int round) const {
  int newest = 0;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    const int candidate = RoundOf(entry.path());
    if (candidate < round) newest = std::max(newest, candidate);
  }
  if (newest == 0) return NamedTensors();
  absl::StatusOr<SealedTensors> content = ReadSealed(PathOf(newest));
  if (!content.ok()) {
    return absl::Status(
        content.status().code(),
        fmt::format(
            "what this site carries over from round {} of study {}: {}; put {} back from a "
            "backup, or remove it for the site to begin again with the study's first values",
            newest, study_.name, std::string(content.status().message()), folder_.string()));
  }
  if (content->metadata[kDigestKey] != study_.digest) {
    return absl::DataLossError(
        fmt::format("{} is of another study called {}: remove it for this one to begin with its "
                    "first values",
                    folder_.string(), study_.name));
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    const int candidate = RoundOf(entry.path());
    const bool half_written = entry.path().string().find(".tmp-") != std::string::npos;
    if ((candidate > 0 && candidate < newest) || half_written) fs::remove(entry.path(), ignored);
  }
  return std::move(content->tensors);
}

absl::Status CarriedState::KeepPending(int round, const std::string& model_digest,
                                       const NamedTensors& tensors) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) return FileError("cannot make the folder", folder_.string(), error);
  return WriteSealed(
      PendingPathOf(round),
      {.tensors = tensors, .metadata = {{kDigestKey, study_.digest}, {kModelKey, model_digest}}});
}

std::optional<NamedTensors> CarriedState::Pending(int round,
                                                  const std::string& model_digest) const {
  absl::StatusOr<SealedTensors> content = ReadSealed(PendingPathOf(round));
  if (!content.ok() || content->metadata[kDigestKey] != study_.digest ||
      content->metadata[kModelKey] != model_digest) {
    return std::nullopt;
  }
  return std::move(content->tensors);
}

bool CarriedState::HasPending(int round) const {
  std::error_code ignored;
  return fs::exists(PendingPathOf(round), ignored);
}

absl::Status CarriedState::Accept(int round) const {
  if (!HasPending(round)) return absl::OkStatus();
  // Lost in a power failure, the renaming is done again: the update's record is still there, and
  // the server answers once more.
  std::error_code error;
  fs::rename(PendingPathOf(round), PathOf(round), error);
  if (!error) return SyncFolder(folder_);
  return FileError("cannot rename", PendingPathOf(round).string(), error);
}

void CarriedState::Drop(int round) const {
  std::error_code ignored;
  fs::remove(PendingPathOf(round), ignored);
}

void CarriedState::DropAllBut(int round) const {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    if (entry.path().extension() == ".pending" && entry.path() != PendingPathOf(round)) {
      fs::remove(entry.path(), ignored);
    }
  }
}

}  // namespace isoscan
