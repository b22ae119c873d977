#include "client/imaging/dicom_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstring>
#include <random>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/imaging/dicom_elements.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

std::string Trimmed(std::string text) {
  text = text.substr(0, text.find('\0'));
  const std::size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

std::string Text(const DicomElements& data, std::uint32_t tag) { return Trimmed(data.Bytes(tag)); }

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

/// Binary values (US, SS, FL, FD).
template <typename T>
std::optional<double> Binary(std::string bytes, bool big_endian) {
  T value{};
  if (bytes.size() < sizeof(value)) return std::nullopt;
  bytes.resize(sizeof(value));
  if (big_endian != (std::endian::native == std::endian::big)) {
    std::reverse(bytes.begin(), bytes.end());
  }
  std::memcpy(&value, bytes.data(), sizeof(value));
  return std::isfinite(static_cast<double>(value)) ? std::optional<double>(value) : std::nullopt;
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

/// The same in every process, as no salt would be: a patient must never change sides.
std::optional<double> PatientFraction(const std::string& number) {
  constexpr int kDigits = 5;  // Of four bits each.
  if (number.empty()) return std::nullopt;
  const std::string digest = Sha256Of("isoscan held-out patient\n" + number);
  return std::stod("0x0." + digest.substr(0, kDigits));
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
ImageComponent GeComponent(const DicomElements& data, bool big_endian) {
  if (!Text(data, 0x00430010).starts_with("GEMS_PARM_01")) return ImageComponent::kMagnitude;
  const double type = Binary<std::int16_t>(data.Bytes(0x0043102f), big_endian).value_or(0);
  return type == 1   ? ImageComponent::kPhase
         : type == 2 ? ImageComponent::kReal
         : type == 3 ? ImageComponent::kImaginary
                     : ImageComponent::kMagnitude;
}

/// Philips' scale slope, (2005,100E) in the block that its creator has reserved.
std::optional<double> PhilipsScaleSlope(const DicomElements& data, bool big_endian) {
  for (std::uint32_t block = 0x10; block <= 0x13; ++block) {
    if (!Text(data, 0x20050000 | block).starts_with("Philips MR Imaging DD 001")) continue;
    const std::string& bytes = data.Bytes(0x2005000e | block << 8);
    return bytes.size() == sizeof(float) ? Binary<float>(bytes, big_endian)
                                         : Decimal(Trimmed(bytes));
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

void ReadAcquisition(const DicomElements& data, bool big_endian, Acquisition& acquisition) {
  const auto text = [&data](std::uint32_t tag) { return Printable(Text(data, tag)); };
  const auto number = [&data](std::uint32_t tag) { return Decimal(Text(data, tag)); };
  acquisition.modality = text(0x00080060);
  acquisition.manufacturer = text(0x00080070);
  acquisition.model = text(0x00081090);
  acquisition.software = text(0x00181020);
  acquisition.receive_coil = text(0x00181250);
  acquisition.field_tesla = number(0x00180087);
  // Old files say it in gauss.
  if (acquisition.field_tesla.value_or(0) > 100) *acquisition.field_tesla /= 1e4;
  acquisition.repetition_ms = number(0x00180080);
  acquisition.echo_ms = number(0x00180081);
  acquisition.inversion_ms = number(0x00180082);
  acquisition.flip_degrees = number(0x00181314);
  if (const auto echo = number(0x00180086); echo.has_value() && std::abs(*echo) < 1e6) {
    acquisition.echo_number = static_cast<int>(*echo);
  }
  acquisition.sequence = Codes(Text(data, 0x00180020));
  acquisition.sequence_variant = Codes(Text(data, 0x00180021));
  acquisition.dimensions = text(0x00180023);
  acquisition.image_type = Codes(Text(data, 0x00080008));
  acquisition.component = ComponentOf(acquisition.image_type);
  if (acquisition.component == ImageComponent::kMagnitude) {
    acquisition.component = GeComponent(data, big_endian);
  }
}

/// The functional groups of a multi-frame file: an attribute stands in the frame's own item or in
/// the one that all frames share. Source: docs/references.md#dicom, part 3, C.7.6.16.
void ReadMultiFrame(const DicomElements& data, bool big_endian, DicomHeader& header) {
  const std::vector<DicomElements>& frames = data.Items(0x52009230);
  if (std::ssize(frames) != header.declared_frames) return;
  if (header.declared_frames > DicomHeader::kMostFrames) return;
  const std::vector<DicomElements>& shared = data.Items(0x52009229);
  const auto bytes = [&](std::size_t frame, std::uint32_t macro, std::uint32_t attribute) {
    const std::string& own = frames[frame].InFirst(macro, attribute);
    return own.empty() && !shared.empty() ? shared.front().InFirst(macro, attribute) : own;
  };
  const auto text = [&](std::size_t frame, std::uint32_t macro, std::uint32_t attribute) {
    return Trimmed(bytes(frame, macro, attribute));
  };
  const auto set = [](std::optional<double>& value, std::optional<double> found) {
    if (found.has_value()) value = found;
  };
  Acquisition& acquisition = header.acquisition;
  if (acquisition.sequence.empty()) {
    const std::string pulse = Text(data, 0x00189008);
    if (pulse == "SPIN" || pulse == "BOTH") acquisition.sequence.push_back("SE");
    if (pulse == "GRADIENT" || pulse == "BOTH") acquisition.sequence.push_back("GR");
    if (Text(data, 0x00189018) == "YES") acquisition.sequence.push_back("EP");
    if (Text(data, 0x00189009) == "YES") acquisition.sequence.push_back("IR");
  }
  set(acquisition.repetition_ms, Decimal(text(0, 0x00189112, 0x00180080)));
  set(acquisition.flip_degrees, Decimal(text(0, 0x00189112, 0x00181314)));
  set(acquisition.inversion_ms, Binary<double>(bytes(0, 0x00189115, 0x00189079), big_endian));
  if (acquisition.receive_coil.empty()) {
    acquisition.receive_coil = Printable(text(0, 0x00189042, 0x00181250));
  }

  const auto of_file = std::make_shared<const std::vector<std::string>>(acquisition.image_type);
  std::string last_text;
  auto last_type = of_file;
  header.frames.resize(frames.size());
  for (std::size_t i = 0; i < frames.size(); ++i) {
    DicomFrame& frame = header.frames[i];
    frame.position_mm = Point<3>(text(i, 0x00209113, 0x00200032));
    frame.orientation = Point<6>(text(i, 0x00209116, 0x00200037));
    frame.spacing_mm = SpacingOf(text(i, 0x00289110, 0x00280030));
    const std::vector<DicomElements>& philips = frames[i].Items(0x2005140f);
    SetScale(frame, Decimal(text(i, 0x00289145, 0x00281053)),
             Decimal(text(i, 0x00289145, 0x00281052)),
             philips.empty() ? std::nullopt : PhilipsScaleSlope(philips.front(), big_endian));
    frame.echo_ms = acquisition.echo_ms;
    set(frame.echo_ms, Binary<double>(bytes(i, 0x00189114, 0x00189082), big_endian));
    if (std::string type = text(i, 0x00189226, 0x00089007); type != last_text) {
      last_type =
          type.empty() ? of_file : std::make_shared<const std::vector<std::string>>(Codes(type));
      last_text = std::move(type);
    }
    frame.image_type = last_type;
    std::string component = text(i, 0x00189226, 0x00089208);
    if (component.empty()) component = Text(data, 0x00089208);
    frame.component =
        ComponentOf(component.empty() ? *frame.image_type
                                      : std::vector<std::string>{"", "", std::move(component)});
  }
}

/// Values of one entry of Siemens' private header, written as text. Its layout is not published:
/// docs/references.md#nibabel-siemens, "CSA2".
std::vector<double> SiemensNumbers(const std::string& header, std::string_view name) {
  const auto number = [&header](std::size_t at) -> std::size_t {
    std::uint32_t value = 0;
    if (at + sizeof(value) <= header.size()) std::memcpy(&value, header.data() + at, sizeof(value));
    return value;
  };
  if (!header.starts_with("SV10")) return {};
  const std::size_t entries = std::min<std::size_t>(number(8), 1024);
  std::size_t at = 16;
  for (std::size_t entry = 0; entry < entries && at + 84 <= header.size(); ++entry) {
    const bool wanted = Trimmed(header.substr(at, 64)) == name;
    const std::size_t items = number(at + 76);
    at += 84;
    std::vector<double> numbers;
    for (std::size_t item = 0; item < items && at + 16 <= header.size(); ++item) {
      const std::size_t length = number(at + 4);
      at += 16;
      if (length > header.size() - at) return {};
      if (wanted && length > 0) {
        const std::optional<double> value = Decimal(Trimmed(header.substr(at, length)));
        if (value.has_value()) numbers.push_back(*value);
      }
      at += (length + 3) / 4 * 4;
    }
    if (wanted) return numbers;
  }
  return {};
}

/// A mosaic is stored as one big plane whose position is that of its corner, as if the plane were
/// the first slice. Source: docs/references.md#nibabel-siemens.
void ReadMosaic(const DicomElements& data, DicomHeader& header) {
  const DicomFrame first = std::move(header.frames.front());
  header.frames.clear();
  header.mosaic = true;
  const std::string& private_header = data.Bytes(0x00291010);
  const std::vector<double> count = SiemensNumbers(private_header, "NumberOfImagesInMosaic");
  const std::vector<double> normal = SiemensNumbers(private_header, "SliceNormalVector");
  const std::optional<double> gap_mm = Decimal(Text(data, 0x00180088));
  if (count.empty() || !(count.front() >= 2 && count.front() <= 4096) || normal.size() != 3 ||
      !gap_mm.has_value() || !(*gap_mm > 0) || !first.position_mm.has_value() ||
      !first.orientation.has_value()) {
    return;
  }
  const auto side = static_cast<std::int64_t>(std::ceil(std::sqrt(count.front())));
  if (header.columns % side != 0 || header.rows % side != 0) return;
  header.columns /= side;
  header.rows /= side;
  header.mosaic_side = side;

  const std::array<double, 6>& axes = *first.orientation;
  for (int tile = 0; tile < static_cast<int>(count.front()); ++tile) {
    DicomFrame frame = first;
    for (std::size_t i = 0; i < 3; ++i) {
      const double to_tile = 0.5 * static_cast<double>(side - 1) *
                             (first.spacing_mm[0] * static_cast<double>(header.columns) * axes[i] +
                              first.spacing_mm[1] * static_cast<double>(header.rows) * axes[i + 3]);
      (*frame.position_mm)[i] += to_tile + tile * *gap_mm * normal[i];
    }
    header.frames.push_back(std::move(frame));
  }
}

bool SaysLocaliser(const DicomElements& data, const std::vector<std::string>& image_type) {
  std::string names;
  for (const std::string& code : image_type) names += code + ' ';
  for (const std::uint32_t tag : {0x0008103e, 0x00181030}) {
    names += Text(data, tag) + ' ';
  }
  for (const std::string_view word :
       {"localizer", "localiser", "scout", "survey", "3-plane", "3 plane", "3plane", "plan scan"}) {
    if (Contains(names, word)) return true;
  }
  return false;
}

DicomHeader::Encoding EncodingOf(const std::string& transfer_syntax) {
  using Encoding = DicomHeader::Encoding;
  static constexpr std::string_view kRoot = "1.2.840.10008.1.2";
  if (transfer_syntax.empty() || transfer_syntax == "1.2.840.113619.5.2") return Encoding::kPlain;
  if (!transfer_syntax.starts_with(kRoot)) return Encoding::kUnknown;
  const std::string_view leaf = std::string_view(transfer_syntax).substr(kRoot.size());
  for (const std::string_view plain : {"", ".1", ".2"}) {
    if (leaf == plain) return Encoding::kPlain;
  }
  for (const std::string_view jpeg :
       {".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91"}) {
    if (leaf == jpeg) return Encoding::kJpeg;
  }
  return leaf == ".5" ? Encoding::kRle : Encoding::kUnknown;
}

}  // namespace

absl::StatusOr<DicomHeader> ReadDicomHeader(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const DicomFile file, ReadDicomElements(path));
  const DicomElements& data = file.elements;
  const auto count = [&](std::uint32_t tag) {
    return static_cast<int>(Binary<std::uint16_t>(data.Bytes(tag), file.big_endian).value_or(0));
  };
  DicomHeader header;
  header.file_bytes = file.file_bytes;
  header.pixels_at = file.pixels_at;
  header.float_pixels = file.float_pixels;
  header.transfer_syntax = Printable(file.transfer_syntax);
  header.is_directory = Text(data, 0x00020002) == "1.2.840.10008.1.3.10";
  header.class_uid = Text(data, 0x00080016);
  header.instance_uid = Text(data, 0x00080018);
  header.series_uid = Text(data, 0x0020000e);
  const std::string patient = Text(data, 0x00100020);
  header.patient = PatientDigest(patient);
  header.patient_fraction = PatientFraction(patient);
  header.rows = count(0x00280010);
  header.columns = count(0x00280011);
  header.samples = count(0x00280002);
  header.bits_allocated = count(0x00280100);
  header.bits_stored = count(0x00280101);
  header.high_bit = count(0x00280102);
  header.is_signed = count(0x00280103) == 1;
  header.photometric = Printable(Text(data, 0x00280004));
  header.burned_in = Text(data, 0x00280301) == "YES";
  const double frames = Decimal(Text(data, 0x00280008)).value_or(1);
  header.declared_frames = frames >= 1 && frames <= 1e6 ? static_cast<std::int64_t>(frames) : 1;
  header.encoding = EncodingOf(header.transfer_syntax);
  // GE's own syntax is little endian in all but the pixels.
  header.big_endian_pixels = file.big_endian || header.transfer_syntax == "1.2.840.113619.5.2";
  if (header.big_endian_pixels && header.bits_allocated == 8) {
    header.encoding = DicomHeader::Encoding::kUnknown;  // Pairs of pixels are swapped, or not.
  }
  ReadAcquisition(data, file.big_endian, header.acquisition);
  header.localiser = SaysLocaliser(data, header.acquisition.image_type);

  if (!data.Items(0x52009230).empty() || header.declared_frames > 1) {
    ReadMultiFrame(data, file.big_endian, header);
    return header;
  }
  DicomFrame frame;
  frame.position_mm = Point<3>(Text(data, 0x00200032));
  frame.orientation = Point<6>(Text(data, 0x00200037));
  frame.spacing_mm = SpacingOf(Text(data, 0x00280030));
  const bool philips = Contains(header.acquisition.manufacturer, "philips");
  SetScale(frame, Decimal(Text(data, 0x00281053)), Decimal(Text(data, 0x00281052)),
           philips ? PhilipsScaleSlope(data, file.big_endian) : std::nullopt);
  frame.echo_ms = header.acquisition.echo_ms;
  frame.image_type =
      std::make_shared<const std::vector<std::string>>(header.acquisition.image_type);
  frame.component = header.acquisition.component;
  header.frames.push_back(std::move(frame));
  const std::vector<std::string>& type = header.acquisition.image_type;
  if (std::find(type.begin(), type.end(), "MOSAIC") != type.end()) ReadMosaic(data, header);
  return header;
}

}  // namespace isoscan
