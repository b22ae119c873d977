#include "client/simulation/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

/// CSF and grey matter for white matter = 100, and the residual of the best affine map onto E, as
/// an independent program computes them from the same parameters (docs/simulation.md).
struct Row {
  const char* letter;
  double csf;
  double grey;
  double residual;
};
constexpr Row kTable[] = {{"A", 29.9, 74.3, 0.10},   {"B", 54.4, 92.2, 0.38},
                          {"C", 54.1, 88.5, 0.27},   {"D", 19.6, 73.3, 0.15},
                          {"E", 15.6, 63.0, 0.00},   {"F", 16.9, 65.7, 0.04},
                          {"G", 9.4, 112.6, 0.69},   {"H", 23.7, 118.5, 0.76},
                          {"I", 362.6, 143.5, 0.38}, {"J", 316.2, 155.7, 0.26}};

TEST(Protocol, ShowsWhatTheTableSays) {
  const auto reference = FindProtocol("E");
  ASSERT_OK(reference);
  for (const Row& row : kTable) {
    const auto protocol = FindProtocol(row.letter);
    ASSERT_OK(protocol);
    const TissueTable& tissues = TissuesAt(protocol->field);
    const double white = Signal(tissues[IndexOf(Tissue::kWhite)], *protocol);

    EXPECT_NEAR(100 * Signal(tissues[IndexOf(Tissue::kCsf)], *protocol) / white, row.csf, 0.05)
        << row.letter;
    EXPECT_NEAR(100 * Signal(tissues[IndexOf(Tissue::kGrey)], *protocol) / white, row.grey, 0.05)
        << row.letter;
    EXPECT_NEAR(AffineResidual(*protocol, *reference), row.residual, 0.005) << row.letter;
  }
}

TEST(Protocol, IsFoundByLetterAndByName) {
  const auto by_name = FindProtocol("3T-mprage");

  ASSERT_OK(by_name);
  EXPECT_EQ(by_name->letter, "E");
  EXPECT_EQ(Protocols().size(), 10);
  EXPECT_THAT(FindProtocol("7T-mprage"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3T-mprage (E)")));
}

TEST(Protocol, HasTheContrastOfItsSequence) {
  EXPECT_EQ(ContrastOf(*FindProtocol("A")), "T1w");
  EXPECT_EQ(ContrastOf(*FindProtocol("F")), "T1w");
  EXPECT_EQ(ContrastOf(*FindProtocol("H")), "FLAIR");
  EXPECT_EQ(ContrastOf(*FindProtocol("I")), "T2w");
  EXPECT_EQ(NoiseReference(*FindProtocol("E")), Tissue::kWhite);
  EXPECT_EQ(NoiseReference(*FindProtocol("J")), Tissue::kCsf);
}

TEST(Protocol, TellsASidecarItsTimingInSeconds) {
  const std::string mprage = SidecarMembers(*FindProtocol("E"));
  EXPECT_THAT(mprage, HasSubstr("\"MagneticFieldStrength\": 3,"));
  EXPECT_THAT(mprage, HasSubstr("\"RepetitionTime\": 2.3,"));
  EXPECT_THAT(mprage, HasSubstr("\"RepetitionTimeExcitation\": 0.0068,"));
  EXPECT_THAT(mprage, HasSubstr("\"EchoTime\": 0.003,"));
  EXPECT_THAT(mprage, HasSubstr("\"InversionTime\": 0.9,"));
  EXPECT_THAT(mprage, HasSubstr("\"FlipAngle\": 9"));
  EXPECT_THAT(SidecarMembers(*FindProtocol("B")), HasSubstr("\"RepetitionTime\": 0.009813,"));
  EXPECT_THAT(SidecarMembers(*FindProtocol("G")), HasSubstr("\"InversionTime\": 1.76,"));
}

TEST(AffineResidual, IsNothingForAProtocolOntoItself) {
  for (const Protocol& protocol : Protocols()) {
    EXPECT_NEAR(AffineResidual(protocol, protocol), 0, 1e-7) << protocol.name;
  }
}

}  // namespace
}  // namespace isoscan
