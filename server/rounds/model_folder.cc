#include "server/rounds/model_folder.h"

#include <fmt/format.h>

#include <system_error>

#include "common/status/status_macros.h"
#include "common/weights/sha256.h"
#include <fcntl.h>
#include <unistd.h>

namespace isoscan {

std::filesystem::path ModelFolder::PathOf(const std::string& digest) const {
  return folder_ / (digest + ".safetensors");
}

std::filesystem::path ModelFolder::DraftOf(const std::string& study) const {
  return folder_ / (study + ".draft");
}

absl::StatusOr<GlobalModelRecord> ModelFolder::Keep(const std::filesystem::path& draft,
                                                    int round) const {
  ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(draft));
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(draft, error);
  if (!error) std::filesystem::rename(draft, PathOf(digest), error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("cannot keep model {} in {}: {}", digest, folder_.string(), error.message()));
  }
  // The draft's bytes are synced by who wrote it; its new name lasts once the folder is synced.
  const int descriptor = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) {
    return absl::UnavailableError(fmt::format("cannot sync {}", folder_.string()));
  }
  return GlobalModelRecord{round, digest, static_cast<std::int64_t>(bytes)};
}

}  // namespace isoscan
