#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/study/study.h"
#include "common/weights/named_tensors.h"
#include "server/rounds/journal.h"

namespace isoscan {

/// Global models on disk, each under its digest: `DIGEST.safetensors`; and what strategies carry to
/// the next round, `DIGEST.state`. A file under its final name is whole and never changes; its
/// block sums lie beside it.
class ModelFolder {
 public:
  explicit ModelFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::filesystem::path PathOf(const std::string& digest) const;
  std::filesystem::path StatePathOf(const std::string& digest) const;

  /// What the study starts from: drawn from its seed, or imported under the digest that it names;
  /// the tensors of ExchangedShapes().
  /// Errors: FAILED_PRECONDITION weights that were not imported; those of SafetensorsFile::Open and
  ///         CheckStartingWeights.
  absl::StatusOr<NamedTensors> StartingWeights(const Study& study) const;

  /// Keeps weights for studies to start from, and answers with their digest. Another process may
  /// use the folder meanwhile.
  /// Errors: those of WriteError.
  absl::StatusOr<std::string> Import(const NamedTensors& weights) const;

  /// Where a model is written before its digest is known. One name per study, which has no dot.
  std::filesystem::path DraftOf(const std::string& study) const;
  std::filesystem::path StateDraftOf(const std::string& study) const;

  /// Gives a draft its final name, and tells digest and size.
  /// Errors: RESOURCE_EXHAUSTED disk full; UNAVAILABLE other I/O errors.
  absl::StatusOr<GlobalModelRecord> Keep(const std::filesystem::path& draft, int round) const;
  /// The same for a draft of a state.
  absl::StatusOr<ServerState> KeepState(const std::filesystem::path& draft) const;

  /// OK when the model is what its digest says. Errors: DATA_LOSS it is not; those of FileError().
  absl::Status Check(const std::string& digest) const;

  /// Removes a model that no journal knows of: its round was decided anew. What cannot be removed
  /// is logged, as is what RemoveDrafts cannot: it costs disk and nothing else.
  void Remove(const std::string& digest) const;
  /// Removes a state that its study has gone on from; "" is none.
  void RemoveState(const std::string& digest) const;

  /// Removes every state but these, which the journal names: a server that was killed left the
  /// others behind. Only before models are written.
  void RemoveStatesBut(const std::set<std::string>& digests) const;

  /// Removes the half-written files of a server that was killed. Only before models are written.
  void RemoveDrafts() const;

 private:
  /// A file that was given its final name.
  struct Kept {
    std::string digest;
    std::int64_t bytes = 0;
  };
  /// `what` is "model" or "state", also in the names of fault points.
  absl::StatusOr<Kept> KeepAs(const char* what, const char* ending,
                              const std::filesystem::path& draft) const;
  void RemoveFile(const std::filesystem::path& path) const;
  std::filesystem::path folder_;
};

}  // namespace isoscan
