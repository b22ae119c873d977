#include "client/state_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "common/weights/named_tensors.h"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

absl::Status WithWhere(const absl::Status& failure) {
  return {failure.code(),
          fmt::format("{}; `state` in client.toml says where", std::string(failure.message()))};
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) return absl::OkStatus();
  return WithWhere(FileError("cannot make the folder", folder.string(), error));
}

void RemoveFilesBut(const fs::path& folder, const std::string& kept_start) {
  constexpr std::string_view kHalfWritten = ".tmp-";  // As AtomicFile leaves it.
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kept_start) || name.find(kHalfWritten) != name.npos) {
      fs::remove(entry.path(), ignored);
    }
  }
}

std::string RoundAndModel(int round, const std::string& model_digest) {
  return fmt::format("{}-{}", round, model_digest.substr(0, 16));
}

}  // namespace

fs::path SiteStateFolder::Model(const std::string& study, const std::string& digest) const {
  return folder_ / "models" / study / (digest + ".safetensors");
}

fs::path SiteStateFolder::Update(const std::string& study, int round,
                                 const std::string& model_digest) const {
  return folder_ / "updates" / study / RoundAndModel(round, model_digest);
}

fs::path SiteStateFolder::Checkpoint(const std::string& study, int round,
                                     const std::string& model_digest) const {
  return folder_ / "checkpoints" / study / (RoundAndModel(round, model_digest) + ".safetensors");
}

fs::path SiteStateFolder::PersonalCheckpoint(const std::string& study, int round,
                                             const std::string& model_digest) const {
  return folder_ / "checkpoints" / study /
         (RoundAndModel(round, model_digest) + "-personal.safetensors");
}

fs::path SiteStateFolder::Carried(const std::string& study) const {
  return folder_ / "carried" / study;
}

fs::path SiteStateFolder::OwnModel(const std::string& study) const {
  return folder_ / "own" / (study + ".safetensors");
}

std::vector<fs::path> SiteStateFolder::UpdateRecords(const std::string& study) const {
  std::vector<fs::path> records;
  std::error_code ignored;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder_ / "updates" / study, ignored)) {
    if (entry.path().extension() == ".json") records.push_back(entry.path());
  }
  std::sort(records.begin(), records.end());
  return records;
}

fs::path SiteStateFolder::PreparedCases(const std::string& study) const {
  return folder_ / "prepared" / study;
}

std::int64_t SiteStateFolder::ModelBytes(const Study& study) {
  constexpr std::int64_t kHeaderAllowance = std::int64_t{1} << 20;
  std::int64_t values = 0;
  for (const auto& [name, shape] : ExchangedShapes(study)) values += ElementCount(shape);
  return values * std::int64_t{sizeof(float)} + kHeaderAllowance;
}

std::int64_t SiteStateFolder::RoundBytes(const Study& study) {
  // A checkpoint has the weights and a moment for each, of AdamW two.
  const std::int64_t checkpoint =
      study.training.optimizer == TrainingPlan::Optimizer::kAdamW ? 3 : 2;
  return (2 + 2 * checkpoint) * ModelBytes(study);
}

absl::Status SiteStateFolder::TryToWrite() const {
  RETURN_IF_ERROR(MakeFolder(folder_));
  const fs::path path = folder_ / fmt::format("check-{}", getpid());
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const bool written = descriptor >= 0 && write(descriptor, "x", 1) == 1;
  const int error = errno;
  if (descriptor >= 0) close(descriptor);
  if (descriptor >= 0) unlink(path.c_str());
  if (written) return absl::OkStatus();
  return WithWhere(FileError("cannot write", path.string(), error));
}

absl::Status SiteStateFolder::Prepare(const std::string& study) const {
  RETURN_IF_ERROR(MakeFolder(folder_ / "models" / study));
  RETURN_IF_ERROR(MakeFolder(folder_ / "checkpoints" / study));
  RETURN_IF_ERROR(MakeFolder(folder_ / "own"));
  return MakeFolder(folder_ / "updates" / study);
}

void SiteStateFolder::KeepOnly(const std::string& study, int round,
                               const std::string& model_digest) const {
  RemoveFilesBut(folder_ / "models" / study, model_digest);
  RemoveFilesBut(folder_ / "updates" / study, RoundAndModel(round, model_digest));
}

void SiteStateFolder::KeepOnlyCheckpoint(const fs::path& kept) const {
  RemoveFilesBut(kept.parent_path(), kept.filename().string());
}

void SiteStateFolder::Forget(const std::string& study) const {
  std::error_code ignored;
  fs::remove_all(folder_ / "models" / study, ignored);
  fs::remove_all(folder_ / "updates" / study, ignored);
  fs::remove_all(folder_ / "checkpoints" / study, ignored);
  fs::remove_all(Carried(study), ignored);
  fs::remove_all(PreparedCases(study), ignored);
}

SiteStateFolder::Lock::~Lock() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<SiteStateFolder::Lock> SiteStateFolder::Acquire() const {
  RETURN_IF_ERROR(MakeFolder(folder_));
  // Weights that were trained on patients' images are nobody else's business on this machine.
  std::error_code ignored;
  fs::permissions(folder_, fs::perms::owner_all, ignored);
  const fs::path path = folder_ / "running";
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return WithWhere(FileError("cannot open", path.string(), errno));
  }
  Lock lock(descriptor);
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("another isoscan-client runs on {}; stop it first, or give this one a `state` "
                    "folder of its own",
                    folder_.string()));
  }
  return lock;
}

}  // namespace isoscan
