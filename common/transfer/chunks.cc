#include "common/transfer/chunks.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "common/process/fault_point.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace isoscan {
namespace {

// Much enough for the disk to be worth its while, little enough to keep it busy.
constexpr std::int64_t kWriteBackBytes = 8 * 1024 * 1024;

std::filesystem::path PartOf(std::filesystem::path path) { return path += ".part"; }

// Bytes of a regular file; -1 when there is none.
std::int64_t SizeOf(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return -1;
  return status.st_size;
}

}  // namespace

absl::StatusOr<PartialFile> PartialFile::Open(const std::filesystem::path& path, std::int64_t size,
                                              std::string sha256, Options options) {
  if (size < 0 || !IsSha256(sha256)) {
    return absl::InvalidArgumentError(fmt::format(
        "a transfer needs a size and a SHA-256, not {} bytes and '{:.80}'", size, sha256));
  }
  PartialFile file;
  file.path_ = path;
  file.size_ = size;
  file.sha256_ = std::move(sha256);
  file.options_ = options;
  if (SizeOf(path) == size) {
    file.offset_ = size;
    file.finished_ = true;
    return file;
  }
  file.descriptor_ = open(PartOf(path).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file.descriptor_ < 0) return WriteError(path, errno);
  // Of what was opened: another call may have removed the name meanwhile.
  struct stat status {};
  if (fstat(file.descriptor_, &status) != 0) return WriteError(path, errno);
  file.offset_ = status.st_size;
  if (file.offset_ > size) {
    // Left by a transfer of another file under this name.
    if (ftruncate(file.descriptor_, 0) != 0) return WriteError(path, errno);
    file.offset_ = 0;
  }
  file.write_back_ = file.offset_;
  if (file.offset_ == 0) file.running_.emplace();
  return file;
}

PartialFile::PartialFile(PartialFile&& other) noexcept { *this = std::move(other); }

PartialFile& PartialFile::operator=(PartialFile&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) close(descriptor_);
    path_ = std::move(other.path_);
    size_ = other.size_;
    offset_ = other.offset_;
    write_back_ = other.write_back_;
    sha256_ = std::move(other.sha256_);
    options_ = other.options_;
    running_ = std::move(other.running_);
    finished_ = other.finished_;
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

PartialFile::~PartialFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status PartialFile::Append(std::int64_t at, std::string_view bytes) {
  if (at != offset_) {
    return absl::InvalidArgumentError(
        fmt::format("a chunk for byte {} came where byte {} is next", at, offset_));
  }
  if (bytes.size() > static_cast<std::size_t>(size_ - offset_)) {
    return absl::InvalidArgumentError(fmt::format("{} bytes came where {} of {} are missing",
                                                  bytes.size(), size_ - offset_, size_));
  }
  if (running_.has_value()) {
    running_->sha256.Update(bytes);
    if (options_.keep_block_sums) running_->blocks.Add(bytes);
  }
  while (!bytes.empty()) {
    const ssize_t count = pwrite(descriptor_, bytes.data(), bytes.size(), offset_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      running_.reset();  // It has seen bytes that were not kept.
      return WriteError(path_, error);
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset_ += count;
  }
  // Finish() then waits for the last few bytes only, and is told of what went wrong with others.
  if (options_.durable && offset_ - write_back_ >= kWriteBackBytes) {
    sync_file_range(descriptor_, write_back_, offset_ - write_back_, SYNC_FILE_RANGE_WRITE);
    write_back_ = offset_;
  }
  ISOSCAN_FAULT_POINT("part.appended");
  return absl::OkStatus();
}

absl::Status PartialFile::Finish() {
  if (finished_) {
    // Whoever renamed it may have died before the folder was safe.
    return options_.durable ? SyncFolder(path_.parent_path()) : absl::OkStatus();
  }
  if (offset_ != size_) {
    return absl::FailedPreconditionError(
        fmt::format("{} of {} bytes have arrived", offset_, size_));
  }
  const std::filesystem::path part = PartOf(path_);
  FileSums sums;
  if (running_.has_value()) {
    sums = {.sha256 = std::move(running_->sha256).Finish(), .blocks = std::move(running_->blocks)};
    running_.reset();
  } else {
    ASSIGN_OR_RETURN(sums, SumsOfFile(part));
  }
  if (sums.sha256 != sha256_) {
    unlink(part.c_str());
    return absl::DataLossError(fmt::format(
        "the {} bytes that arrived have SHA-256 {}, announced was {}; the transfer must start "
        "again",
        size_, sums.sha256, sha256_));
  }
  // Whoever needs sums that are not there makes them from the file.
  ISOSCAN_FAULT_POINT("part.checked");
  if (options_.keep_block_sums) sums.blocks.WriteBeside(path_).IgnoreError();
  ISOSCAN_FAULT_POINT("part.before_sync");
  if (options_.durable && fdatasync(descriptor_) != 0) return WriteError(path_, errno);
  ISOSCAN_FAULT_POINT("part.after_sync");
  if (std::rename(part.c_str(), path_.c_str()) != 0 && SizeOf(path_) != size_) {
    return WriteError(path_, errno);
  }
  finished_ = true;
  ISOSCAN_FAULT_POINT("part.renamed");
  if (options_.durable) RETURN_IF_ERROR(SyncFolder(path_.parent_path()));
  ISOSCAN_FAULT_POINT("part.done");
  return absl::OkStatus();
}

absl::StatusOr<ChunkedFile> ChunkedFile::Open(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FileError("cannot open", name, errno);
  return ChunkedFile(std::move(name), descriptor);
}

ChunkedFile::ChunkedFile(ChunkedFile&& other) noexcept
    : name_(std::move(other.name_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

ChunkedFile& ChunkedFile::operator=(ChunkedFile&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

ChunkedFile::~ChunkedFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status ChunkedFile::Read(std::int64_t offset, std::string& chunk) const {
  if (offset < 0) {
    return absl::InvalidArgumentError(fmt::format("{} has no byte {}", name_, offset));
  }
  chunk.resize(kChunkBytes);
  std::size_t filled = 0;
  ssize_t count = 0;
  do {
    count = pread(descriptor_, chunk.data() + filled, chunk.size() - filled,
                  offset + static_cast<std::int64_t>(filled));
    if (count > 0) filled += static_cast<std::size_t>(count);
  } while ((count > 0 && filled < chunk.size()) || (count < 0 && errno == EINTR));
  if (count < 0) return FileError("cannot read", name_, errno);
  chunk.resize(filled);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadChunk(const std::filesystem::path& path, std::int64_t offset) {
  ASSIGN_OR_RETURN(const ChunkedFile file, ChunkedFile::Open(path));
  std::string chunk;
  RETURN_IF_ERROR(file.Read(offset, chunk));
  return chunk;
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.WriteAt(0, content));
  return file.Commit();
}

}  // namespace isoscan
