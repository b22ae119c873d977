#include "server/rounds/upload_folder.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <system_error>

#include "common/weights/atomic_file.h"

namespace isoscan {
namespace {

absl::Status ErrorOf(const std::filesystem::path& path, const std::error_code& error) {
  const std::string message = fmt::format("cannot use {}: {}", path.string(), error.message());
  if (error == std::errc::no_space_on_device) return absl::ResourceExhaustedError(message);
  return absl::UnavailableError(message);
}

}  // namespace

std::filesystem::path UploadFolder::RoundFolder(const std::string& site, const std::string& study,
                                                int round) const {
  return folder_ / site / study / fmt::format("round-{}", round);
}

std::filesystem::path UploadFolder::PathOf(const std::string& site, const std::string& study,
                                           int round, const std::string& digest) const {
  return RoundFolder(site, study, round) / digest;
}

absl::Status UploadFolder::Prepare(const std::string& site, const std::string& study, int round,
                                   const std::set<std::string>& keep) const {
  const std::filesystem::path folder = RoundFolder(site, study, round);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return ErrorOf(folder, error);
  std::filesystem::directory_iterator entry(folder, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end;
       entry.increment(error)) {
    // "DIGEST" or "DIGEST.part".
    if (keep.contains(entry->path().stem().string())) continue;
    std::filesystem::remove(entry->path(), error);
    if (error) return ErrorOf(folder, error);
  }
  if (error) return ErrorOf(folder, error);
  return absl::OkStatus();
}

absl::Status UploadFolder::Sync(const std::string& site, const std::string& study,
                                int round) const {
  const std::filesystem::path of_round = RoundFolder(site, study, round);
  const std::filesystem::path of_study = of_round.parent_path();
  for (const std::filesystem::path& folder : {of_study.parent_path(), of_study, of_round}) {
    {
      const absl::MutexLock lock(&mutex_);
      if (synced_.contains(folder)) continue;
    }
    const absl::Status synced = SyncFolder(folder.parent_path());
    if (absl::IsResourceExhausted(synced)) return synced;
    if (!synced.ok()) return absl::UnavailableError(synced.message());
    const absl::MutexLock lock(&mutex_);
    synced_.insert(folder);
  }
  return absl::OkStatus();
}

void UploadFolder::RemoveOtherRounds(const std::string& site, const std::string& study,
                                     int open_round) const {
  const std::filesystem::path study_folder = folder_ / site / study;
  const std::filesystem::path open = RoundFolder(site, study, open_round);
  std::error_code error;
  std::filesystem::directory_iterator entry(study_folder, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path() == open) continue;
    {
      const absl::MutexLock lock(&mutex_);
      synced_.erase(entry->path());
    }
    std::error_code removal;
    std::filesystem::remove_all(entry->path(), removal);
    if (removal) {
      spdlog::warn("upload not removed site={} study={} error={}", site, study, removal.message());
    }
  }
}

}  // namespace isoscan
