#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/imaging/dicom_series.h"

// What commands share that write results beside a record of what they were made of.

namespace isoscan {

/// Held while this process writes into a folder: another one would take its files for leftovers.
class FolderLock {
 public:
  /// Errors: FAILED_PRECONDITION another process holds it; those of FileError().
  static absl::StatusOr<FolderLock> Acquire(const std::filesystem::path& folder);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock();

 private:
  FolderLock() = default;
  int descriptor_ = -1;
};

/// "scan.nii.gz" of "scan.nii.gz.tmp-0123abcd", which AtomicFile leaves when its process is killed;
/// empty for other names.
std::filesystem::path TargetOfLeftover(const std::filesystem::path& path);

absl::Status MakeFolder(const std::filesystem::path& folder);
absl::Status RemoveFile(const std::filesystem::path& path);

/// An error of writing says which folder: the messages of AtomicFile leave it out.
absl::Status InFolder(const absl::Status& status, const std::filesystem::path& folder);

/// Absolute and without links. Errors: a folder on the way that may not be searched, or links that
/// lead nowhere.
absl::StatusOr<std::filesystem::path> CanonicalPath(const std::filesystem::path& path);

/// Whether a canonical path is the folder, or lies in it.
bool LiesInside(const std::filesystem::path& path, const std::filesystem::path& folder);

/// One file's digest is what sha256sum says; that of several (a header and its voxels' file) is the
/// digest of their lines. Errors: those of FilesOf.
absl::StatusOr<std::string> DigestOfImage(const std::filesystem::path& image);
/// A file may hold several series: which of its frames are this one's counts too.
absl::StatusOr<std::string> DigestOfSeries(const DicomSeries& series);

}  // namespace isoscan
