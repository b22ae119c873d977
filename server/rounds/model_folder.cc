#include "server/rounds/model_folder.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <system_error>

#include "common/process/fault_point.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include <fcntl.h>
#include <unistd.h>

namespace isoscan {

namespace {

constexpr char kModelEnd[] = ".safetensors";
constexpr char kStateEnd[] = ".state";

}  // namespace

std::filesystem::path ModelFolder::PathOf(const std::string& digest) const {
  return folder_ / (digest + kModelEnd);
}

std::filesystem::path ModelFolder::StatePathOf(const std::string& digest) const {
  return folder_ / (digest + kStateEnd);
}

std::filesystem::path ModelFolder::DraftOf(const std::string& study) const {
  return folder_ / (study + ".draft");
}

std::filesystem::path ModelFolder::StateDraftOf(const std::string& study) const {
  return folder_ / (study + ".draft.state");
}

absl::StatusOr<NamedTensors> ModelFolder::StartingWeights(const Study& study) const {
  const std::string& digest = study.network.initial_weights;
  NamedTensors weights;
  if (digest.empty()) {
    weights = InitialWeights(study);
    TakeLocal(study.network, weights);  // Every site draws these itself.
  } else {
    const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(PathOf(digest));
    if (absl::IsNotFound(file.status())) {
      return absl::FailedPreconditionError(
          fmt::format("study {} starts from the weights {}, which this server does not have: "
                      "isoscan-server import WEIGHTS --state FOLDER, where it runs",
                      study.name, digest));
    }
    RETURN_IF_ERROR(file.status());
    weights = file->ReadAll();
    RETURN_IF_ERROR(CheckStartingWeights(study, digest, weights));
  }
  // SCAFFOLD's control variates start at 0.
  for (auto& [name, shape] : ExchangedShapes(study)) {
    const auto [tensor, missing] = weights.try_emplace(name);
    if (!missing) continue;
    tensor->second = {.shape = shape,
                      .values = std::vector<float>(static_cast<std::size_t>(ElementCount(shape)))};
  }
  return weights;
}

absl::StatusOr<std::string> ModelFolder::Import(const NamedTensors& weights) const {
  std::string digest = WeightsDigest(weights);
  RETURN_IF_ERROR(WriteSafetensors(PathOf(digest), weights, {}));
  return digest;
}

absl::StatusOr<GlobalModelRecord> ModelFolder::Keep(const std::filesystem::path& draft,
                                                    int round) const {
  ASSIGN_OR_RETURN(Kept kept, KeepAs("model", kModelEnd, draft));
  return GlobalModelRecord{round, std::move(kept.digest), kept.bytes};
}

absl::StatusOr<ServerState> ModelFolder::KeepState(const std::filesystem::path& draft) const {
  ASSIGN_OR_RETURN(Kept kept, KeepAs("state", kStateEnd, draft));
  return ServerState{.digest = std::move(kept.digest), .bytes = kept.bytes};
}

absl::StatusOr<ModelFolder::Kept> ModelFolder::KeepAs(const char* what, const char* ending,
                                                      const std::filesystem::path& draft) const {
  ASSIGN_OR_RETURN(const FileSums sums, SumsOfFile(draft));
  const std::filesystem::path path = folder_ / (sums.sha256 + ending);
  sums.blocks.WriteBeside(path).IgnoreError();  // BlockSumsOf() makes them again.
  ISOSCAN_FAULT_POINT(what, "hashed");
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(draft, error);
  if (!error) std::filesystem::rename(draft, path, error);
  if (error) {
    return absl::UnavailableError(fmt::format("cannot keep {} {} in {}: {}", what, sums.sha256,
                                              folder_.string(), error.message()));
  }
  ISOSCAN_FAULT_POINT(what, "renamed");
  // The draft's bytes are synced by who wrote it; its new name lasts once the folder is synced.
  const int descriptor = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) {
    return absl::UnavailableError(fmt::format("cannot sync {}", folder_.string()));
  }
  return Kept{sums.sha256, static_cast<std::int64_t>(bytes)};
}

absl::Status ModelFolder::Check(const std::string& digest) const {
  ASSIGN_OR_RETURN(const std::string found, Sha256OfFile(PathOf(digest)));
  if (found == digest) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{} is damaged: its SHA-256 is {}", PathOf(digest).filename().string(), found));
}

void ModelFolder::Remove(const std::string& digest) const {
  RemoveFile(PathOf(digest));
  RemoveFile(BlockSums::PathFor(PathOf(digest)));
}

void ModelFolder::RemoveState(const std::string& digest) const {
  if (digest.empty()) return;
  RemoveFile(StatePathOf(digest));
  RemoveFile(BlockSums::PathFor(StatePathOf(digest)));
}

void ModelFolder::RemoveStatesBut(const std::set<std::string>& digests) const {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder_, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end;
       entry.increment(error)) {
    // "DIGEST.state", and its block sums.
    const std::string name = entry->path().filename().string();
    const std::size_t digits = name.find(kStateEnd);
    if (digits == name.npos || digests.contains(name.substr(0, digits))) continue;
    ISOSCAN_FAULT_POINT("open.state_found");
    RemoveFile(entry->path());
  }
}

void ModelFolder::RemoveDrafts() const {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder_, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end;
       entry.increment(error)) {
    // "STUDY.draft" and "STUDY.draft.state", and these with ".tmp-*" while they are written.
    if (entry->path().filename().string().find(".draft") != std::string::npos) {
      ISOSCAN_FAULT_POINT("open.draft_found");
      RemoveFile(entry->path());
    }
  }
}

void ModelFolder::RemoveFile(const std::filesystem::path& path) const {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) {
    spdlog::warn("model not removed file={} error={}", path.filename().string(), error.message());
  }
}

}  // namespace isoscan
