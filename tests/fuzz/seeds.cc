#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "client/imaging/image_file.h"
#include "client/imaging/voxel_stream.h"
#include "tests/fuzz/intake_fuzz.h"
#include "tests/support/file_content.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/dicom_kinds.h"
#include "tests/unit/client/imaging/dicom_rewriting.h"
#include "tests/unit/client/imaging/phantom.h"
#include <gdcmTransferSyntax.h>

namespace isoscan {
namespace {

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

/// 5 x 4 x 3 voxels of int16 as an NRRD ("NRRD") or a MetaImage ("ObjectType"): plain, in the other
/// byte order, deflated, and with the voxels in a file of their own.
std::vector<FuzzSeed> TextSeeds(const std::string& begin) {
  const bool is_nrrd = begin == "NRRD";
  const std::string voxels = RawSeed<std::int16_t>(4).substr(352);
  std::string packed;
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(voxels))};
  (void)Deflate(parts, [&packed](std::span<const std::byte> bytes) {
    packed.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  });
  const auto header = [is_nrrd](const char* order, bool is_packed, const std::string& file) {
    if (is_nrrd) {
      return fmt::format(
          "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nspace: {}\nsizes: 5 4 3\n"
          "space directions: (1,0,0) (0,2,0) (0,0,3)\nkinds: domain domain domain\nendian: {}\n"
          "encoding: {}\nspace origin: (1,2,3)\n{}\n",
          is_packed ? "left-posterior-superior" : "RAS", order, is_packed ? "gzip" : "raw",
          file.empty() ? "" : "data file: " + file + "\n");
    }
    return fmt::format(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {}\n"
        "CompressedData = {}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\n"
        "ElementSpacing = 1 2 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = {}\n",
        std::string_view(order) == "big" ? "True" : "False", is_packed ? "True" : "False",
        file.empty() ? "LOCAL" : file);
  };
  const std::string name = is_nrrd ? "nrrd" : "meta";
  return {{name, header("little", false, "") + voxels},
          {name + "_swapped", header("big", false, "") + voxels},
          {name + "_packed", header("little", true, "") + packed},
          {name + "_detached", header("little", false, "x.raw") + std::string(kNextFile) + voxels}};
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
  for (const char* name : {"NRRD", "ObjectType"}) {
    for (FuzzSeed& seed : TextSeeds(name)) seeds.push_back(std::move(seed));
  }
  std::string pair = RawSeed<std::int16_t>(4);
  pair.replace(108, 4, std::string(4, '\0'));  // The voxels begin at byte 0 of their own file.
  pair.replace(344, 4, std::string("ni1\0", 4));
  seeds.push_back({"pair", pair.substr(0, 348) + std::string(kNextFile) + pair.substr(352)});
  seeds.push_back({"sidecar",
                   R"({"Modality":"MR","RepetitionTime":2.3,"EchoTime":"0.003","FlipAngle":9,)"
                   R"("ImageType":["ORIGINAL","M"],"ScanningSequence":"GR\\IR"})"});
  seeds.push_back(
      {"dataset", R"({"channel_names":{"0":"T1"},"labels":{"background":0,"tumour":[1,2]},)"
                  R"("file_ending":".nii","numTraining":1,)"
                  R"("training":[{"image":"./imagesTr/x_0000.nii","label":"./labelsTr/x.nii"}]})"});
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
  add("float", [](std::int64_t, RawDicom& file) {
    file.Remove(0x7fe00010);
    file.Bytes(0x7fe00008, "OF", std::string(80, '\0'));
  });
  const auto add_file = [&seeds](const std::string& name, const RawDicom& file) {
    const TemporaryDirectory folder;
    file.Write(folder.path() / "x.dcm");
    seeds.push_back({name, TextOf(folder.path() / "x.dcm")});
  };
  const Volume seven = NumberedVolume(ObliqueGeometry({4, 3, 7}));
  add_file("mosaic", Mosaic(seven));
  add_file("multiframe", Enhanced(seven));
  using Syntax = gdcm::TransferSyntax;
  const Volume large = NumberedVolume(ObliqueGeometry({16, 12, 2}));
  for (const auto& [name, syntax] : {std::pair{"implicit", Syntax::ImplicitVRLittleEndian},
                                     {"bigendian", Syntax::ExplicitVRBigEndian},
                                     {"runlength", Syntax::RLELossless},
                                     {"jpeg", Syntax::JPEGLosslessProcess14_1},
                                     {"jpegls", Syntax::JPEGLSLossless},
                                     {"jpeg2000", Syntax::JPEG2000Lossless}}) {
    const TemporaryDirectory folder;
    WriteMrSeries(folder.path(), large);
    bool is_whole = true;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      is_whole = is_whole && Rewrite(entry.path(), syntax);
    }
    if (is_whole) seeds.push_back({name, Joined(folder.path())});
  }
  // Found by changing bytes: without a Huffman table GDCM's decoder of lossless JPEG asserts.
  for (const FuzzSeed& seed : std::vector(seeds)) {
    const std::size_t table = seed.bytes.find("\xff\xc4");
    if (seed.name != "jpeg" || table == std::string::npos) continue;
    seeds.push_back({"jpeg_without_table", seed.bytes});
    seeds.back().bytes[table] = '\x7f';
  }
  return seeds;
}

}  // namespace isoscan
