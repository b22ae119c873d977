#include "client/cohort/output_folder.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <map>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace isoscan {

namespace fs = std::filesystem;

absl::StatusOr<FolderLock> FolderLock::Acquire(const fs::path& folder) {
  FolderLock lock;
  lock.descriptor_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock.descriptor_ < 0) return FileError("cannot open", folder.string(), errno);
  // Some network file systems lock no folders; then nobody else is seen.
  if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return absl::FailedPreconditionError(fmt::format(
        "another isoscan-client writes into {}: wait until it has ended", folder.string()));
  }
  return lock;
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

fs::path TargetOfLeftover(const fs::path& path) {
  constexpr std::string_view kMark = ".tmp-";
  constexpr std::size_t kDigits = 8;
  const std::string name = path.filename().string();
  const std::size_t mark = name.rfind(kMark);
  if (mark == std::string::npos || mark == 0 || name.size() != mark + kMark.size() + kDigits ||
      name.find_first_not_of("0123456789abcdef", mark + kMark.size()) != std::string::npos) {
    return {};
  }
  return path.parent_path() / name.substr(0, mark);
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? FileError("cannot make the folder", folder.string(), error) : absl::OkStatus();
}

absl::Status RemoveFile(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  return error ? FileError("cannot remove", path.string(), error) : absl::OkStatus();
}

absl::Status InFolder(const absl::Status& status, const fs::path& folder) {
  if (status.ok()) return status;
  return {status.code(), fmt::format("{} (in {})", std::string(status.message()), folder.string())};
}

absl::StatusOr<fs::path> CanonicalPath(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::absolute(path, error);
  if (!error) canonical = fs::weakly_canonical(canonical, error);
  if (error) return FileError("cannot open", path.string(), error);
  return canonical;
}

bool LiesInside(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

absl::StatusOr<std::string> DigestOfImage(const fs::path& image) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, FilesOf(image));
  if (files.size() == 1) return Sha256OfFile(files.front());
  std::string lines;
  for (const fs::path& file : files) {
    ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(file));
    lines += digest + "\n";
  }
  return Sha256Of(lines);
}

absl::StatusOr<std::string> DigestOfSeries(const DicomSeries& series) {
  std::map<fs::path, std::string> digests;
  std::string lines;
  for (const DicomSlice& slice : series.slices) {
    std::string& digest = digests[slice.file];
    if (digest.empty()) {
      ASSIGN_OR_RETURN(digest, Sha256OfFile(slice.file));
    }
    lines += fmt::format("{} {}\n", digest, slice.frame);
  }
  return Sha256Of(lines);
}

}  // namespace isoscan
