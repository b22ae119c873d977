#include "client/simulation/tissue.h"

namespace isoscan {

const TissueTable& TissuesAt(FieldStrength field) {
  // In the order of Tissue: CSF, grey, white, fat, muscle, lesion; each T1, T2, T2*, density.
  static constexpr TissueTable kAt1_5{{{2569, 329, 58, 1.0},
                                       {833, 83, 69, 0.86},
                                       {500, 70, 61, 0.77},
                                       {350, 70, 58, 1.0},
                                       {900, 47, 30, 1.0},
                                       {752, 237, 204, 0.76}}};
  static constexpr TissueTable kAt3{{{3817, 1650, 1000, 1.0},
                                     {1331, 110, 50, 0.86},
                                     {832, 79.2, 45, 0.77},
                                     {382, 68, 42, 1.0},
                                     {898, 29, 22, 1.0},
                                     {1202, 314, 148, 0.76}}};
  return field == FieldStrength::kTesla3 ? kAt3 : kAt1_5;
}

}  // namespace isoscan
