#include "client/cohort/prepared_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <iterator>
#include <sstream>
#include <system_error>
#include <utility>

#include "client/imaging/image_file.h"
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

/// SHA-256 of all that a prepared case is made of.
absl::StatusOr<std::string> KeyOf(const CaseFiles& files, const Study& study) {
  std::string text = fmt::format("prepared 1\nprogram {}\n{}\n{} labels\n", ProgramDigest(),
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

Tensor AsTensor(const std::vector<std::uint8_t>& labels) {
  return {.shape = {static_cast<std::int64_t>(labels.size())},
          .values = {labels.begin(), labels.end()}};
}

Tensor AsTensor(const std::vector<float>& values) {
  return {.shape = {static_cast<std::int64_t>(values.size())}, .values = values};
}

std::vector<std::uint8_t> LabelsOf(const Tensor& tensor) {
  std::vector<std::uint8_t> labels(tensor.values.size());
  std::transform(tensor.values.begin(), tensor.values.end(), labels.begin(),
                 [](float value) { return static_cast<std::uint8_t>(value); });
  return labels;
}

absl::Status Write(const fs::path& path, const CachedCase& cached) {
  const PreparedCase& prepared = cached.prepared;
  SealedTensors content;
  content.tensors[kImage] = AsTensor(prepared.image);
  content.tensors[kLabels] = AsTensor(prepared.labels);
  if (prepared.reference.voxels != prepared.labels) {
    content.tensors[kReference] = AsTensor(prepared.reference.voxels);
  }
  content.tensors[kSample] = AsTensor(cached.stored_sample);
  content.metadata = {{kGrid, TextOf(prepared.grid)},
                      {kReferenceGrid, TextOf(prepared.reference.geometry)}};
  return WriteSealed(path, content);
}

absl::StatusOr<CachedCase> Read(const fs::path& path) {
  ASSIGN_OR_RETURN(SealedTensors content, ReadSealed(path));
  CachedCase cached;
  PreparedCase& prepared = cached.prepared;
  prepared.image = std::move(content.tensors[kImage].values);
  prepared.labels = LabelsOf(content.tensors[kLabels]);
  prepared.reference.voxels = content.tensors.contains(kReference)
                                  ? LabelsOf(content.tensors[kReference])
                                  : prepared.labels;
  cached.stored_sample = std::move(content.tensors[kSample].values);
  if (!ReadGeometryText(content.metadata[kGrid], prepared.grid) ||
      !ReadGeometryText(content.metadata[kReferenceGrid], prepared.reference.geometry)) {
    return absl::DataLossError(
        fmt::format("{} does not say where its voxels lie", path.filename().string()));
  }
  return cached;
}

}  // namespace

PreparedCache::PreparedCache(fs::path folder, std::function<void(const absl::Status&)> on_trouble)
    : folder_(std::move(folder)), on_trouble_(std::move(on_trouble)) {}

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

void PreparedCache::Keep(const CaseFiles& files, const Study& study, const CachedCase& cached) {
  if (full_) return;
  const fs::path path = PathOf(files, study);
  if (path.empty()) return;
  std::error_code error;
  fs::create_directories(folder_, error);
  // They are patients' images.
  if (!error) fs::permissions(folder_, fs::perms::owner_all, error);
  const absl::Status written =
      error ? FileError("cannot make the folder", folder_.string(), error) : Write(path, cached);
  if (written.ok()) return;
  full_ = true;
  on_trouble_(absl::Status(written.code(),
                           fmt::format("{}; cases are prepared anew at each start of this client",
                                       std::string(written.message()))));
}

void PreparedCache::RemoveOthers() const {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    if (!used_.contains(entry.path().filename().string())) fs::remove(entry.path(), ignored);
  }
}

}  // namespace isoscan
