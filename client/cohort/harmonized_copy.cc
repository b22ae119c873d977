#include "client/cohort/harmonized_copy.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <fstream>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "client/cohort/sidecars.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/dicom_series.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/atomic_file.h"
#include "common/weights/sha256.h"
#include <fcntl.h>
#include <omp.h>
#include <sys/file.h>
#include <unistd.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A volume as stored and in canonical order, N4's field, masks, and room for compression.
constexpr std::int64_t kBytesPerVoxel = 24;

constexpr std::string_view kRecordEnding = ".harmonization.json";

/// One image on its way, by absolute paths.
struct Task {
  fs::path image;
  std::optional<DicomSeries> series;  ///< Then `image` is its first file.
  fs::path output;
  fs::path mask;  ///< For Mask::kGiven.
  std::size_t channel = 0;
  std::string channel_name;  ///< Empty where the plan treats all channels alike.
  std::optional<double> field_tesla;
};

/// What all images have in common.
struct Work {
  const HarmonizationPlan& plan;
  GeometrySource geometry;
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
  return image.parent_path() / (StemOf(image) + std::string(kRecordEnding));
}

json ReadJson(const fs::path& path) {
  std::ifstream file(path);
  json read = json::parse(file, /*cb=*/nullptr, /*allow_exceptions=*/false);
  return read.is_object() ? read : json::object();
}

/// An error of writing says which folder: the messages of AtomicFile leave it out.
absl::Status InFolder(const absl::Status& status, const fs::path& folder) {
  if (status.ok()) return status;
  return {status.code(), fmt::format("{} (in {})", std::string(status.message()), folder.string())};
}

absl::StatusOr<std::string> DigestOfInput(const Task& task) {
  if (!task.series.has_value()) return Sha256OfFile(task.image);
  std::string digests;
  std::set<fs::path> seen;
  for (const DicomSlice& slice : task.series->slices) {
    if (!seen.insert(slice.file).second) continue;
    ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(slice.file));
    digests += digest + "\n";
  }
  return Sha256Of(digests);
}

/// What is known of an output before it is made: one whose record says otherwise is made anew.
absl::StatusOr<json> WhatGoesIn(const Task& task, const Work& work) {
  json record{{"version", kVersion},
              {"harmonization", json::parse(CanonicalText(work.plan))},
              {"harmonization_sha256", HarmonizationDigest(work.plan)},
              {"geometry", NameOf(work.geometry)}};
  if (!task.channel_name.empty()) record["channel"] = task.channel_name;
  if (task.field_tesla.has_value()) record["field_strength_tesla"] = *task.field_tesla;
  ASSIGN_OR_RETURN(record["input_sha256"], DigestOfInput(task));
  if (!task.mask.empty()) {
    ASSIGN_OR_RETURN(record["mask_sha256"], Sha256OfFile(task.mask));
  }
  return record;
}

bool IsDone(const Task& task, const json& what_goes_in) {
  const json record = ReadJson(RecordOf(task.output));
  for (const char* key : {"version", "harmonization", "harmonization_sha256", "geometry", "channel",
                          "field_strength_tesla", "input_sha256", "mask_sha256"}) {
    if (record.value(key, json()) != what_goes_in.value(key, json())) return false;
  }
  const absl::StatusOr<std::string> digest = Sha256OfFile(task.output);
  return digest.ok() && record.value("output_sha256", json()) == *digest;
}

absl::StatusOr<Mask> ReadMask(const Task& task, const Geometry& grid, GeometrySource geometry) {
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

void AddWhatWasDone(const HarmonizationRecord& done, const Geometry& grid, json& record) {
  const double voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] * grid.spacing_mm[2] / 1000;
  record["statistics"] = {{"mean", done.statistics.mean},
                          {"standard_deviation", done.statistics.standard_deviation},
                          {"voxels", done.statistics.voxels}};
  record["mask_ml"] = voxel_ml * static_cast<double>(done.statistics.voxels);
  if (!done.bias_field.has_value()) return;
  record["n4"] = {{"field_minimum", done.bias_field->minimum},
                  {"field_maximum", done.bias_field->maximum},
                  {"field_standard_deviation", done.bias_field->standard_deviation},
                  {"residual", done.bias_field->residual},
                  {"iterations", done.bias_field->iterations}};
}

/// An image in memory, ready to be written in its own grid.
struct Harmonized {
  Volume volume;
  json record;
};

/// Errors: why this image is refused.
absl::StatusOr<Harmonized> HarmonizeOne(const Task& task, const Work& work, json record) {
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
  AddWhatWasDone(done, grid, record);
  return Harmonized{.volume = FromCanonical(canonical, grid), .record = std::move(record)};
}

/// The image first, so that its record vouches for what is there; nothing when it is not.
absl::Status RemoveOutput(const fs::path& output) {
  for (const fs::path& path : {output, RecordOf(output)}) {
    std::error_code error;
    fs::remove(path, error);
    if (error) return FileError("cannot remove", path.string(), error);
  }
  return absl::OkStatus();
}

absl::Status WriteOutput(const Task& task, Harmonized& image) {
  // A DICOM series has no forms to keep: both say the scanner's.
  RETURN_IF_ERROR(task.series.has_value() ? WriteVolume(task.output, image.volume)
                                          : WriteVolumeLike(task.image, task.output, image.volume));
  ASSIGN_OR_RETURN(image.record["output_sha256"], Sha256OfFile(task.output));
  return WriteFileAtomically(RecordOf(task.output), image.record.dump(2) + "\n");
}

/// The files of the input: images to harmonise, others to copy, and images that are none of the
/// study's.
struct Listing {
  std::vector<Task> images;
  std::vector<fs::path> others;  ///< Relative.
  std::vector<HarmonizedCopy::NotThere> left_out;
};

/// Entries for each channel: which one an image shows has to be known.
bool TreatsChannelsApart(const HarmonizationPlan& plan) {
  return NeedsContrast(plan.normalize) || StandardLength(plan.normalize) > 0;
}

Study StudyOf(const CopyRequest& request) {
  Study study;
  study.harmonization = request.plan;
  if (TreatsChannelsApart(request.plan)) study.channels = request.channels;
  return study;
}

void AddImage(Task task, const std::optional<std::size_t>& channel, const Study& study,
              const fs::path& from, Listing& listing) {
  if (!study.channels.empty()) {
    if (!channel.has_value()) {
      listing.left_out.push_back(
          {.image = task.image.lexically_relative(from),
           .reason = fmt::format("it shows no channel of the study, which has {}",
                                 Quoted(study.channels))});
      return;
    }
    task.channel = *channel;
    task.channel_name = study.channels[*channel];
  }
  listing.images.push_back(std::move(task));
}

/// Whether a link leads back to a folder that it lies in.
bool IsCircle(const fs::path& folder) {
  std::error_code error;
  const fs::path target = fs::canonical(folder, error);
  const fs::path here = fs::canonical(folder.parent_path(), error);
  return error || std::mismatch(target.begin(), target.end(), here.begin(), here.end()).first ==
                      target.end();
}

/// All files but `images`, the other halves of their pairs (.hdr and .img), records of an earlier
/// harmonisation, and hidden ones that are not BIDS's own.
absl::Status ListOthers(const fs::path& from, const std::set<fs::path>& images,
                        std::vector<fs::path>& others) {
  std::set<fs::path> stems;
  for (const fs::path& image : images) stems.insert(image.parent_path() / StemOf(image));
  std::error_code error;
  fs::recursive_directory_iterator entry(from, fs::directory_options::follow_directory_symlink,
                                         error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    const fs::path& path = entry->path();
    const std::string name = path.filename().string();
    const bool hidden = name.starts_with('.') && name != ".bidsignore";
    std::error_code unreadable;
    if (entry->is_directory(unreadable)) {
      if (hidden || (entry->is_symlink(unreadable) && IsCircle(path))) {
        entry.disable_recursion_pending();
      }
      continue;
    }
    if (hidden || !entry->is_regular_file(unreadable) || images.contains(path) ||
        name.ends_with(kRecordEnding)) {
      continue;
    }
    const bool is_half = path.extension() == ".img" || path.extension() == ".raw";
    if (is_half && stems.contains(path.parent_path() / StemOf(path))) continue;
    others.push_back(path.lexically_relative(from));
  }
  if (!error) return absl::OkStatus();
  return absl::DataLossError(fmt::format("cannot list {}: {}", from.string(), error.message()));
}

absl::StatusOr<Listing> ListLayout(const CohortFolder& folder, const fs::path& to, bool bids,
                                   const Study& study) {
  const fs::path& from = folder.folder;
  ASSIGN_OR_RETURN(std::vector<CohortImage> images,
                   bids ? ListBidsImages(folder, study) : ListDatasetJsonImages(folder, study));
  if (images.empty()) {
    return absl::NotFoundError(fmt::format("there is no image under {} of {}",
                                           bids ? "sub-*/anat" : "imagesTr", from.string()));
  }
  Listing listing;
  std::set<fs::path> paths;
  Sidecars sidecars(from);
  for (CohortImage& image : images) {
    Task task;
    task.image = image.path;
    task.output = to / image.path.lexically_relative(from);
    task.mask = std::move(image.mask);
    task.field_tesla = sidecars.Of(image.path).acquisition.field_tesla;
    paths.insert(image.path);
    AddImage(std::move(task), image.channel, study, from, listing);
  }
  RETURN_IF_ERROR(ListOthers(from, paths, listing.others));
  return listing;
}

Task TaskOf(DicomSeries series, fs::path output) {
  Task task;
  task.image = series.slices.front().file;
  task.field_tesla = series.acquisition.field_tesla;
  task.output = std::move(output);
  task.series = std::move(series);
  return task;
}

/// One file per series. Of the other files none is copied but labels and masks: what else lies
/// beside DICOM files may name patients.
absl::StatusOr<Listing> ListDicom(const CohortFolder& folder, DicomListing found,
                                  const fs::path& to, const Study& study) {
  const fs::path& from = folder.folder;
  Listing listing;
  for (DicomSeries& series : found.series) {
    const std::string name = series.key == "." ? from.filename().string() : series.key;
    const std::optional<std::size_t> channel = ChannelOfSeries(folder, study, series);
    Task task = TaskOf(std::move(series), to / (name + ".nii.gz"));
    if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) {
      task.mask =
          FileOfCase(from / "masks", name.substr(0, name.find_first_of("/#"))).value_or(fs::path());
    }
    AddImage(std::move(task), channel, study, from, listing);
  }
  for (const DicomSetAside& aside : found.set_aside) {
    listing.left_out.push_back(
        {.image = aside.first.lexically_relative(from),
         .reason = aside.files == 1 ? aside.reason
                                    : fmt::format("{} files: {}", aside.files, aside.reason)});
  }
  if (listing.images.empty()) {
    return absl::NotFoundError(fmt::format(
        "no DICOM series in {} can be used{}", from.string(),
        listing.left_out.empty()
            ? ""
            : fmt::format("; the first: {}: {}", listing.left_out.front().image.string(),
                          listing.left_out.front().reason)));
  }
  for (const char* beside : {"labels", "masks"}) {
    std::vector<fs::path> files;
    std::error_code error;
    if (!fs::is_directory(from / beside, error)) continue;
    RETURN_IF_ERROR(ListOthers(from / beside, {}, files));
    for (const fs::path& file : files) {
      if (IsImageFile(file)) listing.others.push_back(fs::path(beside) / file);
    }
  }
  return listing;
}

bool IsLayout(const fs::path& folder) {
  const absl::StatusOr<CohortFolder::Layout> layout = DetectLayout(folder);
  return layout.ok() && *layout != CohortFolder::Layout::kDicom;
}

/// The cohort that a folder is a part of, or that is a part of it; empty when there is none near.
fs::path CohortNear(const fs::path& folder) {
  fs::path above = folder;
  for (int levels = 0; levels < 3 && above.has_relative_path(); ++levels) {
    above = above.parent_path();
    if (IsLayout(above)) return above;
  }
  for (const fs::path& entry : SortedEntries(folder)) {
    std::error_code ignored;
    if (fs::is_directory(entry, ignored) && IsLayout(entry)) return entry;
  }
  return {};
}

absl::StatusOr<Listing> ListFolder(const CohortFolder& folder, const fs::path& to,
                                   const Study& study) {
  const absl::StatusOr<CohortFolder::Layout> layout = DetectLayout(folder.folder);
  if (!layout.ok() && !absl::IsNotFound(layout.status())) return layout.status();
  if (layout.ok() && *layout != CohortFolder::Layout::kDicom) {
    return ListLayout(folder, to, *layout == CohortFolder::Layout::kBids, study);
  }
  ASSIGN_OR_RETURN(DicomListing found, ListDicomSeries(folder.folder));
  if (found.dicom_files > 0) return ListDicom(folder, std::move(found), to, study);
  const fs::path near = CohortNear(folder.folder);
  return absl::NotFoundError(fmt::format(
      "{} is no cohort that is known: it has neither sub-* folders (BIDS), a "
      "dataset.json (Decathlon, nnU-Net) nor DICOM files; give a single image, or the "
      "cohort's uppermost folder{}",
      folder.folder.string(), near.empty() ? "" : fmt::format(", such as {}", near.string())));
}

/// The dataset's root that a single image lies in, as far as its path says.
fs::path RootOf(const fs::path& image) {
  fs::path root;
  for (const fs::path& part : image.parent_path()) {
    if (part.string().starts_with("sub-")) return root;
    root /= part;
  }
  return root;
}

/// The only image of `from`, a file or the folder of one DICOM series.
absl::StatusOr<Listing> ListSingle(const CopyRequest& request, const fs::path& from,
                                   const fs::path& to, const Study& study) {
  if (request.plan.mask == HarmonizationPlan::Mask::kGiven) {
    return absl::InvalidArgumentError(
        "a single image has no mask beside it: harmonise its cohort's folder, or choose --mask "
        "whole or otsu");
  }
  Task task;
  std::optional<std::size_t> channel;
  if (MayBeDicom(from)) {
    absl::StatusOr<DicomSeries> series = FindDicomSeries(from);
    if (!series.ok()) {
      return absl::Status(
          series.status().code(),
          fmt::format("{}; the output {} names one image: of a whole cohort name a folder",
                      std::string(series.status().message()), request.output.string()));
    }
    channel = ChannelOfSeries(request.input, study, *series);
    task = TaskOf(*std::move(series), to);
  } else {
    task.image = from;
    task.output = to;
    channel = ChannelOfBidsName(request.input, study, from);
    task.field_tesla = Sidecars(RootOf(from)).Of(from).acquisition.field_tesla;
  }
  if (study.channels.size() == 1) channel = 0;
  if (!request.channel.empty()) {
    channel = std::nullopt;
    for (std::size_t i = 0; i < request.channels.size(); ++i) {
      if (SameName(request.channels[i], request.channel)) channel = i;
    }
    if (!channel.has_value()) {
      return absl::InvalidArgumentError(fmt::format("the study has no channel \"{}\": it has {}",
                                                    request.channel, Quoted(request.channels)));
    }
  }
  if (!study.channels.empty() && !channel.has_value()) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' treats each channel its own way, and the name of {} does not say which of "
        "{} it shows: say it with --channel",
        ToString(request.plan.normalize), from.filename().string(), Quoted(study.channels)));
  }
  Listing listing;
  AddImage(std::move(task), channel, study, from.parent_path(), listing);
  return listing;
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

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? FileError("cannot make the folder", folder.string(), error) : absl::OkStatus();
}

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  if (SameContent(from, to)) return absl::OkStatus();
  RETURN_IF_ERROR(MakeFolder(to.parent_path()));
  const auto write = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(to));
    for (std::int64_t offset = 0;;) {
      ASSIGN_OR_RETURN(const std::string chunk, ReadChunk(from, offset));
      if (chunk.empty()) return file.Commit();
      RETURN_IF_ERROR(file.WriteAt(offset, chunk));
      offset += std::ssize(chunk);
    }
  };
  return InFolder(write(), to.parent_path());
}

/// "scan.nii.gz" of "scan.nii.gz.tmp-0123abcd", which AtomicFile leaves when its process is killed;
/// empty for other names.
fs::path TargetOfLeftover(const fs::path& path) {
  constexpr std::string_view kMark = ".tmp-";
  constexpr std::size_t kDigits = 8;
  const std::string name = path.filename().string();
  const std::size_t mark = name.rfind(kMark);
  if (mark == std::string::npos || mark == 0 || name.size() != mark + kMark.size() + kDigits ||
      name.find_first_not_of("0123456789abcdef", mark + kMark.size()) != std::string::npos) {
    return {};
  }
  return path.parent_path() / name.substr(0, mark);
}

/// Removes what a killed process and an earlier plan have left, and finds what is nobody's.
absl::Status CleanOutput(const Listing& listing, const fs::path& to, bool folder,
                         HarmonizedCopy& result) {
  for (const HarmonizedCopy::NotThere& image : listing.left_out) {
    if (folder && IsNifti(image.image)) RETURN_IF_ERROR(RemoveOutput(to / image.image));
  }
  std::set<fs::path> targets;
  for (const fs::path& other : listing.others) targets.insert(to / other);
  for (const Task& task : listing.images) {
    targets.insert(task.output);
    targets.insert(RecordOf(task.output));
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
  for (const fs::path& leftover : leftovers) {
    fs::remove(leftover, error);
    if (error) return FileError("cannot remove", leftover.string(), error);
  }
  std::sort(result.strangers.begin(), result.strangers.end());
  return absl::OkStatus();
}

/// Held while this process writes into a folder: another one would take its files for leftovers.
class FolderLock {
 public:
  static absl::StatusOr<FolderLock> Acquire(const fs::path& folder) {
    FolderLock lock;
    lock.descriptor_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock.descriptor_ < 0) return FileError("cannot open", folder.string(), errno);
    // Some network file systems lock no folders; then nobody else is seen.
    if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      return absl::FailedPreconditionError(fmt::format(
          "another isoscan-client writes into {}: wait until it has ended", folder.string()));
    }
    return lock;
  }
  FolderLock(FolderLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FolderLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }

 private:
  FolderLock() = default;
  int descriptor_ = -1;
};

/// What became of one image; an error ends the whole copy.
struct Outcome {
  bool kept = false;
  absl::Status refusal;
};

absl::StatusOr<Outcome> WorkOn(const Task& task, const Work& work) {
  absl::StatusOr<json> record = WhatGoesIn(task, work);
  if (record.ok() && IsDone(task, *record)) return Outcome{.kept = true, .refusal = {}};
  RETURN_IF_ERROR(RemoveOutput(task.output));
  absl::StatusOr<Harmonized> image =
      record.ok() ? HarmonizeOne(task, work, *std::move(record)) : record.status();
  if (absl::IsResourceExhausted(image.status())) return image.status();
  if (!image.ok()) return Outcome{.kept = false, .refusal = image.status()};
  RETURN_IF_ERROR(InFolder(WriteOutput(task, *image), task.output.parent_path()));
  return Outcome{};
}

absl::Status HarmonizeAll(const std::vector<Task>& tasks, const fs::path& input, const Work& work,
                          const std::stop_token& stop, const ImageObserver& observe,
                          HarmonizedCopy& result) {
  MemoryGate gate(AvailableMemoryBytes() / 2);
  std::mutex mutex;  // Of what follows, and of `result`.
  absl::Status failure;
  std::int64_t done = 0;
  std::atomic<std::size_t> next = 0;
  const auto run = [&](int threads) {
    omp_set_num_threads(threads);
    for (std::size_t i = next++; i < tasks.size() && !stop.stop_requested(); i = next++) {
      const Task& task = tasks[i];
      const absl::StatusOr<Geometry> grid =
          task.series.has_value() ? task.series->geometry : ReadGeometry(task.image, work.geometry);
      const std::int64_t bytes = grid.ok() ? grid->voxels() * kBytesPerVoxel : 0;
      gate.Enter(bytes);
      const absl::StatusOr<Outcome> outcome = WorkOn(task, work);
      gate.Leave(bytes);
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

bool LiesInside(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
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
  const Study study = StudyOf(request);
  if (TreatsChannelsApart(request.plan) && study.channels.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' treats each channel its own way: it comes with a study",
                    ToString(request.plan.normalize)));
  }
  CohortFolder input = request.input;
  input.folder = fs::weakly_canonical(input.folder, error);
  const fs::path& from = input.folder;
  const fs::path to = fs::weakly_canonical(fs::absolute(request.output), error);
  RETURN_IF_ERROR(CheckPlaces(request, from, to));
  // An image's name for the output asks for one image: a series may be a folder of files.
  const bool folder = fs::is_directory(from, error) && !IsNifti(to);
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
  ASSIGN_OR_RETURN(const Listing listing,
                   folder ? ListFolder(input, to, study) : ListSingle(request, from, to, study));
  if (listing.images.empty()) {
    return absl::NotFoundError(fmt::format("{} has no image for the study; the first of {}: {}: {}",
                                           request.input.folder.string(), listing.left_out.size(),
                                           listing.left_out.front().image.string(),
                                           listing.left_out.front().reason));
  }
  for (const Task& task : listing.images) RETURN_IF_ERROR(MakeFolder(task.output.parent_path()));
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
  RETURN_IF_ERROR(HarmonizeAll(listing.images, folder ? from : from.parent_path(),
                               {.plan = request.plan, .geometry = input.geometry}, stop, observe,
                               result));
  if (stop.stop_requested()) {
    return absl::CancelledError("interrupted; the same command goes on from here");
  }
  return result;
}

}  // namespace isoscan
