#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>

#include "client/imaging/dicom_listing.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {

/// A folder for DICOM files, and a volume to cut into slices.
class DicomSeriesTest : public testing::Test {
 protected:
  const std::filesystem::path& Folder() const { return folder_.path(); }

  DicomListing List() const {
    absl::StatusOr<DicomListing> listing = ListDicomSeries(Folder());
    EXPECT_OK(listing);
    return listing.ok() ? *std::move(listing) : DicomListing();
  }

  /// The only thing that was set aside, as "fault: reason"; no series must be left.
  std::string OnlyFault() const {
    const DicomListing listing = List();
    EXPECT_THAT(listing.series, testing::IsEmpty());
    EXPECT_THAT(listing.set_aside, testing::SizeIs(1));
    if (listing.set_aside.size() != 1) return "";
    const DicomSetAside& aside = listing.set_aside.front();
    EXPECT_EQ(aside.files, listing.dicom_files);
    return fmt::format("{}: {}", FaultName(aside.fault), aside.reason);
  }

  TemporaryDirectory folder_;
  const Volume volume_ = NumberedVolume(ObliqueGeometry({6, 5, 7}));
};

}  // namespace isoscan
