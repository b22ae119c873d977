#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr HeldOutRule kHash{.kind = HeldOutRule::Kind::kHash, .fraction = 0.2, .every = 5};
constexpr HeldOutRule kEvery{.kind = HeldOutRule::Kind::kEvery, .fraction = 0.2, .every = 5};
constexpr HeldOutRule kList{.kind = HeldOutRule::Kind::kList, .fraction = 0.2, .every = 5};

CaseFiles Case(const std::string& name, const std::string& cohort = "",
               const std::string& patient = "") {
  CaseFiles files;
  files.name = name;
  files.cohort = cohort;
  files.patient = patient;
  return files;
}

std::vector<CaseFiles> Cases(int count) {
  std::vector<CaseFiles> cases;
  for (int i = 0; i < count; ++i) cases.push_back(Case("case-" + std::to_string(1000 + i)));
  return cases;
}

TEST(HeldOutByHash, TakesAboutTheFractionAsked) {
  ASSERT_OK_AND_ASSIGN(const auto held_out, HeldOut(Cases(2000), kHash, {}));

  const auto count = std::count(held_out.begin(), held_out.end(), true);
  EXPECT_NEAR(static_cast<double>(count), 400, 4 * std::sqrt(2000 * 0.2 * 0.8));
}

TEST(HeldOutByHash, NeverMovesACaseWhenOthersJoin) {
  ASSERT_OK_AND_ASSIGN(const auto before, HeldOut(Cases(50), kHash, {}));
  ASSERT_OK_AND_ASSIGN(const auto after, HeldOut(Cases(500), kHash, {}));

  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
}

TEST(HeldOutByHash, OnlyAddsCasesWhenTheFractionGrows) {
  HeldOutRule greater = kHash;
  greater.fraction = 0.5;
  ASSERT_OK_AND_ASSIGN(const auto fifth, HeldOut(Cases(100), kHash, {}));
  ASSERT_OK_AND_ASSIGN(const auto half, HeldOut(Cases(100), greater, {}));

  for (std::size_t i = 0; i < fifth.size(); ++i) EXPECT_LE(fifth[i], half[i]);
}

// The rule is part of the study, so its bits are fixed. Python: int(hashlib.sha256(name.encode())
// .hexdigest()[:13], 16) / 16**13 < 0.2.
TEST(HeldOutByHash, IsTheSha256OfTheName) {
  std::vector<std::string> held_out_names;
  ASSERT_OK_AND_ASSIGN(const auto held_out, HeldOut(Cases(12), kHash, {}));
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    if (held_out[i]) held_out_names.push_back(Cases(12)[i].name);
  }

  EXPECT_THAT(held_out_names,
              ElementsAre("case-1000", "case-1001", "case-1002", "case-1004", "case-1011"));
}

TEST(HeldOutByHash, KeepsThePatientOnOneSide) {
  std::vector<CaseFiles> cases;
  for (int i = 0; i < 60; ++i) {
    const std::string patient = "sub-" + std::to_string(i / 3);
    cases.push_back(Case(patient + "_run-" + std::to_string(i % 3), "", patient));
  }

  for (const HeldOutRule& rule : {kHash, kEvery}) {
    ASSERT_OK_AND_ASSIGN(const auto held_out, HeldOut(cases, rule, {}));
    for (std::size_t i = 0; i < cases.size(); i += 3) {
      EXPECT_EQ(held_out[i], held_out[i + 1]);
      EXPECT_EQ(held_out[i], held_out[i + 2]);
    }
  }
}

// Of DICOM, which has no name for a patient that stays the same when others arrive.
TEST(HeldOutByHash, GoesByThePatientsFractionWhereThereIsOne) {
  std::vector<CaseFiles> cases = Cases(4);
  cases[0].patient_fraction = 0.19;  // case-1000 to case-1002 are held out by name.
  cases[1].patient_fraction = 0.2;
  cases[2].patient_fraction = 0.99;
  cases[3].patient_fraction = 0;

  EXPECT_THAT(HeldOut(cases, kHash, {}), IsOkAndHolds(ElementsAre(true, false, false, true)));
}

TEST(HeldOutByCount, TakesEveryKthOfEachCohort) {
  std::vector<CaseFiles> cases;
  for (const char* cohort : {"a", "b"}) {
    for (const char* name : {"1", "2", "3", "4", "5", "6"}) cases.push_back(Case(name, cohort));
  }

  ASSERT_OK_AND_ASSIGN(const auto held_out, HeldOut(cases, kEvery, {}));

  EXPECT_THAT(held_out, ElementsAre(true, false, false, false, false, true,  //
                                    true, false, false, false, false, true));
}

TEST(HeldOutByList, TakesTheNamedCases) {
  const std::vector<CaseFiles> cases{Case("1", "a"), Case("2", "a"), Case("2", "b")};

  EXPECT_THAT(HeldOut(cases, kList, {"2"}), IsOkAndHolds(ElementsAre(false, true, true)));
  EXPECT_THAT(HeldOut(cases, kList, {"b/2"}), IsOkAndHolds(ElementsAre(false, false, true)));
}

TEST(HeldOutByList, NamesACaseThatIsNotThere) {
  EXPECT_THAT(HeldOut(Cases(3), kList, {"case-1001", "case-9"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"case-9\"")));
}

TEST(HeldOutByList, RefusesToSplitAPatient) {
  const std::vector<CaseFiles> cases{Case("x_run-1", "", "x"), Case("x_run-2", "", "x"),
                                     Case("y", "", "y")};

  EXPECT_THAT(HeldOut(cases, kList, {"x_run-1"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"x_run-2\"")));
}

TEST(HeldOut, NeedsCasesOnBothSides) {
  HeldOutRule all = kHash;
  all.fraction = 1;

  EXPECT_THAT(HeldOut(Cases(4), all, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4 of this site's 4 cases")));
  EXPECT_THAT(HeldOut(Cases(4), kList, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 of this site's 4 cases")));
}

}  // namespace
}  // namespace isoscan
