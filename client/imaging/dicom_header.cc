#include "client/imaging/dicom_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <random>
#include <string_view>
#include <system_error>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"
#include <gdcmDataSet.h>
#include <gdcmFile.h>
#include <gdcmReader.h>
#include <gdcmSequenceOfItems.h>
#include <gdcmSplitMosaicFilter.h>
#include <gdcmTrace.h>
#include <gdcmTransferSyntax.h>

namespace isoscan {
namespace {

using gdcm::DataSet;
using gdcm::Tag;

const Tag kPixelData(0x7fe0, 0x0010);

/// An element's value as it is stored; empty when it is missing or a sequence.
std::string Bytes(const DataSet& data, const Tag& tag) {
  if (!data.FindDataElement(tag)) return "";
  const gdcm::ByteValue* value = data.GetDataElement(tag).GetByteValue();
  if (value == nullptr || value->GetPointer() == nullptr) return "";
  return {value->GetPointer(), static_cast<std::size_t>(value->GetLength())};
}

std::string Trimmed(std::string text) {
  text = text.substr(0, text.find('\0'));
  const std::size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

std::string Text(const DataSet& data, const Tag& tag) { return Trimmed(Bytes(data, tag)); }

/// For what is kept and shown: no control characters, no text of any length.
std::string Printable(const std::string& text) {
  std::string printable;
  for (const char letter : text) {
    if (letter >= ' ' && letter <= '~') printable += letter;
    if (printable.size() == 64) break;
  }
  return Trimmed(printable);
}

std::vector<std::string> Codes(const std::string& text) {
  std::vector<std::string> codes;
  std::size_t begin = 0;
  while (begin < text.size() && codes.size() < 16) {
    const std::size_t end = std::min(text.find('\\', begin), text.size());
    codes.push_back(Printable(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return codes;
}

std::optional<double> Finite(double value) {
  return std::isfinite(value) ? std::optional<double>(value) : std::nullopt;
}

/// Decimal strings (DS, IS), all of them or none.
std::vector<double> Decimals(const std::string& text) {
  std::vector<double> numbers;
  for (const std::string& code : Codes(text)) {
    const std::size_t sign = code.starts_with('+') ? 1 : 0;
    double number = 0;
    const auto [end, error] =
        std::from_chars(code.data() + sign, code.data() + code.size(), number);
    if (error != std::errc() || end != code.data() + code.size() || !std::isfinite(number)) {
      return {};
    }
    numbers.push_back(number);
  }
  return numbers;
}

std::optional<double> Decimal(const std::string& text) {
  const std::vector<double> numbers = Decimals(text);
  return numbers.empty() ? std::nullopt : std::optional<double>(numbers.front());
}

/// Binary values (US, FL, FD), which GDCM has brought into this machine's order of bytes.
template <typename T>
std::optional<double> Binary(const std::string& bytes) {
  T value{};
  if (bytes.size() < sizeof(value)) return std::nullopt;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return Finite(static_cast<double>(value));
}

int UnsignedShort(const DataSet& data, const Tag& tag) {
  return static_cast<int>(Binary<std::uint16_t>(Bytes(data, tag)).value_or(0));
}

template <std::size_t N>
std::optional<std::array<double, N>> Point(const std::string& text) {
  const std::vector<double> numbers = Decimals(text);
  if (numbers.size() != N) return std::nullopt;
  std::array<double, N> point{};
  std::copy(numbers.begin(), numbers.end(), point.begin());
  return point;
}

bool Contains(std::string text, std::string_view word) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text.find(word) != std::string::npos;
}

/// A patient's number, made useless outside this process: the salt is never written anywhere.
std::string PatientDigest(const std::string& number) {
  static const std::string salt = [] {
    std::random_device device;
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += fmt::format("{:08x}", device());
    return bytes;
  }();
  return number.empty() ? "" : Sha256Of(salt + Sha256Of(salt + number));
}

ImageComponent ComponentOf(const std::vector<std::string>& image_type) {
  for (std::size_t i = 2; i < image_type.size(); ++i) {
    const std::string& code = image_type[i];
    if (code == "P" || code.starts_with("PHASE")) return ImageComponent::kPhase;
    if (code == "R" || code == "REAL") return ImageComponent::kReal;
    if (code == "I" || code == "IMAGINARY") return ImageComponent::kImaginary;
  }
  return ImageComponent::kMagnitude;
}

/// GE leaves ImageType alone and says it in a private element.
ImageComponent GeComponent(const DataSet& data) {
  const std::string creator = Text(data, Tag(0x0043, 0x0010));
  const std::string type = Bytes(data, Tag(0x0043, 0x102f));
  if (!creator.starts_with("GEMS_PARM_01") || type.size() != 2) return ImageComponent::kMagnitude;
  switch (type[0]) {
    case 1:
      return ImageComponent::kPhase;
    case 2:
      return ImageComponent::kReal;
    case 3:
      return ImageComponent::kImaginary;
    default:
      return ImageComponent::kMagnitude;
  }
}

/// Philips' scale slope, (2005,100E) in the block that its creator has reserved.
std::optional<double> PhilipsScaleSlope(const DataSet& data) {
  for (std::uint16_t block = 0x10; block <= 0x1f; ++block) {
    if (!Text(data, Tag(0x2005, block)).starts_with("Philips MR Imaging DD 001")) continue;
    const std::string bytes =
        Bytes(data, Tag(0x2005, static_cast<std::uint16_t>((block << 8) | 0x0e)));
    return bytes.size() == sizeof(float) ? Binary<float>(bytes) : Decimal(bytes);
  }
  return std::nullopt;
}

/// RescaleSlope and RescaleIntercept give what the console displays, with a slope that Philips
/// chooses anew for each series; the private scale slope undoes that. Source:
/// docs/references.md#chenevert2014: FP = (stored * RS + RI) / (RS * SS).
void SetScale(DicomFrame& frame, std::optional<double> slope, std::optional<double> intercept,
              std::optional<double> philips) {
  frame.slope = slope.value_or(1);
  frame.intercept = intercept.value_or(0);
  if (!philips.has_value() || *philips == 0 || frame.slope == 0) return;
  frame.philips_scale = true;
  frame.intercept /= frame.slope * *philips;
  frame.slope = 1 / *philips;
}

std::array<double, 2> SpacingOf(const std::string& text) {
  const auto rows_columns = Point<2>(text).value_or(std::array<double, 2>{0, 0});
  return {rows_columns[1], rows_columns[0]};
}

void ReadAcquisition(const DataSet& data, Acquisition& acquisition) {
  const auto text = [&data](std::uint16_t group, std::uint16_t element) {
    return Printable(Text(data, Tag(group, element)));
  };
  const auto number = [&data](std::uint16_t group, std::uint16_t element) {
    return Decimal(Text(data, Tag(group, element)));
  };
  acquisition.modality = text(0x0008, 0x0060);
  acquisition.manufacturer = text(0x0008, 0x0070);
  acquisition.model = text(0x0008, 0x1090);
  acquisition.software = text(0x0018, 0x1020);
  acquisition.receive_coil = text(0x0018, 0x1250);
  acquisition.field_tesla = number(0x0018, 0x0087);
  // Old files say it in gauss.
  if (acquisition.field_tesla.value_or(0) > 100) *acquisition.field_tesla /= 1e4;
  acquisition.repetition_ms = number(0x0018, 0x0080);
  acquisition.echo_ms = number(0x0018, 0x0081);
  acquisition.inversion_ms = number(0x0018, 0x0082);
  acquisition.flip_degrees = number(0x0018, 0x1314);
  if (const auto echo = number(0x0018, 0x0086); echo.has_value() && std::abs(*echo) < 1e6) {
    acquisition.echo_number = static_cast<int>(*echo);
  }
  acquisition.sequence = Codes(Text(data, Tag(0x0018, 0x0020)));
  acquisition.sequence_variant = Codes(Text(data, Tag(0x0018, 0x0021)));
  acquisition.dimensions = text(0x0018, 0x0023);
  acquisition.image_type = Codes(Text(data, Tag(0x0008, 0x0008)));
  acquisition.component = ComponentOf(acquisition.image_type);
  if (acquisition.component == ImageComponent::kMagnitude) {
    acquisition.component = GeComponent(data);
  }
}

/// The functional groups of a multi-frame file: an attribute stands in the frame's own item or in
/// the one that all frames share. Source: docs/references.md#dicom, part 3, C.7.6.16.
class FrameGroups {
 public:
  explicit FrameGroups(const DataSet& data)
      : shared_(SequenceAt(data, Tag(0x5200, 0x9229))),
        frames_(SequenceAt(data, Tag(0x5200, 0x9230))) {}

  std::size_t frames() const { return frames_ ? frames_->GetNumberOfItems() : 0; }

  std::string BytesOf(std::size_t frame, const Tag& macro, const Tag& attribute) const {
    std::string bytes = InItem(*frames_, frame + 1, macro, attribute);
    if (bytes.empty() && shared_ && shared_->GetNumberOfItems() > 0) {
      bytes = InItem(*shared_, 1, macro, attribute);
    }
    return bytes;
  }
  std::string TextOf(std::size_t frame, const Tag& macro, const Tag& attribute) const {
    return Trimmed(BytesOf(frame, macro, attribute));
  }

 private:
  using Sequence = gdcm::SmartPointer<gdcm::SequenceOfItems>;

  static Sequence SequenceAt(const DataSet& data, const Tag& tag) {
    return data.FindDataElement(tag) ? data.GetDataElement(tag).GetValueAsSQ() : Sequence();
  }

  static std::string InItem(const gdcm::SequenceOfItems& items, std::size_t item, const Tag& macro,
                            const Tag& attribute) {
    const Sequence nested = SequenceAt(items.GetItem(item).GetNestedDataSet(), macro);
    if (!nested || nested->GetNumberOfItems() < 1) return "";
    const DataSet& data = nested->GetItem(1).GetNestedDataSet();
    // Philips keeps its scale in a private macro of the frame.
    if (attribute == Tag(0x2005, 0x100e)) {
      const std::optional<double> slope = PhilipsScaleSlope(data);
      return slope.has_value() ? fmt::format("{:.17g}", *slope) : "";
    }
    return Bytes(data, attribute);
  }

  Sequence shared_;
  Sequence frames_;
};

void ReadMultiFrame(const DataSet& data, DicomHeader& header) {
  const FrameGroups groups(data);
  if (groups.frames() != static_cast<std::size_t>(header.declared_frames)) return;
  Acquisition& acquisition = header.acquisition;
  const std::string component = Text(data, Tag(0x0008, 0x9208));
  const std::string pulse = Text(data, Tag(0x0018, 0x9008));
  if (acquisition.sequence.empty()) {
    if (pulse == "SPIN" || pulse == "BOTH") acquisition.sequence.push_back("SE");
    if (pulse == "GRADIENT" || pulse == "BOTH") acquisition.sequence.push_back("GR");
    if (Text(data, Tag(0x0018, 0x9018)) == "YES") acquisition.sequence.push_back("EP");
    if (Text(data, Tag(0x0018, 0x9009)) == "YES") acquisition.sequence.push_back("IR");
  }
  const Tag timing(0x0018, 0x9112);
  const auto set = [](std::optional<double>& value, std::optional<double> found) {
    if (found.has_value()) value = found;
  };
  set(acquisition.repetition_ms, Decimal(groups.TextOf(0, timing, Tag(0x0018, 0x0080))));
  set(acquisition.flip_degrees, Decimal(groups.TextOf(0, timing, Tag(0x0018, 0x1314))));
  set(acquisition.inversion_ms,
      Binary<double>(groups.BytesOf(0, Tag(0x0018, 0x9115), Tag(0x0018, 0x9079))));
  if (acquisition.receive_coil.empty()) {
    acquisition.receive_coil =
        Printable(groups.TextOf(0, Tag(0x0018, 0x9042), Tag(0x0018, 0x1250)));
  }

  header.frames.resize(groups.frames());
  for (std::size_t i = 0; i < header.frames.size(); ++i) {
    DicomFrame& frame = header.frames[i];
    frame.position_mm = Point<3>(groups.TextOf(i, Tag(0x0020, 0x9113), Tag(0x0020, 0x0032)));
    frame.orientation = Point<6>(groups.TextOf(i, Tag(0x0020, 0x9116), Tag(0x0020, 0x0037)));
    frame.spacing_mm = SpacingOf(groups.TextOf(i, Tag(0x0028, 0x9110), Tag(0x0028, 0x0030)));
    const Tag scale(0x0028, 0x9145);
    SetScale(frame, Decimal(groups.TextOf(i, scale, Tag(0x0028, 0x1053))),
             Decimal(groups.TextOf(i, scale, Tag(0x0028, 0x1052))),
             Decimal(groups.TextOf(i, Tag(0x2005, 0x140f), Tag(0x2005, 0x100e))));
    frame.echo_ms = Binary<double>(groups.BytesOf(i, Tag(0x0018, 0x9114), Tag(0x0018, 0x9082)));
    if (!frame.echo_ms.has_value()) frame.echo_ms = acquisition.echo_ms;
    const Tag type(0x0018, 0x9226);
    frame.image_type = Codes(groups.TextOf(i, type, Tag(0x0008, 0x9007)));
    if (frame.image_type.empty()) frame.image_type = acquisition.image_type;
    std::string of_frame = groups.TextOf(i, type, Tag(0x0008, 0x9208));
    if (of_frame.empty()) of_frame = component;
    frame.component = ComponentOf(of_frame.empty() ? frame.image_type
                                                   : std::vector<std::string>{"", "", of_frame});
  }
}

/// A mosaic is stored as one big plane whose position is that of its corner, as if the plane were
/// the first slice. Source: docs/references.md#nibabel-mosaic.
void ReadMosaic(const gdcm::File& file, DicomHeader& header) {
  const DataSet& data = file.GetDataSet();
  const auto tiles =
      static_cast<std::int64_t>(gdcm::SplitMosaicFilter::GetNumberOfImagesInMosaic(file));
  const std::optional<double> gap_mm = Decimal(Text(data, Tag(0x0018, 0x0088)));
  DicomFrame first = header.frames.front();
  header.frames.clear();
  header.mosaic = true;
  if (tiles < 2 || tiles > 4096 || !gap_mm.has_value() || !(*gap_mm > 0) ||
      !first.position_mm.has_value() || !first.orientation.has_value()) {
    return;
  }
  const auto side = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(tiles))));
  if (header.columns % side != 0 || header.rows % side != 0) return;
  gdcm::SplitMosaicFilter filter;
  filter.SetFile(file);
  std::array<double, 3> normal{};
  bool inverted = false;
  if (!filter.ComputeMOSAICSliceNormal(normal.data(), inverted)) return;
  header.columns /= side;
  header.rows /= side;
  header.mosaic_side = side;

  const std::array<double, 6>& axes = *first.orientation;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    DicomFrame frame = first;
    for (std::size_t i = 0; i < 3; ++i) {
      const double to_tile = 0.5 * static_cast<double>(side - 1) *
                             (first.spacing_mm[0] * static_cast<double>(header.columns) * axes[i] +
                              first.spacing_mm[1] * static_cast<double>(header.rows) * axes[i + 3]);
      (*frame.position_mm)[i] += to_tile + static_cast<double>(tile) * *gap_mm * normal[i];
    }
    header.frames.push_back(std::move(frame));
  }
}

/// Where the pixels' values begin: GDCM stops behind the element's tag and length.
std::int64_t PixelsAt(std::ifstream& file) {
  file.clear();
  const auto at = static_cast<std::int64_t>(file.tellg());
  for (const std::int64_t back : {8, 12}) {  // Implicit and explicit representation.
    if (at < back) continue;
    std::array<char, 4> tag{};
    file.seekg(at - back);
    file.read(tag.data(), tag.size());
    const std::string_view found(tag.data(), tag.size());
    if (file && (found == std::string_view("\xe0\x7f\x10\x00", 4) ||
                 found == std::string_view("\x7f\xe0\x00\x10", 4))) {
      return at;
    }
    file.clear();
  }
  return -1;
}

bool SaysLocaliser(const DataSet& data, const std::vector<std::string>& image_type) {
  std::string names;
  for (const std::string& code : image_type) names += code + ' ';
  for (const Tag& tag : {Tag(0x0008, 0x103e), Tag(0x0018, 0x1030)}) {
    names += Text(data, tag) + ' ';
  }
  for (const std::string_view word :
       {"localizer", "localiser", "scout", "survey", "3-plane", "3 plane", "3plane", "plan scan"}) {
    if (Contains(names, word)) return true;
  }
  return false;
}

void Interpret(const gdcm::File& file, DicomHeader& header) {
  const DataSet& data = file.GetDataSet();
  header.class_uid = Text(data, Tag(0x0008, 0x0016));
  header.instance_uid = Text(data, Tag(0x0008, 0x0018));
  header.series_uid = Text(data, Tag(0x0020, 0x000e));
  header.patient = PatientDigest(Text(data, Tag(0x0010, 0x0020)));
  header.rows = UnsignedShort(data, Tag(0x0028, 0x0010));
  header.columns = UnsignedShort(data, Tag(0x0028, 0x0011));
  header.samples = UnsignedShort(data, Tag(0x0028, 0x0002));
  header.bits_allocated = UnsignedShort(data, Tag(0x0028, 0x0100));
  header.bits_stored = UnsignedShort(data, Tag(0x0028, 0x0101));
  header.high_bit = UnsignedShort(data, Tag(0x0028, 0x0102));
  header.is_signed = UnsignedShort(data, Tag(0x0028, 0x0103)) == 1;
  header.photometric = Printable(Text(data, Tag(0x0028, 0x0004)));
  header.burned_in = Text(data, Tag(0x0028, 0x0301)) == "YES";
  const double frames = Decimal(Text(data, Tag(0x0028, 0x0008))).value_or(1);
  header.declared_frames = frames >= 1 && frames <= 1e6 ? static_cast<std::int64_t>(frames) : 1;
  ReadAcquisition(data, header.acquisition);
  header.localiser = SaysLocaliser(data, header.acquisition.image_type);

  if (data.FindDataElement(Tag(0x5200, 0x9230)) || header.declared_frames > 1) {
    ReadMultiFrame(data, header);
    return;
  }
  DicomFrame frame;
  frame.position_mm = Point<3>(Text(data, Tag(0x0020, 0x0032)));
  frame.orientation = Point<6>(Text(data, Tag(0x0020, 0x0037)));
  frame.spacing_mm = SpacingOf(Text(data, Tag(0x0028, 0x0030)));
  const bool philips = Contains(header.acquisition.manufacturer, "philips");
  SetScale(frame, Decimal(Text(data, Tag(0x0028, 0x1053))),
           Decimal(Text(data, Tag(0x0028, 0x1052))),
           philips ? PhilipsScaleSlope(data) : std::nullopt);
  frame.echo_ms = header.acquisition.echo_ms;
  frame.image_type = header.acquisition.image_type;
  frame.component = header.acquisition.component;
  header.frames.push_back(std::move(frame));
  const std::vector<std::string>& type = header.acquisition.image_type;
  if (std::find(type.begin(), type.end(), "MOSAIC") != type.end()) ReadMosaic(file, header);
}

/// What GDCM 3 decodes: everything but films.
bool IsDecodable(const gdcm::TransferSyntax& syntax) {
  switch (syntax) {
    case gdcm::TransferSyntax::MPEG2MainProfile:
    case gdcm::TransferSyntax::MPEG2MainProfileHighLevel:
    case gdcm::TransferSyntax::MPEG4AVCH264HighProfileLevel4_1:
    case gdcm::TransferSyntax::MPEG4AVCH264BDcompatibleHighProfileLevel4_1:
    case gdcm::TransferSyntax::JPIPReferenced:
    case gdcm::TransferSyntax::TS_END:
      return false;
    default:
      return true;
  }
}

}  // namespace

bool HasDicomSignature(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 132> start{};
  file.read(start.data(), start.size());
  return file && std::string_view(start.data() + 128, 4) == "DICM";
}

absl::StatusOr<DicomHeader> ReadDicomHeader(const std::filesystem::path& path) {
  static std::once_flag silenced;
  std::call_once(silenced, [] {  // It would print names of files and of elements to stderr.
    gdcm::Trace::DebugOff();
    gdcm::Trace::WarningOff();
    gdcm::Trace::ErrorOff();
  });
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError("cannot open", path.filename().string(), errno);
  DicomHeader header;
  std::error_code error;
  header.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(path, error));
  if (error) return FileError("cannot open", path.filename().string(), error);
  try {
    gdcm::Reader reader;
    reader.SetStream(file);
    if (!reader.ReadUpToTag(kPixelData, {kPixelData})) {
      return absl::DataLossError(
          "its header cannot be decoded: it is damaged or not what it says; copy it again");
    }
    const gdcm::TransferSyntax& syntax = reader.GetFile().GetHeader().GetDataSetTransferSyntax();
    header.transfer_syntax = Text(reader.GetFile().GetHeader(), Tag(0x0002, 0x0010));
    header.decodable = IsDecodable(syntax);
    header.plain = syntax == gdcm::TransferSyntax::ImplicitVRLittleEndian ||
                   syntax == gdcm::TransferSyntax::ExplicitVRLittleEndian;
    // In a deflated file no place is known.
    header.pixels_at =
        syntax == gdcm::TransferSyntax::DeflatedExplicitVRLittleEndian ? 0 : PixelsAt(file);
    Interpret(reader.GetFile(), header);
  } catch (const std::exception&) {
    return absl::DataLossError(
        "its header cannot be decoded: it is damaged or not what it says; copy it again");
  }
  return header;
}

}  // namespace isoscan
