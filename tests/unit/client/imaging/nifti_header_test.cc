#include "client/imaging/nifti_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::DoubleEq;
using testing::DoubleNear;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr double kDegree = 0.017453292519943295;

absl::StatusOr<NiftiHeader> Parse(const std::string& bytes) {
  return ParseNiftiHeader(std::as_bytes(std::span(bytes)), "x.nii");
}

absl::StatusOr<GeometryAudit> Audit(const RawNifti& nifti,
                                    GeometrySource source = GeometrySource::kAgreed) {
  const absl::StatusOr<NiftiHeader> header = Parse(nifti.Header());
  if (!header.ok()) return header.status();
  return AuditNiftiGeometry(*header, source, "x.nii");
}

RawNifti Cube() { return {.size = {101, 101, 101}}; }

/// A sform alone whose second axis leans by `degrees` towards the first.
RawNifti Sheared(double degrees) {
  RawNifti nifti = Cube();
  nifti.qform_code = 0;
  nifti.sform[0][1] = static_cast<float>(std::sin(degrees * kDegree));
  nifti.sform[1][1] = static_cast<float>(std::cos(degrees * kDegree));
  return nifti;
}

/// segmentation.md 6.1: ITK takes the qform, nibabel the sform, and left is right.
RawNifti LeftRightTrap() {
  RawNifti nifti = Cube();
  nifti.qform_code = 1;
  nifti.sform_code = 2;
  nifti.sform[0] = {-1, 0, 0, 100};
  return nifti;
}

void ExpectRigid(const Geometry& geometry) {
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = 0; b < 3; ++b) {
      double product = 0;
      for (const auto& row : geometry.direction) product += row[a] * row[b];
      EXPECT_NEAR(product, a == b ? 1 : 0, 1e-12) << "axes " << a << " and " << b;
    }
  }
}

TEST(NiftiGeometry, OfTwoEqualFormsRaisesNoQuestion) {
  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(Cube()));

  EXPECT_EQ(audit.form, "sform");
  EXPECT_EQ(audit.disagreement_mm, 0);
  EXPECT_EQ(audit.shear_degrees, 0);
  EXPECT_THAT(audit.notes, IsEmpty());
}

TEST(NiftiGeometry, ThatSwapsLeftAndRightIsRefusedWithBothForms) {
  EXPECT_THAT(Audit(LeftRightTrap()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("qform (code 1) and sform (code 2)"),
                             HasSubstr("100 mm apart and mirrored"), HasSubstr("qform [1 0 0 0]"),
                             HasSubstr("sform [-1 0 0 100]"), HasSubstr("--geometry"))));
}

// One voxel wide: no corner tells that left and right are swapped.
TEST(NiftiGeometry, OfMirroredFormsIsRefusedEvenWhereTheyMeet) {
  RawNifti nifti = LeftRightTrap();
  nifti.size = {1, 101, 101};
  nifti.sform[0][3] = 0;

  EXPECT_THAT(Audit(nifti),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 mm apart and mirrored")));
}

TEST(NiftiGeometry, FollowsTheFormThatIsNamed) {
  ASSERT_OK_AND_ASSIGN(const GeometryAudit qform, Audit(LeftRightTrap(), GeometrySource::kQform));
  ASSERT_OK_AND_ASSIGN(const GeometryAudit sform, Audit(LeftRightTrap(), GeometrySource::kSform));

  EXPECT_EQ(qform.geometry.direction[0][0], -1);
  EXPECT_EQ(qform.geometry.origin_mm[0], 0);
  EXPECT_EQ(sform.geometry.direction[0][0], 1);
  EXPECT_EQ(sform.geometry.origin_mm[0], -100);
  for (const GeometryAudit& audit : {qform, sform}) {
    EXPECT_TRUE(audit.mirrored);
    EXPECT_EQ(audit.disagreement_mm, 100);
    EXPECT_THAT(audit.notes, ElementsAre(HasSubstr(audit.form + " counts")));
  }
}

// nibabel sets the sform alone, older scanners' converters the qform alone.
TEST(NiftiGeometry, OfAFileWithOneFormDoesNotNeedTheNamedOne) {
  RawNifti sform_alone = Cube();
  sform_alone.qform_code = 0;
  RawNifti qform_alone = Cube();
  qform_alone.sform_code = 0;

  ASSERT_OK_AND_ASSIGN(const GeometryAudit from_sform, Audit(sform_alone, GeometrySource::kQform));
  ASSERT_OK_AND_ASSIGN(const GeometryAudit from_qform, Audit(qform_alone, GeometrySource::kSform));

  EXPECT_EQ(from_sform.form, "sform");
  EXPECT_EQ(from_qform.form, "qform");
  EXPECT_EQ(from_sform.geometry, from_qform.geometry);
}

TEST(NiftiGeometry, OfFormsWithinAQuarterOfAVoxelIsAcceptedAndReported) {
  RawNifti nifti = Cube();
  nifti.qform_offset = {0.2F, 0, 0};
  ASSERT_OK_AND_ASSIGN(const GeometryAudit apart, Audit(nifti));
  nifti.qform_offset = {5e-4F, 0, 0};
  ASSERT_OK_AND_ASSIGN(const GeometryAudit rounded, Audit(nifti));
  nifti.qform_offset = {0.26F, 0, 0};

  EXPECT_THAT(apart.notes, ElementsAre(HasSubstr("up to 0.2 mm apart; the sform counts")));
  EXPECT_EQ(apart.geometry.origin_mm[0], 0);
  EXPECT_THAT(rounded.disagreement_mm, DoubleNear(5e-4, 1e-9));
  EXPECT_THAT(rounded.notes, IsEmpty());
  EXPECT_THAT(Audit(nifti), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0.26 mm")));
}

// What scanners write for an LPS image: half a turn, with a rest that single precision cannot hold.
TEST(NiftiGeometry, HearsNothingOfWhatTheQuaternionsRoundingExplains) {
  const double rest = 3e-4;
  RawNifti nifti = Cube();
  nifti.quaternion = {0, 0, static_cast<float>(std::cos(rest / 2))};
  const auto cosine = static_cast<float>(-std::cos(rest));
  const auto sine = static_cast<float>(std::sin(rest));
  nifti.sform = {{{cosine, -sine, 0, 0}, {sine, cosine, 0, 0}, {0, 0, 1, 0}}};

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_GT(audit.disagreement_mm, 0.02);
  EXPECT_THAT(audit.notes, IsEmpty());
  EXPECT_EQ(audit.form, "sform");
}

TEST(NiftiGeometry, OfASlightlyShearedSformIsTheNearestRigidOneWithTheAngle) {
  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(Sheared(0.08)));

  EXPECT_THAT(audit.shear_degrees, DoubleNear(0.08, 1e-4));
  EXPECT_THAT(audit.notes, ElementsAre(HasSubstr("0.08 degrees")));
  ExpectRigid(audit.geometry);
  // The polar decomposition parts the angle between both axes.
  EXPECT_NEAR(std::asin(audit.geometry.direction[0][1]) / kDegree, -0.04, 1e-4);
}

TEST(NiftiGeometry, OfAShearedSformIsRefusedWithTheAngle) {
  EXPECT_THAT(Audit(Sheared(0.2)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("right angles"), HasSubstr("0.2 degrees off"))));
}

TEST(NiftiGeometry, IsTheQformsWhereAShearedSformAgreesWithIt) {
  RawNifti nifti = Sheared(0.2);
  nifti.size = {21, 21, 21};
  nifti.qform_code = 1;

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_EQ(audit.form, "qform");
  EXPECT_EQ(audit.geometry.direction[0][1], 0);
  EXPECT_THAT(audit.notes,
              testing::Contains(HasSubstr("0.2 degrees off a right angle; the qform")));
}

TEST(NiftiGeometry, HasTheSformsSpacingWherePixdimContradictsIt) {
  RawNifti nifti = Cube();
  nifti.qform_code = 0;
  nifti.sform[2] = {0, 0, 3.3F, 0};
  nifti.spacing_mm = {1, 1, 3};

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_THAT(audit.geometry.spacing_mm, ElementsAre(1, 1, DoubleNear(3.3, 1e-6)));
  EXPECT_THAT(audit.pixdim_error_mm, DoubleNear(30, 1e-4));
  EXPECT_THAT(audit.notes, ElementsAre(AllOf(HasSubstr("1 x 1 x 3 mm"), HasSubstr("3.3 mm"))));
}

TEST(NiftiGeometry, KeepsPixdimWhereTheSformMeansTheSame) {
  RawNifti nifti = Cube();
  nifti.spacing_mm = {0.7F, 1, 1};
  nifti.sform[0][0] = std::nextafter(0.7F, 1.0F);

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_EQ(audit.geometry.spacing_mm[0], 0.7F);
}

TEST(NiftiGeometry, WithoutEitherFormIsLpsAndReported) {
  RawNifti nifti = Cube();
  nifti.qform_code = 0;
  nifti.sform_code = 0;
  nifti.qfac = -1;
  nifti.qform_offset = {7, 7, 7};

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_EQ(audit.geometry, (Geometry{.size = {101, 101, 101}}));
  EXPECT_EQ(audit.form, "none");
  EXPECT_THAT(audit.notes, ElementsAre(HasSubstr("left from right")));
}

TEST(NiftiGeometry, HeedsTheUnit) {
  RawNifti nifti = Cube();
  nifti.spacing_mm = {500, 500, 500};
  nifti.sform = {{{500, 0, 0, 1000}, {0, 500, 0, 0}, {0, 0, 500, 0}}};
  nifti.qform_offset = {1000, 0, 0};
  nifti.units = 3;

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_THAT(audit.geometry.spacing_mm, Each(DoubleEq(0.5)));
  EXPECT_THAT(audit.geometry.origin_mm[0], DoubleEq(-1));
}

TEST(NiftiGeometry, NeedsAUsableForm) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::pair<RawNifti, std::string>> broken;
  const auto add = [&broken](const std::string& words, auto change) {
    RawNifti nifti = Cube();
    change(nifti);
    broken.emplace_back(nifti, words);
  };
  add("not finite", [&](RawNifti& n) { n.qform_code = 0, n.sform[1][1] = nan; });
  add("not finite", [&](RawNifti& n) { n.sform[1][1] = nan; });
  add("singular", [](RawNifti& n) { n.sform = {}; });
  add("singular", [](RawNifti& n) { n.qform_code = 0, n.sform[2] = n.sform[1]; });
  add("voxels of 0 x 1 x 1", [](RawNifti& n) { n.sform_code = 0, n.spacing_mm[0] = 0; });
  add("voxels of -1 x 1 x 1", [](RawNifti& n) { n.sform_code = 0, n.spacing_mm[0] = -1; });
  add("no rotation", [](RawNifti& n) { n.sform_code = 0, n.quaternion = {1, 1, 0}; });
  add("no rotation", [&](RawNifti& n) { n.sform_code = 0, n.quaternion[0] = nan; });
  add("qoffset", [&](RawNifti& n) { n.sform_code = 0, n.qform_offset[2] = nan; });
  add("voxels of nan",
      [&](RawNifti& n) { n.qform_code = n.sform_code = 0, n.spacing_mm[0] = nan; });

  for (const auto& [nifti, words] : broken) {
    EXPECT_THAT(Audit(nifti), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words)));
  }
}

TEST(NiftiGeometry, WithoutAUsablePixdimIsTheSforms) {
  RawNifti nifti = Cube();
  nifti.qform_code = 0;
  nifti.spacing_mm = {0, std::numeric_limits<float>::quiet_NaN(), -1};

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, Audit(nifti));

  EXPECT_THAT(audit.geometry.spacing_mm, Each(1));
}

TEST(NiftiHeader, ThatIsBrokenIsRefusedByName) {
  struct Fault {
    std::size_t offset;
    std::string bytes;
    std::string words;
  };
  const auto bytes_of = [](auto value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const std::vector<Fault> faults = {
      {0, bytes_of(std::int32_t{540}), "NIfTI-2"},
      {0, bytes_of(std::int32_t{12345}), "does not begin"},
      {40, bytes_of(std::int16_t{0}), "0 dimensions"},
      {40, bytes_of(std::int16_t{8}), "8 dimensions"},
      {40, bytes_of(std::int16_t{2}), "has 2 dimensions"},
      {42, bytes_of(std::int16_t{0}), "size 0x101x101"},
      {44, bytes_of(std::int16_t{-5}), "size 101x-5x101"},
      {70, bytes_of(std::int16_t{7}), "type 7"},
      {70, bytes_of(std::int16_t{32}), "2 values per voxel"},
      {70, bytes_of(std::int16_t{1536}), "FLOAT128"},
      {72, bytes_of(std::int16_t{16}), "16 bits per voxel"},
      {108, bytes_of(100.0F), "byte 100"},
      {108, bytes_of(352.5F), "byte 352.5"},
      {108, bytes_of(-352.0F), "byte -352"},
      {108, bytes_of(std::numeric_limits<float>::infinity()), "byte inf"},
      {108, bytes_of(std::numeric_limits<float>::quiet_NaN()), "byte nan"},
      {344, std::string(4, '\0'), "ANALYZE"},
  };
  for (const Fault& fault : faults) {
    std::string header = Cube().Header();
    header.replace(fault.offset, fault.bytes.size(), fault.bytes);

    const absl::Status status = Parse(header).status();

    EXPECT_FALSE(status.ok()) << fault.words;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("x.nii"), HasSubstr(fault.words)));
  }
}

TEST(NiftiHeader, ThatIsCutOffIsRefused) {
  EXPECT_THAT(Parse(Cube().Header().substr(0, 347)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("347 bytes")));
}

TEST(NiftiForms, OfAnyGridSayTheSameTwice) {
  for (const double tilt : {0.0, 1e-5, 2e-3, 0.1, 0.7, 1.5707963, 2.5, 3.1414, 3.14159265}) {
    for (const double turn : {0.0, 3e-4, 1e-3, 0.4, 3.1415, 3.14159265}) {
      for (const double sign : {1.0, -1.0}) {
        Geometry geometry = ObliqueGeometry({181, 217, 61});
        geometry.direction = {
            {{std::cos(turn), -std::sin(turn) * std::cos(tilt), std::sin(turn) * std::sin(tilt)},
             {std::sin(turn), std::cos(turn) * std::cos(tilt), -std::cos(turn) * std::sin(tilt)},
             {0, std::sin(tilt) * sign, std::cos(tilt) * sign}}};
        if (sign < 0) {
          for (auto& row : geometry.direction) row[2] = -row[2];
        }
        NiftiHeader header;
        header.size = geometry.size;
        header.forms = FormsOf(geometry);

        ASSERT_OK_AND_ASSIGN(const GeometryAudit audit,
                             AuditNiftiGeometry(header, GeometrySource::kAgreed, "x.nii"));

        EXPECT_LT(GreatestCornerDistance(audit.geometry, geometry), 1e-4);
        // Nearly half a turn, but not quite, is what a quaternion without its first part cannot
        // say.
        const bool nearly_half = tilt == 3.1414 || (turn > 0 && turn < 2e-3);
        EXPECT_LT(audit.disagreement_mm, nearly_half ? 0.1 : 1e-3)
            << tilt << " " << turn << " " << sign;
        EXPECT_THAT(audit.notes, IsEmpty());
      }
    }
  }
}

}  // namespace
}  // namespace isoscan
