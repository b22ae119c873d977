/// Volumes as the kinds of DICOM that hold many slices in one file.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/client/imaging/dicom_files.h"

namespace isoscan {

/// A sequence of one item with one element.
inline RawDicom& With(RawDicom& data, std::uint32_t sequence, std::uint32_t tag,
                      const std::string& vr, const std::string& value) {
  RawDicom item;
  item.Bytes(tag, vr, value.size() % 2 == 0 ? value : value + " ");
  data.Sequence(sequence, {item});
  return data;
}

/// An enhanced file: every slice of the volume once for each of two echoes, frames in no order. The
/// second echo is the first plus 1000.
inline RawDicom Enhanced(const Volume& volume, std::size_t left_out = 999) {
  const Geometry& grid = volume.geometry;
  RawDicom file = MrSlice(volume, 0);
  file.Text(0x00080016, "UI", std::string(kEnhancedMrStorage));
  for (const std::uint32_t tag : {0x00200032u, 0x00200037u, 0x00280030u, 0x00180081u, 0x00180020u,
                                  0x00180080u, 0x00181314u, 0x00180086u}) {
    file.Remove(tag);
  }
  file.Text(0x00189008, "CS", "SPIN");
  RawDicom shared;
  With(shared, 0x00209116, 0x00200037, "DS", OrientationText(grid));
  With(shared, 0x00289110, 0x00280030, "DS", Decimals({grid.spacing_mm[1], grid.spacing_mm[0]}));
  With(shared, 0x00189112, 0x00180080, "DS", "3000");
  file.Sequence(0x52009229, {shared});
  std::vector<RawDicom> frames;
  std::string pixels;
  const auto slices = static_cast<std::size_t>(grid.size[2]);
  for (std::size_t i = 0; i < 2 * slices; ++i) {
    const std::size_t frame = i * 3 % (2 * slices);  // Every one once: 3 does not divide 14.
    const auto slice = static_cast<std::int64_t>(frame / 2);
    if (frame == left_out) continue;
    RawDicom item;
    With(item, 0x00209113, 0x00200032, "DS", PositionText(grid, slice));
    With(item, 0x00189114, 0x00189082, "FD", RawDicom::BytesOf(frame % 2 == 0 ? 12.0 : 96.0));
    With(item, 0x00289145, 0x00281052, "DS", frame % 2 == 0 ? "0" : "1000");
    With(item, 0x00189226, 0x00089007, "CS", "ORIGINAL\\PRIMARY\\M\\NONE");
    frames.push_back(item);
    pixels += StoredSlice(volume, slice);
  }
  file.Sequence(0x52009230, frames);
  file.Text(0x00280008, "IS", fmt::format("{}", frames.size()));
  file.Bytes(0x7fe00010, "OW", pixels);
  return file;
}

/// Siemens' private header with two entries. docs/references.md#nibabel-siemens.
inline std::string SiemensHeader(
    const std::vector<std::pair<std::string, std::vector<std::string>>>& all) {
  const auto number = [](std::size_t value) {
    return RawDicom::BytesOf(static_cast<std::uint32_t>(value));
  };
  std::string header = "SV10\4\3\2\1" + number(all.size()) + number(77);
  for (const auto& [name, values] : all) {
    std::string entry = name;
    entry.resize(64, '\0');
    header += entry + number(values.size()) + std::string("DS\0\0", 4) + number(4) +
              number(values.size()) + number(77);
    for (const std::string& value : values) {
      std::string padded = value;
      padded.resize((value.size() + 3) / 4 * 4, '\0');
      header +=
          number(value.size()) + number(value.size()) + number(77) + number(value.size()) + padded;
    }
  }
  return header;
}

/// The volume's 7 slices as the tiles of one plane, 3 x 3.
inline RawDicom Mosaic(const Volume& volume) {
  const Geometry& grid = volume.geometry;
  std::vector<std::int16_t> plane(static_cast<std::size_t>(9 * grid.size[0] * grid.size[1]));
  for (std::int64_t z = 0; z < grid.size[2]; ++z) {
    for (std::int64_t y = 0; y < grid.size[1]; ++y) {
      for (std::int64_t x = 0; x < grid.size[0]; ++x) {
        const std::int64_t row = z / 3 * grid.size[1] + y;
        const std::int64_t column = z % 3 * grid.size[0] + x;
        plane[static_cast<std::size_t>(row * 3 * grid.size[0] + column)] =
            static_cast<std::int16_t>(
                volume.voxels[static_cast<std::size_t>((z * grid.size[1] + y) * grid.size[0] + x)]);
      }
    }
  }
  RawDicom file = MrSlice(volume, 0);
  file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC");
  file.Text(0x00180088, "DS", "2.9");
  // The corner of the big plane, if its middle is the middle of the first slice.
  const auto corner = PhysicalPoint(
      grid, {-static_cast<double>(grid.size[0]), -static_cast<double>(grid.size[1]), 0});
  file.Text(0x00200032, "DS", Decimals({corner[0], corner[1], corner[2]}));
  file.Short(0x00280010, static_cast<std::uint16_t>(3 * grid.size[1]));
  file.Short(0x00280011, static_cast<std::uint16_t>(3 * grid.size[0]));
  std::vector<std::string> normal;
  for (const auto& row : grid.direction) normal.push_back(fmt::format("{:.8f}", row[2]));
  file.Bytes(0x00291010, "OB",
             SiemensHeader({{"EchoLinePosition", {"32"}},
                            {"NumberOfImagesInMosaic", {"7"}},
                            {"SliceNormalVector", normal}}));
  file.Bytes(0x7fe00010, "OW",
             std::string(reinterpret_cast<const char*>(plane.data()), 2 * plane.size()));
  return file;
}

}  // namespace isoscan
