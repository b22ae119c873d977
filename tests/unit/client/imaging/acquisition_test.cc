#include "client/imaging/acquisition.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace isoscan {
namespace {

struct Protocol {
  std::string name;
  std::vector<std::string> sequence;
  std::vector<std::string> variant;
  double repetition_ms;
  double echo_ms;
  double inversion_ms;
  double flip_degrees;
  Contrast contrast;
};

Contrast ContrastOf(const Protocol& protocol) {
  Acquisition acquisition;
  acquisition.sequence = protocol.sequence;
  acquisition.sequence_variant = protocol.variant;
  acquisition.repetition_ms = protocol.repetition_ms;
  acquisition.echo_ms = protocol.echo_ms;
  if (protocol.inversion_ms > 0) acquisition.inversion_ms = protocol.inversion_ms;
  acquisition.flip_degrees = protocol.flip_degrees;
  return GuessContrast(acquisition);
}

TEST(Contrast, OfCommonProtocolsIsTold) {
  for (const Protocol& protocol : std::vector<Protocol>{
           {"MPRAGE", {"GR", "IR"}, {"SP", "MP"}, 2300, 2.98, 900, 9, Contrast::kT1w},
           {"BRAVO", {"RM"}, {"NONE"}, 8.2, 3.2, 450, 12, Contrast::kT1w},
           {"SPGR", {"GR"}, {"SP"}, 20, 4.9, 0, 25, Contrast::kT1w},
           {"2D FLASH", {"GR"}, {"SP"}, 250, 2.5, 0, 70, Contrast::kT1w},
           {"T1 spin echo", {"SE"}, {}, 500, 10, 0, 90, Contrast::kT1w},
           {"T1 without a code", {"RM"}, {"NONE"}, 650, 10, 0, 75, Contrast::kT1w},
           {"T1 FLAIR", {"SE", "IR"}, {}, 2500, 10, 860, 110, Contrast::kT1w},
           {"T2 TSE", {"SE"}, {"SK"}, 4500, 95, 0, 150, Contrast::kT2w},
           {"T2 SPACE", {"SE"}, {"SK"}, 3200, 400, 0, 120, Contrast::kT2w},
           {"PD TSE", {"SE"}, {"SK"}, 3000, 12, 0, 150, Contrast::kPdw},
           {"FLAIR", {"SE", "IR"}, {"SK"}, 9000, 120, 2500, 150, Contrast::kFlair},
           {"3D FLAIR", {"SE", "IR"}, {"SK"}, 4800, 340, 1650, 120, Contrast::kFlair},
           {"T2*", {"GR"}, {"SP"}, 600, 20, 0, 25, Contrast::kT2starw}}) {
    EXPECT_EQ(ContrastOf(protocol), protocol.contrast) << protocol.name;
  }
}

TEST(Contrast, IsNotGuessedWhereTheTimingDoesNotSay) {
  for (const Protocol& protocol : std::vector<Protocol>{
           {"EPI", {"EP", "GR"}, {}, 2000, 30, 0, 80, Contrast::kUnknown},
           {"EPI without a code", {"GR"}, {"SK"}, 2000, 30, 0, 90, Contrast::kUnknown},
           {"diffusion", {"EP", "SE"}, {}, 8000, 90, 0, 90, Contrast::kUnknown},
           {"STIR", {"SE", "IR"}, {}, 5000, 60, 160, 150, Contrast::kUnknown},
           {"bSSFP", {"GR"}, {"SS"}, 5, 2.5, 0, 45, Contrast::kUnknown},
           {"long TR, middle TE", {"SE"}, {}, 3000, 52, 0, 90, Contrast::kUnknown},
           {"second inversion of MP2RAGE",
            {"GR", "IR"},
            {},
            5000,
            3,
            2500,
            5,
            Contrast::kUnknown}}) {
    EXPECT_EQ(ContrastOf(protocol), Contrast::kUnknown) << protocol.name;
  }
  EXPECT_EQ(GuessContrast(Acquisition()), Contrast::kUnknown);
}

TEST(Contrast, OfAPhaseImageIsNone) {
  Acquisition acquisition;
  acquisition.sequence = {"GR"};
  acquisition.repetition_ms = 600;
  acquisition.echo_ms = 20;
  ASSERT_EQ(GuessContrast(acquisition), Contrast::kT2starw);

  acquisition.component = ImageComponent::kPhase;

  EXPECT_EQ(GuessContrast(acquisition), Contrast::kUnknown);
}

}  // namespace
}  // namespace isoscan
