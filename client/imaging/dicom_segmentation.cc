#include "client/imaging/dicom_segmentation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include "common/weights/sha256.h"
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcostrmb.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmdata/dcwcache.h>
#include <dcmtk/dcmfg/fgderimg.h>
#include <dcmtk/dcmfg/fgfracon.h>
#include <dcmtk/dcmfg/fgpixmsr.h>
#include <dcmtk/dcmfg/fgplanor.h>
#include <dcmtk/dcmfg/fgplanpo.h>
#include <dcmtk/dcmseg/segdoc.h>
#include <dcmtk/dcmseg/segment.h>
#include <dcmtk/oflog/oflog.h>

namespace isoscan {
namespace {

absl::Status StatusOf(const OFCondition& condition, std::string_view what) {
  if (condition.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("cannot {}: {}", what, condition.text()));
}

/// A UID of 128 bits of a digest (part 5, B.2): "2.25." and their decimal value.
std::string UidOf(const std::string& text) {
  const std::string digest = Sha256Of(text);
  std::string decimal = "0";  // Least significant digit first.
  for (std::size_t i = 0; i < 32; ++i) {
    int carry = digest[i] <= '9' ? digest[i] - '0' : digest[i] - 'a' + 10;
    for (char& digit : decimal) {
      const int value = (digit - '0') * 16 + carry;
      digit = static_cast<char>('0' + value % 10);
      carry = value / 10;
    }
    for (; carry > 0; carry /= 10) decimal.push_back(static_cast<char>('0' + carry % 10));
  }
  const std::size_t last = decimal.find_last_not_of('0');
  decimal.resize(last == std::string::npos ? 1 : last + 1);
  return "2.25." + std::string(decimal.rbegin(), decimal.rend());
}

/// At most 16 characters, as a decimal string holds.
OFString Decimal(double value) {
  for (int digits = 10;; --digits) {
    const std::string text = fmt::format("{:.{}g}", value, digits);
    if (text.size() <= 16) return text.c_str();
  }
}

/// At most `length` bytes, cut between characters of UTF-8.
OFString Short(const std::string& text, std::size_t length) {
  std::size_t end = std::min(text.size(), length);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  return text.substr(0, end).c_str();
}

/// The files of a series, without their pixels.
class Sources {
 public:
  absl::StatusOr<DcmDataset*> Of(const std::filesystem::path& file) {
    auto& source = files_[file];
    if (source == nullptr) {
      source = std::make_unique<DcmFileFormat>();
      RETURN_IF_ERROR(
          StatusOf(source->loadFileUntilTag(file.c_str(), EXS_Unknown, EGL_noChange,
                                            DCM_MaxReadLength, ERM_autoDetect, DCM_PixelData),
                   fmt::format("read {}", file.filename().string())));
    }
    return source->getDataset();
  }

 private:
  std::map<std::filesystem::path, std::unique_ptr<DcmFileFormat>> files_;
};

absl::Status AddSegments(const SegmentationText& text, DcmSegmentation& object) {
  const CodeSequenceMacro category("91723000", "SCT", "Anatomical structure");
  for (std::size_t i = 0; i < text.labels.size(); ++i) {
    const CodeSequenceMacro type(fmt::format("LABEL{}", i + 1).c_str(), "99ISOSCAN",
                                 Short(text.labels[i], 64));
    DcmSegment* segment = nullptr;
    RETURN_IF_ERROR(
        StatusOf(DcmSegment::create(segment, Short(text.labels[i], 64), category, type,
                                    DcmSegTypes::SAT_AUTOMATIC, Short(text.algorithm, 64)),
                 "describe a label"));
    Uint16 number = 0;
    RETURN_IF_ERROR(StatusOf(object.addSegment(segment, number), "add a label"));
  }
  return absl::OkStatus();
}

/// What all frames share: how large voxels are and how the slices lie.
absl::Status AddGrid(const Geometry& grid, DcmSegmentation& object) {
  FGPixelMeasures measures;
  const OFString thickness = Decimal(grid.spacing_mm[2]);
  measures.setPixelSpacing(Decimal(grid.spacing_mm[1]) + "\\" + Decimal(grid.spacing_mm[0]));
  measures.setSliceThickness(thickness);
  measures.setSpacingBetweenSlices(thickness);
  const auto& d = grid.direction;
  const std::unique_ptr<FGPlaneOrientationPatient> orientation(
      FGPlaneOrientationPatient::createMinimal(Decimal(d[0][0]), Decimal(d[1][0]), Decimal(d[2][0]),
                                               Decimal(d[0][1]), Decimal(d[1][1]),
                                               Decimal(d[2][1])));
  RETURN_IF_ERROR(StatusOf(object.addForAllFrames(measures), "add the size of voxels"));
  return StatusOf(object.addForAllFrames(*orientation), "add the slices' direction");
}

absl::Status AddFrame(const DicomSeries& series, std::int64_t z, std::uint16_t segment,
                      std::vector<Uint8>& pixels, Sources& sources, DcmSegmentation& object) {
  const std::array<double, 3> point =
      PhysicalPoint(series.geometry, {0, 0, static_cast<double>(z)});
  const std::unique_ptr<FGPlanePosPatient> position(
      FGPlanePosPatient::createMinimal(Decimal(point[0]), Decimal(point[1]), Decimal(point[2])));
  FGFrameContent content;
  content.setDimensionIndexValues(segment, 0);
  content.setDimensionIndexValues(static_cast<Uint32>(z + 1), 1);

  const DicomSlice& slice = series.slices[static_cast<std::size_t>(z)];
  ASSIGN_OR_RETURN(DcmDataset * source, sources.Of(slice.file));
  FGDerivationImage derivation;
  DerivationImageItem* derived = nullptr;
  RETURN_IF_ERROR(StatusOf(derivation.addDerivationImageItem(
                               CodeSequenceMacro("113076", "DCM", "Segmentation"), "", derived),
                           "refer to an image"));
  SourceImageItem* reference = nullptr;
  RETURN_IF_ERROR(StatusOf(
      derived->addSourceImageItem(
          source, CodeSequenceMacro("121322", "DCM", "Source image for image processing operation"),
          reference),
      fmt::format("refer to {}", slice.file.filename().string())));
  if (series.kind == DicomKind::kMultiFrame) {
    reference->getImageSOPInstanceReference().addReferencedFrameNumber(
        static_cast<Uint16>(slice.frame + 1));
  }
  OFVector<FGBase*> groups;
  groups.push_back(position.get());
  groups.push_back(&content);
  groups.push_back(&derivation);
  return StatusOf(object.addFrame(pixels.data(), segment, groups), "add a slice");
}

absl::Status AddFrames(const DicomSeries& series, const LabelMap& labels, std::size_t segments,
                       Sources& sources, DcmSegmentation& object) {
  const auto slice = static_cast<std::size_t>(labels.geometry.size[0] * labels.geometry.size[1]);
  std::vector<Uint8> pixels(slice);
  for (std::size_t segment = 1; segment <= segments; ++segment) {
    std::size_t frames = 0;
    for (std::int64_t z = 0; z < labels.geometry.size[2]; ++z) {
      const std::uint8_t* voxels = labels.voxels.data() + static_cast<std::size_t>(z) * slice;
      std::transform(voxels, voxels + slice, pixels.begin(), [segment](std::uint8_t label) {
        return static_cast<Uint8>(label == segment ? 1 : 0);
      });
      // Slices without the label are left out, but for one where it is in none: dcmseg wants a
      // frame for each segment.
      const bool last = z + 1 == labels.geometry.size[2];
      if (std::find(pixels.begin(), pixels.end(), 1) == pixels.end() && !(last && frames == 0)) {
        continue;
      }
      RETURN_IF_ERROR(
          AddFrame(series, z, static_cast<std::uint16_t>(segment), pixels, sources, object));
      ++frames;
    }
  }
  return absl::OkStatus();
}

/// The file as bytes.
absl::StatusOr<std::string> Encoded(DcmSegmentation& object) {
  DcmFileFormat file;
  RETURN_IF_ERROR(StatusOf(object.writeDataset(*file.getDataset()), "encode the labels"));
  std::string bytes;
  std::vector<char> buffer(std::size_t{1} << 20U);
  DcmOutputBufferStream stream(buffer.data(), static_cast<offile_off_t>(buffer.size()));
  DcmWriteCache cache;
  OFCondition condition;
  file.transferInit();
  do {
    condition = file.write(stream, EXS_LittleEndianExplicit, EET_ExplicitLength, &cache);
    void* written = nullptr;
    offile_off_t length = 0;
    stream.flushBuffer(written, length);
    bytes.append(static_cast<const char*>(written), static_cast<std::size_t>(length));
  } while (condition == EC_StreamNotifyClient);
  file.transferEnd();
  RETURN_IF_ERROR(StatusOf(condition, "encode the labels"));
  return bytes;
}

}  // namespace

absl::Status WriteDicomSegmentation(const std::filesystem::path& path, const DicomSeries& series,
                                    const LabelMap& labels, const SegmentationText& text) {
  static std::once_flag quiet;
  std::call_once(quiet, [] { OFLog::configure(OFLogger::OFF_LOG_LEVEL); });
  if (labels.geometry.size != series.geometry.size || series.slices.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("the labels have {} x {} x {} voxels, the series {} x {} x {}",
                    labels.geometry.size[0], labels.geometry.size[1], labels.geometry.size[2],
                    series.geometry.size[0], series.geometry.size[1], series.geometry.size[2]));
  }
  if (series.kind == DicomKind::kMosaic) {
    return absl::InvalidArgumentError("a segmentation cannot refer to the tiles of a mosaic");
  }
  ContentIdentificationMacro content("1", "ISOSCAN", Short(text.algorithm, 64), "Isoscan");
  const IODGeneralEquipmentModule::EquipmentInfo equipment("Isoscan", "isoscan-client", "0",
                                                           Short(text.version, 64));
  DcmSegmentation* made = nullptr;
  RETURN_IF_ERROR(StatusOf(DcmSegmentation::createBinarySegmentation(
                               made, static_cast<Uint16>(labels.geometry.size[1]),
                               static_cast<Uint16>(labels.geometry.size[0]), equipment, content),
                           "begin the segmentation"));
  const std::unique_ptr<DcmSegmentation> object(made);
  Sources sources;
  ASSIGN_OR_RETURN(DcmDataset * first, sources.Of(series.slices.front().file));
  RETURN_IF_ERROR(StatusOf(object->importFromSourceImage(*first), "take over patient and study"));
  OFString frame_of_reference;
  if (first->findAndGetOFString(DCM_FrameOfReferenceUID, frame_of_reference).bad() ||
      frame_of_reference.empty()) {
    // A segmentation needs one; the images that it refers to have none.
    object->getFrameOfReference().setFrameOfReferenceUID(
        UidOf(text.made_of + " frame of reference").c_str());
  }
  const std::string organization = UidOf(text.made_of + " dimensions");
  object->getSOPCommon().setSOPInstanceUID(UidOf(text.made_of + " object").c_str());
  object->getSeries().setSeriesInstanceUID(UidOf(text.made_of + " series").c_str());
  object->getSeries().setSeriesNumber("9000");
  object->getSeries().setSeriesDescription(Short(text.algorithm, 64));
  IODMultiframeDimensionModule& dimensions = object->getDimensions();
  dimensions.addDimensionIndex(DCM_ReferencedSegmentNumber, organization.c_str(),
                               DCM_SegmentIdentificationSequence, "Label");
  dimensions.addDimensionIndex(DCM_ImagePositionPatient, organization.c_str(),
                               DCM_PlanePositionSequence, "Slice");
  RETURN_IF_ERROR(AddSegments(text, *object));
  RETURN_IF_ERROR(AddGrid(series.geometry, *object));
  RETURN_IF_ERROR(AddFrames(series, labels, text.labels.size(), sources, *object));
  ASSIGN_OR_RETURN(const std::string bytes, Encoded(*object));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  RETURN_IF_ERROR(file.WriteAt(0, bytes));
  return file.Commit();
}

}  // namespace isoscan
