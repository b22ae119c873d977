#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/study/study.h"

namespace isoscan {

/// Where a site's client keeps what must survive it:
///
///   approved/STUDY.toml                        texts of approved studies
///   models/STUDY/DIGEST.safetensors            the global model of the open round
///   updates/STUDY/ROUND-MODEL.{safetensors,json}   an update that is trained and not yet accepted
///   checkpoints/STUDY/ROUND-MODEL.safetensors      training that goes on (.set-aside: not usable)
///   carried/STUDY/ROUND.{safetensors,pending}      what passes from round to round
///   (carried_state.h) own/STUDY.safetensors                          the site's own model, where a
///   study makes one prepared/STUDY/KEY.safetensors                 cases as the network sees them
///   running                                    locked by the client that runs
class SiteStateFolder {
 public:
  explicit SiteStateFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::filesystem::path approved() const { return folder_ / "approved"; }
  std::filesystem::path Model(const std::string& study, const std::string& digest) const;
  /// Without ending. Names the model too: what was trained from another one is no answer to the
  /// same round.
  std::filesystem::path Update(const std::string& study, int round,
                               const std::string& model_digest) const;

  /// Of training alone, `round` is 0 and `model_digest` that of the study.
  std::filesystem::path Checkpoint(const std::string& study, int round,
                                   const std::string& model_digest) const;
  /// Of the site's own model in the same round.
  std::filesystem::path PersonalCheckpoint(const std::string& study, int round,
                                           const std::string& model_digest) const;

  /// A folder, which CarriedState makes.
  std::filesystem::path Carried(const std::string& study) const;

  /// The newest model that this site alone has: of a study with `local_layers`, the global model
  /// with this site's layers; with `personal`, its personal model. Outlives the study. In a folder
  /// that Prepare() makes.
  std::filesystem::path OwnModel(const std::string& study) const;

  /// Records of updates that are not accepted yet, of any round.
  std::vector<std::filesystem::path> UpdateRecords(const std::string& study) const;

  /// A folder, which PreparedCache makes.
  std::filesystem::path PreparedCases(const std::string& study) const;

  /// More bytes than any model of the study has.
  static std::int64_t ModelBytes(const Study& study);

  /// More bytes than the files of one round take: the model, the update, and a checkpoint while a
  /// new one takes its place.
  static std::int64_t RoundBytes(const Study& study);

  /// Writes a file and removes it, with the folder where it is missing. Errors: those of
  /// FileError().
  absl::Status TryToWrite() const;

  /// Makes the folders of a study, where missing. Errors: those of FileError().
  absl::Status Prepare(const std::string& study) const;

  /// Removes models and updates of a study but those of `round` and `model_digest`, and what a
  /// killed client left half written.
  void KeepOnly(const std::string& study, int round, const std::string& model_digest) const;

  /// The same for checkpoints: a file of Checkpoint() is kept, and what was set aside for it.
  void KeepOnlyCheckpoint(const std::filesystem::path& kept) const;

  /// Removes all of a study that is over but its approved text and the site's own model.
  void Forget(const std::string& study) const;

  /// Held as long as a client runs; the system frees it when the process ends, however it does.
  class Lock {
   public:
    Lock(Lock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
    Lock& operator=(Lock&& other) noexcept {
      std::swap(descriptor_, other.descriptor_);
      return *this;
    }
    ~Lock();

   private:
    friend class SiteStateFolder;
    explicit Lock(int descriptor) : descriptor_(descriptor) {}
    int descriptor_;
  };

  /// Errors: FAILED_PRECONDITION another client runs on this folder; and those of
  /// FileError().
  absl::StatusOr<Lock> Acquire() const;

 private:
  std::filesystem::path folder_;
};

}  // namespace isoscan
