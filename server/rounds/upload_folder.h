#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "absl/status/status.h"

namespace isoscan {

/// Staged updates on disk: `SITE/STUDY/round-N/DIGEST`. A round's files go when it is closed; a
/// site's name, a study's name and a digest are checked by the caller, so no path leaves the
/// folder.
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

  /// Removes the site's uploads for every round of the study but `open_round` (0: for all rounds).
  /// What cannot be removed is logged: it costs disk and nothing else.
  void RemoveOtherRounds(const std::string& site, const std::string& study, int open_round) const;

 private:
  std::filesystem::path RoundFolder(const std::string& site, const std::string& study,
                                    int round) const;
  std::filesystem::path folder_;
};

}  // namespace isoscan
