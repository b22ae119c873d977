#include "client/cohort/prepared_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <span>
#include <sstream>
#include <system_error>
#include <utility>

#include "client/imaging/image_file.h"
#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/program_digest.h"
#include "common/weights/sealed_tensors.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

constexpr char kImage[] = "image";
constexpr char kLabels[] = "labels";
constexpr char kReference[] = "reference";  ///< Absent where it is the same as the labels.
constexpr char kSample[] = "stored_sample";
constexpr char kDigest[] = "digest";
constexpr char kGrid[] = "grid";
constexpr char kReferenceGrid[] = "reference_grid";

absl::Status AddImage(const fs::path& path, GeometrySource geometry, std::string& text) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, FilesOf(path));
  text += fmt::format("image {}\n", static_cast<int>(geometry));
  for (const fs::path& file : files) {
    ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(file));
    text += digest + "\n";
  }
  return absl::OkStatus();
}

absl::Status AddSeries(const DicomSeries& series, std::string& text) {
  text += fmt::format("series {}\n", static_cast<int>(series.kind));
  std::string digest;
  const fs::path* file = nullptr;
  for (const DicomSlice& slice : series.slices) {
    if (file == nullptr || *file != slice.file) {
      ASSIGN_OR_RETURN(digest, Sha256OfFile(slice.file));
      file = &slice.file;
    }
    text += fmt::format("{} {}\n", digest, slice.frame);
  }
  return absl::OkStatus();
}

double InMb(std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

/// SHA-256 of all that a prepared case is made of.
absl::StatusOr<std::string> KeyOf(const CaseFiles& files, const Study& study) {
  std::string text = fmt::format("prepared 2\nprogram {}\n{}\n{} labels\n", ProgramDigest(),
                                 CanonicalText(study.harmonization), study.labels.size());
  for (std::size_t channel = 0; channel < files.images.size(); ++channel) {
    RETURN_IF_ERROR(files.series.empty() ? AddImage(files.images[channel], files.geometry, text)
                                         : AddSeries(files.series[channel], text));
  }
  for (const CaseFiles::LabelFile& labels : files.labels) {
    RETURN_IF_ERROR(AddImage(labels.path, files.geometry, text));
    text += labels.any_positive ? "any positive" : "values";
    for (const auto& [value, label] : labels.values) text += fmt::format(" {}={}", value, label);
    text += "\n";
  }
  if (!files.mask.empty()) RETURN_IF_ERROR(AddImage(files.mask, files.geometry, text));
  return Sha256Of(text);
}

/// Numbers as the shortest texts that are read as the same.
std::string TextOf(const Geometry& geometry) {
  std::string text;
  for (const std::int64_t size : geometry.size) text += fmt::format("{} ", size);
  for (const double spacing : geometry.spacing_mm) text += fmt::format("{} ", spacing);
  for (const double origin : geometry.origin_mm) text += fmt::format("{} ", origin);
  for (const auto& row : geometry.direction) {
    for (const double cosine : row) text += fmt::format("{} ", cosine);
  }
  return text;
}

bool ReadGeometryText(const std::string& text, Geometry& geometry) {
  std::istringstream words(text);
  const auto read = [&words](auto& number) {
    std::string word;
    words >> word;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    return error == std::errc() && end == word.data() + word.size();
  };
  bool whole = true;
  for (std::int64_t& size : geometry.size) whole = whole && read(size);
  for (double& spacing : geometry.spacing_mm) whole = whole && read(spacing);
  for (double& origin : geometry.origin_mm) whole = whole && read(origin);
  for (auto& row : geometry.direction) {
    for (double& cosine : row) whole = whole && read(cosine);
  }
  return whole;
}

Tensor AsTensor(std::span<const float> values) {
  return {.shape = {static_cast<std::int64_t>(values.size())},
          .values = {values.begin(), values.end()}};
}

/// Four labels in the place of a float: mapped, they are bytes in a row. The last may be zeros.
Tensor AsTensor(const SharedValues<std::uint8_t>& labels) {
  Tensor tensor;
  tensor.values.resize((labels.size() + sizeof(float) - 1) / sizeof(float));
  tensor.shape = {static_cast<std::int64_t>(tensor.values.size())};
  // No float is looked at as such: some of these bytes would be NaNs.
  if (!labels.empty()) std::memcpy(tensor.values.data(), labels.data(), labels.size());
  return tensor;
}

SealedTensors ContentOf(const CachedCase& cached) {
  const PreparedCase& prepared = cached.prepared;
  SealedTensors content;
  content.tensors[kImage] = AsTensor(std::span(prepared.image));
  content.tensors[kLabels] = AsTensor(prepared.labels);
  if (prepared.reference_labels != prepared.labels) {
    content.tensors[kReference] = AsTensor(prepared.reference_labels);
  }
  content.tensors[kSample] = AsTensor(std::span(cached.stored_sample));
  content.metadata = {{kDigest, prepared.digest},
                      {kGrid, TextOf(prepared.grid)},
                      {kReferenceGrid, TextOf(prepared.reference_grid)}};
  return content;
}

/// A case whose values stay in `file`.
class MappedCase {
 public:
  explicit MappedCase(SafetensorsFile file)
      : file_(std::make_shared<SafetensorsFile>(std::move(file))) {
    file_->CloseDescriptor();
  }

  std::span<const float> Values(const std::string& name) const {
    return file_->shapes().contains(name) ? file_->Values(name) : std::span<const float>();
  }
  SharedValues<float> Image() const { return {Values(kImage), file_}; }

  /// Fewer where there are not as many.
  SharedValues<std::uint8_t> Labels(const std::string& name, std::int64_t voxels) const {
    const std::span<const float> values = Values(name);
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(values.data());
    return {std::span(bytes, std::min(values.size_bytes(), static_cast<std::size_t>(voxels))),
            file_};
  }
  bool Has(const std::string& name) const { return file_->shapes().contains(name); }

  std::string Text(const std::string& key) const {
    const auto found = file_->metadata().find(key);
    return found == file_->metadata().end() ? "" : found->second;
  }

 private:
  std::shared_ptr<SafetensorsFile> file_;
};

absl::StatusOr<CachedCase> Read(const fs::path& path) {
  ASSIGN_OR_RETURN(SafetensorsFile file, OpenSealed(path));
  const MappedCase mapped(std::move(file));
  CachedCase cached;
  PreparedCase& prepared = cached.prepared;
  if (!ReadGeometryText(mapped.Text(kGrid), prepared.grid) ||
      !ReadGeometryText(mapped.Text(kReferenceGrid), prepared.reference_grid)) {
    return absl::DataLossError(
        fmt::format("{} does not say where its voxels lie", path.filename().string()));
  }
  prepared.digest = mapped.Text(kDigest);
  prepared.image = mapped.Image();
  prepared.labels = mapped.Labels(kLabels, prepared.grid.voxels());
  prepared.reference_labels = mapped.Labels(mapped.Has(kReference) ? kReference : kLabels,
                                            prepared.reference_grid.voxels());
  const std::span<const float> sample = mapped.Values(kSample);
  cached.stored_sample.assign(sample.begin(), sample.end());
  return cached;
}

}  // namespace

PreparedCache::PreparedCache(fs::path folder, std::int64_t spare_bytes,
                             std::function<void(const absl::Status&)> on_trouble)
    : folder_(std::move(folder)), spare_bytes_(spare_bytes), on_trouble_(std::move(on_trouble)) {}

fs::path PreparedCache::PathOf(const CaseFiles& files, const Study& study) {
  const absl::StatusOr<std::string> key = KeyOf(files, study);
  // What cannot be read is no case: preparing it says so.
  if (!key.ok()) return {};
  used_.insert(*key + ".safetensors");
  return folder_ / (*key + ".safetensors");
}

std::optional<CachedCase> PreparedCache::Find(const CaseFiles& files, const Study& study) {
  const fs::path path = PathOf(files, study);
  std::error_code ignored;
  if (path.empty() || !fs::exists(path, ignored)) return std::nullopt;
  absl::StatusOr<CachedCase> cached = Read(path);
  if (!cached.ok()) {
    on_trouble_(cached.status());
    fs::remove(path, ignored);
    return std::nullopt;
  }
  cached->prepared.cohort = files.cohort;
  return *std::move(cached);
}

absl::Status PreparedCache::Write(const fs::path& path, const CachedCase& cached) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  // They are patients' images.
  if (!error) fs::permissions(folder_, fs::perms::owner_all, error);
  if (error) return FileError("cannot make the folder", folder_.string(), error);
  const SealedTensors content = ContentOf(cached);
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : content.tensors) {
    bytes += static_cast<std::int64_t>(tensor.values.size() * sizeof(float));
  }
  ASSIGN_OR_RETURN(const std::int64_t free_bytes, FreeDiskBytes(folder_));
  if (free_bytes < bytes + spare_bytes_) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} has {:.1f} MB free, and a prepared case takes {:.1f} MB beside {:.1f} MB that "
        "a round's models need",
        folder_.string(), InMb(free_bytes), InMb(bytes), InMb(spare_bytes_)));
  }
  return WriteSealed(path, content);
}

CachedCase PreparedCache::Keep(const CaseFiles& files, const Study& study, CachedCase cached) {
  if (full_) return cached;
  const fs::path path = PathOf(files, study);
  if (path.empty()) return cached;
  cached.prepared.digest = TrainingDigest(cached.prepared);
  const absl::Status written = Write(path, cached);
  if (!written.ok()) {
    full_ = true;
    on_trouble_(absl::Status(
        written.code(),
        fmt::format("{}; the cases that are not kept stay in memory, and are prepared anew at each "
                    "start of this client",
                    std::string(written.message()))));
    return cached;
  }
  absl::StatusOr<CachedCase> kept = Read(path);
  if (!kept.ok()) {
    on_trouble_(kept.status());
    return cached;
  }
  kept->prepared.cohort = files.cohort;
  return *std::move(kept);
}

void PreparedCache::RemoveOthers() const {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    if (!used_.contains(entry.path().filename().string())) fs::remove(entry.path(), ignored);
  }
}

}  // namespace isoscan
