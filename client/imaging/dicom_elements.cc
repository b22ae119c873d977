#include "client/imaging/dicom_elements.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"

#include "common/status/file_error.h"

namespace isoscan {
namespace {

constexpr std::uint32_t kItem = 0xfffee000;
constexpr std::uint32_t kItemEnd = 0xfffee00d;
constexpr std::uint32_t kSequenceEnd = 0xfffee0dd;
constexpr std::uint32_t kFloatPixels = 0x7fe00008;
constexpr std::uint32_t kDoublePixels = 0x7fe00009;
constexpr std::uint32_t kPixels = 0x7fe00010;
constexpr std::uint32_t kImageType = 0x00080008;
constexpr std::uint32_t kSiemensImageHeader = 0x00291010;
constexpr std::uint32_t kUndefined = 0xffffffff;
constexpr int kDeepest = 16;
constexpr std::uint32_t kLongestValue = 4096;
constexpr std::uint32_t kLongestHeader = 1 << 20;

constexpr std::array<std::uint32_t, 52> kValues{
    0x00020002, 0x00020010, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00080070, 0x0008103e,
    0x00081090, 0x00089007, 0x00089208, 0x00100020, 0x00180020, 0x00180021, 0x00180023, 0x00180080,
    0x00180081, 0x00180082, 0x00180086, 0x00180087, 0x00180088, 0x00181020, 0x00181030, 0x00181250,
    0x00181314, 0x00189008, 0x00189009, 0x00189018, 0x00189079, 0x00189082, 0x0020000e, 0x00200032,
    0x00200037, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100,
    0x00280101, 0x00280102, 0x00280103, 0x00280301, 0x00281052, 0x00281053, 0x00430010, 0x0043102f,
    0x20050010, 0x20050011, 0x20050012, 0x20050013};
constexpr std::array<std::uint32_t, 12> kSequences{0x00189042, 0x00189112, 0x00189114, 0x00189115,
                                                   0x00189226, 0x00209113, 0x00209116, 0x00289110,
                                                   0x00289145, 0x2005140f, 0x52009229, 0x52009230};
static_assert(std::is_sorted(kValues.begin(), kValues.end()));
static_assert(std::is_sorted(kSequences.begin(), kSequences.end()));

bool IsValue(std::uint32_t tag) {
  // Philips' scale slope lies in whichever block its creator has reserved.
  if (tag >> 16 == 0x2005 && (tag & 0xff) == 0x0e) return true;
  return std::binary_search(kValues.begin(), kValues.end(), tag);
}
bool IsSequence(std::uint32_t tag) {
  return std::binary_search(kSequences.begin(), kSequences.end(), tag);
}

/// A file, read a block at a time; nothing beyond its end is ever asked for.
class Source {
 public:
  explicit Source(const std::filesystem::path& path) : file_(path, std::ios::binary) {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (!error) bytes_ = static_cast<std::int64_t>(bytes);
  }

  bool is_open() const { return file_.is_open(); }
  std::int64_t bytes() const { return bytes_; }

  /// False when the file does not hold them.
  bool Read(std::int64_t at, std::int64_t length, char* into) {
    if (at < 0 || length < 0 || length > bytes_ - at) return false;
    while (length > 0) {
      if (at < start_ || at >= start_ + filled_) {
        file_.clear();
        file_.seekg(at);
        file_.read(block_.data(), static_cast<std::streamsize>(block_.size()));
        start_ = at;
        filled_ = file_.gcount();
        if (filled_ <= 0) return false;
      }
      const std::int64_t part = std::min(length, start_ + filled_ - at);
      std::memcpy(into, block_.data() + (at - start_), static_cast<std::size_t>(part));
      at += part;
      into += part;
      length -= part;
    }
    return true;
  }

 private:
  std::ifstream file_;
  std::int64_t bytes_ = 0;
  std::vector<char> block_ = std::vector<char>(32768);
  std::int64_t start_ = 0;
  std::int64_t filled_ = 0;
};

class Parser {
 public:
  Parser(Source& source, DicomFile& file) : source_(source), file_(file) {}

  /// The group 2 that says how the rest is written; always explicit and little endian.
  bool ReadMeta(std::int64_t& at) {
    while (at < source_.bytes()) {
      std::int64_t next = at;
      Element element;
      if (!ReadElement(/*is_explicit=*/true, next, element)) return false;
      if (element.tag >> 16 != 2) return true;
      if (element.length > source_.bytes() - next) return false;
      if (!Keep(file_.elements, element, next)) return false;
      at = next + element.length;
    }
    return true;
  }

  /// Until the pixels, or the end.
  bool ReadData(std::int64_t at) {
    // Writers err about it; the first element tells.
    std::array<char, 6> start{};
    const bool is_explicit =
        source_.Read(at, 6, start.data()) && IsRepresentation(start.data() + 4);
    return ReadSet(&file_.elements, is_explicit, at, source_.bytes(), 0);
  }

 private:
  struct Element {
    std::uint32_t tag = 0;
    std::uint32_t length = 0;
    std::array<char, 2> representation{};
  };

  static bool IsRepresentation(const char* letters) {
    return letters[0] >= 'A' && letters[0] <= 'Z' && letters[1] >= 'A' && letters[1] <= 'Z';
  }

  std::uint32_t Number(const char* bytes, int count) const {
    std::uint32_t number = 0;
    for (int i = 0; i < count; ++i) {
      const int place = file_.big_endian ? count - 1 - i : i;
      number |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * place);
    }
    return number;
  }

  /// Its tag and length; `at` moves to its value.
  bool ReadElement(bool is_explicit, std::int64_t& at, Element& element) {
    std::array<char, 12> bytes{};
    if (!source_.Read(at, 8, bytes.data())) return false;
    element.tag = Number(bytes.data(), 2) << 16 | Number(bytes.data() + 2, 2);
    const bool is_delimiter = element.tag >> 16 == 0xfffe;
    if (is_delimiter || !is_explicit || !IsRepresentation(bytes.data() + 4)) {
      element.length = Number(bytes.data() + 4, 4);
      at += 8;
      return true;
    }
    element.representation = {bytes[4], bytes[5]};
    const std::string_view letters(element.representation.data(), 2);
    for (const std::string_view is_long :
         {"OB", "OW", "OF", "OD", "OL", "OV", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}) {
      if (letters != is_long) continue;
      if (!source_.Read(at + 8, 4, bytes.data() + 8)) return false;
      element.length = Number(bytes.data() + 8, 4);
      at += 12;
      return true;
    }
    element.length = Number(bytes.data() + 6, 2);
    at += 8;
    return true;
  }

  bool Keep(DicomElements& into, const Element& element, std::int64_t at) {
    const bool is_mosaic_header = element.tag == kSiemensImageHeader &&
                                  element.length <= kLongestHeader &&
                                  into.Bytes(kImageType).find("MOSAIC") != std::string::npos;
    if (!is_mosaic_header && (element.length > kLongestValue || !IsValue(element.tag))) return true;
    kept_bytes_ += element.length;
    if (kept_bytes_ > kMostKeptBytes) return false;
    std::string value(element.length, '\0');
    if (!source_.Read(at, element.length, value.data())) return false;
    into.values[element.tag] = std::move(value);
    return true;
  }

  /// The elements of a file or of an item; `into` is null where they are only passed over.
  bool ReadSet(DicomElements* into, bool is_explicit, std::int64_t& at, std::int64_t end,
               int depth) {
    if (depth > kDeepest) return false;
    while (at < end) {
      Element element;
      if (!ReadElement(is_explicit, at, element)) return false;
      if (element.tag == kItemEnd && depth > 0) return true;
      if (element.tag >= kFloatPixels && element.tag >> 16 != 0xfffe && depth == 0) {
        file_.float_pixels = element.tag == kFloatPixels || element.tag == kDoublePixels;
        if (file_.float_pixels || element.tag == kPixels) file_.pixels_at = at;
        return true;
      }
      const bool is_undefined = element.length == kUndefined;
      if (!is_undefined && element.length > end - at) return false;
      if (is_undefined || (into != nullptr && IsSequence(element.tag))) {
        // A sequence of unknown representation is written implicitly.
        const bool is_unknown = is_explicit && element.representation == std::array{'U', 'N'};
        const std::int64_t sequence_end = is_undefined ? end : at + element.length;
        std::vector<DicomElements>* items =
            into != nullptr && IsSequence(element.tag) ? &into->sequences[element.tag] : nullptr;
        if (!ReadItems(items, is_explicit && !is_unknown, is_undefined, at, sequence_end, depth)) {
          return false;
        }
        continue;
      }
      if (into != nullptr && !Keep(*into, element, at)) return false;
      at += element.length;
    }
    return true;
  }

  bool ReadItems(std::vector<DicomElements>* items, bool is_explicit, bool is_undefined,
                 std::int64_t& at, std::int64_t end, int depth) {
    while (at < end) {
      Element item;
      if (!ReadElement(is_explicit, at, item)) return false;
      if (item.tag == kSequenceEnd) return true;
      if (item.tag != kItem) return false;
      const bool open = item.length == kUndefined;
      if (!open && item.length > end - at) return false;
      const std::int64_t item_end = open ? end : at + item.length;
      if (items != nullptr && ++kept_items_ > kMostItems) return false;
      DicomElements* into = items != nullptr ? &items->emplace_back() : nullptr;
      if (into == nullptr && !open) {
        at = item_end;
        continue;
      }
      if (!ReadSet(into, is_explicit, at, item_end, depth + 1)) return false;
      if (!open) at = item_end;
    }
    return !is_undefined;
  }

  /// Far above every scanner's header; elements of a file of empty items cost 24 times its size.
  static constexpr std::int64_t kMostKeptBytes = std::int64_t{64} << 20;
  static constexpr std::int64_t kMostItems = 500'000;

  Source& source_;
  DicomFile& file_;
  std::int64_t kept_bytes_ = 0;
  std::int64_t kept_items_ = 0;
};

constexpr std::string_view kBigEndian = "1.2.840.10008.1.2.2";
constexpr std::string_view kDeflated = "1.2.840.10008.1.2.1.99";

}  // namespace

const std::string& DicomElements::Bytes(std::uint32_t tag) const {
  static const std::string none;
  const auto value = values.find(tag);
  return value != values.end() ? value->second : none;
}

const std::vector<DicomElements>& DicomElements::Items(std::uint32_t tag) const {
  static const std::vector<DicomElements> none;
  const auto items = sequences.find(tag);
  return items != sequences.end() ? items->second : none;
}

const std::string& DicomElements::InFirst(std::uint32_t sequence, std::uint32_t attribute) const {
  static const DicomElements none;
  const std::vector<DicomElements>& items = Items(sequence);
  return (items.empty() ? none : items.front()).Bytes(attribute);
}

bool HasDicomSignature(const std::filesystem::path& path) {
  // Opening a pipe would wait for its writer.
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  std::ifstream file(path, std::ios::binary);
  std::array<char, 132> start{};
  file.read(start.data(), start.size());
  return file && std::string_view(start.data() + 128, 4) == "DICM";
}

absl::StatusOr<DicomFile> ReadDicomElements(const std::filesystem::path& path) {
  Source source(path);
  if (!source.is_open()) return FileError("cannot open", path.filename().string(), errno);
  std::array<char, 4> signature{};
  if (!source.Read(128, 4, signature.data()) || std::string_view(signature.data(), 4) != "DICM") {
    return absl::DataLossError(
        "it has no DICOM signature: it is damaged, or of a kind older than DICOM; copy it again, "
        "or "
        "convert it with dcmconv");
  }
  DicomFile file;
  file.file_bytes = source.bytes();
  Parser parser(source, file);
  std::int64_t at = 132;
  bool is_whole = parser.ReadMeta(at);
  if (is_whole) {
    file.transfer_syntax = file.elements.Bytes(0x00020010);
    file.transfer_syntax = file.transfer_syntax.substr(0, file.transfer_syntax.find('\0'));
    file.transfer_syntax.erase(file.transfer_syntax.find_last_not_of(' ') + 1);
    file.big_endian = file.transfer_syntax == kBigEndian;
    is_whole = file.transfer_syntax == kDeflated || parser.ReadData(at);
  }
  if (is_whole) return file;
  return absl::DataLossError(
      "its header cannot be decoded: it ends too early, is damaged or is no header of a scan (more "
      "than 64 MB or 500,000 items); copy it again");
}

}  // namespace isoscan
