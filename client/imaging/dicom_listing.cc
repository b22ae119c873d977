#include "client/imaging/dicom_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <fstream>
#include <map>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <variant>

#include "absl/status/status.h"

#include "client/imaging/dicom_elements.h"
#include "client/imaging/dicom_header.h"
#include "client/imaging/dicom_stack.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// No scanner is larger, and larger numbers would overflow when they are multiplied.
bool IsPlace(const std::array<double, 3>& position_mm) {
  return std::all_of(position_mm.begin(), position_mm.end(),
                     [](double coordinate) { return std::abs(coordinate) < 1e5; });
}
bool IsSpacing(double spacing_mm) { return spacing_mm > 1e-3 && spacing_mm < 1e3; }

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
  std::optional<double> patient_fraction;
  std::int64_t decoder_bytes = 0;  ///< The most of any file.
  std::vector<DicomPlane> planes;
};

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
std::optional<DicomRefusal> RefusalOf(const DicomHeader& header) {
  const Acquisition& acquisition = header.acquisition;
  if (header.encoding == DicomHeader::Encoding::kUnknown) {
    return DicomRefusal{DicomFault::kTransferSyntax,
                        fmt::format("their transfer syntax {} cannot be decoded: export them "
                                    "uncompressed, or convert them with dcmdjpeg, dcmconv +ti or "
                                    "gdcmconv --raw",
                                    header.transfer_syntax)};
  }
  if (header.pixels_at < 0 && header.rows > 0 && header.columns > 0) {
    return DicomRefusal{
        DicomFault::kTruncated,
        "they end too early: their pixels are missing; they are damaged, copy them again"};
  }
  if (header.pixels_at < 0 || header.rows == 0 || header.columns == 0) {
    return DicomRefusal{
        DicomFault::kNoImage,
        fmt::format("they hold no image (modality \"{}\"): reports, protocols and raw "
                    "data are no scan",
                    acquisition.modality)};
  }
  if (header.class_uid.starts_with("1.2.840.10008.5.1.4.1.1.7")) {
    return DicomRefusal{
        DicomFault::kSecondaryCapture,
        "they are secondary captures: screen shots and scanned pages, which may show "
        "the patient's name, are no scan"};
  }
  if (acquisition.modality != "MR") {
    return DicomRefusal{
        DicomFault::kNotMr,
        fmt::format("their modality is \"{}\", Isoscan reads MR", acquisition.modality)};
  }
  if (header.burned_in) {
    return DicomRefusal{DicomFault::kBurnedIn,
                        "text is burned into their pixels (BurnedInAnnotation is YES), perhaps the "
                        "patient's name: export the series without annotations"};
  }
  if (header.samples != 1 || !header.photometric.starts_with("MONOCHROME")) {
    return DicomRefusal{
        DicomFault::kColour,
        fmt::format("they are colour images ({}, {} values per pixel): a scan has one "
                    "grey value per voxel",
                    header.photometric, header.samples)};
  }
  if (header.float_pixels) {
    return DicomRefusal{
        DicomFault::kPixels,
        "their pixels are floating-point numbers, which no scanner writes, and Isoscan "
        "reads whole ones: convert them with dcm2niix"};
  }
  const bool known_width =
      header.bits_allocated == 8 || header.bits_allocated == 16 || header.bits_allocated == 32;
  if (!known_width || header.bits_stored < 1 || header.bits_stored > header.bits_allocated ||
      header.high_bit != header.bits_stored - 1) {
    return DicomRefusal{
        DicomFault::kPixels,
        fmt::format("their pixels have {} bits, {} of them stored, the highest being bit "
                    "{}: Isoscan reads 8, 16 or 32 bits with the highest stored bit at "
                    "the number of stored bits less one; convert them with dcm2niix",
                    header.bits_allocated, header.bits_stored, header.high_bit)};
  }
  if (header.localiser) {
    return DicomRefusal{DicomFault::kLocaliser,
                        "they are a localiser by their image type or name (scout, survey)"};
  }
  if (header.mosaic && header.frames.empty()) {
    return DicomRefusal{
        DicomFault::kMosaic,
        "they are Siemens mosaics without the private header (0029,1010) that says how "
        "they are tiled: convert them with dcm2niix from files that were not stripped of "
        "private elements"};
  }
  if (header.declared_frames > DicomHeader::kMostFrames) {
    return DicomRefusal{DicomFault::kMultiFrame,
                        fmt::format("they hold {} frames in one file, Isoscan reads at most {}: "
                                    "export them as single files",
                                    header.declared_frames, DicomHeader::kMostFrames)};
  }
  if (header.frames.empty()) {
    return DicomRefusal{
        DicomFault::kMultiFrame,
        fmt::format("they hold {} frames in one file without saying where each one lies "
                    "(no functional groups): export them as enhanced MR or as single "
                    "files",
                    header.declared_frames)};
  }
  if (const auto computed = ComputedKind(*header.frames.front().image_type)) {
    return DicomRefusal{
        DicomFault::kComputed,
        fmt::format("they are derived images ({}): reformats, projections and maps are "
                    "computed from a scan; name the original series",
                    *computed)};
  }
  for (const DicomFrame& frame : header.frames) {
    if (!frame.position_mm.has_value() || !frame.orientation.has_value() ||
        !IsPlace(*frame.position_mm)) {
      return DicomRefusal{
          DicomFault::kNoPosition,
          "they do not say where they lie (ImagePositionPatient, "
          "ImageOrientationPatient): export the series from the scanner or the archive "
          "again"};
    }
    if (!PlaneAxesOf(*frame.orientation).has_value() || !IsSpacing(frame.spacing_mm[0]) ||
        !IsSpacing(frame.spacing_mm[1])) {
      return DicomRefusal{
          DicomFault::kNoPosition,
          fmt::format("their rows and columns are no grid: directions ({:.4g}), pixels of "
                      "{:.4g} x {:.4g} mm",
                      fmt::join(*frame.orientation, ", "), frame.spacing_mm[0],
                      frame.spacing_mm[1])};
    }
    if (frame.slope == 0) {
      return DicomRefusal{DicomFault::kPixels,
                          "their RescaleSlope is 0: every voxel would be the same"};
    }
  }
  if (header.greatest_pixel_bytes() < header.pixel_bytes()) {
    return DicomRefusal{
        DicomFault::kTruncated,
        fmt::format("they end too early: {}{} of {} bytes of pixels are there in the "
                    "first; they are damaged, copy them again",
                    header.encoding == DicomHeader::Encoding::kRle ? "at most " : "",
                    header.greatest_pixel_bytes(), header.pixel_bytes())};
  }
  return std::nullopt;
}

/// The files in a folder and below, sorted; hidden ones and links to folders are passed over.
absl::StatusOr<std::vector<std::filesystem::path>> FilesIn(const std::filesystem::path& folder,
                                                           const std::stop_token& stop = {}) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(fmt::format("there is no folder {}", folder.string()));
  }
  std::vector<std::filesystem::path> files;
  using Iterator = std::filesystem::recursive_directory_iterator;
  const auto options = std::filesystem::directory_options::skip_permission_denied;
  for (Iterator entry(folder, options, error), end; !error && entry != end;
       entry.increment(error)) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
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

/// What one file is, without regard to the others.
struct FileSight {
  bool is_dicom = false;
  std::optional<DicomHeader> header;
  std::optional<DicomRefusal> refusal;
};

FileSight LookAtFile(const std::filesystem::path& file) {
  FileSight sight;
  const bool is_open = std::ifstream(file).is_open();
  sight.is_dicom = !is_open || HasDicomSignature(file) || IsNamedLikeDicom(file);
  if (!is_open) {
    sight.refusal =
        DicomRefusal{DicomFault::kUnreadable, "they cannot be opened: check who may read them"};
  }
  if (!is_open || !sight.is_dicom) return sight;
  absl::StatusOr<DicomHeader> header = ReadDicomHeader(file);
  if (!header.ok()) {
    sight.refusal = DicomRefusal{DicomFault::kUnreadable, std::string(header.status().message())};
    return sight;
  }
  sight.is_dicom = !header->is_directory;
  if (sight.is_dicom) sight.refusal = RefusalOf(*header);
  // Not kept until the other files of its block are read: they may be 256 such headers.
  if (sight.refusal.has_value()) header->frames = std::vector<DicomFrame>();
  sight.header = *std::move(header);
  return sight;
}

/// Collects what the files of a folder say, then tells volumes from the rest.
class Lister {
 public:
  explicit Lister(const std::filesystem::path& folder) : folder_(folder) {}

  /// Looks at so many files at a time, then adds them in their order, whatever the number of
  /// threads: the first of two copies counts.
  absl::Status AddAll(const std::vector<std::filesystem::path>& files,
                      const ListingControl& control) {
    constexpr std::size_t kFilesAtATime = 256;
    std::atomic<bool> out_of_memory = false;  // No exception may leave a parallel region.
    const auto guarded = [&](auto work) {
      if (out_of_memory || control.stop.stop_requested()) return;
      try {
        work();
      } catch (const std::bad_alloc&) {
        out_of_memory = true;
      }
    };
    for (std::size_t first = 0; first < files.size(); first += kFilesAtATime) {
      const std::size_t count = std::min(kFilesAtATime, files.size() - first);
      std::vector<FileSight> sights(count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(std::max(control.threads, 1))
      for (std::size_t i = 0; i < count; ++i) {
        guarded([&] { sights[i] = LookAtFile(files[first + i]); });
      }
      for (std::size_t i = 0; i < count; ++i) {
        guarded([&] {
          Add(files[first + i], std::move(sights[i]));
          if (control.observe) {
            control.observe(static_cast<std::int64_t>(first + i + 1), std::ssize(files));
          }
        });
      }
    }
    if (control.stop.stop_requested()) return absl::CancelledError("interrupted");
    if (!out_of_memory) return absl::OkStatus();
    return absl::ResourceExhaustedError(fmt::format("not enough memory to list the {} files of {}",
                                                    files.size(), folder_.string()));
  }

  DicomListing Finish() && {
    for (auto& [key, group] : groups_) AddSeries(std::move(group));
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

  void Add(const std::filesystem::path& file, FileSight sight) {
    if (!sight.is_dicom) {
      ++listing_.other_files;
      return;
    }
    ++listing_.dicom_files;
    if (sight.refusal.has_value()) {
      SetAside(sight.header.has_value() ? sight.header->series_uid : file.string(), file,
               sight.refusal->fault, std::move(sight.refusal->reason));
      return;
    }
    const std::string& uid = sight.header->instance_uid;
    if (!uid.empty() && !instances_.insert(uid).second) {
      SetAside(sight.header->series_uid, file, DicomFault::kCopies,
               "they repeat files that are there already (the same SOPInstanceUID): the first of "
               "each counts");
      return;
    }
    AddPlanes(file, *sight.header);
  }

  void AddPlanes(const std::filesystem::path& file, const DicomHeader& header) {
    const bool many = header.frames.size() > 1;
    for (std::size_t i = 0; i < header.frames.size(); ++i) {
      const DicomFrame& frame = header.frames[i];
      const std::string key = fmt::format(
          "{}|{}|{:.3f}|{}|{}x{}|{:.4f}x{:.4f}|{}|{}|{}", header.series_uid, header.patient,
          frame.echo_ms.value_or(-1), header.acquisition.echo_number.value_or(-1), header.columns,
          header.rows, frame.spacing_mm[0], frame.spacing_mm[1], fmt::join(*frame.image_type, "\\"),
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
        group.acquisition.image_type = *frame.image_type;
        group.acquisition.component = frame.component;
        group.inverted = header.photometric == "MONOCHROME1";
        group.philips_scale = frame.philips_scale;
        group.patient = header.patient;
        group.patient_fraction = header.patient_fraction;
      }
      group.decoder_bytes = std::max(group.decoder_bytes, header.decoder_bytes());
      group.planes.push_back({.slice = {.file = file, .frame = static_cast<std::int32_t>(i)},
                              .position_mm = *frame.position_mm,
                              .axes = *PlaneAxesOf(*frame.orientation)});
    }
  }

  void SetAside(const Group& group, const std::vector<DicomPlane>& planes, DicomRefusal refusal) {
    std::unordered_set<std::string> files;
    for (const DicomPlane& plane : planes) files.insert(plane.slice.file.string());
    SetAside(group.series_uid, planes.front().slice.file, refusal.fault, std::move(refusal.reason),
             files.size());
  }

  void AddSeries(Group group) {
    for (DicomDirection& part : PartByDirection(std::move(group.planes))) {
      if (part.refusal.has_value()) {
        SetAside(group, part.planes, *std::move(part.refusal));
      } else {
        AddSeries(group, std::move(part.planes));
      }
    }
  }

  void AddSeries(const Group& group, std::vector<DicomPlane> planes) {
    std::variant<Geometry, DicomRefusal> stack =
        StackPlanes(planes, {group.columns, group.rows}, group.spacing_mm);
    if (auto* const refusal = std::get_if<DicomRefusal>(&stack)) {
      SetAside(group, planes, std::move(*refusal));
      return;
    }
    DicomSeries series;
    series.kind = group.kind;
    series.geometry = std::get<Geometry>(stack);
    series.acquisition = group.acquisition;
    const std::vector<std::string>& type = group.acquisition.image_type;
    series.derived = !type.empty() && type.front() == "DERIVED";
    series.patient = group.patient;
    series.patient_fraction = group.patient_fraction;
    series.decoder_bytes = group.decoder_bytes;
    if (series.derived) series.notes.push_back("derived images");
    if (group.inverted) series.notes.push_back("MONOCHROME1, inverted when read");
    if (group.philips_scale) series.notes.push_back("Philips' floating-point scale");
    for (DicomPlane& plane : planes) series.slices.push_back(std::move(plane.slice));
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
      series.folder =
          first(series)->file.parent_path().lexically_relative(folder_).generic_string();
      const int number = ++in_folder[series.folder];
      series.key = number == 1 ? series.folder : fmt::format("{}#{}", series.folder, number);
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

absl::StatusOr<DicomListing> ListDicomSeries(const std::filesystem::path& folder,
                                             const ListingControl& control) {
  ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> files, FilesIn(folder, control.stop));
  Lister lister(folder);
  RETURN_IF_ERROR(lister.AddAll(files, control));
  return std::move(lister).Finish();
}

absl::StatusOr<DicomSeries> FindDicomSeries(const std::filesystem::path& path) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  if (!is_folder && !std::filesystem::exists(path, error)) {
    return absl::NotFoundError(fmt::format("there is no file {}", path.string()));
  }
  std::vector<std::filesystem::path> files;
  if (is_folder) {
    ASSIGN_OR_RETURN(files, FilesIn(path));
  } else {
    const std::filesystem::path folder =
        path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_regular_file(ignored)) files.push_back(entry->path());
    }
    std::sort(files.begin(), files.end());
  }
  Lister lister(is_folder ? path : path.parent_path());
  RETURN_IF_ERROR(lister.AddAll(files, {}));
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
