#include "client/cohort/harmonized_copy.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "client/cohort/copy_listing.h"
#include "client/cohort/harmonization_json.h"
#include "client/cohort/layouts.h"
#include "client/cohort/output_folder.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/dicom_series.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/atomic_file.h"
#include "common/weights/sha256.h"
#include <omp.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A volume as stored and in canonical order, N4's field, masks, and room for compression.
constexpr std::int64_t kBytesPerVoxel = 24;

/// What all images have in common.
struct Work {
  const HarmonizationPlan& plan;
  GeometrySource geometry;
  bool canonical = false;  ///< Voxels are written in that order, not in the image's own.
};

/// Lets as much begin as memory holds together; one that is larger waits until it is alone.
class MemoryGate {
 public:
  explicit MemoryGate(std::int64_t budget) : budget_(budget) {}

  /// Held while an image is worked on.
  class Place {
   public:
    Place(MemoryGate* gate, std::int64_t bytes) : gate_(gate), bytes_(bytes) {}
    Place(Place&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)), bytes_(other.bytes_) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (gate_ != nullptr) gate_->Leave(bytes_);
    }

   private:
    MemoryGate* gate_;
    std::int64_t bytes_;
  };

  /// Errors: RESOURCE_EXHAUSTED more than there is even for an image alone.
  absl::StatusOr<Place> Enter(std::int64_t bytes) {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [&] { return used_ == 0 || used_ + bytes <= budget_; });
    if (bytes > budget_) RETURN_IF_ERROR(CheckMemory("harmonising it", bytes));
    used_ += bytes;
    return Place(this, bytes);
  }

 private:
  void Leave(std::int64_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      used_ -= bytes;
    }
    freed_.notify_all();
  }

  const std::int64_t budget_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::int64_t used_ = 0;
};

/// What is known of an output before it is made: one whose record says otherwise is made anew.
absl::StatusOr<json> WhatGoesIn(const CopyTask& task, const Work& work) {
  json record{{"version", kVersion},
              {"harmonization", json::parse(CanonicalText(work.plan))},
              {"harmonization_sha256", HarmonizationDigest(work.plan)},
              {"geometry", NameOf(work.geometry)}};
  if (work.canonical) record["voxel_order"] = "LPS";
  if (!task.channel_name.empty()) record["channel"] = task.channel_name;
  if (task.field_tesla.has_value()) record["field_strength_tesla"] = *task.field_tesla;
  ASSIGN_OR_RETURN(record["input_sha256"], task.series.has_value() ? DigestOfSeries(*task.series)
                                                                   : DigestOfImage(task.image));
  if (!task.mask.empty()) {
    ASSIGN_OR_RETURN(record["mask_sha256"], DigestOfImage(task.mask));
  }
  return record;
}

bool IsDone(const CopyTask& task, const json& what_goes_in) {
  const json record = ReadJsonObject(RecordOf(task.output));
  for (const char* key :
       {"version", "harmonization", "harmonization_sha256", "geometry", "voxel_order", "channel",
        "field_strength_tesla", "input_sha256", "mask_sha256"}) {
    if (record.value(key, json()) != what_goes_in.value(key, json())) return false;
  }
  const absl::StatusOr<std::string> digest = Sha256OfFile(task.output);
  return digest.ok() && record.value("output_sha256", json()) == *digest;
}

absl::StatusOr<Mask> ReadMask(const CopyTask& task, const Geometry& grid, GeometrySource geometry) {
  if (task.mask.empty()) {
    return absl::InvalidArgumentError(
        "no mask file was found for it, and the plan takes a given mask (docs/cohorts.md says "
        "where "
        "it lies)");
  }
  ASSIGN_OR_RETURN(const Volume stored, ReadLabelValues(task.mask, geometry));
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

/// An image in memory, ready to be written.
struct Harmonized {
  Volume volume;
  json record;
};

/// Errors: why this image is refused.
absl::StatusOr<Harmonized> HarmonizeOne(const CopyTask& task, const Work& work, json record) {
  if (!IsNifti(task.output)) {
    return absl::InvalidArgumentError(
        "harmonised images are written as NIfTI: convert the cohort's images to .nii.gz");
  }
  absl::StatusOr<Volume> stored = task.series.has_value() ? ReadDicomSeries(*task.series)
                                                          : ReadVolume(task.image, work.geometry);
  RETURN_IF_ERROR(stored.status());
  const Geometry grid = stored->geometry;
  Volume canonical = ToCanonical(*std::move(stored));
  std::optional<Mask> given;
  if (work.plan.mask == HarmonizationPlan::Mask::kGiven) {
    ASSIGN_OR_RETURN(given, ReadMask(task, canonical.geometry, work.geometry));
  }
  ASSIGN_OR_RETURN(const HarmonizationRecord done,
                   Harmonize(canonical, work.plan, given, task.channel));
  record.update(JsonOf(done, grid));
  return Harmonized{
      .volume = work.canonical ? std::move(canonical) : FromCanonical(canonical, grid),
      .record = std::move(record)};
}

/// The image first, so that its record vouches for what is there; nothing when it is not.
absl::Status RemoveOutput(const fs::path& output) {
  RETURN_IF_ERROR(RemoveFile(output));
  return RemoveFile(RecordOf(output));
}

absl::Status WriteOutput(const CopyTask& task, const Work& work, Harmonized& image) {
  // A DICOM series has no forms to keep: both say the scanner's. In another order of voxels the
  // forms are others.
  const bool own_forms = !task.series.has_value() && !work.canonical;
  RETURN_IF_ERROR(!own_forms ? WriteVolume(task.output, image.volume)
                             : WriteVolumeLike(task.image, task.output, image.volume));
  ASSIGN_OR_RETURN(image.record["output_sha256"], Sha256OfFile(task.output));
  return WriteFileAtomically(RecordOf(task.output), image.record.dump(2) + "\n");
}

/// Entries for each channel: which one an image shows has to be known.
bool TreatsChannelsApart(const HarmonizationPlan& plan) {
  return NeedsContrast(plan.normalize) || StandardLength(plan.normalize) > 0;
}

Study StudyOf(const CopyRequest& request, bool folder) {
  Study study;
  study.harmonization = request.plan;
  // Of a folder nnU-Net's names have each image's channel; that of a single image is the caller's.
  if (TreatsChannelsApart(request.plan) || (folder && request.for_nnunet)) {
    study.channels = request.channels;
  }
  return study;
}

bool SameContent(const fs::path& left, const fs::path& right) {
  std::error_code error;
  if (fs::file_size(left, error) != fs::file_size(right, error) || error) return false;
  std::ifstream left_file(left, std::ios::binary);
  std::ifstream right_file(right, std::ios::binary);
  std::string left_block(kChunkBytes, '\0');
  std::string right_block(kChunkBytes, '\0');
  while (left_file && right_file) {
    left_file.read(left_block.data(), std::ssize(left_block));
    right_file.read(right_block.data(), std::ssize(right_block));
    const std::streamsize count = left_file.gcount();
    if (count != right_file.gcount() ||
        !std::equal(left_block.begin(), left_block.begin() + count, right_block.begin())) {
      return false;
    }
  }
  return left_file.eof() && right_file.eof();
}

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  if (SameContent(from, to)) return absl::OkStatus();
  const fs::path folder = to.parent_path();
  RETURN_IF_ERROR(MakeFolder(folder));
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(to);
  RETURN_IF_ERROR(InFolder(file.status(), folder));
  for (std::int64_t offset = 0;;) {
    ASSIGN_OR_RETURN(const std::string chunk, ReadChunk(from, offset));
    if (chunk.empty()) return InFolder(file->Commit(), folder);
    RETURN_IF_ERROR(InFolder(file->WriteAt(offset, chunk), folder));
    offset += std::ssize(chunk);
  }
}

/// Removes what a killed process and an earlier plan have left, and finds what is nobody's.
absl::Status CleanOutput(const CopyListing& listing, const fs::path& to, bool folder,
                         HarmonizedCopy& result) {
  std::set<fs::path> targets;
  for (const fs::path& other : listing.others) targets.insert(to / other);
  for (const CopyTask& task : listing.images) {
    targets.insert(task.output);
    targets.insert(RecordOf(task.output));
  }
  for (const fs::path& output : listing.outputs_left_out) {
    if (!targets.contains(output)) RETURN_IF_ERROR(RemoveOutput(output));
  }
  std::vector<fs::path> leftovers;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder ? to : to.parent_path(), error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::error_code unreadable;
    if (!folder) entry.disable_recursion_pending();
    if (!entry->is_regular_file(unreadable) || targets.contains(entry->path())) continue;
    if (targets.contains(TargetOfLeftover(entry->path()))) {
      leftovers.push_back(entry->path());
    } else if (folder && !entry->path().filename().string().starts_with('.')) {
      result.strangers.push_back(entry->path().lexically_relative(to));
    }
  }
  for (const fs::path& leftover : leftovers) RETURN_IF_ERROR(RemoveFile(leftover));
  std::sort(result.strangers.begin(), result.strangers.end());
  return absl::OkStatus();
}

/// What became of one image; an error ends the whole copy.
struct Outcome {
  bool kept = false;
  absl::Status refusal;
};

/// Errors of writing, but for what no file could hold; everything else refuses this image alone.
absl::StatusOr<Outcome> WorkOn(const CopyTask& task, const Work& work, MemoryGate& gate) {
  const auto refused = [](absl::Status why) {
    return Outcome{.kept = false, .refusal = std::move(why)};
  };
  absl::StatusOr<json> record = WhatGoesIn(task, work);
  if (record.ok() && IsDone(task, *record)) return Outcome{.kept = true, .refusal = {}};
  RETURN_IF_ERROR(RemoveOutput(task.output));
  if (!record.ok()) return refused(record.status());
  const absl::StatusOr<Geometry> grid =
      task.series.has_value() ? task.series->geometry : ReadGeometry(task.image, work.geometry);
  if (!grid.ok()) return refused(grid.status());
  const auto place = gate.Enter(grid->voxels() * kBytesPerVoxel);
  if (!place.ok()) return refused(place.status());
  absl::StatusOr<Harmonized> image = HarmonizeOne(task, work, *std::move(record));
  if (!image.ok()) return refused(image.status());
  const absl::Status written = WriteOutput(task, work, *image);
  if (absl::IsInvalidArgument(written)) return refused(written);
  RETURN_IF_ERROR(InFolder(written, task.output.parent_path()));
  return Outcome{};
}

/// One image that takes more memory than there is must not end the others.
absl::StatusOr<Outcome> WorkOnOrRefuse(const CopyTask& task, const Work& work, MemoryGate& gate) {
  Outcome outcome;
  try {
    return WorkOn(task, work, gate);
  } catch (const std::bad_alloc&) {
    outcome.refusal = absl::ResourceExhaustedError("not enough memory to harmonise it");
  } catch (const std::exception& failure) {
    outcome.refusal =
        absl::InternalError(fmt::format("it cannot be harmonised: {}", failure.what()));
  }
  RETURN_IF_ERROR(RemoveOutput(task.output));
  return outcome;
}

absl::Status HarmonizeAll(const std::vector<CopyTask>& tasks, const fs::path& input,
                          const Work& work, const std::stop_token& stop,
                          const ImageObserver& observe, HarmonizedCopy& result) {
  MemoryGate gate(AvailableMemoryBytes() / 2);
  std::mutex mutex;  // Of what follows, and of `result`.
  absl::Status failure;
  std::int64_t done = 0;
  std::atomic<std::size_t> next = 0;
  const auto run = [&](int threads) {
    omp_set_num_threads(threads);
    for (std::size_t i = next++; i < tasks.size() && !stop.stop_requested(); i = next++) {
      const CopyTask& task = tasks[i];
      const absl::StatusOr<Outcome> outcome = WorkOnOrRefuse(task, work, gate);
      const std::lock_guard lock(mutex);
      if (!outcome.ok()) {
        failure.Update(outcome.status());
        next = tasks.size();
      } else if (outcome->refusal.ok()) {
        ++(outcome->kept ? result.kept : result.written);
      } else {
        result.refused.push_back({.image = task.image.lexically_relative(input),
                                  .reason = std::string(outcome->refusal.message())});
      }
      observe(++done, static_cast<std::int64_t>(tasks.size()));
    }
  };
  const int cores = AvailableCores();
  const int workers = std::min(cores, static_cast<int>(std::min<std::size_t>(tasks.size(), 1024)));
  {
    std::vector<std::jthread> threads;
    for (int worker = 0; worker < workers; ++worker) {
      threads.emplace_back(run, std::max(1, cores / workers));
    }
  }
  std::sort(result.refused.begin(), result.refused.end(),
            [](const auto& left, const auto& right) { return left.image < right.image; });
  return failure;
}

absl::Status CheckPlaces(const CopyRequest& request, const fs::path& from, const fs::path& to) {
  if (LiesInside(to, from)) {
    return absl::InvalidArgumentError(
        fmt::format("the output {} would overwrite or lie inside the input {}: name another place",
                    request.output.string(), request.input.folder.string()));
  }
  if (!LiesInside(from, to)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the input {} lies inside the output {}: name another place",
                  request.input.folder.string(), request.output.string()));
}

}  // namespace

std::string_view NameOf(GeometrySource geometry) {
  return geometry == GeometrySource::kQform   ? "qform"
         : geometry == GeometrySource::kSform ? "sform"
                                              : "agreed";
}

absl::StatusOr<HarmonizedCopy> MakeHarmonizedCopy(const CopyRequest& request,
                                                  const std::stop_token& stop,
                                                  const ImageObserver& observe) {
  std::error_code error;
  if (!fs::exists(request.input.folder, error)) {
    return absl::NotFoundError(fmt::format("there is no {}", request.input.folder.string()));
  }
  if (TreatsChannelsApart(request.plan) && request.channels.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' treats each channel its own way: it comes with a study",
                    ToString(request.plan.normalize)));
  }
  CohortFolder input = request.input;
  ASSIGN_OR_RETURN(input.folder, CanonicalPath(request.input.folder));
  const fs::path& from = input.folder;
  ASSIGN_OR_RETURN(const fs::path to, CanonicalPath(request.output));
  RETURN_IF_ERROR(CheckPlaces(request, from, to));
  // An image's name for the output asks for one image: a series may be a folder of files.
  const bool folder = fs::is_directory(from, error) && !IsNifti(to);
  const Study study = StudyOf(request, folder);
  if (!folder && !IsNifti(to)) {
    return absl::InvalidArgumentError(
        fmt::format("{} is a single image, and harmonised images are written as NIfTI: name the "
                    "output .nii.gz, "
                    "not {}",
                    request.input.folder.string(), request.output.string()));
  }
  if (folder && !request.channel.empty()) {
    return absl::InvalidArgumentError(
        "--channel is for a single image: of a folder the layout says what each image shows");
  }
  ASSIGN_OR_RETURN(const CopyListing listing,
                   folder ? ListFolderForCopy(input, to, study, request.for_nnunet, stop)
                          : ListSingleForCopy(request, from, to, study));
  if (listing.images.empty()) {
    return absl::NotFoundError(fmt::format("{} has no image for the study; the first of {}: {}: {}",
                                           request.input.folder.string(), listing.left_out.size(),
                                           listing.left_out.front().image.string(),
                                           listing.left_out.front().reason));
  }
  for (const CopyTask& task : listing.images)
    RETURN_IF_ERROR(MakeFolder(task.output.parent_path()));
  std::optional<FolderLock> lock;
  if (folder) {
    ASSIGN_OR_RETURN(lock, FolderLock::Acquire(to));
  }
  HarmonizedCopy result;
  result.left_out = listing.left_out;
  RETURN_IF_ERROR(CleanOutput(listing, to, folder, result));
  for (const fs::path& other : listing.others) {
    if (stop.stop_requested()) break;
    RETURN_IF_ERROR(CopyFile(from / other, to / other));
  }
  RETURN_IF_ERROR(HarmonizeAll(
      listing.images, folder ? from : from.parent_path(),
      {.plan = request.plan, .geometry = input.geometry, .canonical = request.for_nnunet}, stop,
      observe, result));
  if (stop.stop_requested()) {
    return absl::CancelledError("interrupted; the same command goes on from here");
  }
  return result;
}

}  // namespace isoscan
