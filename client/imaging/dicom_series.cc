#include "client/imaging/dicom_series.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <fstream>
#include <map>
#include <numbers>
#include <optional>
#include <system_error>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <variant>

#include "absl/status/status.h"

#include "client/imaging/dicom_elements.h"
#include "client/imaging/dicom_header.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Vector = std::array<double, 3>;

constexpr double kGreatestAngle = 0.1 * std::numbers::pi / 180;  ///< Between parallel slices.
constexpr double kSamePlaceMm = 0.01;
constexpr double kGapTolerance = 0.01;  ///< Of the spacing.
/// Scouts have few slices in each of their directions; scans of one direction each have more.
constexpr std::size_t kLocaliserSlices = 30;

double Dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
double Length(const Vector& a) { return std::sqrt(Dot(a, a)); }
Vector Minus(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vector Scaled(const Vector& a, double factor) {
  return {a[0] * factor, a[1] * factor, a[2] * factor};
}
Vector Cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
double Degrees(double radians) { return radians * 180 / std::numbers::pi; }

/// Unit vectors along a row, along a column and along the normal.
using Axes = std::array<Vector, 3>;

/// Headers round their cosines: the column is turned at right angles to the row, by at most the
/// angle that parallel slices may differ by.
std::optional<Axes> AxesOf(const std::array<double, 6>& orientation) {
  const Vector row{orientation[0], orientation[1], orientation[2]};
  const Vector column{orientation[3], orientation[4], orientation[5]};
  if (std::abs(Length(row) - 1) > 0.01 || std::abs(Length(column) - 1) > 0.01) return std::nullopt;
  const Vector x = Scaled(row, 1 / Length(row));
  const double lean = Dot(column, x);
  if (std::abs(lean) > kGreatestAngle) return std::nullopt;
  const Vector upright = Minus(column, Scaled(x, lean));
  const Vector y = Scaled(upright, 1 / Length(upright));
  return Axes{x, y, Cross(x, y)};
}

/// No scanner is larger, and larger numbers would overflow when they are multiplied.
bool IsPlace(const Vector& position_mm) {
  return std::all_of(position_mm.begin(), position_mm.end(),
                     [](double coordinate) { return std::abs(coordinate) < 1e5; });
}
bool IsSpacing(double spacing_mm) { return spacing_mm > 1e-3 && spacing_mm < 1e3; }

/// A plane while its folder is listed.
struct Plane {
  DicomSlice slice;
  Vector position_mm{};
  Axes axes{};
};

/// Planes that agree in all but their place.
struct Group {
  std::string series_uid;
  DicomKind kind = DicomKind::kSlices;
  std::int64_t columns = 0;
  std::int64_t rows = 0;
  std::array<double, 2> spacing_mm{};
  Acquisition acquisition;
  bool inverted = false;
  bool philips_scale = false;
  std::string patient;
  std::vector<Plane> planes;
};

struct Refusal {
  DicomFault fault;
  std::string reason;
};

std::string Name(const DicomSlice& slice) {
  const std::string file = slice.file.filename().string();
  return slice.frame == 0 ? file : fmt::format("{} (frame {})", file, slice.frame + 1);
}

bool IsOneOf(const std::string& code, std::initializer_list<std::string_view> codes) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

/// Images whose values are no longer the scanner's grey values, or whose grid is no longer the
/// scanner's. DERIVED alone does not say so: anonymisers and filters write it, too.
std::optional<std::string> ComputedKind(const std::vector<std::string>& image_type) {
  if (image_type.empty() || image_type.front() != "DERIVED") return std::nullopt;
  for (std::size_t i = 1; i < image_type.size(); ++i) {
    if (IsOneOf(image_type[i], {"MPR",
                                "CPR",
                                "CURVED",
                                "REFORMATTED",
                                "PROJECTION IMAGE",
                                "MIP",
                                "MINIP",
                                "ADC",
                                "EADC",
                                "FA",
                                "TRACEW",
                                "TENSOR",
                                "TENSOR_B0",
                                "SUB",
                                "SUBTRACTION",
                                "T1 MAP",
                                "T2 MAP",
                                "T2_STAR MAP",
                                "R2_STAR MAP",
                                "R2_MAP",
                                "CBF",
                                "CBV",
                                "RCBF",
                                "RCBV",
                                "MTT",
                                "TTP",
                                "PBP",
                                "GBP",
                                "T_MAP",
                                "SW_M_MIP",
                                "VOLUME_RENDERING"})) {
      return image_type[i];
    }
  }
  return std::nullopt;
}

/// What one file says against itself.
std::optional<Refusal> RefusalOf(const DicomHeader& header) {
  const Acquisition& acquisition = header.acquisition;
  if (header.encoding == DicomHeader::Encoding::kUnknown) {
    return Refusal{DicomFault::kTransferSyntax,
                   fmt::format("their transfer syntax {} cannot be decoded: export them "
                               "uncompressed, or convert them with dcmdjpeg, dcmconv +ti or "
                               "gdcmconv --raw",
                               header.transfer_syntax)};
  }
  if (header.pixels_at < 0 && header.rows > 0 && header.columns > 0) {
    return Refusal{
        DicomFault::kTruncated,
        "they end too early: their pixels are missing; they are damaged, copy them again"};
  }
  if (header.pixels_at < 0 || header.rows == 0 || header.columns == 0) {
    return Refusal{DicomFault::kNoImage,
                   fmt::format("they hold no image (modality \"{}\"): reports, protocols and raw "
                               "data are no scan",
                               acquisition.modality)};
  }
  if (header.class_uid.starts_with("1.2.840.10008.5.1.4.1.1.7")) {
    return Refusal{DicomFault::kSecondaryCapture,
                   "they are secondary captures: screen shots and scanned pages, which may show "
                   "the patient's name, are no scan"};
  }
  if (acquisition.modality != "MR") {
    return Refusal{DicomFault::kNotMr,
                   fmt::format("their modality is \"{}\", Isoscan reads MR", acquisition.modality)};
  }
  if (header.burned_in) {
    return Refusal{DicomFault::kBurnedIn,
                   "text is burned into their pixels (BurnedInAnnotation is YES), perhaps the "
                   "patient's name: export the series without annotations"};
  }
  if (header.samples != 1 || !header.photometric.starts_with("MONOCHROME")) {
    return Refusal{DicomFault::kColour,
                   fmt::format("they are colour images ({}, {} values per pixel): a scan has one "
                               "grey value per voxel",
                               header.photometric, header.samples)};
  }
  if (header.float_pixels) {
    return Refusal{DicomFault::kPixels,
                   "their pixels are floating-point numbers, which no scanner writes, and Isoscan "
                   "reads whole ones: convert them with dcm2niix"};
  }
  const bool known_width =
      header.bits_allocated == 8 || header.bits_allocated == 16 || header.bits_allocated == 32;
  if (!known_width || header.bits_stored < 1 || header.bits_stored > header.bits_allocated ||
      header.high_bit != header.bits_stored - 1) {
    return Refusal{
        DicomFault::kPixels,
        fmt::format("their pixels have {} bits, {} of them stored, the highest being bit "
                    "{}: Isoscan reads 8, 16 or 32 bits with the highest stored bit at "
                    "the number of stored bits less one; convert them with dcm2niix",
                    header.bits_allocated, header.bits_stored, header.high_bit)};
  }
  if (header.localiser) {
    return Refusal{DicomFault::kLocaliser,
                   "they are a localiser by their image type or name (scout, survey)"};
  }
  if (header.mosaic && header.frames.empty()) {
    return Refusal{
        DicomFault::kMosaic,
        "they are Siemens mosaics without the private header (0029,1010) that says how "
        "they are tiled: convert them with dcm2niix from files that were not stripped of "
        "private elements"};
  }
  if (header.frames.empty()) {
    return Refusal{DicomFault::kMultiFrame,
                   fmt::format("they hold {} frames in one file without saying where each one lies "
                               "(no functional groups): export them as enhanced MR or as single "
                               "files",
                               header.declared_frames)};
  }
  if (const auto computed = ComputedKind(header.frames.front().image_type)) {
    return Refusal{DicomFault::kComputed,
                   fmt::format("they are derived images ({}): reformats, projections and maps are "
                               "computed from a scan; name the original series",
                               *computed)};
  }
  for (const DicomFrame& frame : header.frames) {
    if (!frame.position_mm.has_value() || !frame.orientation.has_value() ||
        !IsPlace(*frame.position_mm)) {
      return Refusal{DicomFault::kNoPosition,
                     "they do not say where they lie (ImagePositionPatient, "
                     "ImageOrientationPatient): export the series from the scanner or the archive "
                     "again"};
    }
    if (!AxesOf(*frame.orientation).has_value() || !IsSpacing(frame.spacing_mm[0]) ||
        !IsSpacing(frame.spacing_mm[1])) {
      return Refusal{
          DicomFault::kNoPosition,
          fmt::format("their rows and columns are no grid: directions ({:.4g}), pixels of "
                      "{:.4g} x {:.4g} mm",
                      fmt::join(*frame.orientation, ", "), frame.spacing_mm[0],
                      frame.spacing_mm[1])};
    }
    if (frame.slope == 0) {
      return Refusal{DicomFault::kPixels, "their RescaleSlope is 0: every voxel would be the same"};
    }
  }
  if (header.greatest_pixel_bytes() < header.pixel_bytes()) {
    return Refusal{DicomFault::kTruncated,
                   fmt::format("they end too early: {}{} of {} bytes of pixels are there in the "
                               "first; they are damaged, copy them again",
                               header.encoding == DicomHeader::Encoding::kRle ? "at most " : "",
                               header.greatest_pixel_bytes(), header.pixel_bytes())};
  }
  return std::nullopt;
}

/// The files in a folder and below, sorted; hidden ones and links to folders are passed over.
absl::StatusOr<std::vector<std::filesystem::path>> FilesIn(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(fmt::format("there is no folder {}", folder.string()));
  }
  std::vector<std::filesystem::path> files;
  using Iterator = std::filesystem::recursive_directory_iterator;
  const auto options = std::filesystem::directory_options::skip_permission_denied;
  for (Iterator entry(folder, options, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (entry->path().filename().string().starts_with('.')) {
      if (entry->is_directory(ignored)) entry.disable_recursion_pending();
      continue;
    }
    if (entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  if (error) {
    return absl::NotFoundError(fmt::format("cannot list {}: {}", folder.string(), error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool IsNamedLikeDicom(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return IsOneOf(ending, {".dcm", ".ima", ".dicom"});
}

bool SameDirection(const Axes& left, const Axes& right) {
  return Length(Minus(left[0], right[0])) <= kGreatestAngle &&
         Length(Minus(left[1], right[1])) <= kGreatestAngle;
}

/// A series of so many directions is no scan; comparing on would take the square of their number.
constexpr std::size_t kMostDirections = 64;

/// Planes of one group, parted by the direction in which they lie.
std::vector<std::vector<Plane>> ByDirection(std::vector<Plane> planes) {
  std::vector<std::vector<Plane>> directions;
  for (Plane& plane : planes) {
    const auto same = std::find_if(directions.begin(), directions.end(),
                                   [&plane](const std::vector<Plane>& direction) {
                                     return SameDirection(direction.front().axes, plane.axes);
                                   });
    if (same != directions.end()) {
      same->push_back(std::move(plane));
    } else if (directions.size() == kMostDirections) {
      directions.back().push_back(std::move(plane));  // Refused below, whatever it holds.
    } else {
      directions.push_back({std::move(plane)});
    }
  }
  return directions;
}

/// What is wrong when one series has slices in several directions; none when each is a scan.
std::optional<Refusal> RefusalOf(const std::vector<std::vector<Plane>>& directions) {
  std::size_t greatest = 0;
  double least_angle = 180;
  double most_angle = 0;
  for (const std::vector<Plane>& planes : directions) {
    greatest = std::max(greatest, planes.size());
    const double angle = Degrees(std::acos(
        std::min(1.0, std::abs(Dot(directions.front().front().axes[2], planes.front().axes[2])))));
    most_angle = std::max(most_angle, angle);
    if (&planes != &directions.front()) least_angle = std::min(least_angle, angle);
  }
  const bool too_many = directions.size() == kMostDirections;
  if (!too_many && greatest >= kLocaliserSlices && least_angle > 20) return std::nullopt;
  if (!too_many && least_angle > 20) {
    std::string counts;
    for (const auto& planes : directions) {
      counts += fmt::format("{}{}", counts.empty() ? "" : " + ", planes.size());
    }
    return Refusal{
        DicomFault::kLocaliser,
        fmt::format("they are a localiser: {} slices in {} directions", counts, directions.size())};
  }
  return Refusal{DicomFault::kNotParallel,
                 fmt::format("their slices are not parallel: {} directions, up to {:.3g} degrees "
                             "apart, and {:.1f} are allowed; only parallel slices make a grid",
                             directions.size(), most_angle, Degrees(kGreatestAngle))};
}

/// How the planes are spaced once they are sorted along the normal.
struct Stack {
  double gap_mm = 0;
};

/// How many slices lack if every gap is a whole number of the usual gap, or else, where at least
/// three gaps have it, of the smallest; 0 when neither is so.
std::int64_t MissingSlices(const std::vector<double>& gaps, const std::vector<double>& sorted) {
  const auto missing = [&gaps](double unit_mm) -> std::int64_t {
    std::int64_t lacking = 0;
    for (const double gap : gaps) {
      const double slices = std::round(gap / unit_mm);
      if (slices < 1 || slices > 1e6 || std::abs(gap / unit_mm - slices) > kGapTolerance * slices) {
        return 0;
      }
      lacking += static_cast<std::int64_t>(slices) - 1;
    }
    return lacking;
  };
  if (const std::int64_t lacking = missing(sorted[(sorted.size() - 1) / 2]); lacking > 0) {
    return lacking;
  }
  const bool repeated = sorted.size() > 2 && sorted[2] <= sorted[0] * (1 + kGapTolerance);
  return repeated ? missing(sorted[0]) : 0;
}

std::variant<Stack, Refusal> StackOf(const std::vector<Plane>& planes,
                                     const std::array<double, 2>& spacing_mm) {
  const Axes& axes = planes.front().axes;
  const auto place = [&axes](const Plane& plane) { return Dot(plane.position_mm, axes[2]); };

  std::vector<std::size_t> starts;  // Of each place, its first plane.
  for (std::size_t i = 0; i < planes.size(); ++i) {
    if (i == 0 || place(planes[i]) - place(planes[i - 1]) > kSamePlaceMm) starts.push_back(i);
  }
  const std::size_t places = starts.size();
  if (places < planes.size()) {
    std::size_t doubled = 0;
    std::size_t example = 0;
    bool equal = true;
    const std::size_t first_count = places > 1 ? starts[1] : planes.size();
    for (std::size_t i = 0; i < places; ++i) {
      const std::size_t count = (i + 1 < places ? starts[i + 1] : planes.size()) - starts[i];
      if (count > 1 && doubled++ == 0) example = starts[i];
      equal = equal && count == first_count;
    }
    if (equal) {
      return Refusal{
          DicomFault::kManyVolumes,
          fmt::format("they are {} volumes of {} slices (4D: a time series, diffusion, or "
                      "several reconstructions): Isoscan reads one volume; put the files "
                      "of one volume into a folder of its own",
                      first_count, places)};
    }
    return Refusal{
        DicomFault::kDuplicateSlices,
        fmt::format("{} of their {} places hold more than one slice, such as {} and {} at {:.2f} "
                    "mm: remove the repeated ones",
                    doubled, places, Name(planes[example].slice), Name(planes[example + 1].slice),
                    place(planes[example]))};
  }
  if (places == 1) {
    return Refusal{DicomFault::kSingleSlice,
                   "it is a single slice, whose extent along the third axis nobody knows: a volume "
                   "has at least two"};
  }

  std::vector<double> gaps;
  for (std::size_t i = 1; i < planes.size(); ++i) {
    gaps.push_back(place(planes[i]) - place(planes[i - 1]));
  }
  std::vector<double> sorted = gaps;
  std::sort(sorted.begin(), sorted.end());
  // Of two gaps the smaller: a missing slice widens one.
  const double usual_mm = sorted[(sorted.size() - 1) / 2];
  const auto is_uneven = [usual_mm](double gap) {
    return std::abs(gap - usual_mm) > kGapTolerance * usual_mm;
  };
  if (const auto uneven = std::find_if(gaps.begin(), gaps.end(), is_uneven); uneven != gaps.end()) {
    const auto i = static_cast<std::size_t>(uneven - gaps.begin());
    const std::string where =
        fmt::format("{} and {} are {:.4g} mm apart, most neighbours {:.4g} mm",
                    Name(planes[i].slice), Name(planes[i + 1].slice), *uneven, usual_mm);
    if (const std::int64_t missing = MissingSlices(gaps, sorted); missing > 0) {
      return Refusal{DicomFault::kMissingSlices,
                     fmt::format("{} of {} slices are missing: {}; export the series again",
                                 missing, missing + static_cast<std::int64_t>(places), where)};
    }
    return Refusal{DicomFault::kUnequalGaps,
                   fmt::format("their slices are not equally spaced, from {:.4g} to {:.4g} mm (1 % "
                               "is allowed): {}",
                               sorted.front(), sorted.back(), where)};
  }

  // Every slice must lie straight above the first one.
  const double edge_mm = std::min({spacing_mm[0], spacing_mm[1], usual_mm});
  double aside_mm = 0;
  double angle = 0;
  const Plane* furthest = &planes.front();
  for (const Plane& plane : planes) {
    const Vector step = Minus(plane.position_mm, planes.front().position_mm);
    const double height_mm = Dot(step, axes[2]);
    const double beside_mm = Length(Minus(step, Scaled(axes[2], height_mm)));
    if (beside_mm <= aside_mm) continue;
    aside_mm = beside_mm;
    angle = std::atan2(beside_mm, height_mm);
    furthest = &plane;
  }
  if (aside_mm > 0.25 * edge_mm || (aside_mm > 0.01 * edge_mm && angle > kGreatestAngle)) {
    return Refusal{DicomFault::kNotParallel,
                   fmt::format("their stack is sheared: {} lies {:.3g} mm beside the normal of {} "
                               "({:.3g} degrees; {:.1f} degrees and a quarter of a voxel are "
                               "allowed), as with a tilted gantry; resample it onto a rigid grid, "
                               "for example with dcm2niix",
                               Name(furthest->slice), aside_mm, Name(planes.front().slice),
                               Degrees(angle), Degrees(kGreatestAngle))};
  }
  const double extent = place(planes.back()) - place(planes.front());
  return Stack{.gap_mm = extent / static_cast<double>(places - 1)};
}

/// Collects what the files of a folder say, then tells volumes from the rest.
class Lister {
 public:
  explicit Lister(const std::filesystem::path& folder) : folder_(folder) {}

  void Add(const std::filesystem::path& file) {
    if (!std::ifstream(file).is_open()) {
      ++listing_.dicom_files;
      SetAside(file.string(), file, DicomFault::kUnreadable,
               "they cannot be opened: check who may read them");
      return;
    }
    if (!HasDicomSignature(file) && !IsNamedLikeDicom(file)) {
      ++listing_.other_files;
      return;
    }
    ++listing_.dicom_files;
    absl::StatusOr<DicomHeader> header = ReadDicomHeader(file);
    if (!header.ok()) {
      SetAside(file.string(), file, DicomFault::kUnreadable,
               std::string(header.status().message()));
      return;
    }
    if (header->is_directory) {
      --listing_.dicom_files;
      ++listing_.other_files;
      return;
    }
    if (std::optional<Refusal> refusal = RefusalOf(*header)) {
      SetAside(header->series_uid, file, refusal->fault, std::move(refusal->reason));
      return;
    }
    if (!header->instance_uid.empty() && !instances_.insert(header->instance_uid).second) {
      SetAside(header->series_uid, file, DicomFault::kCopies,
               "they repeat files that are there already (the same SOPInstanceUID): the first of "
               "each counts");
      return;
    }
    AddPlanes(file, *header);
  }

  DicomListing Finish() && {
    for (auto& [key, group] : groups_) Divide(std::move(group));
    groups_.clear();
    for (auto& [key, aside] : set_aside_) listing_.set_aside.push_back(std::move(aside));
    std::sort(listing_.set_aside.begin(), listing_.set_aside.end(),
              [](const DicomSetAside& left, const DicomSetAside& right) {
                return std::tie(left.first, left.reason) < std::tie(right.first, right.reason);
              });
    NameSeries();
    return std::move(listing_);
  }

 private:
  void SetAside(const std::string& series, const std::filesystem::path& file, DicomFault fault,
                std::string reason, std::size_t files = 1) {
    const auto [entry, inserted] = set_aside_.try_emplace(
        {series, fault, reason},
        DicomSetAside{.first = file, .files = 0, .fault = fault, .reason = ""});
    if (inserted) entry->second.reason = std::move(reason);
    entry->second.first = std::min(entry->second.first, file);
    entry->second.files += files;
  }

  void AddPlanes(const std::filesystem::path& file, const DicomHeader& header) {
    const bool many = header.frames.size() > 1;
    for (std::size_t i = 0; i < header.frames.size(); ++i) {
      const DicomFrame& frame = header.frames[i];
      const std::string key = fmt::format(
          "{}|{}|{:.3f}|{}|{}x{}|{:.4f}x{:.4f}|{}|{}|{}", header.series_uid, header.patient,
          frame.echo_ms.value_or(-1), header.acquisition.echo_number.value_or(-1), header.columns,
          header.rows, frame.spacing_mm[0], frame.spacing_mm[1], fmt::join(frame.image_type, "\\"),
          static_cast<int>(frame.component), header.photometric);
      const auto [entry, inserted] = groups_.try_emplace(key);
      Group& group = entry->second;
      if (inserted) {
        group.series_uid = header.series_uid;
        group.kind = header.mosaic ? DicomKind::kMosaic
                     : many        ? DicomKind::kMultiFrame
                                   : DicomKind::kSlices;
        group.columns = header.columns;
        group.rows = header.rows;
        group.spacing_mm = frame.spacing_mm;
        group.acquisition = header.acquisition;
        group.acquisition.echo_ms = frame.echo_ms;
        group.acquisition.image_type = frame.image_type;
        group.acquisition.component = frame.component;
        group.inverted = header.photometric == "MONOCHROME1";
        group.philips_scale = frame.philips_scale;
        group.patient = header.patient;
      }
      group.planes.push_back({.slice = {.file = file, .frame = static_cast<std::int32_t>(i)},
                              .position_mm = *frame.position_mm,
                              .axes = *AxesOf(*frame.orientation)});
    }
  }

  void SetAside(const Group& group, const std::vector<Plane>& planes, Refusal refusal) {
    std::unordered_set<std::string> files;
    for (const Plane& plane : planes) files.insert(plane.slice.file.string());
    SetAside(group.series_uid, planes.front().slice.file, refusal.fault, std::move(refusal.reason),
             files.size());
  }

  void Divide(Group group) {
    std::vector<std::vector<Plane>> directions = ByDirection(std::move(group.planes));
    if (directions.size() > 1) {
      if (std::optional<Refusal> refusal = RefusalOf(directions)) {
        std::vector<Plane> all;
        for (const auto& planes : directions) all.insert(all.end(), planes.begin(), planes.end());
        SetAside(group, all, *std::move(refusal));
        return;
      }
    }
    for (std::vector<Plane>& planes : directions) AddSeries(group, std::move(planes));
  }

  void AddSeries(const Group& group, std::vector<Plane> planes) {
    const Axes axes = planes.front().axes;
    std::stable_sort(planes.begin(), planes.end(), [&axes](const Plane& left, const Plane& right) {
      return Dot(left.position_mm, axes[2]) < Dot(right.position_mm, axes[2]);
    });
    std::variant<Stack, Refusal> stack = StackOf(planes, group.spacing_mm);
    if (Refusal* refusal = std::get_if<Refusal>(&stack)) {
      SetAside(group, planes, std::move(*refusal));
      return;
    }
    DicomSeries series;
    series.kind = group.kind;
    series.geometry.size = {group.columns, group.rows, static_cast<std::int64_t>(planes.size())};
    series.geometry.spacing_mm = {group.spacing_mm[0], group.spacing_mm[1],
                                  std::get<Stack>(stack).gap_mm};
    series.geometry.origin_mm = planes.front().position_mm;
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        series.geometry.direction[row][axis] = axes[axis][row];
      }
    }
    series.acquisition = group.acquisition;
    const std::vector<std::string>& type = group.acquisition.image_type;
    series.derived = !type.empty() && type.front() == "DERIVED";
    series.patient = group.patient;
    if (series.derived) series.notes.push_back("derived images");
    if (group.inverted) series.notes.push_back("MONOCHROME1, inverted when read");
    if (group.philips_scale) series.notes.push_back("Philips' floating-point scale");
    for (Plane& plane : planes) series.slices.push_back(std::move(plane.slice));
    listing_.series.push_back(std::move(series));
  }

  /// By the first file in each folder, so that a name does not hang on the order of slices.
  void NameSeries() {
    const auto first = [](const DicomSeries& series) {
      return std::min_element(series.slices.begin(), series.slices.end(),
                              [](const DicomSlice& left, const DicomSlice& right) {
                                return std::tie(left.file, left.frame) <
                                       std::tie(right.file, right.frame);
                              });
    };
    std::stable_sort(listing_.series.begin(), listing_.series.end(),
                     [&first](const DicomSeries& left, const DicomSeries& right) {
                       const DicomSlice& a = *first(left);
                       const DicomSlice& b = *first(right);
                       return std::tie(a.file, a.frame) < std::tie(b.file, b.frame);
                     });
    std::map<std::string, int> in_folder;
    for (DicomSeries& series : listing_.series) {
      const std::string folder =
          first(series)->file.parent_path().lexically_relative(folder_).generic_string();
      const int number = ++in_folder[folder];
      series.key = number == 1 ? folder : fmt::format("{}#{}", folder, number);
    }
  }

  std::filesystem::path folder_;
  std::map<std::string, Group> groups_;
  std::map<std::tuple<std::string, DicomFault, std::string>, DicomSetAside> set_aside_;
  std::unordered_set<std::string> instances_;
  DicomListing listing_;
};

/// For the message about a path that means no series.
std::string WhatWasSetAside(const DicomListing& listing) {
  if (listing.dicom_files == 0) return "it holds no DICOM file";
  if (listing.set_aside.empty()) return fmt::format("{} DICOM files", listing.dicom_files);
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(listing.set_aside.size(), 3); ++i) {
    const DicomSetAside& aside = listing.set_aside[i];
    text += fmt::format("{}{} ({} {}): {}", i == 0 ? "" : "; ", aside.first.filename().string(),
                        aside.files, aside.files == 1 ? "file" : "files", aside.reason);
  }
  return text;
}

}  // namespace

std::string_view FaultName(DicomFault fault) {
  switch (fault) {
    case DicomFault::kUnreadable:
      return "unreadable";
    case DicomFault::kTruncated:
      return "truncated";
    case DicomFault::kTransferSyntax:
      return "transfer_syntax";
    case DicomFault::kNoImage:
      return "no_image";
    case DicomFault::kNotMr:
      return "not_mr";
    case DicomFault::kSecondaryCapture:
      return "secondary_capture";
    case DicomFault::kBurnedIn:
      return "burned_in_annotation";
    case DicomFault::kColour:
      return "colour";
    case DicomFault::kPixels:
      return "pixels";
    case DicomFault::kNoPosition:
      return "no_position";
    case DicomFault::kLocaliser:
      return "localiser";
    case DicomFault::kComputed:
      return "derived";
    case DicomFault::kMosaic:
      return "mosaic";
    case DicomFault::kMultiFrame:
      return "multi_frame";
    case DicomFault::kSingleSlice:
      return "single_slice";
    case DicomFault::kNotParallel:
      return "not_parallel";
    case DicomFault::kUnequalGaps:
      return "unequal_gaps";
    case DicomFault::kMissingSlices:
      return "missing_slices";
    case DicomFault::kDuplicateSlices:
      return "duplicate_slices";
    case DicomFault::kManyVolumes:
      return "many_volumes";
    case DicomFault::kCopies:
      break;
  }
  return "copies";
}

absl::StatusOr<DicomListing> ListDicomSeries(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> files, FilesIn(folder));
  Lister lister(folder);
  for (const std::filesystem::path& file : files) lister.Add(file);
  return std::move(lister).Finish();
}

absl::StatusOr<DicomSeries> FindDicomSeries(const std::filesystem::path& path) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  if (!is_folder && !std::filesystem::exists(path, error)) {
    return absl::NotFoundError(fmt::format("there is no file {}", path.string()));
  }
  Lister lister(is_folder ? path : path.parent_path());
  if (is_folder) {
    ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> files, FilesIn(path));
    for (const std::filesystem::path& file : files) lister.Add(file);
  } else {
    std::vector<std::filesystem::path> files;
    const std::filesystem::path folder =
        path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_regular_file(ignored)) files.push_back(entry->path());
    }
    std::sort(files.begin(), files.end());
    for (const std::filesystem::path& file : files) lister.Add(file);
  }
  DicomListing listing = std::move(lister).Finish();
  if (!is_folder) {
    std::erase_if(listing.series, [&path](const DicomSeries& series) {
      return std::none_of(
          series.slices.begin(), series.slices.end(),
          [&path](const DicomSlice& slice) { return slice.file.filename() == path.filename(); });
    });
  }
  if (listing.series.empty()) {
    return absl::NotFoundError(fmt::format("{} is no DICOM series that can be read: {}",
                                           path.string(), WhatWasSetAside(listing)));
  }
  if (listing.series.size() > 1) {
    std::string keys;
    for (const DicomSeries& series : listing.series) {
      keys += fmt::format("{}{} ({} x {} x {}, {})", keys.empty() ? "" : ", ", series.key,
                          series.geometry.size[0], series.geometry.size[1], series.geometry.size[2],
                          ContrastName(GuessContrast(series.acquisition)));
    }
    return absl::InvalidArgumentError(fmt::format(
        "{} holds {} DICOM series, and one is wanted: {}; put each into a folder of its "
        "own",
        path.string(), listing.series.size(), keys));
  }
  return std::move(listing.series.front());
}

bool MayBeDicom(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) || HasDicomSignature(path);
}

}  // namespace isoscan
