#include "client/intake/cohort_findings.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "client/intake/picture.h"
#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

/// Standardised blocks of a smooth anatomy with a patient's own deviation.
Picture PictureOf(std::uint64_t patient, double own, double sign = 1) {
  RandomStream random(/*seed=*/3, "picture", patient);
  PictureMaker maker({8, 8, 8});
  for (std::int64_t z = 0; z < 8; ++z) {
    for (std::int64_t y = 0; y < 8; ++y) {
      for (std::int64_t x = 0; x < 8; ++x) {
        const double value = std::sin(0.8 * static_cast<double>(x)) +
                             std::cos(0.6 * static_cast<double>(y + z)) + own * random.Normal();
        maker.Add(maker.AxisBlock(0, x) + maker.AxisBlock(1, y) + maker.AxisBlock(2, z),
                  sign * value);
      }
    }
  }
  return maker.Finish(0);
}

CaseSight Case(int number, double own = 0.5) {
  CaseSight sight;
  sight.files.name = fmt::format("case{}", number);
  ImageSight& image = sight.images.emplace_back();
  image.file.channel = "T1w";
  image.stored.size = {10, 10, 10};
  image.read = true;
  image.digest = fmt::format("digest{}", number);
  image.picture = PictureOf(static_cast<std::uint64_t>(number), own);
  image.inside = image.picture;
  return sight;
}

std::vector<CaseSight> Cohort(int cases, double own = 0.5) {
  std::vector<CaseSight> sights;
  for (int i = 0; i < cases; ++i) sights.push_back(Case(i, own));
  return sights;
}

std::vector<Fault> FaultsOf(const CaseSight& sight) {
  std::vector<Fault> faults;
  for (const Finding& finding : sight.findings) faults.push_back(finding.fault);
  return faults;
}

TEST(CompareCases, FindsNothingInACohortOfDifferentPatients) {
  std::vector<CaseSight> sights = Cohort(12);

  CompareCases(sights);

  EXPECT_THAT(sights, Each(Field(&CaseSight::findings, IsEmpty())));
}

TEST(CompareCases, QuarantinesAnInvertedImageWhereTheCohortAgrees) {
  std::vector<CaseSight> sights = Cohort(8);
  sights[3].images[0].picture = PictureOf(3, 0.5, /*sign=*/-1);

  CompareCases(sights);

  EXPECT_THAT(FaultsOf(sights[3]), ElementsAre(Fault::kNegativeContrast));
  EXPECT_TRUE(sights[3].quarantined());
  for (const std::size_t i : {0u, 1u, 2u, 4u, 5u, 6u, 7u}) {
    EXPECT_THAT(sights[i].findings, IsEmpty());
  }
}

TEST(CompareCases, GivesNoVerdictOnContrastWhereTheCohortHasNoneInCommon) {
  std::vector<CaseSight> sights = Cohort(8, /*own=*/20);
  sights[3].images[0].picture = PictureOf(3, 20, /*sign=*/-1);

  CompareCases(sights);

  EXPECT_THAT(sights, Each(Field(&CaseSight::findings, IsEmpty())));
}

TEST(CompareCases, GivesNoVerdictOnContrastOfFewerThanFiveCases) {
  std::vector<CaseSight> sights = Cohort(4);
  sights[3].images[0].picture = PictureOf(3, 0.5, /*sign=*/-1);

  CompareCases(sights);

  EXPECT_THAT(sights[3].findings, IsEmpty());
}

TEST(CompareCases, FlagsAHistogramOfAnotherShapeWhereEnoughCasesHaveOne) {
  for (const int cases : {12, 9}) {
    std::vector<CaseSight> sights = Cohort(cases);
    RandomStream random(/*seed=*/5, "shape");
    for (CaseSight& sight : sights) {
      for (int step = -9; step <= 9; ++step) {
        sight.images[0].shape.push_back(step / 18.0 + 0.01 * random.Normal());
      }
    }
    // Most of it is dark, as in an angiogram.
    for (double& value : sights[4].images[0].shape) value = std::pow(value + 0.5, 4);

    CompareCases(sights);

    if (cases < 10) {
      EXPECT_THAT(sights, Each(Field(&CaseSight::findings, IsEmpty())));
      continue;
    }
    ASSERT_THAT(FaultsOf(sights[4]), ElementsAre(Fault::kModality));
    EXPECT_THAT(sights[4].findings[0].reason, HasSubstr("another shape"));
    EXPECT_FALSE(sights[4].quarantined());
    EXPECT_THAT(sights[5].findings, IsEmpty());
  }
}

TEST(CompareCases, FlagsALabelThatIsDarkWhereTheCohortsIsBright) {
  std::vector<CaseSight> sights = Cohort(8);
  for (CaseSight& sight : sights) {
    LabelSight& label = sight.labels.emplace_back();
    label.name = "tumor";
    label.voxels = 9;
    label.contrast = 1.2;
    sight.files.labels.emplace_back();
    sight.label_digest = sight.files.name;
  }
  sights[5].labels[0].contrast = -0.9;

  CompareCases(sights);

  EXPECT_THAT(FaultsOf(sights[5]), ElementsAre(Fault::kNegativeContrast));
  EXPECT_FALSE(sights[5].quarantined());
  EXPECT_THAT(sights[5].findings[0].reason,
              AllOf(HasSubstr("tumor is 0.9 standard deviations darker"), HasSubstr("88 %")));
}

TEST(CompareCases, KeepsTheFirstOfEqualImagesWhateverTheCohort) {
  std::vector<CaseSight> sights = Cohort(3);
  sights[2].images[0].digest = sights[0].images[0].digest;
  sights[2].files.cohort = "another";

  CompareCases(sights);

  EXPECT_FALSE(sights[0].quarantined());
  EXPECT_THAT(FaultsOf(sights[2]), ElementsAre(Fault::kDuplicate));
  EXPECT_TRUE(sights[2].quarantined());
}

TEST(CompareCases, FindsARescaledCopyAmongManyAndKeepsTheFirst) {
  std::vector<CaseSight> sights = Cohort(60);
  sights[41].images[0].picture = sights[7].images[0].picture;
  for (std::size_t block = 0; block < 512; block += 17) {
    sights[41].images[0].picture[block] += 0.002f;  // The copy was rounded.
  }

  CompareCases(sights);

  EXPECT_THAT(FaultsOf(sights[41]), ElementsAre(Fault::kDuplicate));
  EXPECT_THAT(sights[41].findings[0].reason, HasSubstr("case7"));
  EXPECT_THAT(sights[7].findings, IsEmpty());
}

TEST(CompareCases, TakesNamesThatDifferInTheVisitForOnePatient) {
  const std::vector<std::vector<std::string>> same{{"sub-9611Ses1", "sub-9611Ses2"},
                                                   {"pat7_visit1", "pat7_visit02"},
                                                   {"A12", "A12_rescan"},
                                                   {"x_tp1", "x_tp2"}};
  const std::vector<std::vector<std::string>> other{{"hippocampus_001", "hippocampus_002"},
                                                    {"scan1", "scan2"},
                                                    {"sub-01", "sub-02"},
                                                    {"case_1", "case_2"},
                                                    {"strep1", "strep2"}};
  for (const bool expected : {true, false}) {
    for (const std::vector<std::string>& names : expected ? same : other) {
      std::vector<CaseSight> sights = Cohort(2);
      for (std::size_t i = 0; i < 2; ++i) sights[i].files.name = names[i];

      CompareCases(sights);

      EXPECT_EQ(FaultsOf(sights[1]) == std::vector{Fault::kSamePatient}, expected) << names[1];
      EXPECT_THAT(sights[0].findings, IsEmpty());
    }
  }
}

TEST(CompareCases, NeverShowsThePatientsDigest) {
  std::vector<CaseSight> sights = Cohort(3);
  for (CaseSight& sight : sights) sight.files.patient_digest = "5ec2e7";
  sights[0].files.dicom_case = "a";
  sights[1].files.dicom_case = "b";
  sights[2].files.dicom_case = "c";
  sights[2].files.patient_digest = "07e4";

  CompareCases(sights);

  ASSERT_THAT(FaultsOf(sights[1]), ElementsAre(Fault::kSamePatient));
  EXPECT_THAT(sights[1].findings[0].reason, testing::Not(HasSubstr("5ec2e7")));
}

/// An anonymiser that gives everybody one number says nothing about who is who.
TEST(CompareCases, TakesOneNumberInAllFilesForAnAnonymisers) {
  std::vector<CaseSight> sights = Cohort(2);
  for (CaseSight& sight : sights) sight.files.patient_digest = "5ec2e7";
  sights[0].files.dicom_case = "a";
  sights[1].files.dicom_case = "b";

  CompareCases(sights);

  EXPECT_THAT(FaultsOf(sights[1]), IsEmpty());
}

TEST(CompareCases, FlagsVoxelsOfTwiceTheUsualSizeOnly) {
  std::vector<CaseSight> sights = Cohort(9);
  for (std::size_t i = 0; i < sights.size(); ++i) {
    sights[i].images[0].stored.spacing_mm = {1, 1, i % 2 == 0 ? 3.0 : 3.3};
  }
  sights[4].images[0].stored.spacing_mm = {1, 1, 6.4};

  CompareCases(sights);

  ASSERT_THAT(FaultsOf(sights[4]), ElementsAre(Fault::kSpacing));
  EXPECT_THAT(sights[4].findings[0].reason, HasSubstr("6.4 mm along z"));
  EXPECT_THAT(sights[3].findings, IsEmpty());
}

TEST(CompareCases, ComparesWhatAnImageStandsForWithItsSidecar) {
  std::vector<CaseSight> sights = Cohort(4);
  sights[0].files.sidecar.description = "t1_mprage_sag";
  sights[1].files.sidecar.description = "t2_spc_flair";
  sights[2].files.sidecar.acquisition.modality = "PT";
  sights[3].files.sidecar.description = "pdf report, leadcoil";  // No words of a contrast.

  CompareCases(sights);

  EXPECT_THAT(sights[0].findings, IsEmpty());
  EXPECT_THAT(FaultsOf(sights[1]), ElementsAre(Fault::kModality));
  EXPECT_FALSE(sights[1].quarantined());
  EXPECT_THAT(FaultsOf(sights[2]), ElementsAre(Fault::kModality));
  EXPECT_TRUE(sights[2].quarantined());
  EXPECT_THAT(sights[3].findings, IsEmpty());
}

TEST(Correlation, IsOneUnderPositiveScaleAndBiasAndMinusOneUnderNegative) {
  const Picture picture = PictureOf(1, 0.5);
  Picture scaled = picture;
  for (float& block : scaled) block = -3 * block + 7;

  EXPECT_NEAR(Correlation(picture, picture), 1, 1e-6);
  EXPECT_NEAR(Correlation(picture, scaled), -1, 1e-6);
}

TEST(Correlation, IsZeroForAFlatPictureAndForTooFewCommonBlocks) {
  Picture few = PictureOf(1, 0.5);
  for (std::size_t block = 20; block < few.size(); ++block) few[block] = NAN;
  PictureMaker flat({8, 8, 8});
  for (std::size_t block = 0; block < 512; ++block) flat.Add(block, 5);

  EXPECT_EQ(Correlation(PictureOf(2, 0.5), few), 0);
  EXPECT_EQ(Correlation(PictureOf(2, 0.5), flat.Finish(0)), 0);
}

}  // namespace
}  // namespace isoscan
