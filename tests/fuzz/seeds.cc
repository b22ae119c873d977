#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "client/imaging/image_file.h"
#include "tests/fuzz/intake_fuzz.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

std::string TextOf(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

Geometry SmallGrid() {
  Geometry grid;
  grid.size = {5, 4, 3};
  grid.spacing_mm = {1, 2, 3};
  return grid;
}

template <typename Stored>
std::string RawSeed(std::int16_t datatype) {
  RawNifti raw;
  raw.size = {5, 4, 3};
  raw.spacing_mm = {1, 2, 3};
  raw.datatype = datatype;
  raw.bits = static_cast<std::int16_t>(8 * sizeof(Stored));
  raw.qform_code = 0;
  raw.sform = {{{1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 3, 0}}};
  for (int i = 0; i < 60; ++i) raw.Append(static_cast<Stored>(i % 3));
  return raw.Header() + raw.voxels;
}

/// The same file as a machine of the other byte order writes it.
std::string Swapped(std::string bytes) {
  const auto swap = [&bytes](std::size_t first, std::size_t end, std::size_t width) {
    for (; first < end; first += width) {
      for (std::size_t i = 0; i < width / 2; ++i) {
        std::swap(bytes[first + i], bytes[first + width - 1 - i]);
      }
    }
  };
  swap(0, 4, 4);
  swap(40, 56, 2);
  swap(68, 76, 2);
  swap(76, 120, 4);
  swap(252, 256, 2);
  swap(256, 328, 4);
  swap(352, bytes.size(), 4);
  return bytes;
}

std::string Joined(const std::filesystem::path& folder) {
  std::string bytes;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) continue;
    bytes += (bytes.empty() ? std::string() : std::string(kNextFile)) + TextOf(entry.path());
  }
  return bytes;
}

}  // namespace

std::vector<FuzzSeed> NiftiSeeds() {
  std::vector<FuzzSeed> seeds{{"float", RawSeed<float>(16)},
                              {"double", RawSeed<double>(64)},
                              {"uint8", RawSeed<std::uint8_t>(2)},
                              {"int16", RawSeed<std::int16_t>(4)},
                              {"swapped", Swapped(RawSeed<float>(16))}};
  const TemporaryDirectory folder;
  const std::filesystem::path packed = folder.path() / "x.nii.gz";
  if (WriteVolume(packed, NumberedVolume(ObliqueGeometry({5, 4, 3}))).ok()) {
    seeds.push_back({"packed", TextOf(packed)});
  }
  return seeds;
}

std::vector<FuzzSeed> DicomSeeds() {
  const Volume volume = NumberedVolume(SmallGrid());
  std::vector<FuzzSeed> seeds;
  const auto add = [&](const std::string& name, const Change& change) {
    const TemporaryDirectory folder;
    WriteMrSeries(folder.path(), volume, change);
    seeds.push_back({name, Joined(folder.path())});
  };
  add("series", nullptr);
  add("rescaled", [](std::int64_t slice, RawDicom& file) {
    file.Text(0x00281053, "DS", Decimals({1.5 + static_cast<double>(slice)}));
    file.Text(0x00281052, "DS", "-7");
    file.Text(0x00280004, "CS", "MONOCHROME1");
  });
  const TemporaryDirectory folder;
  MrSlice(volume, 0).Write(folder.path() / "x.dcm", "1.2.840.10008.1.2.5");
  seeds.push_back({"runlength", Joined(folder.path())});
  return seeds;
}

}  // namespace isoscan
