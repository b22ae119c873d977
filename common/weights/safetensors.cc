#include "common/weights/safetensors.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include "common/weights/block_sums.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace isoscan {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 8;
constexpr std::uint64_t kMaximumHeaderBytes = 16 * 1024 * 1024;
constexpr std::size_t kMaximumAxes = 8;
constexpr std::size_t kMaximumNameBytes = 256;
constexpr char kMetadataKey[] = "__metadata__";

bool IsControl(char character) {
  const auto code = static_cast<unsigned char>(character);
  return code < 0x20 || code == 0x7f;
}

// One tensor as the header tells it, before anything is believed.
struct Entry {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> offsets;  // Begin and end, from the first byte of values.
  std::set<std::string> keys;
};

// Reads the one form that a header may have:
//   {"__metadata__": {text: text, ...}, NAME: {"dtype": text, "shape": [n, ...],
//    "data_offsets": [begin, end]}, ...}
// and stops at the first thing that is not of this form. A DOM would silently keep the last of two
// equal keys.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::map<std::string, Entry> entries;
  WeightsMetadata metadata;
  std::string problem;

  bool start_object(std::size_t /*size*/) override {
    if (array_ != nullptr || depth_ > 1) {
      return Refuse("has an object where none belongs");
    }
    if (depth_ == 1 && tensor_ == kMetadataKey) {
      in_metadata_ = true;
    } else if (depth_ == 1) {
      entry_ = &entries[tensor_];
    }
    ++depth_;
    return true;
  }

  bool key(string_t& name) override {
    // Names are printed in messages and logs: they must not be able to forge lines there.
    if (name.size() > kMaximumNameBytes || std::any_of(name.begin(), name.end(), IsControl)) {
      return Refuse(fmt::format("has a name of {} bytes that is too long or has control characters",
                                name.size()));
    }
    key_ = name;
    if (depth_ == 1) {
      tensor_ = name;
      if (!names_.insert(name).second) return Refuse(fmt::format("names {} twice", name));
      return true;
    }
    if (in_metadata_) {
      if (metadata.count(name) != 0) return Refuse(fmt::format("has metadata {} twice", name));
      return true;
    }
    if (name != "dtype" && name != "shape" && name != "data_offsets") {
      return Refuse(fmt::format("gives {} an unknown property {}", tensor_, name));
    }
    if (!entry_->keys.insert(name).second) {
      return Refuse(fmt::format("gives {} the property {} twice", tensor_, name));
    }
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ == 1 && !in_metadata_ && entry_->keys.size() != 3) {
      return Refuse(fmt::format("lacks dtype, shape or data_offsets of {}", tensor_));
    }
    in_metadata_ = false;
    entry_ = nullptr;
    return true;
  }

  bool start_array(std::size_t /*size*/) override {
    if (entry_ == nullptr || array_ != nullptr || key_ == "dtype") {
      return Refuse("has an array where none belongs");
    }
    array_ = key_ == "shape" ? &entry_->shape : &entry_->offsets;
    return true;
  }

  bool end_array() override {
    array_ = nullptr;
    return true;
  }

  bool string(string_t& text) override {
    if (in_metadata_) {
      metadata.emplace(key_, text);
      return true;
    }
    if (entry_ == nullptr || array_ != nullptr || key_ != "dtype") {
      return Refuse("has text where none belongs");
    }
    if (std::any_of(text.begin(), text.end(), IsControl)) {
      return Refuse(fmt::format("gives {} a dtype with control characters", tensor_));
    }
    entry_->dtype = text;
    return true;
  }

  bool number_unsigned(number_unsigned_t number) override {
    if (array_ == nullptr) return Refuse("has a number where none belongs");
    const std::size_t most = array_ == &entry_->shape ? kMaximumAxes : 2;
    if (array_->size() == most) {
      return Refuse(fmt::format("gives {} more than {} numbers in {}", tensor_, most, key_));
    }
    array_->push_back(number);
    return true;
  }

  bool number_integer(number_integer_t number) override {
    return Refuse(fmt::format("has the negative number {} at {}", number, tensor_));
  }
  bool number_float(number_float_t /*number*/, const string_t& text) override {
    return Refuse(fmt::format("has {:.40} at {}, which is no size", text, tensor_));
  }
  bool boolean(bool /*value*/) override { return Refuse("has true or false where none belongs"); }
  bool null() override { return Refuse("has null where none belongs"); }
  bool binary(binary_t& /*value*/) override { return Refuse("has binary data"); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return Refuse(fmt::format("is not JSON at byte {}", position));
  }

 private:
  bool Refuse(std::string what) {
    if (problem.empty()) problem = std::move(what);
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  std::string tensor_;
  std::string key_;
  std::set<std::string> names_;
  Entry* entry_ = nullptr;
  std::vector<std::uint64_t>* array_ = nullptr;
};

// What a checked header promises; offsets count from the first byte of the file.
struct Layout {
  TensorShapes shapes;
  WeightsMetadata metadata;
  std::map<std::string, std::uint64_t, std::less<>> offsets;
};

// Bytes of a float32 tensor, or nothing when there are more than any file has.
absl::StatusOr<std::uint64_t> CheckedBytes(const std::string& name,
                                           const std::vector<std::uint64_t>& shape) {
  std::uint64_t bytes = sizeof(float);
  bool overflow = false;
  for (const std::uint64_t axis : shape) {
    overflow = overflow || axis > std::uint64_t{INT64_MAX} ||
               __builtin_mul_overflow(bytes, axis, &bytes) || bytes > std::uint64_t{INT64_MAX};
  }
  if (overflow) {
    return absl::DataLossError(fmt::format("the shape of {} is larger than any file", name));
  }
  return bytes;
}

absl::StatusOr<Layout> ReadLayout(std::string_view header, std::uint64_t file_bytes) {
  HeaderReader reader;
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  if (!reader.problem.empty()) {
    return absl::DataLossError(fmt::format("the header {}", reader.problem));
  }

  const std::uint64_t begin_of_values = kLengthBytes + header.size();
  const std::uint64_t value_bytes = file_bytes - begin_of_values;
  struct Extent {
    std::uint64_t begin;
    std::uint64_t end;
    const std::string* name;
  };
  std::vector<Extent> extents;
  Layout layout;
  layout.metadata = std::move(reader.metadata);
  for (const auto& [name, entry] : reader.entries) {
    if (entry.dtype != "F32") {
      return absl::InvalidArgumentError(
          fmt::format("{} has dtype {:.20}, only F32 is read", name, entry.dtype));
    }
    if (entry.offsets.size() != 2) {
      return absl::DataLossError(
          fmt::format("{} has {} data_offsets, expected 2", name, entry.offsets.size()));
    }
    const auto [begin, end] = std::pair(entry.offsets[0], entry.offsets[1]);
    if (begin > end || end > value_bytes) {
      return absl::DataLossError(
          fmt::format("{} lies at bytes {} to {} of {} bytes of values: the file is truncated or "
                      "damaged",
                      name, begin, end, value_bytes));
    }
    ASSIGN_OR_RETURN(const std::uint64_t bytes, CheckedBytes(name, entry.shape));
    Shape shape(entry.shape.begin(), entry.shape.end());
    if (bytes != end - begin) {
      return absl::DataLossError(fmt::format("{} of shape {} needs {} bytes and has {}", name,
                                             ToString(shape), bytes, end - begin));
    }
    layout.shapes.emplace_hint(layout.shapes.end(), name, std::move(shape));
    layout.offsets.emplace_hint(layout.offsets.end(), name, begin_of_values + begin);
    extents.push_back({begin, end, &name});
  }

  std::sort(extents.begin(), extents.end(), [](const Extent& left, const Extent& right) {
    return std::pair(left.begin, left.end) < std::pair(right.begin, right.end);
  });
  std::uint64_t covered = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != covered) {
      return absl::DataLossError(
          fmt::format("{} begins at byte {} where {} was expected: a gap or "
                      "an overlap",
                      *extent.name, extent.begin, covered));
    }
    covered = extent.end;
  }
  if (covered != value_bytes) {
    return absl::DataLossError(
        fmt::format("{} bytes follow the last tensor", value_bytes - covered));
  }
  return layout;
}

// The header's length, checked against the file's size.
absl::StatusOr<std::uint64_t> ReadHeaderLength(std::string_view first_bytes,
                                               std::uint64_t file_bytes) {
  if (first_bytes.size() < kLengthBytes) {
    return absl::DataLossError(fmt::format(
        "{} bytes are no safetensors file: it begins with 8 bytes of length", first_bytes.size()));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, first_bytes.data(), sizeof(length));
  if (length > kMaximumHeaderBytes) {
    // As torch.save writes: a zip archive, or a pickle of protocol 2 in older versions.
    if (first_bytes.starts_with("PK\x03\x04") || first_bytes.starts_with("\x80\x02")) {
      return absl::InvalidArgumentError(
          "this is a file of PyTorch (.pth), which is never read, since reading one can run "
          "whatever is in it: deploy/convert_model.py makes a .safetensors of it");
    }
    return absl::DataLossError(
        fmt::format("the header claims {} bytes, allowed are {}", length, kMaximumHeaderBytes));
  }
  if (length > file_bytes - kLengthBytes) {
    return absl::DataLossError(
        fmt::format("the header claims {} bytes, {} follow: the file is "
                    "truncated",
                    length, file_bytes - kLengthBytes));
  }
  if (length % kAlignment != 0) {
    return absl::DataLossError(
        fmt::format("the header has {} bytes, not a multiple of {}: the values would not be "
                    "aligned; save the file again with safetensors 0.3 or newer",
                    length, kAlignment));
  }
  return length;
}

absl::Status Named(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), fmt::format("{}: {}", file, std::string(status.message())));
}

std::string_view BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace

std::string EncodeSafetensorsHeader(const TensorShapes& shapes, const WeightsMetadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  std::int64_t offset = 0;
  for (const auto& [name, shape] : shapes) {
    const std::int64_t end = offset + ElementCount(shape) * std::int64_t{sizeof(float)};
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(-1, ' ', /*ensure_ascii=*/false,
                                 nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');

  const std::uint64_t length = text.size();
  std::string bytes(kLengthBytes, '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

std::string EncodeSafetensors(const NamedTensors& tensors, const WeightsMetadata& metadata) {
  std::string bytes = EncodeSafetensorsHeader(ShapesOf(tensors), metadata);
  for (const auto& [name, tensor] : tensors) bytes += BytesOf(tensor.values);
  return bytes;
}

absl::Status WriteSafetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                              const WeightsMetadata& metadata) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const std::string header = EncodeSafetensorsHeader(ShapesOf(tensors), metadata);
  RETURN_IF_ERROR(file.WriteAt(0, header));
  auto offset = static_cast<std::int64_t>(header.size());
  for (const auto& [name, tensor] : tensors) {
    const std::string_view bytes = BytesOf(tensor.values);
    RETURN_IF_ERROR(file.WriteAt(offset, bytes));
    offset += static_cast<std::int64_t>(bytes.size());
  }
  return file.Commit();
}

struct SafetensorsFile::Mapping {
  std::string name;
  int descriptor = -1;
  const char* bytes = nullptr;
  std::size_t size = 0;
  Layout layout;
  std::optional<BlockSums> sums;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (bytes != nullptr) munmap(const_cast<char*>(bytes), size);
    if (descriptor >= 0) close(descriptor);
  }

  // Without touching the mapping. Errors: DATA_LOSS.
  absl::Status Fill(std::size_t offset, std::span<char> to) const;
  // The same, compared with the block sums where there are any.
  absl::Status Read(std::size_t offset, std::span<char> to) const;
};

absl::Status SafetensorsFile::Mapping::Fill(std::size_t offset, std::span<char> to) const {
  while (!to.empty()) {
    const ssize_t count = pread(descriptor, to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("cannot read", name, errno);
    if (count == 0) return absl::DataLossError(fmt::format("{} has become shorter", name));
    to = to.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::Mapping::Read(std::size_t offset, std::span<char> to) const {
  if (!sums.has_value()) return Fill(offset, to);
  // Whole blocks around what is wanted, in a buffer that outlives the call: it is read again and
  // again, in blocks of a few hundred kilobytes.
  constexpr auto kBlock = static_cast<std::size_t>(BlockSums::kBlockBytes);
  static thread_local std::vector<char> blocks;
  const std::size_t begin = offset / kBlock * kBlock;
  const std::size_t end = std::min((offset + to.size() + kBlock - 1) / kBlock * kBlock, size);
  if (blocks.size() < end - begin) blocks.resize(end - begin);
  const std::span<char> whole = std::span(blocks).first(end - begin);
  RETURN_IF_ERROR(Fill(begin, whole));
  if (!sums->Match(static_cast<std::int64_t>(begin), {whole.data(), whole.size()})) {
    return absl::DataLossError(
        fmt::format("{} is damaged between bytes {} and {}", name, begin, end));
  }
  std::memcpy(to.data(), whole.data() + (offset - begin), to.size());
  return absl::OkStatus();
}

SafetensorsFile::SafetensorsFile(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

absl::StatusOr<std::unique_ptr<SafetensorsFile::Mapping>> SafetensorsFile::Map(
    const std::filesystem::path& path) {
  auto mapping = std::make_unique<Mapping>();
  mapping->name = path.filename().string();
  mapping->descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (mapping->descriptor < 0) return FileError("cannot open", mapping->name, errno);
  struct stat status {};
  if (fstat(mapping->descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::NotFoundError(fmt::format("{} is not a file", mapping->name));
  }
  mapping->size = static_cast<std::size_t>(status.st_size);
  if (mapping->size < kLengthBytes) {
    return Named(mapping->name,
                 ReadHeaderLength(std::string_view("\0\0\0\0\0\0\0", mapping->size), 0).status());
  }
  void* const address =
      mmap(nullptr, mapping->size, PROT_READ, MAP_SHARED, mapping->descriptor, /*offset=*/0);
  if (address == MAP_FAILED) return FileError("cannot map", mapping->name, errno);
  mapping->bytes = static_cast<const char*>(address);
  return mapping;
}

absl::Status SafetensorsFile::ReadHeader(Mapping& mapping) {
  // Not through the mapping: a bad sector there would kill the process.
  std::string text(kLengthBytes, '\0');
  RETURN_IF_ERROR(mapping.Read(0, text));
  const absl::StatusOr<std::uint64_t> length = ReadHeaderLength(text, mapping.size);
  if (!length.ok()) return Named(mapping.name, length.status());
  text.resize(*length);
  RETURN_IF_ERROR(mapping.Read(kLengthBytes, text));
  absl::StatusOr<Layout> layout = ReadLayout(text, mapping.size);
  if (!layout.ok()) return Named(mapping.name, layout.status());
  mapping.layout = *std::move(layout);
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<Mapping> mapping, Map(path));
  RETURN_IF_ERROR(ReadHeader(*mapping));
  return SafetensorsFile(std::move(mapping));
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::OpenChecked(const std::filesystem::path& path,
                                                             BlockSums sums) {
  ASSIGN_OR_RETURN(std::unique_ptr<Mapping> mapping, Map(path));
  if (static_cast<std::int64_t>(mapping->size) != sums.bytes()) {
    return absl::DataLossError(
        fmt::format("{} has {} bytes, it had {}", mapping->name, mapping->size, sums.bytes()));
  }
  mapping->sums = std::move(sums);
  RETURN_IF_ERROR(ReadHeader(*mapping));
  return SafetensorsFile(std::move(mapping));
}

const TensorShapes& SafetensorsFile::shapes() const { return mapping_->layout.shapes; }

const WeightsMetadata& SafetensorsFile::metadata() const { return mapping_->layout.metadata; }

std::span<const float> SafetensorsFile::Values(std::string_view name) const {
  const auto offset = mapping_->layout.offsets.find(name);
  assert(offset != mapping_->layout.offsets.end());
  // The header's length is a multiple of 8 and every tensor's a multiple of 4: aligned.
  return {reinterpret_cast<const float*>(mapping_->bytes + offset->second),
          static_cast<std::size_t>(ElementCount(shapes().at(offset->first)))};
}

absl::Status SafetensorsFile::Read(std::string_view name, std::int64_t first,
                                   std::span<float> values) const {
  const auto tensor = mapping_->layout.offsets.find(name);
  assert(tensor != mapping_->layout.offsets.end());
  return mapping_->Read(tensor->second + static_cast<std::size_t>(first) * sizeof(float),
                        {reinterpret_cast<char*>(values.data()), values.size_bytes()});
}

void SafetensorsFile::CloseDescriptor() {
  close(std::exchange(mapping_->descriptor, -1));  // The mapping does not need it.
}

NamedTensors SafetensorsFile::ReadAll() const {
  NamedTensors tensors;
  for (const auto& [name, shape] : shapes()) {
    const std::span<const float> values = Values(name);
    tensors.emplace_hint(tensors.end(), name,
                         Tensor{.shape = shape, .values = {values.begin(), values.end()}});
  }
  return tensors;
}

absl::StatusOr<NamedTensors> DecodeSafetensors(std::string_view bytes) {
  ASSIGN_OR_RETURN(const std::uint64_t length, ReadHeaderLength(bytes, bytes.size()));
  ASSIGN_OR_RETURN(Layout layout, ReadLayout(bytes.substr(kLengthBytes, length), bytes.size()));
  NamedTensors tensors;
  for (auto& [name, shape] : layout.shapes) {
    Tensor& tensor = tensors[name];
    tensor.values.resize(static_cast<std::size_t>(ElementCount(shape)));
    tensor.shape = std::move(shape);
    // Bytes in a message need not be aligned.
    if (!tensor.values.empty()) {
      std::memcpy(tensor.values.data(), bytes.data() + layout.offsets.at(name),
                  tensor.values.size() * sizeof(float));
    }
  }
  return tensors;
}

}  // namespace isoscan
