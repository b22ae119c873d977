#include "client/hospital_client.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/approved_studies.h"
#include "client/imaging/image_file.h"
#include "client/site_certificate.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "common/study/initial_weights.h"
#include "common/transfer/chunks.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/federation/hospital_client_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Kind = SiteAssignment::Kind;

TEST_F(HospitalClientTest, ScoresTrainsAndHandsInARound) {
  session_.Ask({Assignment(Kind::kTrain, 2)});

  ASSERT_OK(Run());

  ASSERT_THAT(training_.tasks, SizeIs(1));
  EXPECT_EQ(training_.tasks[0].first_step, 3);
  EXPECT_EQ(training_.tasks[0].steps, 3);
  EXPECT_EQ(training_.tasks[0].total_steps, 6);
  EXPECT_EQ(training_.tasks[0].random_stream, "north");
  ASSERT_THAT(session_.updates, SizeIs(1));
  const RoundUpdate& update = session_.updates[0];
  EXPECT_EQ(update.round, 2);
  EXPECT_EQ(update.training_cases, 4);
  EXPECT_EQ(update.steps, 3);
  ASSERT_THAT(update.model_scores, SizeIs(2));
  EXPECT_EQ(update.model_scores[1].index, 1);
  EXPECT_EQ(update.model_scores[1].labels[0].dice(), 1.0);
  EXPECT_THAT(session_.uploaded_digests, ElementsAre(update.weights_digest));
}

TEST_F(HospitalClientTest, NamesOneCheckpointForARoundUntilItsUpdateIsKept) {
  const fs::path checkpoint = SiteStateFolder(config_.state).Checkpoint(study_.name, 2, model_);
  config_.checkpoint.every_steps = 7;
  session_.Ask({Assignment(Kind::kTrain, 2)});
  fs::create_directories(checkpoint.parent_path());
  const fs::path of_another_round = checkpoint.parent_path() / "1-0123456789abcdef.safetensors";
  const fs::path half_written = checkpoint.string() + ".tmp-0a0b0c0d";
  for (const fs::path& file : {checkpoint, of_another_round, half_written}) {
    ASSERT_OK(WriteFileAtomically(file, "weights"));
  }
  std::vector<fs::path> while_training;
  training_.on_train = [&] {
    for (const auto& entry : fs::directory_iterator(checkpoint.parent_path())) {
      while_training.push_back(entry.path());
    }
  };
  bool when_handed_in = true;
  session_.on_update = [&](const RoundUpdate&) {
    when_handed_in = fs::exists(checkpoint);
    session_.Ask({Ended()});
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  ASSERT_THAT(training_.tasks, SizeIs(1));
  EXPECT_EQ(training_.tasks[0].checkpoint.file, checkpoint);
  EXPECT_EQ(training_.tasks[0].checkpoint.every_steps, 7);
  EXPECT_THAT(while_training, ElementsAre(checkpoint));
  EXPECT_FALSE(when_handed_in);
}

TEST_F(HospitalClientTest, PreparesACaseOnceHoweverOftenItStarts) {
  Volume other = Ramp(8);
  other.voxels[100] = 50;
  ASSERT_OK(WriteVolume(folder_.path() / "cohort/imagesTr/case_1_0000.nii.gz", other));
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));
  const auto prepare = [&] {
    PreparedCache cache(config_.state / "prepared", 0, [](const absl::Status&) {});
    return PrepareStudyCohort(
        cases, study_, {}, [](std::int64_t, std::int64_t) {}, &cache);
  };
  ASSERT_OK_AND_ASSIGN(const StudyCohort first, prepare());
  // What is kept of a case is taken, not what its files would give.
  PreparedCache cache(config_.state / "prepared", 0, [](const absl::Status&) {});
  std::optional<CachedCase> kept = cache.Find(cases.files[1], study_);
  ASSERT_TRUE(kept.has_value());
  std::vector<float> image = kept->prepared.image.Copy();
  image[5] = 77;
  kept->prepared.image = std::move(image);
  cache.Keep(cases.files[1], study_, *kept);

  ASSERT_OK_AND_ASSIGN(const StudyCohort second, prepare());

  EXPECT_EQ(second.training[0].image[5], 77);
  EXPECT_EQ(second.training[1].image, first.training[1].image);
  EXPECT_EQ(second.held_out[1].labels, first.held_out[1].labels);
  EXPECT_EQ(second.declaration.raw.counts, first.declaration.raw.counts);
}

TEST_F(HospitalClientTest, GoesOnInMemoryWhenTheDiskIsFullAsLongAsThatIsEnough) {
  ASSERT_OK_AND_ASSIGN(SiteCases cases, ListSiteCases(config_, study_));
  const auto prepare = [&](std::vector<std::string>& troubles) {
    PreparedCache cache(
        config_.state / "prepared", static_cast<std::int64_t>(fs::space(config_.state).capacity),
        [&](const absl::Status& trouble) { troubles.push_back(trouble.ToString()); });
    return PrepareStudyCohort(
        cases, study_, {}, [](std::int64_t, std::int64_t) {}, &cache);
  };
  std::vector<std::string> troubles;
  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort, prepare(troubles));
  EXPECT_THAT(troubles, ElementsAre(HasSubstr("stay in memory")));
  EXPECT_THAT(cohort.training, SizeIs(4));
  EXPECT_EQ(cohort.declaration.training_cases, 4);
  EXPECT_TRUE(cohort.missing_labels.empty());

  // Of 2 TB, none of which is written.
  const fs::path file = folder_.path() / "huge.nii";
  ASSERT_OK(WriteVolume(file, Ramp(8)));
  const std::vector<std::int16_t> size{10'000, 10'000, 5'000};
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(42)
      .write(reinterpret_cast<const char*>(size.data()), 6);
  fs::resize_file(file, 352 + std::uintmax_t{4} * 10'000 * 10'000 * 5'000);
  cases.files[4].images = {file};
  EXPECT_THAT(prepare(troubles), StatusIs(absl::StatusCode::kResourceExhausted,
                                          HasSubstr("the disk takes no more prepared cases")));
  EXPECT_LT(EstimateCohortMemory(cases, study_, CasePlace::kMapped),
            EstimateCohortMemory(cases, study_, CasePlace::kMemory));
}

TEST_F(HospitalClientTest, KeepsPreparedCasesUntilTheStudyIsOverUnlessToldNotTo) {
  for (const bool wanted : {true, false}) {
    config_.cache_cases = wanted;
    std::size_t kept = 0;
    training_.on_train = [&] { kept = FilesIn("prepared"); };
    session_.Ask({Assignment(Kind::kTrain, 1)});

    ASSERT_OK(Run());

    EXPECT_EQ(kept, wanted ? 1U : 0U);  // All six are the same scan.
    EXPECT_EQ(FilesIn("prepared"), 0U);
  }
}

TEST_F(HospitalClientTest, NeedsMoreThanOneCaseAndSaysSo) {
  for (int number = 1; number < 6; ++number) {
    fs::remove(folder_.path() / fmt::format("cohort/imagesTr/case_{}_0000.nii.gz", number));
    fs::remove(folder_.path() / fmt::format("cohort/labelsTr/case_{}.nii.gz", number));
  }
  session_.Ask({Assignment(Kind::kTrain, 1)});

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("this site has one case, and two are the fewest")));
  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, TrainsOnCasesThatLackALabel) {
  LabelMap nothing{.geometry = Ramp(8).geometry, .voxels = std::vector<std::uint8_t>(512)};
  for (int number = 0; number < 6; ++number) {
    ASSERT_OK(WriteLabelMap(folder_.path() / fmt::format("cohort/labelsTr/case_{}.nii.gz", number),
                            nothing));
  }
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));
  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));
  EXPECT_THAT(cohort.missing_labels, ElementsAre("blob"));
  ASSERT_THAT(session_.updates, SizeIs(1));
  EXPECT_EQ(session_.updates[0].training_cases, 4);
  EXPECT_EQ(session_.updates[0].model_scores[0].labels[0].reference_voxels, 0);
}

TEST_F(HospitalClientTest, WorksOnWhereAnotherApprovedStudyCannotBeRead) {
  ASSERT_OK(WriteFileAtomically(SiteStateFolder(config_.state).approved() / "old.toml",
                                "name = \"old\"\n[preprocessing]\nmask = \"whole\"\n"));
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_THAT(session_.updates, SizeIs(1));
}

TEST_F(HospitalClientTest, LeavesNoWeightsBehindWhenTheStudyHasEnded) {
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_EQ(FilesIn("models"), 0);
  EXPECT_EQ(FilesIn("updates"), 0);
}

TEST_F(HospitalClientTest, KeepsOnlyTheModelOfTheOpenRound) {
  const std::string first = model_;
  session_.Ask({Assignment(Kind::kTrain, 1)});
  std::size_t kept = 0;
  session_.on_update = [&](const RoundUpdate& update) {
    if (update.round == 1) {
      NamedTensors next = InitialWeights(study_);
      next.begin()->second.values.front() += 1;
      model_ = Offer(next);
      session_.Ask({Assignment(Kind::kTrain, 2)});
    } else {
      kept = FilesIn("models");
      session_.Ask({Ended()});
    }
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  EXPECT_NE(model_, first);
  EXPECT_EQ(session_.downloads, 2);
  EXPECT_EQ(kept, 1);
}

TEST_F(HospitalClientTest, RefusesWorkOnATextThatTheSiteHasNotApproved) {
  SiteAssignment other = Assignment(Kind::kTrain, 1);
  other.study_digest = Sha256Of("another text under the same name");
  session_.Ask({other, Ended()});

  ASSERT_OK(Run());

  EXPECT_EQ(session_.downloads, 0);
  EXPECT_THAT(training_.tasks, IsEmpty());
  EXPECT_THAT(session_.updates, IsEmpty());
}

TEST_F(HospitalClientTest, RefusesWorkOnAStudyThatWouldLeaveTheStateFolder) {
  SiteAssignment evil = Assignment(Kind::kTrain, 1);
  evil.study = "../../blobs";
  session_.Ask({evil, Ended()});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, RefusesWorkThatTheApprovedStudyDoesNotHave) {
  const SiteAssignment early_scores = Assignment(Kind::kScore, 2);
  session_.Ask({Assignment(Kind::kTrain, 3), Assignment(Kind::kTrain, 0), early_scores, Ended()});

  ASSERT_OK(Run());

  EXPECT_EQ(session_.downloads, 0);
  EXPECT_THAT(training_.tasks, IsEmpty());
  EXPECT_THAT(session_.scores, IsEmpty());
}

TEST_F(HospitalClientTest, EndsEarlyOnlyWhereTheStudyHasPatienceAndNoSoonerThanThat) {
  std::string text = kStudyText;
  text.replace(text.find("rounds = 2"), 10, "rounds = 10\npatience = 3");
  ASSERT_NO_FATAL_FAILURE(Approve(text));
  session_.on_scores = [this] { session_.Ask({Ended()}); };
  session_.Ask({Assignment(Kind::kScore, 4), Assignment(Kind::kScore, 12), Ended()});
  ASSERT_OK(Run());
  EXPECT_THAT(session_.scores, IsEmpty());

  session_.Ask({Assignment(Kind::kLocalOnly, 5)});
  ASSERT_OK(Run());

  ASSERT_THAT(session_.scores, SizeIs(1));
  ASSERT_THAT(training_.tasks, SizeIs(1));
  EXPECT_EQ(training_.tasks[0].steps, 12) << "as many as the four rounds had";
  EXPECT_EQ(training_.tasks[0].total_steps, 30) << "the rate falls as in the study";
}

TEST_F(HospitalClientTest, RefusesAModelThatIsLargerThanTheStudysCanBe) {
  SiteAssignment huge = Assignment(Kind::kTrain, 1);
  huge.model_bytes = std::numeric_limits<std::int64_t>::max();
  session_.Ask({huge, Ended()});

  ASSERT_OK(Run());

  EXPECT_EQ(session_.downloads, 0);
  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, PutsAnUnusableCaseAsideAndGoesOnWithTheRest) {
  Volume broken = Ramp(8);
  broken.voxels[7] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK(WriteVolume(folder_.path() / "cohort/imagesTr/case_1_0000.nii.gz", broken));
  ASSERT_OK(WriteVolume(folder_.path() / "cohort/imagesTr/case_3_0000.nii.gz", Ramp(9)));
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  ASSERT_THAT(session_.updates, SizeIs(1));
  EXPECT_EQ(session_.updates[0].training_cases, 3);
  EXPECT_THAT(session_.updates[0].model_scores, SizeIs(1));
}

TEST_F(HospitalClientTest, NamesARefusedCaseAndItsReasonForTheSite) {
  ASSERT_OK(WriteVolume(folder_.path() / "cohort/imagesTr/case_3_0000.nii.gz", Ramp(9)));
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));

  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  ASSERT_THAT(cohort.refused, SizeIs(1));
  EXPECT_EQ(cohort.refused[0].index, 3);
  EXPECT_TRUE(cohort.refused[0].held_out);
  EXPECT_THAT(cohort.refused[0].reason, HasSubstr("case_3"));
  EXPECT_EQ(cohort.declaration.refused_cases, 1);
  EXPECT_EQ(cohort.declaration.training_cases, 4);
}

TEST_F(HospitalClientTest, CountsEveryVoxelOfSmallCasesInBothHistograms) {
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));

  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  for (const IntensityHistogram* histogram :
       {&cohort.declaration.raw, &cohort.declaration.harmonized}) {
    std::int64_t sum = 0;
    for (const std::int64_t count : histogram->counts) sum += count;
    EXPECT_EQ(sum, 6 * 512);
    EXPECT_THAT(histogram->counts, SizeIs(64));
  }
  EXPECT_EQ(cohort.declaration.harmonized.low, -4);
  EXPECT_EQ(cohort.declaration.harmonized.high, 6);
  EXPECT_EQ(cohort.declaration.raw.low, 0);
  EXPECT_EQ(cohort.declaration.raw.high, 96);
}

TEST_F(HospitalClientTest, CountsHarmonisedIntensitiesWhereTheNormaliserPutsThem) {
  // The cohort's intensities rise evenly: none of these ranges may collect them at its ends.
  const std::string standard = "standard = [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]\n";
  for (const std::string& lines :
       {std::string("normalize = \"zscore\"\n"), "normalize = \"nyul\"\n" + standard,
        std::string("normalize = \"fcm\"\n"),
        std::string("normalize = \"lsq\"\nstandard = [1, 2, 3]\n")}) {
    Approve(std::string(kStudyText) + "[harmonization]\n" + lines);
    ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));
    ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                         PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

    const IntensityHistogram& histogram = cohort.declaration.harmonized;
    ASSERT_THAT(histogram.counts, SizeIs(64)) << lines;
    EXPECT_LT(histogram.counts.front() + histogram.counts.back(), 6 * 512 / 10) << lines;
    EXPECT_GT(std::count_if(histogram.counts.begin(), histogram.counts.end(),
                            [](std::int64_t count) { return count > 0; }),
              10)
        << lines;
  }
}

TEST_F(HospitalClientTest, SendsNoHistogramOfIntensitiesThatNothingNormalises) {
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"none\"\n");
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));
  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  EXPECT_THAT(cohort.declaration.harmonized.counts, IsEmpty());
  EXPECT_THAT(cohort.declaration.raw.counts, SizeIs(64));
}

TEST(HarmonizedRange, FollowsFromTheNormaliserAlone) {
  using Normalizer = HarmonizationPlan::Normalizer;
  for (const Normalizer normalizer :
       {Normalizer::kInstance, Normalizer::kZScore, Normalizer::kNyul, Normalizer::kWhiteStripe,
        Normalizer::kKde, Normalizer::kFcm, Normalizer::kLsq}) {
    const std::optional<HistogramRange> range = HarmonizedRange(normalizer);
    ASSERT_TRUE(range.has_value()) << ToString(normalizer);
    EXPECT_LT(range->low, range->high) << ToString(normalizer);
  }
  EXPECT_FALSE(HarmonizedRange(Normalizer::kNone).has_value());
}

TEST_F(HospitalClientTest, HarmonisesByTheStandardThatTheServerFixed) {
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"nyul\"\n");
  Study used = study_;
  used.harmonization.standard = {1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 500};
  session_.studies[0].standard = used.harmonization.standard;
  NamedTensors trained = InitialWeights(study_);
  // The initial model, of round 0, does not know the standard yet; that of round 1 has it.
  for (const int round : {1, 2}) {
    if (round == 2) model_ = Offer(trained, WeightsMetadataOf(used, /*round=*/1));
    session_.Ask({Assignment(Kind::kTrain, round)});
    ASSERT_OK(Run());

    ASSERT_THAT(session_.updates, SizeIs(round));
    EXPECT_GT(training_.highest, 500) << "by the site's own mean little more than 100";
    for (auto& [name, tensor] : trained) {
      for (float& value : tensor.values) value += 1;
    }
    EXPECT_EQ(session_.uploaded_digests.back(),
              Sha256Of(EncodeSafetensors(trained, WeightsMetadataOf(used, round))));
  }
}

TEST_F(HospitalClientTest, TrainsOnNoModelOfAnotherStandard) {
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"lsq\"\n");
  session_.studies[0].standard = {1, 2, 3};
  Study other = study_;
  other.harmonization.standard = {1, 2, 4};
  model_ = Offer(InitialWeights(study_), WeightsMetadataOf(other, /*round=*/1));
  session_.Ask({Assignment(Kind::kTrain, 2), Ended()});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, TakesNoStandardOfAnotherLength) {
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"lsq\"\n");
  session_.studies[0].standard = {1, 2};
  session_.Ask({Assignment(Kind::kTrain, 1)});

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDataLoss,
                              HasSubstr("standard of study blobs has 2 numbers, expected 3")));
}

TEST_F(HospitalClientTest, DeclaresASumForTheStandardOnlyOverEnoughCases) {
  const auto declared = [this](int every) {
    study_.held_out.every = every;
    const absl::StatusOr<SiteCases> cases = ListSiteCases(config_, study_);
    EXPECT_OK(cases);
    const absl::StatusOr<StudyCohort> cohort =
        PrepareStudyCohort(*cases, study_, {}, [](std::int64_t, std::int64_t) {});
    EXPECT_OK(cohort);
    return cohort->declaration.standard;
  };
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"nyul\"\n");
  EXPECT_EQ(declared(/*every=*/3), CaseSum()) << "of four training cases";

  const CaseSum sum = declared(/*every=*/6);

  EXPECT_EQ(sum.cases, 5);
  ASSERT_THAT(sum.sum, SizeIs(11));
  EXPECT_DOUBLE_EQ(sum.sum.front(), 5 * 1);
  EXPECT_DOUBLE_EQ(sum.sum.back(), 5 * 100);
  study_.harmonization.standard = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  EXPECT_EQ(declared(/*every=*/6), CaseSum()) << "where the study gives the standard";
}

TEST_F(HospitalClientTest, DeclaresNoSumOfACaseThatItRefuses) {
  Approve(std::string(kStudyText) + "[harmonization]\nnormalize = \"nyul\"\n");
  study_.held_out.every = 6;
  study_.harmonization.mask = HarmonizationPlan::Mask::kGiven;
  study_.harmonization.outside = HarmonizationPlan::Outside::kZero;
  const fs::path masks = folder_.path() / "cohort/masksTr";
  fs::create_directories(masks);
  LabelMap mask{.geometry = Ramp(8).geometry, .voxels = std::vector<std::uint8_t>(512, 1)};
  for (int number = 0; number < 6; ++number) {
    // The last mask would erase the labels: the case has percentiles, but cannot be used.
    if (number == 5) std::fill_n(mask.voxels.begin(), 256, std::uint8_t{0});
    ASSERT_OK(WriteLabelMap(masks / fmt::format("case_{}.nii.gz", number), mask));
  }
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));

  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  EXPECT_THAT(cohort.refused, SizeIs(1));
  EXPECT_EQ(cohort.declaration.training_cases, 4);
  EXPECT_EQ(cohort.declaration.standard, CaseSum());
}

constexpr char kDraftText[] = R"(name = "blobs"
channels = ["T1w"]
labels = ["blob"]
[held_out]
rule = "every"
every = 6
[harmonization]
normalize = "nyul"
[planning]
)";

TEST_F(HospitalClientTest, DeclaresTheFingerprintOfADraftAndNothingElseOfItsCases) {
  Approve(kDraftText);
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));

  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  const CohortDeclaration& declaration = cohort.declaration;
  EXPECT_EQ(declaration.training_cases, 5);
  EXPECT_EQ(declaration.held_out_cases, 1);
  EXPECT_THAT(declaration.raw.counts, IsEmpty());
  EXPECT_THAT(declaration.harmonized.counts, IsEmpty());
  EXPECT_EQ(declaration.standard, CaseSum());
  ASSERT_TRUE(declaration.fingerprint.has_value());
  EXPECT_EQ(declaration.fingerprint->described_cases(), 5);
  for (const DecimalSketch& size : declaration.fingerprint->size) {
    EXPECT_THAT(size.buckets(), SizeIs(1));
    EXPECT_EQ(size.ValueAt(0), 8);
  }
  EXPECT_THAT(cohort.training[0].image, IsEmpty()) << "no case stays in memory";
  EXPECT_LT(EstimateCohortMemory(cases, study_, CasePlace::kMemory),
            EstimateCohortMemory(cases, *ParseStudy(kStudyText, "study.toml"), CasePlace::kMemory));
}

TEST_F(HospitalClientTest, DeclaresOfADraftOnlyTheNumberOfFewCases) {
  Approve(kDraftText);
  // Of another grid than its labels: it is refused, which leaves four for training.
  ASSERT_OK(WriteVolume(folder_.path() / "cohort/imagesTr/case_3_0000.nii.gz", Ramp(9)));
  ASSERT_OK_AND_ASSIGN(const SiteCases cases, ListSiteCases(config_, study_));

  ASSERT_OK_AND_ASSIGN(const StudyCohort cohort,
                       PrepareStudyCohort(cases, study_, {}, [](std::int64_t, std::int64_t) {}));

  ASSERT_TRUE(cohort.declaration.fingerprint.has_value());
  EXPECT_EQ(cohort.declaration.fingerprint->cases, 4);
  EXPECT_EQ(cohort.declaration.fingerprint->described_cases(), 0);
}

TEST_F(HospitalClientTest, DoesNoWorkOnADraft) {
  Approve(kDraftText);
  session_.Ask({Assignment(Kind::kTrain, 1), Ended()});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
  EXPECT_EQ(session_.downloads, 0);
}

TEST_F(HospitalClientTest, SaysWhyWhenNoTrainingCaseIsLeft) {
  for (const int number : {1, 2, 4, 5}) {
    ASSERT_OK(WriteVolume(
        folder_.path() / fmt::format("cohort/imagesTr/case_{}_0000.nii.gz", number), Ramp(9)));
  }
  session_.Ask({Assignment(Kind::kTrain, 1)});

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDataLoss,
                              AllOf(HasSubstr("no training case is left: 4 of 6"),
                                    HasSubstr("isoscan-client inspect"))));
}

TEST_F(HospitalClientTest, DropsWorkThatIsNotAskedForAnyMore) {
  training_.until_stopped = true;
  training_.on_train = [this] { session_.Ask({Ended()}); };
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, SizeIs(1));
  EXPECT_THAT(session_.updates, IsEmpty());
}

TEST_F(HospitalClientTest, StopsWithinAStepAndCanBeRunAgain) {
  std::stop_source stop;
  training_.until_stopped = true;
  training_.on_train = [&] { stop.request_stop(); };
  session_.Ask({Assignment(Kind::kTrain, 1)});

  EXPECT_THAT(Run(stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("goes on from here")));

  training_.until_stopped = false;
  training_.on_train = [] {};
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());
  EXPECT_EQ(session_.downloads, 1);
  EXPECT_THAT(session_.updates, SizeIs(1));
}

TEST_F(HospitalClientTest, SendsATrainedUpdateAfterARestartWithoutTrainingAgain) {
  std::stop_source stop;
  session_.on_update = [&](const RoundUpdate&) {
    stop.request_stop();
    return absl::CancelledError("the client was stopped while it waited for the answer");
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  EXPECT_THAT(Run(stop.get_token()), StatusIs(absl::StatusCode::kCancelled));

  session_.on_update = [this](const RoundUpdate&) {
    session_.Ask({Ended()});
    return absl::OkStatus();
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, SizeIs(1));
  ASSERT_THAT(session_.updates, SizeIs(2));
  EXPECT_EQ(session_.updates[0].weights_digest, session_.updates[1].weights_digest);
  EXPECT_EQ(session_.updates[1].training_cases, 4);
  EXPECT_EQ(session_.updates[1].mean_loss, 0.5);
  EXPECT_THAT(session_.updates[1].model_scores, SizeIs(2));
}

TEST_F(HospitalClientTest, SendsTheLossBeforeTrainingOnlyWhereTheStudyWeighsSitesByIt) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());
  ASSERT_NO_FATAL_FAILURE(Approve(std::string(kStudyText) + "aggregation = \"qfedavg\"\n"));
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());

  ASSERT_THAT(session_.updates, SizeIs(2));
  EXPECT_EQ(session_.updates[0].loss_before, std::nullopt);
  EXPECT_EQ(session_.updates[1].loss_before, 0.75);
}

TEST_F(HospitalClientTest, SendsAnUpdateAgainThatTheServerLost) {
  int asked = 0;
  session_.on_update = [&](const RoundUpdate&) -> absl::Status {
    EXPECT_EQ(FilesIn("updates"), 2U) << "weights and record";
    if (++asked < 3) return absl::DataLossError("damaged on the server's disk: upload them again");
    session_.Ask({Ended()});
    return absl::OkStatus();
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_THAT(session_.uploaded_digests, SizeIs(3));
  EXPECT_THAT(training_.tasks, SizeIs(1)) << "what is trained is not trained again";
}

TEST_F(HospitalClientTest, TrainsAgainWhatItsOwnDiskLost) {
  session_.on_update = [&](const RoundUpdate&) {
    const std::string kept = SiteStateFolder(config_.state).Update(study_.name, 1, model_);
    EXPECT_OK(WriteFileAtomically(kept + ".safetensors", "decayed"));
    return absl::DataLossError("the bytes that arrived have another SHA-256");
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("this site's disk")));

  session_.on_update = [this](const RoundUpdate&) {
    session_.Ask({Ended()});
    return absl::OkStatus();
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, SizeIs(2));
}

TEST_F(HospitalClientTest, WaitsForTheAnswerToAnUpdateThatTheServerHasTakenOffItsList) {
  session_.on_update = [this](const RoundUpdate&) {
    session_.Ask({Ended()});
    session_.WaitUntilHeard();
    return session_.submit_stop().stop_requested() ? absl::CancelledError("cut off")
                                                   : absl::OkStatus();
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_EQ(FilesIn("updates"), 0);
  EXPECT_FALSE(session_.submit_stop().stop_requested());
}

TEST_F(HospitalClientTest, GoesOnAfterAnUpdateThatCameTooLateOrWasRefused) {
  for (const absl::Status& answer :
       {absl::FailedPreconditionError("round 1 is closed"),
        absl::InvalidArgumentError("north: decoder.seg_layers.0.bias has 1 NaN")}) {
    session_.on_update = [&](const RoundUpdate&) {
      session_.Ask({Assignment(Kind::kTrain, 1), Ended()});
      return answer;
    };
    training_.tasks.clear();
    session_.Ask({Assignment(Kind::kTrain, 1)});

    ASSERT_OK(Run());

    EXPECT_THAT(training_.tasks, SizeIs(1));
    EXPECT_EQ(FilesIn("updates"), 0);
  }
}

TEST_F(HospitalClientTest, RefusesAModelOfAnotherNetworkAndGoesOn) {
  NamedTensors other = InitialWeights(study_);
  other.erase(other.begin());
  model_ = Offer(other);
  session_.Ask({Assignment(Kind::kTrain, 1), Ended()});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, RefusesAModelForAnotherHarmonisationAndGoesOn) {
  HarmonizationPlan other;
  other.mask = HarmonizationPlan::Mask::kOtsu;
  for (const WeightsMetadata& metadata : {HarmonizationMetadata(other), WeightsMetadata()}) {
    model_ = Offer(InitialWeights(study_), metadata);
    session_.Ask({Assignment(Kind::kTrain, 1), Ended()});

    ASSERT_OK(Run());

    EXPECT_THAT(training_.tasks, IsEmpty());
    EXPECT_EQ(training_.predictions, 0);
  }
}

TEST_F(HospitalClientTest, SendsAnUpdateThatSaysWhichHarmonisationItIsFor) {
  WeightsMetadata metadata;
  session_.on_update = [&](const RoundUpdate& update) {
    const fs::path folder = config_.state / "updates" / study_.name;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors") continue;
      EXPECT_THAT(Sha256OfFile(entry.path()), IsOkAndHolds(update.weights_digest));
      const auto file = SafetensorsFile::Open(entry.path());
      if (file.ok()) metadata = file->metadata();
    }
    session_.Ask({Ended()});
    return absl::OkStatus();
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  EXPECT_EQ(metadata, WeightsMetadataOf(study_, 1));
}

TEST_F(HospitalClientTest, ScoresTheFinalModelWithoutTraining) {
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
  ASSERT_THAT(session_.scores, SizeIs(1));
  EXPECT_EQ(session_.scores[0].first, Kind::kScore);
  EXPECT_THAT(session_.scores[0].second, SizeIs(2));
}

TEST_F(HospitalClientTest, GoesOnAfterScoresThatCameTooLateOrWereRefused) {
  for (const Kind kind : {Kind::kScore, Kind::kLocalOnly}) {
    for (const absl::Status& answer :
         {absl::FailedPreconditionError("the study is over"),
          absl::InvalidArgumentError("north sent no scores"),
          absl::DataLossError("the message cannot be read"), absl::NotFoundError("no study")}) {
      session_.scores_answer = answer;
      session_.scores.clear();
      session_.Ask({Assignment(kind, 3)});

      EXPECT_OK(Run()) << answer;

      EXPECT_THAT(session_.scores, SizeIs(1));
    }
  }
}

TEST_F(HospitalClientTest, SendsACertificateWhereTheStudyAsksForOne) {
  ASSERT_NO_FATAL_FAILURE(Approve(WithCertificate(2)));
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  EXPECT_THAT(session_.scores, SizeIs(1));
  ASSERT_TRUE(session_.certificate.has_value());
  EXPECT_EQ(session_.certificate->cases, 3);
  EXPECT_TRUE(session_.certificate->holds());
  EXPECT_THAT(session_.certificate->curves, SizeIs(PerturbationTable().size()));
}

TEST_F(HospitalClientTest, SendsNoCertificateOfFewerThanThreeCases) {
  ASSERT_NO_FATAL_FAILURE(Approve(WithCertificate(3)));
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  EXPECT_THAT(session_.scores, SizeIs(1));
  EXPECT_EQ(training_.scores, 0) << "what is not sent need not be made";
  EXPECT_FALSE(session_.certificate.has_value());
}

TEST_F(HospitalClientTest, SendsTheScoresAloneWhenTheCertificateFails) {
  ASSERT_NO_FATAL_FAILURE(Approve(WithCertificate(2)));
  for (const absl::Status& failure :
       {absl::ResourceExhaustedError("no memory"), absl::InternalError("a defect"),
        absl::InvalidArgumentError("no case can be used"), absl::AbortedError("something else")}) {
    training_.scores_answer = failure;
    session_.scores.clear();
    session_.Ask({Assignment(Kind::kScore, 3)});

    ASSERT_OK(Run()) << failure;

    ASSERT_THAT(session_.scores, SizeIs(1)) << failure;
    EXPECT_THAT(session_.scores[0].second, SizeIs(3));
    EXPECT_FALSE(session_.certificate.has_value());
  }
}

TEST_F(HospitalClientTest, SendsTheScoresAloneWhenTheCertificateTakesTooLong) {
  std::string text = WithCertificate(2);
  // A quarter of it is over after the first prediction.
  training_.scores_take = std::chrono::milliseconds(2);
  text += "round_deadline_minutes = 0.0001\nno_progress_minutes = 0.0001\n";
  ASSERT_NO_FATAL_FAILURE(Approve(text));
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  ASSERT_THAT(session_.scores, SizeIs(1));
  EXPECT_THAT(session_.scores[0].second, SizeIs(3));
  EXPECT_FALSE(session_.certificate.has_value());
  EXPECT_LE(training_.scores, 1);
}

TEST_F(HospitalClientTest, HoldsOneTrainerAtATimeAlsoForACertificateInFullPrecision) {
  std::string text = WithCertificate(2);
  text.insert(text.find("batch_size"), "precision = \"mixed\"\n");
  ASSERT_NO_FATAL_FAILURE(Approve(text));
  session_.on_scores = [this] {
    session_.Ask({session_.scores.size() == 1 ? Assignment(Kind::kLocalOnly, 3) : Ended()});
  };
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  ASSERT_THAT(session_.scores, SizeIs(2));
  EXPECT_EQ(session_.scores[1].first, Kind::kLocalOnly);
  EXPECT_GT(training_.scores, 0);
  EXPECT_EQ(training_.most_alive, 1);
}

TEST(SiteCertificate, SendsNoPointOfFewerThanThreeCases) {
  InvarianceCertificate certificate{.cases = 3};
  certificate.curves = {
      {Perturbation::kGamma, {{.amount = 0.5, .cases = 2}, {.amount = 1, .cases = 3}}}};

  const std::optional<InvarianceCertificate> sent = SendableCertificate(certificate);

  ASSERT_TRUE(sent.has_value());
  ASSERT_THAT(sent->curves[0].points, SizeIs(1));
  EXPECT_EQ(sent->curves[0].points[0].amount, 1);
}

TEST(SiteCertificate, SendsNoDiceThatIsAMeanOverFewerThanThreeCases) {
  const auto with_dice = [](std::initializer_list<double> of_cases) {
    std::vector<CaseFindings> cases;
    for (const double dice : of_cases) {
      CaseFindings& findings = cases.emplace_back();
      for (const PerturbationFacts& facts : PerturbationTable()) {
        for (const double amount : facts.amounts) {
          findings.perturbed.push_back({facts.perturbation, amount, true, 0.25, dice});
        }
      }
    }
    return *SendableCertificate(Summarize(cases));
  };
  const double none = std::numeric_limits<double>::quiet_NaN();

  const DegradationPoint few = with_dice({0.5, none, none, 0.75}).curves[0].points[0];
  EXPECT_EQ(few.cases, 4);
  EXPECT_EQ(few.flipped, 0.25);
  EXPECT_TRUE(std::isnan(few.dice)) << few.dice;

  EXPECT_EQ(with_dice({0.5, none, 0.5, 0.75}).curves[0].points[0].dice, 1.75 / 3);
}

TEST_F(HospitalClientTest, TrainsAloneAsManyStepsAsTheStudyHadAndSendsNoWeights) {
  session_.Ask({Assignment(Kind::kLocalOnly, 3)});

  ASSERT_OK(Run());

  ASSERT_THAT(training_.tasks, SizeIs(1));
  EXPECT_EQ(training_.tasks[0].first_step, 0);
  EXPECT_EQ(training_.tasks[0].steps, 6);
  EXPECT_EQ(training_.tasks[0].total_steps, 6);
  EXPECT_THAT(session_.uploaded_digests, IsEmpty());
  ASSERT_THAT(session_.scores, SizeIs(1));
  EXPECT_EQ(session_.scores[0].first, Kind::kLocalOnly);
  EXPECT_EQ(training_.weights.at(0), InitialWeights(study_));
}

TEST_F(HospitalClientTest, StartsFromTheWeightsThatTheStudyNamesAndFromNoOthers) {
  Study trained_elsewhere = study_;
  trained_elsewhere.seed = 77;
  const NamedTensors imported = InitialWeights(trained_elsewhere);
  std::string text = kStudyText;
  ASSERT_NO_FATAL_FAILURE(Approve(text.insert(
      text.find("[training]"), "initial_weights = \"" + WeightsDigest(imported) + "\"\n")));
  const std::string drawn = model_;
  const std::string named = Offer(imported);
  const SiteAssignment first{Assignment(Kind::kTrain, 1)};
  const SiteAssignment alone{Assignment(Kind::kLocalOnly, 3)};
  for (SiteAssignment assignment : {first, alone}) {
    training_ = {};
    assignment.model_digest = named;
    session_.Ask({assignment});

    ASSERT_OK(Run());

    ASSERT_THAT(training_.tasks, SizeIs(1));
    EXPECT_EQ(training_.weights.at(0), imported);
  }
  session_.on_scores = [] { ADD_FAILURE() << "scored what nobody approved"; };
  for (SiteAssignment assignment : {first, alone}) {
    training_ = {};
    assignment.model_digest = drawn;
    session_.Ask({assignment, Ended()});

    ASSERT_OK(Run());

    EXPECT_THAT(training_.tasks, IsEmpty());
  }
}

TEST_F(HospitalClientTest, RefusesWorkThatNeedsMoreMemoryThanThereIs) {
  training_.memory_bytes = std::int64_t{1} << 50;
  session_.Ask({Assignment(Kind::kTrain, 1)});

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("study blobs")));
  EXPECT_THAT(training_.tasks, IsEmpty());
}

TEST_F(HospitalClientTest, RunsOncePerStateFolder) {
  ASSERT_OK_AND_ASSIGN(const SiteStateFolder::Lock lock, SiteStateFolder(config_.state).Acquire());

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                              HasSubstr("another isoscan-client runs on")));
}

TEST_F(HospitalClientTest, SaysThatItsStateFolderCannotBeWrittenTo) {
  EXPECT_OK(SiteStateFolder(config_.state).TryToWrite());
  EXPECT_EQ(std::distance(fs::directory_iterator(config_.state), fs::directory_iterator()), 1)
      << "something was left beside `approved`";
  config_.state = folder_.path() / "cohort" / "dataset.json" / "state";

  const auto named = StatusIs(absl::StatusCode::kNotFound,
                              HasSubstr("Not a directory; `state` in client.toml says where"));
  EXPECT_THAT(SiteStateFolder(config_.state).TryToWrite(), named);
  EXPECT_THAT(Run(), named);
}

TEST_F(HospitalClientTest, KeepsItsStateFromOtherUsersOfTheMachine) {
  ASSERT_OK_AND_ASSIGN(const SiteStateFolder::Lock lock, SiteStateFolder(config_.state).Acquire());

  EXPECT_EQ(fs::status(config_.state).permissions(), fs::perms::owner_all);
}

TEST_F(HospitalClientTest, RefusesACertificateOfAnotherSite) {
  session_.site = "south";

  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                              AllOf(HasSubstr("south"), HasSubstr("north"))));
}

TEST_F(HospitalClientTest, EndsAtOnceWhenEveryApprovedStudyIsOver) {
  session_.studies[0].phase = OfferedStudy::Phase::kFinished;

  EXPECT_OK(Run());
}

TEST_F(HospitalClientTest, SaysThatNothingIsApproved) {
  ASSERT_OK(ApprovedStudies(SiteStateFolder(config_.state).approved()).Remove(study_.name));

  EXPECT_THAT(Run(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("study approve NAME")));
}

}  // namespace
}  // namespace isoscan
