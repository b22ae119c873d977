#pragma once

#include "client/intake/case_sight.h"

namespace isoscan {

/// Compares labels that are named left and right (Left-Hippocampus, hippocampus_L, lh.cortex) with
/// the side of the patient that they lie on: a pair whose centres are the wrong way round is
/// quarantined. Names without a partner tell nothing.
void CheckLeftAndRight(CaseSight& sight);

}  // namespace isoscan
