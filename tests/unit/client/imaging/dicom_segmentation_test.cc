#include "client/imaging/dicom_segmentation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "client/imaging/dicom_listing.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmfg/fgplanpo.h>
#include <dcmtk/dcmseg/segdoc.h>
#include <dcmtk/dcmseg/segment.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

class DicomSegmentation : public testing::Test {
 protected:
  void SetUp() override {
    WriteMrSeries(folder_.path() / "mr", SmoothVolume(ObliqueGeometry({11, 9, 8})),
                  [](std::int64_t, RawDicom& file) {
                    file.Text(0x00100010, "PN", "Doe^Jane");
                    file.Text(0x00200052, "UI", "1.2.3.99");
                  });
    ASSERT_OK_AND_ASSIGN(series_, FindDicomSeries(folder_.path() / "mr"));
    labels_ = BoxLabels(series_.geometry);
  }

  absl::Status Write(const fs::path& path) const {
    return WriteDicomSegmentation(path, series_, labels_,
                                  {.labels = {"left half", "right half"},
                                   .algorithm = "study halves",
                                   .version = "1",
                                   .made_of = "this"});
  }

  std::unique_ptr<DcmSegmentation> Read(const fs::path& path) const {
    DcmSegmentation* read = nullptr;
    EXPECT_TRUE(DcmSegmentation::loadFile(path.c_str(), read).good());
    return std::unique_ptr<DcmSegmentation>(read);
  }

  TemporaryDirectory folder_;
  DicomSeries series_;
  LabelMap labels_;
};

TEST_F(DicomSegmentation, HoldsEveryLabelOnItsSliceOfTheSeries) {
  const fs::path path = folder_.path() / "labels.dcm";
  ASSERT_OK(Write(path));

  const std::unique_ptr<DcmSegmentation> read = Read(path);
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->getNumberOfSegments(), 2U);
  OFString name;
  read->getSegment(2)->getSegmentLabel(name);
  EXPECT_EQ(name, "right half");
  std::size_t found = 0;
  for (std::size_t label = 1; label <= 2; ++label) {
    OFVector<size_t> frames;
    read->getFramesForSegment(label, frames);
    ASSERT_EQ(frames.size(), 4U) << "of 8 slices, the middle ones hold the box";
    for (const std::size_t frame : frames) {
      OFBool shared = OFFalse;
      auto* const position = static_cast<FGPlanePosPatient*>(read->getFunctionalGroups().get(
          static_cast<Uint32>(frame), DcmFGTypes::EFG_PLANEPOSPATIENT, shared));
      ASSERT_NE(position, nullptr);
      Float64 x = 0;
      Float64 y = 0;
      Float64 z = 0;
      ASSERT_TRUE(position->getImagePositionPatient(x, y, z).good());
      std::int64_t slice = -1;
      for (std::int64_t i = 0; i < series_.geometry.size[2]; ++i) {
        const auto at = PhysicalPoint(series_.geometry, {0, 0, static_cast<double>(i)});
        if (std::hypot(at[0] - x, at[1] - y, at[2] - z) < 1e-3) slice = i;
      }
      ASSERT_GE(slice, 0) << "a frame lies where no slice does";
      const DcmIODTypes::Frame* pixels = read->getFrame(frame);
      for (std::size_t i = 0; i < 11 * 9; ++i) {
        const bool set = ((pixels->pixData[i / 8] >> (i % 8)) & 1) != 0;
        ASSERT_EQ(set, labels_.voxels[static_cast<std::size_t>(slice) * 99 + i] == label);
        found += set ? 1 : 0;
      }
    }
  }
  EXPECT_GT(found, 50U);
}

TEST_F(DicomSegmentation, BelongsToTheSeriesPatientStudyAndFrameOfReference) {
  const fs::path path = folder_.path() / "labels.dcm";
  ASSERT_OK(Write(path));

  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  const auto text = [&file](const DcmTagKey& tag) {
    OFString value;
    file.getDataset()->findAndGetOFString(tag, value, 0, /*searchIntoSub=*/OFTrue);
    return std::string(value.c_str());
  };
  EXPECT_EQ(text(DCM_Modality), "SEG");
  EXPECT_EQ(text(DCM_PatientName), "Doe^Jane");
  EXPECT_EQ(text(DCM_PatientID), "patient-7");
  EXPECT_EQ(text(DCM_StudyInstanceUID), "1.2.3");
  EXPECT_EQ(text(DCM_FrameOfReferenceUID), "1.2.3.99");
  EXPECT_EQ(text(DCM_SegmentAlgorithmType), "AUTOMATIC");
  EXPECT_THAT(text(DCM_ReferencedSOPInstanceUID), testing::StartsWith("1.2.3.1."));
  EXPECT_THAT(text(DCM_SOPInstanceUID), testing::MatchesRegex("2\\.25\\.[1-9][0-9]{10,38}"));

  // The same labels again are the same object.
  ASSERT_OK(Write(folder_.path() / "again.dcm"));
  const std::string uid = text(DCM_SOPInstanceUID);
  ASSERT_TRUE(file.loadFile((folder_.path() / "again.dcm").c_str()).good());
  EXPECT_EQ(text(DCM_SOPInstanceUID), uid);
}

TEST_F(DicomSegmentation, HasAnEmptyFrameForALabelThatIsNowhere) {
  labels_.voxels.assign(labels_.voxels.size(), 0);
  const fs::path path = folder_.path() / "labels.dcm";
  ASSERT_OK(Write(path));

  EXPECT_EQ(Read(path)->getNumberOfFrames(), 2U);
}

TEST_F(DicomSegmentation, RefusesLabelsOfAnotherSize) {
  labels_.geometry.size[2] = 7;

  EXPECT_THAT(Write(folder_.path() / "labels.dcm"),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("11 x 9 x 7")));
}

}  // namespace
}  // namespace isoscan
