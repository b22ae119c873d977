#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "common/transfer/chunks.h"

namespace isoscan {

/// One announced file. The stream that may write to it is the one that was claimed after the last
/// announcement; an older stream, such as one whose link was cut without the server noticing, is
/// told ABORTED at its next chunk.
class Upload {
 public:
  /// Errors: ABORTED superseded; those of PartialFile::Append.
  absl::Status Append(std::int64_t claim, std::int64_t at, std::string_view bytes);
  /// Errors: ABORTED superseded; those of PartialFile::Finish.
  absl::Status Finish(std::int64_t claim);
  /// The stream has ended without Finish(): nothing of the file stays open, so that one that is
  /// removed meanwhile gives its disk back. Whatever comes next announces again.
  void Release(std::int64_t claim);

 private:
  friend class Uploads;
  absl::Status CheckClaim(std::int64_t claim) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Close() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::filesystem::path path_ ABSL_GUARDED_BY(mutex_);
  std::int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string digest_ ABSL_GUARDED_BY(mutex_);               // Empty: nothing is announced.
  std::optional<PartialFile> file_ ABSL_GUARDED_BY(mutex_);  // While a stream brings its bytes.
  std::int64_t announcement_ ABSL_GUARDED_BY(mutex_) = 0;
  bool claimed_ ABSL_GUARDED_BY(mutex_) = false;
};

/// The uploads that sites have announced: at most one per site and study.
///
/// Thread safety: all methods from any thread; they touch files, so call them on the executor.
class Uploads {
 public:
  struct Claim {
    std::shared_ptr<Upload> upload;
    std::int64_t number = 0;
  };

  /// Announces a file and ends an earlier upload of this site and study. Answers with the byte to
  /// go on from; `bytes` when the whole file is here and its digest fits.
  /// Errors: those of PartialFile.
  absl::StatusOr<std::int64_t> Announce(const std::string& site, const std::string& study,
                                        const std::filesystem::path& path, std::int64_t bytes,
                                        const std::string& digest);

  /// For the one stream that brings the bytes.
  /// Errors: ABORTED nothing of this digest was announced (since the server started, or the last
  ///         stream ended), or another stream is bringing them; those of PartialFile.
  absl::StatusOr<Claim> ClaimFor(const std::string& site, const std::string& study,
                                 const std::string& digest);

 private:
  absl::Mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<Upload>> uploads_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace isoscan
