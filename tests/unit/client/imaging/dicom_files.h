/// DICOM files written element by element, for what no scanner's or library's writer would write.
/// docs/references.md#dicom, part 5, section 7 and part 10, section 7.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

inline constexpr std::string_view kMrStorage = "1.2.840.10008.5.1.4.1.1.4";
inline constexpr std::string_view kEnhancedMrStorage = "1.2.840.10008.5.1.4.1.1.4.1";

/// One data set: (group << 16 | element) -> representation and value. Explicit, little endian.
class RawDicom {
 public:
  template <typename T>
  static std::string BytesOf(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof(value)};
  }

  void Text(std::uint32_t tag, const std::string& vr, const std::string& text) {
    elements_[tag] = {
        vr, text + (text.size() % 2 != 0 ? (vr == "UI" ? std::string(1, '\0') : " ") : "")};
  }
  void Short(std::uint32_t tag, std::uint16_t value) { elements_[tag] = {"US", BytesOf(value)}; }
  void Bytes(std::uint32_t tag, const std::string& vr, std::string bytes) {
    elements_[tag] = {vr, std::move(bytes)};
  }
  void Sequence(std::uint32_t tag, const std::vector<RawDicom>& items) {
    std::string bytes;
    for (const RawDicom& item : items) {
      const std::string data = item.Encoded();
      bytes += std::string("\xfe\xff\x00\xe0", 4) +
               BytesOf(static_cast<std::uint32_t>(data.size())) + data;
    }
    elements_[tag] = {"SQ", bytes};
  }
  void Remove(std::uint32_t tag) { elements_.erase(tag); }

  std::string Encoded() const {
    std::string encoded;
    for (const auto& [tag, element] : elements_) {
      const auto& [vr, value] = element;
      encoded += BytesOf(static_cast<std::uint16_t>(tag >> 16)) +
                 BytesOf(static_cast<std::uint16_t>(tag & 0xffff)) + vr;
      const bool is_long = vr == "OB" || vr == "OW" || vr == "OF" || vr == "OD" || vr == "SQ" ||
                           vr == "UN" || vr == "UT";
      encoded += is_long ? std::string(2, '\0') + BytesOf(static_cast<std::uint32_t>(value.size()))
                         : BytesOf(static_cast<std::uint16_t>(value.size()));
      encoded += value;
    }
    return encoded;
  }

  void Write(const std::filesystem::path& path,
             const std::string& transfer_syntax = "1.2.840.10008.1.2.1") const {
    RawDicom meta;
    meta.Bytes(0x00020001, "OB", std::string("\x00\x01", 2));
    for (const auto& [from, to] :
         {std::pair{0x00080016u, 0x00020002u}, {0x00080018u, 0x00020003u}}) {
      if (const auto uid = elements_.find(from); uid != elements_.end()) {
        meta.Bytes(to, "UI", uid->second.second);
      }
    }
    meta.Text(0x00020010, "UI", transfer_syntax);
    meta.Text(0x00020012, "UI", "1.2.3.4");
    RawDicom length;
    length.Bytes(0x00020000, "UL", BytesOf(static_cast<std::uint32_t>(meta.Encoded().size())));
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary)
        << std::string(128, '\0') << "DICM" << length.Encoded() << meta.Encoded() << Encoded();
  }

 private:
  std::map<std::uint32_t, std::pair<std::string, std::string>> elements_;
};

inline std::string Decimals(const std::vector<double>& numbers) {
  std::string text;
  for (const double number : numbers)
    text += fmt::format("{}{:.10g}", text.empty() ? "" : "\\", number);
  return text;
}

inline std::string PositionText(const Geometry& grid, std::int64_t slice) {
  const auto point = PhysicalPoint(grid, {0, 0, static_cast<double>(slice)});
  return Decimals({point[0], point[1], point[2]});
}

inline std::string OrientationText(const Geometry& grid) {
  const auto& d = grid.direction;
  return Decimals({d[0][0], d[1][0], d[2][0], d[0][1], d[1][1], d[2][1]});
}

/// Voxels of one slice as they are stored, rounded to 16 bits.
inline std::string StoredSlice(const Volume& volume, std::int64_t slice) {
  std::string bytes;
  const std::int64_t plane = volume.geometry.size[0] * volume.geometry.size[1];
  for (std::int64_t i = slice * plane; i < (slice + 1) * plane; ++i) {
    const float voxel = volume.voxels[static_cast<std::size_t>(i)];
    bytes += RawDicom::BytesOf(static_cast<std::int16_t>(std::lround(voxel)));
  }
  return bytes;
}

/// One slice of a plain MR series, as a scanner writes it: 16 bits, 12 of them stored, unsigned.
inline RawDicom MrSlice(const Volume& volume, std::int64_t slice, const std::string& series = "1") {
  const Geometry& grid = volume.geometry;
  RawDicom file;
  file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\ND");
  file.Text(0x00080016, "UI", std::string(kMrStorage));
  file.Text(0x00080018, "UI", fmt::format("1.2.3.{}.{}", series, slice + 1));
  file.Text(0x00080060, "CS", "MR");
  file.Text(0x00080070, "LO", "ACME MEDICAL");
  file.Text(0x00081090, "LO", "Magnet 3");
  file.Text(0x00100020, "LO", "patient-7");
  file.Text(0x00180020, "CS", "SE");
  file.Text(0x00180050, "DS", "9.9");  // Thickness says nothing about the distance of slices.
  file.Text(0x00180080, "DS", "500");
  file.Text(0x00180081, "DS", "12.5");
  file.Text(0x00180086, "IS", "1");
  file.Text(0x00180087, "DS", "1.5");
  file.Text(0x00181314, "DS", "90");
  file.Text(0x0020000d, "UI", "1.2.3");
  file.Text(0x0020000e, "UI", "1.2.3." + series);
  // In no order: a reader that sorts by it is wrong.
  file.Text(0x00200013, "IS", fmt::format("{}", (slice * 7 + 3) % 11));
  file.Text(0x00200032, "DS", PositionText(grid, slice));
  file.Text(0x00200037, "DS", OrientationText(grid));
  file.Short(0x00280002, 1);
  file.Text(0x00280004, "CS", "MONOCHROME2");
  file.Short(0x00280010, static_cast<std::uint16_t>(grid.size[1]));
  file.Short(0x00280011, static_cast<std::uint16_t>(grid.size[0]));
  file.Text(0x00280030, "DS", Decimals({grid.spacing_mm[1], grid.spacing_mm[0]}));
  file.Short(0x00280100, 16);
  file.Short(0x00280101, 12);
  file.Short(0x00280102, 11);
  file.Short(0x00280103, 0);
  file.Bytes(0x7fe00010, "OW", StoredSlice(volume, slice));
  return file;
}

using Change = std::function<void(std::int64_t slice, RawDicom& file)>;

/// Writes every slice of `volume` under names that are not in their order; `change` may alter each.
inline void WriteMrSeries(const std::filesystem::path& folder, const Volume& volume,
                          const Change& change = nullptr, const std::string& series = "1") {
  const std::int64_t slices = volume.geometry.size[2];
  for (std::int64_t slice = 0; slice < slices; ++slice) {
    RawDicom file = MrSlice(volume, slice, series);
    if (change) change(slice, file);
    file.Write(folder / fmt::format("{}-{:03}.dcm", series, (slice * 5 + 2) % 997));
  }
}

}  // namespace isoscan
