#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/state_folder.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// What a site carries from round to round of a study and sends to nobody, such as the layers of
/// `local_layers`: carried/STUDY/ROUND.safetensors, sealed, of each round that it trained in.
///
/// What the server does not take has not happened: the tensors of a round are pending until its
/// update was accepted, and count from then on. So a client that was killed at any moment, and one
/// that is asked for the same round again, go on from the same values.
///
/// Thread safety: none.
class CarriedState {
 public:
  /// `folder` and `study` must outlive this object.
  CarriedState(const SiteStateFolder& folder, const Study& study)
      : folder_(folder.Carried(study.name)), study_(study) {}

  /// As after the newest round before `round` whose update was accepted; nothing where there is
  /// none. Removes the files of rounds before that one.
  /// Errors: DATA_LOSS the file is damaged, or of another study of this name (the message says what
  ///         to do).
  absl::StatusOr<NamedTensors> Before(int round) const;

  /// Keeps what training in `round` has made of them, from the global model of this digest, until
  /// Accept() or Drop(). Before the update's record is written. Errors: those of WriteSealed and
  /// FileError().
  absl::Status KeepPending(int round, const std::string& model_digest,
                           const NamedTensors& tensors) const;

  /// What KeepPending() kept of this round and model; nothing otherwise.
  std::optional<NamedTensors> Pending(int round, const std::string& model_digest) const;

  bool HasPending(int round) const;

  /// The server has taken the update of `round`; OK where nothing is pending. Errors: UNAVAILABLE
  /// the file cannot be renamed.
  absl::Status Accept(int round) const;
  /// The server has not, and will not.
  void Drop(int round) const;
  /// Of every round but `round`: no update of theirs was completed.
  void DropAllBut(int round) const;

 private:
  std::filesystem::path PathOf(int round) const;
  std::filesystem::path PendingPathOf(int round) const;

  std::filesystem::path folder_;
  const Study& study_;
};

}  // namespace isoscan
