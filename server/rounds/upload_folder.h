#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace isoscan {

/// Staged updates on disk: `SITE/STUDY/round-N/DIGEST`. A round's files go when it is closed; a
/// site's name, a study's name and a digest are checked by the caller, so no path leaves the
/// folder.
///
/// Thread safety: all methods from any thread.
class UploadFolder {
 public:
  explicit UploadFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::filesystem::path PathOf(const std::string& site, const std::string& study, int round,
                               const std::string& digest) const;

  /// Makes room for one more upload of the site: its folder exists, and of its other uploads only
  /// those of `keep` (digests) stay. So a site holds no more than a few models' worth of disk.
  /// Errors: RESOURCE_EXHAUSTED disk full; UNAVAILABLE other I/O errors.
  absl::Status Prepare(const std::string& site, const std::string& study, int round,
                       const std::set<std::string>& keep) const;

  /// Makes the folder of Prepare() outlive a power failure; once for each round and process.
  /// Errors: RESOURCE_EXHAUSTED or UNAVAILABLE.
  absl::Status Sync(const std::string& site, const std::string& study, int round) const;

  /// Removes the site's uploads for every round of the study but `open_round` (0: for all rounds).
  /// What cannot be removed is logged: it costs disk and nothing else.
  void RemoveOtherRounds(const std::string& site, const std::string& study, int open_round) const;

 private:
  std::filesystem::path RoundFolder(const std::string& site, const std::string& study,
                                    int round) const;
  std::filesystem::path folder_;
  mutable absl::Mutex mutex_;
  /// Folders below folder_ whose names are on disk.
  mutable std::set<std::filesystem::path> synced_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace isoscan
