#include "server/aggregation/krum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace isoscan {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

// Of points on a line.
Distances OnALine(const std::vector<double>& points) {
  Distances distances(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) distances.Set(i, j, std::pow(points[i] - points[j], 2));
  }
  return distances;
}

TEST(KrumScores, SumTheSquaresToTheNearest) {
  const Distances distances = OnALine({0, 1, 3, 10});
  EXPECT_THAT(KrumScores(distances, {0, 1, 2, 3}, 1), ElementsAre(1, 1, 4, 49));
  EXPECT_THAT(KrumScores(distances, {0, 1, 2, 3}, 2), ElementsAre(10, 5, 13, 130));
  EXPECT_THAT(KrumScores(distances, {0, 3}, 2), ElementsAre(100, 100));
}

// Flower's Krum of three with f = 1: .2, .7, 1.0 -> .7, though the paper asks for 2 f + 3 = 5 there
// and leaves n - f - 2 = 0 neighbours; one neighbour, which is what Flower takes, is f = 0.
TEST(Krum, GivesFlowersValueWithTheNeighbourThatItCounts) {
  EXPECT_THAT(SelectByKrum(OnALine({0.2, 0.7, 1.0}), 0, 1).chosen, ElementsAre(1));
}

// Flower's MultiKrum of three, two kept: .2, .5, 1.0 -> .35, the mean of the first two.
TEST(MultiKrum, GivesFlowersValueWithTheNeighbourThatItCounts) {
  EXPECT_THAT(SelectByKrum(OnALine({0.2, 0.5, 1.0}), 0, 2).chosen, ElementsAre(0, 1));
}

// By hand: n = 5 and f = 1 leave two nearest.
TEST(Krum, CountsAsManyNeighboursAsThePaper) {
  const Distances distances = OnALine({0, 1, 3, 10, 11});
  EXPECT_THAT(KrumScores(distances, {0, 1, 2, 3, 4}, 2), ElementsAre(10, 5, 13, 50, 65));
  EXPECT_THAT(SelectByKrum(distances, 1, 1).chosen, ElementsAre(1));
  EXPECT_THAT(SelectByKrum(distances, 1, 3).chosen, ElementsAre(0, 1, 2));
}

TEST(Krum, TakesTheFirstOfEquals) {
  EXPECT_THAT(SelectByKrum(OnALine({5, 5, 5, 5, 5}), 1, 1).chosen, ElementsAre(0));
  EXPECT_THAT(SelectByKrum(OnALine({4, 3, 2, 1, 0}), 1, 1).chosen, ElementsAre(1));
}

TEST(Krum, SaysWhyTheOthersWereLeftOut) {
  const Selection selection = SelectByKrum(OnALine({0, 1, 3, 10, 11}), 1, 2);
  EXPECT_THAT(selection.chosen, ElementsAre(0, 1));
  EXPECT_THAT(selection.left_out,
              ElementsAre("", "", "distance 2.55 to its 2 nearest, chosen were up to 2.24",
                          "distance 5 to its 2 nearest, chosen were up to 2.24",
                          "distance 5.7 to its 2 nearest, chosen were up to 2.24"));
}

// By hand: n = 7, f = 1. Krum chooses 3, 4, 2, 5 in turn, and 1 among the last three.
TEST(Bulyan, SetsAsideWhatKrumChoosesInTurn) {
  const Selection selection = SelectForBulyan(OnALine({100, 1, 2, 3, 4, 5, 6}), 1);
  EXPECT_THAT(selection.chosen, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(selection.left_out,
              ElementsAre("distance 94 to its 1 nearest of the last 3, chosen was 5", "", "", "",
                          "", "", "distance 5 to its 1 nearest of the last 3, chosen was 5"));
}

TEST(Bulyan, WithoutFaultySitesChoosesAll) {
  const Selection selection = SelectForBulyan(OnALine({1, 2, 300}), 0);
  EXPECT_THAT(selection.chosen, ElementsAre(0, 1, 2));
  EXPECT_THAT(selection.left_out, Each(IsEmpty()));
}

}  // namespace
}  // namespace isoscan
