#include "server/rpc/uploads.h"

#include <fmt/format.h>

#include "common/status/status_macros.h"
#include "server/rpc/refusal.h"

namespace isoscan {
namespace {

// The mean is made of what is read back, block by block.
constexpr PartialFile::Options kStaged{.keep_block_sums = true};

absl::StatusOr<PartialFile> OpenOrFinish(const std::filesystem::path& path, std::int64_t bytes,
                                         const std::string& digest) {
  ASSIGN_OR_RETURN(PartialFile file, PartialFile::Open(path, bytes, digest, kStaged));
  if (file.offset() < bytes) return file;
  const absl::Status finished = file.Finish();
  if (finished.ok()) return file;
  if (!absl::IsDataLoss(finished)) return finished;
  // The damaged bytes are gone now: the site sends all of them again.
  return PartialFile::Open(path, bytes, digest, kStaged);
}

}  // namespace

absl::Status Upload::CheckClaim(std::int64_t claim) const {
  if (claim == announcement_ && file_.has_value()) return absl::OkStatus();
  return absl::AbortedError("a newer upload of this site took over");
}

absl::Status Upload::Append(std::int64_t claim, std::int64_t at, std::string_view bytes) {
  const absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckClaim(claim));
  const absl::Status status = file_->Append(at, bytes);
  return absl::IsInvalidArgument(status) ? status : FileTrouble(status);
}

void Upload::Close() {
  file_.reset();
  digest_.clear();
  claimed_ = false;
}

void Upload::Release(std::int64_t claim) {
  const absl::MutexLock lock(&mutex_);
  if (CheckClaim(claim).ok()) Close();
}

absl::Status Upload::Finish(std::int64_t claim) {
  const absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CheckClaim(claim));
  const absl::Status status = file_->Finish();
  Close();
  // What arrived damaged is the site's to send again; a disk that refuses is not.
  const bool of_the_disk = absl::IsNotFound(status) || absl::IsResourceExhausted(status);
  return of_the_disk ? FileTrouble(status) : status;
}

absl::StatusOr<std::int64_t> Uploads::Announce(const std::string& site, const std::string& study,
                                               const std::filesystem::path& path,
                                               std::int64_t bytes, const std::string& digest) {
  std::shared_ptr<Upload> upload;
  {
    const absl::MutexLock lock(&mutex_);
    std::shared_ptr<Upload>& entry = uploads_[{site, study}];
    if (entry == nullptr) entry = std::make_shared<Upload>();
    upload = entry;
  }
  const absl::MutexLock lock(&upload->mutex_);
  ++upload->announcement_;
  upload->Close();
  const absl::StatusOr<PartialFile> file = OpenOrFinish(path, bytes, digest);
  if (absl::IsInvalidArgument(file.status())) return file.status();
  if (!file.ok()) return FileTrouble(file.status());
  upload->path_ = path;
  upload->bytes_ = bytes;
  upload->digest_ = digest;
  return file->offset();
}

absl::StatusOr<Uploads::Claim> Uploads::ClaimFor(const std::string& site, const std::string& study,
                                                 const std::string& digest) {
  std::shared_ptr<Upload> upload;
  {
    const absl::MutexLock lock(&mutex_);
    const auto entry = uploads_.find({site, study});
    if (entry != uploads_.end()) upload = entry->second;
  }
  if (upload != nullptr) {
    const absl::MutexLock lock(&upload->mutex_);
    if (!digest.empty() && upload->digest_ == digest) {
      if (upload->claimed_) {
        return absl::AbortedError(
            fmt::format("another upload of {} for study {} is going on; begin again to take over",
                        site, study));
      }
      absl::StatusOr<PartialFile> file =
          PartialFile::Open(upload->path_, upload->bytes_, upload->digest_, kStaged);
      if (!file.ok()) return FileTrouble(file.status());
      upload->file_ = *std::move(file);
      upload->claimed_ = true;
      return Claim{.upload = upload, .number = upload->announcement_};
    }
  }
  // As after a restart of this server in between: beginning again mends it.
  return absl::AbortedError(fmt::format(
      "{} has not announced this upload for study {}: call BeginUpload first", site, study));
}

}  // namespace isoscan
