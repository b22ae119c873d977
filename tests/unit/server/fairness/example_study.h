#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "server/fairness/study_record.h"

namespace isoscan {

/// One label score with counts that fit its Dice.
LabelScoreRecord LabelScore(double dice);
/// Label and prediction both empty.
LabelScoreRecord BothEmpty();
/// The label is there, the prediction is empty.
LabelScoreRecord Miss();
/// The label is not there, the prediction is.
LabelScoreRecord FalseAlarm();

/// Scores of the global model after `round`, one list of label scores per case.
ModelScoresRecord GlobalScores(const std::string& site, int round,
                               std::vector<std::vector<LabelScoreRecord>> cases);
ModelScoresRecord LocalOnlyScores(const std::string& site,
                                  std::vector<std::vector<LabelScoreRecord>> cases);

struct ExampleShape {
  int sites = 4;
  int labels = 3;
  int rounds = 10;
  bool local_only = true;
  bool personal = false;  ///< A model of each hospital's own.

  friend void PrintTo(const ExampleShape& shape, std::ostream* out) {
    *out << shape.sites << " sites, " << shape.labels << " labels, " << shape.rounds << " rounds";
  }
};

/// A study as it could have happened: hospitals whose scanners differ by scale and bias, one that
/// learns late, one with 7 held-out cases, one that was left out of two rounds. The same numbers on
/// every machine.
StudyRecord ExampleStudy(const ExampleShape& shape);

}  // namespace isoscan
