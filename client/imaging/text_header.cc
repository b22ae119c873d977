#include "client/imaging/text_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include <nifti1_io.h>

namespace isoscan {
namespace {

using Fields = std::map<std::string, std::string, std::less<>>;
using Vector = std::array<double, 3>;

/// No scan has more voxels along an axis; three such axes of doubles are counted in 64 bits.
constexpr std::int64_t kGreatestSize = 1'000'000;
/// Of what lies before the voxels in a file of their own.
constexpr std::int64_t kGreatestOffset = 1 << 30;

absl::Status NoHeader(const std::filesystem::path& path, const std::string& what) {
  return absl::DataLossError(fmt::format(
      "{} cannot be decoded ({}): it is damaged or not what its name says; copy or convert it "
      "again",
      path.string(), what));
}

absl::Status NotRead(const std::filesystem::path& path, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{} {}", path.string(), what));
}

std::string Shown(std::string_view text) { return Printable(std::string(text.substr(0, 64))); }

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string Lowered(std::string_view text) {
  std::string lowered(text);
  std::transform(lowered.begin(), lowered.end(), lowered.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return lowered;
}

/// Takes the line off the front of `text`.
std::string_view TakeLine(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

std::string_view FieldOf(const Fields& fields, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const auto field = fields.find(name); field != fields.end()) return field->second;
  }
  return "";
}

/// Numbers between blanks; nothing where one is none, or where they are more than any field has.
template <typename T>
std::optional<std::vector<T>> NumbersOf(std::string_view text, std::string_view blanks = " \t") {
  constexpr std::size_t kMost = 16;
  std::vector<T> numbers;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    if (text.empty()) return numbers;
    if (text.front() == '+') text.remove_prefix(1);
    T number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || numbers.size() == kMost) return std::nullopt;
    numbers.push_back(number);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.empty() && blanks.find(text.front()) == std::string_view::npos) return std::nullopt;
  }
}

std::optional<std::int64_t> WholeOf(std::string_view text) {
  const auto numbers = NumbersOf<std::int64_t>(text);
  if (!numbers.has_value() || numbers->size() != 1) return std::nullopt;
  return numbers->front();
}

/// The sizes of `dimensions` axes; those of an image that is empty or larger than any scan are no
/// sizes.
absl::StatusOr<std::vector<std::int64_t>> SizesOf(std::string_view text, std::int64_t dimensions,
                                                  const std::filesystem::path& path) {
  auto sizes = NumbersOf<std::int64_t>(text);
  const auto is_no_size = [](std::int64_t size) { return size < 1 || size > kGreatestSize; };
  if (!sizes.has_value() || std::ssize(*sizes) != dimensions ||
      std::any_of(sizes->begin(), sizes->end(), is_no_size)) {
    return NoHeader(path, fmt::format("{} axes with sizes \"{}\"", dimensions, Shown(text)));
  }
  return *std::move(sizes);
}

absl::Status CheckDimensions(std::optional<std::int64_t> dimensions,
                             const std::filesystem::path& path) {
  if (!dimensions.has_value()) return NoHeader(path, "it does not say how many axes it has");
  if (*dimensions == 3 || *dimensions == 4) return absl::OkStatus();
  return NotRead(path, fmt::format("has {} dimensions, a volume has 3", *dimensions));
}

absl::Status SeveralValues(std::int64_t values, const std::filesystem::path& path) {
  return NotRead(path, fmt::format("has {} values per voxel, a scan or a label map has 1: split "
                                   "its channels into one file each",
                                   values));
}

absl::Status SeveralVolumes(std::int64_t volumes, const std::filesystem::path& path) {
  return NotRead(path, fmt::format("holds {} volumes (4D), Isoscan reads one 3D image per file: "
                                   "split it, for example with `fslsplit`, and name each channel's "
                                   "file in the nnU-Net layout",
                                   volumes));
}

void SetType(TextHeader& header, std::int16_t datatype, bool is_big_endian) {
  int bytes = 0;
  int swap_bytes = 0;
  nifti_datatype_sizes(datatype, &bytes, &swap_bytes);
  header.stored.datatype = datatype;
  header.stored.voxel_bytes = static_cast<std::size_t>(bytes);
  header.stored.swapped = is_big_endian != (std::endian::native == std::endian::big);
}

/// A hostile name would open what lies elsewhere: another patient's scan, a pipe, a device.
absl::Status SetDataFile(TextHeader& header, std::string_view name,
                         const std::filesystem::path& path) {
  if (name.starts_with("./")) name.remove_prefix(2);
  const std::filesystem::path file(name);
  const bool is_one = !name.empty() && name.size() < 256 && name.find('\0') == name.npos &&
                      name.find('%') == name.npos && Lowered(name) != "list" &&
                      !Lowered(name).starts_with("list ");
  if (!is_one || file.filename() != file || name == "." || name == "..") {
    return NotRead(path, fmt::format("says that its voxels are in \"{}\": Isoscan reads one file "
                                     "in the same folder; save it as one file",
                                     Shown(name)));
  }
  header.data_file = name;
  return absl::OkStatus();
}

/// Neither format says what a coordinate is in where it names no unit; then it is millimetres, by
/// custom.
absl::Status CheckUnit(std::string_view unit, const std::filesystem::path& path) {
  const std::string lowered = Lowered(Trimmed(unit));
  for (const std::string_view millimetre :
       {"", "?", "???", "mm", "millimeter", "millimeters", "millimetre", "millimetres"}) {
    if (lowered == millimetre) return absl::OkStatus();
  }
  return NotRead(path, fmt::format("says that its unit is \"{}\", Isoscan reads millimetres: save "
                                   "it in mm",
                                   Shown(unit)));
}

/// A scan's axes have unit length and right angles, within the 0.1 degrees that a NIfTI's may be
/// sheared by.
absl::Status CheckGrid(const Geometry& geometry, const std::filesystem::path& path) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (geometry.spacing_mm[axis] > 0 && std::isfinite(geometry.spacing_mm[axis]) &&
        std::isfinite(geometry.origin_mm[axis])) {
      continue;
    }
    return NotRead(path, fmt::format("has {} voxels of {} mm from {} mm along axis {}: its header "
                                     "is broken, convert it again",
                                     geometry.size[axis], geometry.spacing_mm[axis],
                                     geometry.origin_mm[axis], axis));
  }
  constexpr double kTolerance = 1.75e-3;
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = a; b < 3; ++b) {
      double dot = 0;
      for (const auto& row : geometry.direction) dot += row[a] * row[b];
      if (std::abs(dot - (a == b ? 1 : 0)) <= kTolerance) continue;
      return absl::InvalidArgumentError(fmt::format(
          "{}: its axes {} and {} are no unit vectors at right angles (their product is {:.4g}): a "
          "sheared grid is no scan; resample it onto a rigid grid, for example with ANTs",
          path.string(), "xyz"[a], "xyz"[b], dot));
    }
  }
  return absl::OkStatus();
}

// NRRD.

constexpr std::string_view kNrrdMagic = "NRRD000";

/// "space directions" -> "spacedirections": both ways of writing a field's name are in use.
absl::StatusOr<Fields> NrrdFields(std::string_view text, const std::filesystem::path& path) {
  const std::string_view magic = Trimmed(TakeLine(text));
  if (!magic.starts_with(kNrrdMagic) || magic.size() != 8 || magic[7] < '1' || magic[7] > '5') {
    return NoHeader(path, "it does not begin as an NRRD does");
  }
  Fields fields;
  while (!text.empty()) {
    const std::string_view whole_line = TakeLine(text);
    if (whole_line.empty() || whole_line == "\r") break;  // As NrrdHeaderBytes has it.
    const std::string_view line = Trimmed(whole_line);
    if (line.empty()) return NoHeader(path, "a line of its header is blank");
    const std::size_t colon = line.find(':');
    if (line.front() == '#' || line.substr(std::min(colon, line.size())).starts_with(":=")) {
      continue;  // A comment, a key of somebody's own.
    }
    if (colon == std::string_view::npos) {
      return NoHeader(path, fmt::format("\"{}\" is no field of an NRRD", Shown(line)));
    }
    std::string name = Lowered(line.substr(0, colon));
    std::erase(name, ' ');
    if (!fields.emplace(name, Trimmed(line.substr(colon + 1))).second) {
      return NoHeader(path, fmt::format("it says \"{}\" twice", Shown(name)));
    }
  }
  return fields;
}

std::optional<std::int16_t> NrrdType(const std::string& name) {
  static const std::map<std::string, std::int16_t, std::less<>> types = [] {
    std::map<std::string, std::int16_t, std::less<>> all{{"float", NIFTI_TYPE_FLOAT32},
                                                         {"double", NIFTI_TYPE_FLOAT64}};
    const auto add = [&all](std::int16_t type, std::initializer_list<const char*> names) {
      for (const char* synonym : names) all[synonym] = type;
    };
    add(NIFTI_TYPE_INT8, {"signed char", "int8", "int8_t"});
    add(NIFTI_TYPE_UINT8, {"uchar", "unsigned char", "uint8", "uint8_t"});
    add(NIFTI_TYPE_INT16,
        {"short", "short int", "signed short", "signed short int", "int16", "int16_t"});
    add(NIFTI_TYPE_UINT16,
        {"ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"});
    add(NIFTI_TYPE_INT32, {"int", "signed int", "int32", "int32_t"});
    add(NIFTI_TYPE_UINT32, {"uint", "unsigned int", "uint32", "uint32_t"});
    add(NIFTI_TYPE_INT64, {"longlong", "long long", "long long int", "signed long long",
                           "signed long long int", "int64", "int64_t"});
    add(NIFTI_TYPE_UINT64,
        {"ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"});
    return all;
  }();
  const auto type = types.find(name);
  return type != types.end() ? std::optional(type->second) : std::nullopt;
}

/// "(1,0,0) none (0, 2, 0)": one vector for each axis, none for one that is not of space.
std::optional<std::vector<std::optional<Vector>>> VectorsOf(std::string_view text) {
  std::vector<std::optional<Vector>> vectors;
  for (text = Trimmed(text); !text.empty(); text = Trimmed(text)) {
    if (text.starts_with("none")) {
      vectors.emplace_back();
      text.remove_prefix(4);
      continue;
    }
    const std::size_t end = text.find(')');
    if (text.front() != '(' || end == std::string_view::npos) return std::nullopt;
    const auto numbers = NumbersOf<double>(text.substr(1, end - 1), " \t,");
    if (!numbers.has_value() || numbers->size() != 3) return std::nullopt;
    vectors.push_back(Vector{(*numbers)[0], (*numbers)[1], (*numbers)[2]});
    text.remove_prefix(end + 1);
  }
  return vectors;
}

/// The factors that turn a space into LPS; a note where nobody knows.
absl::StatusOr<Vector> NrrdSpace(const Fields& fields, const std::filesystem::path& path,
                                 std::vector<std::string>& notes) {
  const std::string space = Lowered(FieldOf(fields, {"space"}));
  if (space == "left-posterior-superior" || space == "lps") return Vector{1, 1, 1};
  if (space == "right-anterior-superior" || space == "ras") return Vector{-1, -1, 1};
  if (space == "left-anterior-superior" || space == "las") return Vector{1, -1, 1};
  const std::string_view dimension = FieldOf(fields, {"spacedimension"});
  const bool is_known = space.empty() || space == "scanner-xyz" || space == "3d-right-handed" ||
                        space == "3d-left-handed";
  if (!is_known || (!dimension.empty() && WholeOf(dimension) != 3)) {
    return NotRead(path, fmt::format("lies in a space \"{}\" that is not the patient's: save it in "
                                     "left-posterior-superior",
                                     Shown(space.empty() ? dimension : space)));
  }
  notes.push_back(
      fmt::format("its space{} does not tell left from right, and the axes are taken "
                  "for left, posterior, superior",
                  space.empty() ? "" : " " + space));
  return Vector{1, 1, 1};
}

std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words;
  for (text = Trimmed(text); !text.empty() && words.size() < 16; text = Trimmed(text)) {
    const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
    words.push_back(Lowered(text.substr(0, end)));
    text.remove_prefix(end);
  }
  return words;
}

/// Words, or texts in quotation marks such as `"mm" "" "s"`.
std::vector<std::string_view> QuotedOf(std::string_view text) {
  std::vector<std::string_view> texts;
  for (text = Trimmed(text); !text.empty() && texts.size() < 16; text = Trimmed(text)) {
    const bool is_quoted = text.front() == '"';
    if (is_quoted) text.remove_prefix(1);
    const std::size_t end = std::min(text.find_first_of(is_quoted ? "\"" : " \t"), text.size());
    texts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return texts;
}

/// The three axes of space; the others may have one value only.
absl::StatusOr<std::array<std::size_t, 3>> NrrdAxes(
    const std::vector<std::int64_t>& sizes, const std::vector<std::string>& kinds,
    const std::vector<std::optional<Vector>>& directions, const std::filesystem::path& path) {
  std::vector<std::size_t> axes;
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    const std::string kind = axis < kinds.size() ? kinds[axis] : "";
    const bool is_space = directions.empty()
                              ? kind.empty() || kind == "domain" || kind == "space" ||
                                    kind == "???" || kind == "none" || kind == "time"
                              : directions[axis].has_value();
    if (is_space) {
      axes.push_back(axis);
    } else if (sizes[axis] > 1) {
      return kind == "time" ? SeveralVolumes(sizes[axis], path) : SeveralValues(sizes[axis], path);
    }
  }
  if (axes.size() == 4 && sizes[axes[3]] > 1) return SeveralVolumes(sizes[axes[3]], path);
  if (axes.size() < 3) {
    return NotRead(path, fmt::format("has {} dimensions, a volume has 3", axes.size()));
  }
  return std::array{axes[0], axes[1], axes[2]};
}

absl::Status PlaceNrrd(const Fields& fields, std::int64_t dimensions,
                       const std::filesystem::path& path, TextHeader& header) {
  ASSIGN_OR_RETURN(const std::vector<std::int64_t> sizes,
                   SizesOf(FieldOf(fields, {"sizes"}), dimensions, path));
  ASSIGN_OR_RETURN(const Vector to_lps, NrrdSpace(fields, path, header.notes));
  const auto directions = VectorsOf(FieldOf(fields, {"spacedirections"}));
  const auto origin = VectorsOf(FieldOf(fields, {"spaceorigin"}));
  const auto spacings = NumbersOf<double>(FieldOf(fields, {"spacings"}));
  const auto fits = [&sizes](std::size_t count) { return count == 0 || count == sizes.size(); };
  if (!directions.has_value() || !fits(directions->size()) || !spacings.has_value() ||
      !fits(spacings->size()) || !origin.has_value() || origin->size() > 1) {
    return NoHeader(path,
                    "its space directions, spacings or space origin are not one for each "
                    "axis of space");
  }
  ASSIGN_OR_RETURN(const auto axes,
                   NrrdAxes(sizes, WordsOf(FieldOf(fields, {"kinds"})), *directions, path));
  for (const std::string_view unit : QuotedOf(FieldOf(fields, {"spaceunits"}))) {
    RETURN_IF_ERROR(CheckUnit(unit, path));
  }
  const std::vector<std::string_view> units = QuotedOf(FieldOf(fields, {"units"}));
  Geometry& geometry = header.geometry;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::size_t stored = axes[axis];
    if (stored < units.size()) RETURN_IF_ERROR(CheckUnit(units[stored], path));
    geometry.size[axis] = sizes[stored];
    header.stored.size[axis] = sizes[stored];
    if (!origin->empty()) {
      geometry.origin_mm[axis] = to_lps[axis] * origin->front().value_or(Vector{})[axis];
    }
    if (directions->empty()) {
      geometry.spacing_mm[axis] = spacings->empty() ? 1 : (*spacings)[stored];
      continue;
    }
    const Vector& step = *(*directions)[stored];
    geometry.spacing_mm[axis] = std::hypot(step[0], step[1], step[2]);
    for (std::size_t row = 0; row < 3; ++row) {
      geometry.direction[row][axis] = to_lps[row] * step[row] / geometry.spacing_mm[axis];
    }
  }
  return CheckGrid(geometry, path);
}

// MetaImage.

std::optional<std::int16_t> MetaType(std::string_view name) {
  // MET_LONG has 4 bytes on every machine.
  static const std::map<std::string_view, std::int16_t> types{
      {"MET_CHAR", NIFTI_TYPE_INT8},       {"MET_UCHAR", NIFTI_TYPE_UINT8},
      {"MET_SHORT", NIFTI_TYPE_INT16},     {"MET_USHORT", NIFTI_TYPE_UINT16},
      {"MET_INT", NIFTI_TYPE_INT32},       {"MET_UINT", NIFTI_TYPE_UINT32},
      {"MET_LONG", NIFTI_TYPE_INT32},      {"MET_ULONG", NIFTI_TYPE_UINT32},
      {"MET_LONG_LONG", NIFTI_TYPE_INT64}, {"MET_ULONG_LONG", NIFTI_TYPE_UINT64},
      {"MET_FLOAT", NIFTI_TYPE_FLOAT32},   {"MET_DOUBLE", NIFTI_TYPE_FLOAT64}};
  const auto type = types.find(name);
  return type != types.end() ? std::optional(type->second) : std::nullopt;
}

bool IsTrue(std::string_view text) {
  return !text.empty() && (text[0] == 'T' || text[0] == 't' || text[0] == '1');
}

absl::Status PlaceMeta(const Fields& fields, std::int64_t dimensions,
                       const std::filesystem::path& path, TextHeader& header) {
  ASSIGN_OR_RETURN(const std::vector<std::int64_t> sizes,
                   SizesOf(FieldOf(fields, {"DimSize"}), dimensions, path));
  if (sizes.size() == 4 && sizes[3] > 1) return SeveralVolumes(sizes[3], path);
  RETURN_IF_ERROR(CheckUnit(FieldOf(fields, {"DistanceUnits"}), path));
  const std::size_t n = sizes.size();
  const auto spacing = NumbersOf<double>(FieldOf(fields, {"ElementSpacing", "ElementSize"}));
  const auto origin = NumbersOf<double>(FieldOf(fields, {"Offset", "Position", "Origin"}));
  const auto axes =
      NumbersOf<double>(FieldOf(fields, {"TransformMatrix", "Rotation", "Orientation"}));
  const auto fits = [](const auto& numbers, std::size_t count) {
    return numbers.has_value() && (numbers->empty() || numbers->size() == count);
  };
  if (!fits(spacing, n) || !fits(origin, n) || !fits(axes, n * n)) {
    return NoHeader(path, fmt::format("its spacing, offset or matrix is not one for {} axes", n));
  }
  Geometry& geometry = header.geometry;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double edge = spacing->empty() ? 1 : (*spacing)[axis];
    geometry.size[axis] = sizes[axis];
    header.stored.size[axis] = sizes[axis];
    geometry.spacing_mm[axis] = std::abs(edge);
    geometry.origin_mm[axis] = origin->empty() ? 0 : (*origin)[axis];
    for (std::size_t row = 0; row < 3; ++row) {
      double cosine = row == axis ? 1 : 0;
      if (!axes->empty()) cosine = (*axes)[axis * n + row];
      geometry.direction[row][axis] = edge < 0 ? -cosine : cosine;
    }
  }
  return CheckGrid(geometry, path);
}

absl::StatusOr<Fields> MetaFields(std::string_view text, const std::filesystem::path& path) {
  Fields fields;
  while (!text.empty()) {
    const std::string_view line = TakeLine(text);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    fields.insert_or_assign(std::string(Trimmed(line.substr(0, equals))),
                            Trimmed(line.substr(equals + 1)));
  }
  if (!fields.contains("NDims") || !fields.contains("ElementDataFile")) {
    return NoHeader(path, "it has no MetaImage header");
  }
  return fields;
}

}  // namespace

std::size_t NrrdHeaderBytes(std::string_view text) {
  const std::size_t end = std::min(text.find("\n\n"), text.find("\n\r\n"));
  if (end == std::string_view::npos) return end;
  return end + (text[end + 1] == '\n' ? 2 : 3);
}

std::size_t MetaHeaderBytes(std::string_view text) {
  constexpr std::string_view kLast = "ElementDataFile";
  const std::size_t line = text.starts_with(kLast) ? 0 : text.find("\nElementDataFile");
  if (line == std::string_view::npos) return line;
  const std::size_t end = text.find('\n', line + 1);
  return end == std::string_view::npos ? end : end + 1;
}

absl::StatusOr<TextHeader> ParseNrrdHeader(std::string_view text,
                                           const std::filesystem::path& path) {
  TextHeader header;
  ASSIGN_OR_RETURN(const Fields fields, NrrdFields(text, path));
  const std::optional<std::int64_t> dimensions = WholeOf(FieldOf(fields, {"dimension"}));
  RETURN_IF_ERROR(CheckDimensions(dimensions, path));
  RETURN_IF_ERROR(PlaceNrrd(fields, *dimensions, path, header));
  const std::string type = Lowered(FieldOf(fields, {"type"}));
  const std::optional<std::int16_t> datatype = NrrdType(type);
  if (!datatype.has_value()) {
    return NotRead(path, fmt::format("stores voxels of type \"{}\", which Isoscan does not read: "
                                     "save it as int16 or float32",
                                     Shown(type)));
  }
  const std::string endian = Lowered(FieldOf(fields, {"endian"}));
  SetType(header, *datatype, endian == "big");
  if (header.stored.voxel_bytes > 1 && endian != "big" && endian != "little") {
    return NoHeader(path, "it does not say the order of its bytes");
  }
  const std::string encoding = Lowered(FieldOf(fields, {"encoding"}));
  header.deflated = encoding == "gzip" || encoding == "gz";
  const std::string_view byte_skip = FieldOf(fields, {"byteskip"});
  const std::string_view line_skip = FieldOf(fields, {"lineskip"});
  const std::optional<std::int64_t> skipped =
      byte_skip.empty() ? std::optional<std::int64_t>(0) : WholeOf(byte_skip);
  if ((encoding != "raw" && !header.deflated) || (!line_skip.empty() && WholeOf(line_skip) != 0) ||
      !skipped.has_value() || *skipped < -1 || *skipped > kGreatestOffset ||
      (header.deflated && *skipped != 0)) {
    return NotRead(path, fmt::format("stores its voxels as \"{}\", {} lines and {} bytes skipped, "
                                     "which Isoscan does not read: save it as raw or gzip",
                                     Shown(encoding), Shown(line_skip.empty() ? "0" : line_skip),
                                     Shown(byte_skip.empty() ? "0" : byte_skip)));
  }
  header.offset = *skipped;
  if (fields.contains("datafile")) {
    RETURN_IF_ERROR(SetDataFile(header, FieldOf(fields, {"datafile"}), path));
  }
  return header;
}

absl::StatusOr<TextHeader> ParseMetaHeader(std::string_view text,
                                           const std::filesystem::path& path) {
  TextHeader header;
  ASSIGN_OR_RETURN(const Fields fields, MetaFields(text, path));
  const std::optional<std::int64_t> dimensions = WholeOf(FieldOf(fields, {"NDims"}));
  RETURN_IF_ERROR(CheckDimensions(dimensions, path));
  const std::string_view channels = FieldOf(fields, {"ElementNumberOfChannels"});
  if (!channels.empty() && WholeOf(channels) != 1) {
    return SeveralValues(WholeOf(channels).value_or(0), path);
  }
  RETURN_IF_ERROR(PlaceMeta(fields, *dimensions, path, header));
  const std::string_view type = FieldOf(fields, {"ElementType"});
  const std::optional<std::int16_t> datatype = MetaType(type);
  if (!datatype.has_value()) {
    return NotRead(path, fmt::format("stores voxels of type \"{}\", which Isoscan does not read: "
                                     "save it as int16 or float32",
                                     Shown(type)));
  }
  SetType(header, *datatype,
          IsTrue(FieldOf(fields, {"BinaryDataByteOrderMSB", "ElementByteOrderMSB"})));
  header.deflated = IsTrue(FieldOf(fields, {"CompressedData"}));
  const std::string_view before = FieldOf(fields, {"HeaderSize"});
  const std::optional<std::int64_t> skipped =
      before.empty() ? std::optional<std::int64_t>(0) : WholeOf(before);
  const std::string_view binary = FieldOf(fields, {"BinaryData"});
  const std::string_view data_file = FieldOf(fields, {"ElementDataFile"});
  const bool is_local = Lowered(data_file) == "local";
  if ((!binary.empty() && !IsTrue(binary)) || !skipped.has_value() || *skipped < -1 ||
      *skipped > kGreatestOffset || (*skipped != 0 && (is_local || header.deflated))) {
    return NotRead(path, fmt::format("stores its voxels as text or after a header of \"{}\" bytes, "
                                     "which Isoscan does not read: save it as one .mha file",
                                     Shown(before)));
  }
  header.offset = *skipped;
  if (!is_local) RETURN_IF_ERROR(SetDataFile(header, data_file, path));
  return header;
}

}  // namespace isoscan
