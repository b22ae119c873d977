#include "client/cohort/harmonized_copy.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "client/cohort/layouts.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/sha256.h"
#include <omp.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A volume as stored and in canonical order, N4's field, masks, and room for compression.
constexpr std::int64_t kBytesPerVoxel = 24;

/// One image on its way, by absolute paths.
struct Task {
  fs::path image;
  fs::path output;
  fs::path mask;  ///< For Mask::kGiven.
};

/// Lets as much begin as memory holds together; a single image always may.
class MemoryGate {
 public:
  explicit MemoryGate(std::int64_t budget) : budget_(budget) {}

  void Enter(std::int64_t bytes) {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [&] { return used_ == 0 || used_ + bytes <= budget_; });
    used_ += bytes;
  }
  void Leave(std::int64_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      used_ -= bytes;
    }
    freed_.notify_all();
  }

 private:
  const std::int64_t budget_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::int64_t used_ = 0;
};

fs::path RecordOf(const fs::path& image) {
  return image.parent_path() / (StemOf(image) + ".harmonization.json");
}

json ReadJson(const fs::path& path) {
  std::ifstream file(path);
  json read = json::parse(file, /*cb=*/nullptr, /*allow_exceptions=*/false);
  return read.is_object() ? read : json::object();
}

std::string TextIn(const json& object, const char* key) {
  const auto entry = object.find(key);
  return entry != object.end() && entry->is_string() ? entry->get<std::string>() : std::string();
}

/// True when the output is there, of this input and mask (empty: none is given) and by this plan.
bool IsDone(const Task& task, const std::string& input_digest, const std::string& mask_digest,
            const HarmonizationPlan& plan) {
  const json record = ReadJson(RecordOf(task.output));
  if (TextIn(record, "input_sha256") != input_digest ||
      TextIn(record, "mask_sha256") != mask_digest ||
      TextIn(record, "harmonization_sha256") != HarmonizationDigest(plan)) {
    return false;
  }
  const absl::StatusOr<std::string> digest = Sha256OfFile(task.output);
  return digest.ok() && *digest == TextIn(record, "output_sha256");
}

absl::StatusOr<Mask> ReadMask(const Task& task, const Geometry& grid) {
  if (task.mask.empty()) {
    return absl::InvalidArgumentError(
        "no mask file was found for it, and the plan takes a given "
        "mask");
  }
  ASSIGN_OR_RETURN(const Volume stored, ReadLabelValues(task.mask));
  const Volume values = ToCanonical(stored);
  if (!SameGrid(grid, values.geometry, GridToleranceOf(grid))) {
    return absl::InvalidArgumentError(
        fmt::format("{} does not lie on its grid", task.mask.filename().string()));
  }
  Mask mask(values.voxels.size());
  std::transform(values.voxels.begin(), values.voxels.end(), mask.begin(),
                 [](float value) { return value > 0 ? std::uint8_t{1} : std::uint8_t{0}; });
  return mask;
}

json RecordFor(const HarmonizationRecord& done, const Geometry& grid, const fs::path& image,
               const HarmonizationPlan& plan) {
  const double voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] * grid.spacing_mm[2] / 1000;
  json record{{"version", kVersion},
              {"harmonization", json::parse(CanonicalText(plan))},
              {"harmonization_sha256", HarmonizationDigest(plan)},
              {"statistics",
               {{"mean", done.statistics.mean},
                {"standard_deviation", done.statistics.standard_deviation},
                {"voxels", done.statistics.voxels}}},
              {"mask_ml", voxel_ml * static_cast<double>(done.statistics.voxels)}};
  if (done.bias_field.has_value()) {
    record["n4"] = {{"field_minimum", done.bias_field->minimum},
                    {"field_maximum", done.bias_field->maximum},
                    {"field_standard_deviation", done.bias_field->standard_deviation},
                    {"residual", done.bias_field->residual},
                    {"iterations", done.bias_field->iterations}};
  }
  const json sidecar = ReadJson(image.parent_path() / (StemOf(image) + ".json"));
  if (const auto field = sidecar.find("MagneticFieldStrength");
      field != sidecar.end() && field->is_number()) {
    record["field_strength_tesla"] = *field;
  }
  return record;
}

/// True: written; false: it was there.
absl::StatusOr<bool> HarmonizeOne(const Task& task, const HarmonizationPlan& plan) {
  if (!IsNifti(task.output)) {
    return absl::InvalidArgumentError(
        "harmonised images are written as NIfTI: name the output .nii.gz, or convert the cohort");
  }
  ASSIGN_OR_RETURN(const std::string input_digest, Sha256OfFile(task.image));
  std::string mask_digest;
  if (!task.mask.empty()) {
    ASSIGN_OR_RETURN(mask_digest, Sha256OfFile(task.mask));
  }
  if (IsDone(task, input_digest, mask_digest, plan)) return false;
  ASSIGN_OR_RETURN(const Volume stored, ReadVolume(task.image));
  Volume canonical = ToCanonical(stored);
  std::optional<Mask> given;
  if (plan.mask == HarmonizationPlan::Mask::kGiven) {
    ASSIGN_OR_RETURN(given, ReadMask(task, canonical.geometry));
  }
  ASSIGN_OR_RETURN(const HarmonizationRecord done, Harmonize(canonical, plan, given));
  std::error_code ignored;
  fs::remove(RecordOf(task.output), ignored);  // It would promise what is about to change.
  RETURN_IF_ERROR(
      WriteVolumeLike(task.image, task.output, FromCanonical(canonical, stored.geometry)));
  json record = RecordFor(done, stored.geometry, task.image, plan);
  record["input_sha256"] = input_digest;
  if (!mask_digest.empty()) record["mask_sha256"] = mask_digest;
  ASSIGN_OR_RETURN(record["output_sha256"], Sha256OfFile(task.output));
  RETURN_IF_ERROR(WriteFileAtomically(RecordOf(task.output), record.dump(2) + "\n"));
  return true;
}

bool IsImageOfBids(const fs::path& relative) {
  const std::string stem = StemOf(relative);
  return relative.begin()->string().starts_with("sub-") &&
         relative.parent_path().filename() == "anat" && !stem.ends_with("mask") &&
         !stem.ends_with("dseg") && !stem.ends_with("probseg") && !stem.ends_with("_roi");
}

bool IsImageOfDatasetJson(const fs::path& relative) {
  return *relative.begin() == "imagesTr" || *relative.begin() == "imagesTs";
}

/// The case's name: an nnU-Net image is called CASE_0000, a Decathlon one CASE.
fs::path MaskOfDatasetJson(const fs::path& input, const fs::path& image, bool nnunet) {
  std::string name = StemOf(image);
  if (nnunet && name.size() > 5) name.resize(name.size() - 5);
  for (const char* ending : {".nii.gz", ".nii"}) {
    const fs::path mask = input / "masksTr" / (name + ending);
    if (fs::exists(mask)) return mask;
  }
  return {};
}

/// "sub-1_ses-2" of "sub-1_ses-2_T1w".
std::string SubjectAndSession(const std::string& stem) {
  std::string result = stem.substr(0, stem.find('_'));
  if (const std::size_t session = stem.find("_ses-"); session != std::string::npos) {
    result += stem.substr(session, stem.find('_', session + 1) - session);
  }
  return result;
}

/// The files of a folder: images to harmonise and others to copy.
struct Listing {
  std::vector<Task> images;
  std::vector<fs::path> others;  ///< Relative.
};

absl::StatusOr<Listing> ListFolder(const fs::path& input, const fs::path& output,
                                   const HarmonizationPlan& plan) {
  const absl::StatusOr<CohortFolder::Layout> layout = LayoutOfDatasetJson(input);
  const bool bids = !layout.ok() && LooksLikeBids(input);
  if (!layout.ok() && !bids) {
    return absl::NotFoundError(
        fmt::format("{} is no cohort that is known: it has neither sub-* folders (BIDS) nor a "
                    "dataset.json (Decathlon, nnU-Net); give a single image, or the cohort's "
                    "uppermost folder",
                    input.string()));
  }
  Listing listing;
  std::vector<fs::path> masks;
  std::error_code error;
  fs::recursive_directory_iterator entry(input, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::error_code unreadable;
    if (!entry->is_regular_file(unreadable)) continue;
    const fs::path relative = entry->path().lexically_relative(input);
    if (!relative.filename().string().starts_with('.') && relative.extension() != ".json" &&
        (bids ? IsNifti(relative) && IsImageOfBids(relative) : IsImageOfDatasetJson(relative))) {
      listing.images.push_back({.image = entry->path(), .output = output / relative, .mask = {}});
    } else {
      listing.others.push_back(relative);
      if (StemOf(relative).ends_with("desc-brain_mask")) masks.push_back(entry->path());
    }
  }
  if (error) {
    return absl::DataLossError(fmt::format("cannot list {}: {}", input.string(), error.message()));
  }
  if (listing.images.empty()) {
    return absl::NotFoundError(fmt::format("there is no NIfTI image under {} of {}",
                                           bids ? "sub-*/anat" : "imagesTr", input.string()));
  }
  std::sort(listing.images.begin(), listing.images.end(),
            [](const Task& left, const Task& right) { return left.image < right.image; });
  if (plan.mask != HarmonizationPlan::Mask::kGiven) return listing;
  for (Task& task : listing.images) {
    if (!bids) {
      task.mask = MaskOfDatasetJson(input, task.image, *layout == CohortFolder::Layout::kNnunet);
      continue;
    }
    const std::string subject = SubjectAndSession(StemOf(task.image));
    for (const fs::path& mask : masks) {
      if (SubjectAndSession(StemOf(mask)) != subject) continue;
      // Which of two is meant cannot be told from here, and the order of a folder must not decide.
      if (!task.mask.empty()) {
        return absl::InvalidArgumentError(
            fmt::format("{} has two brain masks, {} and {}; leave one in the cohort",
                        task.image.string(), task.mask.string(), mask.string()));
      }
      task.mask = mask;
    }
  }
  return listing;
}

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::exists(to, error) && fs::file_size(to, error) == fs::file_size(from, error) &&
      fs::last_write_time(to, error) >= fs::last_write_time(from, error) && !error) {
    return absl::OkStatus();
  }
  const fs::path temporary = to.string() + ".tmp-copy";
  fs::create_directories(to.parent_path(), error);
  fs::copy_file(from, temporary, fs::copy_options::overwrite_existing, error);
  if (!error) fs::rename(temporary, to, error);
  if (!error) return absl::OkStatus();
  const std::string reason = error.message();
  const bool full = error == std::errc::no_space_on_device;
  fs::remove(temporary, error);
  return absl::Status(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kDataLoss,
                      fmt::format("cannot copy {} to {}: {}", from.string(), to.string(), reason));
}

absl::Status HarmonizeAll(const std::vector<Task>& tasks, const fs::path& input,
                          const HarmonizationPlan& plan, const std::stop_token& stop,
                          const ImageObserver& observe, HarmonizedCopy& result) {
  MemoryGate gate(AvailableMemoryBytes() / 2);
  std::mutex mutex;  // Of what follows, and of `result`.
  absl::Status failure;
  std::int64_t done = 0;
  std::atomic<std::size_t> next = 0;
  const auto work = [&](int threads) {
    omp_set_num_threads(threads);
    for (std::size_t i = next++; i < tasks.size() && !stop.stop_requested(); i = next++) {
      const absl::StatusOr<Geometry> grid = ReadGeometry(tasks[i].image);
      const std::int64_t bytes = grid.ok() ? grid->voxels() * kBytesPerVoxel : 0;
      gate.Enter(bytes);
      const absl::StatusOr<bool> written = HarmonizeOne(tasks[i], plan);
      gate.Leave(bytes);
      const std::lock_guard lock(mutex);
      if (written.ok()) {
        ++(*written ? result.written : result.kept);
      } else if (absl::IsResourceExhausted(written.status())) {
        failure.Update(written.status());
        next = tasks.size();
      } else {
        // What an earlier plan made of it is not what was asked for.
        std::error_code ignored;
        if (fs::remove(RecordOf(tasks[i].output), ignored)) fs::remove(tasks[i].output, ignored);
        result.refused.push_back({.image = tasks[i].image.lexically_relative(input),
                                  .reason = std::string(written.status().message())});
      }
      observe(++done, static_cast<std::int64_t>(tasks.size()));
    }
  };
  const int cores = AvailableCores();
  const int workers = std::min(cores, static_cast<int>(std::min<std::size_t>(tasks.size(), 1024)));
  {
    std::vector<std::jthread> threads;
    for (int worker = 0; worker < workers; ++worker) {
      threads.emplace_back(work, std::max(1, cores / workers));
    }
  }
  std::sort(result.refused.begin(), result.refused.end(),
            [](const auto& left, const auto& right) { return left.image < right.image; });
  return failure;
}

}  // namespace

absl::StatusOr<HarmonizedCopy> MakeHarmonizedCopy(const fs::path& input, const fs::path& output,
                                                  const HarmonizationPlan& plan,
                                                  const std::stop_token& stop,
                                                  const ImageObserver& observe) {
  std::error_code error;
  if (!fs::exists(input, error)) {
    return absl::NotFoundError(fmt::format("there is no {}", input.string()));
  }
  const std::size_t length = StandardLength(plan.normalize);
  const std::size_t channels =
      std::max(plan.contrasts.size(), length == 0 ? 0 : plan.standard.size() / length);
  if (channels > 1) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' treats each of {} channels its own way, and a copy takes every image alike: give a "
        "study of one channel and a folder of its images alone",
        ToString(plan.normalize), channels));
  }
  const fs::path from = fs::weakly_canonical(input, error);
  const fs::path to = fs::weakly_canonical(fs::absolute(output), error);
  const fs::path inside = to.lexically_relative(from);
  if (!inside.empty() && *inside.begin() != "..") {
    return absl::InvalidArgumentError(
        fmt::format("the output {} would overwrite or lie inside the input {}: name another place",
                    output.string(), input.string()));
  }
  HarmonizedCopy result;
  Listing listing;
  const bool folder = fs::is_directory(from, error);
  if (folder) {
    ASSIGN_OR_RETURN(listing, ListFolder(from, to, plan));
  } else {
    if (plan.mask == HarmonizationPlan::Mask::kGiven) {
      return absl::InvalidArgumentError(
          "a single image has no mask beside it: harmonise its cohort's folder, or choose --mask "
          "whole or otsu");
    }
    listing.images.push_back({.image = from, .output = to, .mask = {}});
  }
  for (const Task& task : listing.images) {
    fs::create_directories(task.output.parent_path(), error);
    if (error) {
      return absl::DataLossError(
          fmt::format("cannot make {}: {}", task.output.parent_path().string(), error.message()));
    }
  }
  for (const fs::path& other : listing.others) {
    if (stop.stop_requested()) break;
    RETURN_IF_ERROR(CopyFile(from / other, to / other));
  }
  RETURN_IF_ERROR(HarmonizeAll(listing.images, folder ? from : from.parent_path(), plan, stop,
                               observe, result));
  if (stop.stop_requested()) {
    return absl::CancelledError("interrupted; the same command goes on from here");
  }
  return result;
}

}  // namespace isoscan
