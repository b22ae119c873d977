#pragma once

#include <cstdint>
#include <vector>

#include "client/cohort/cohort.h"
#include "common/study/study.h"

namespace isoscan {

/// A network and a plan that learn a training phantom within seconds.
Study PhantomStudy();

/// A volume [20, 20, 20] of smooth noise with a bright ball (label 1) and a dark one (label 2) at
/// random places; not harmonised. Other numbers give other phantoms.
PreparedCase Phantom(std::uint64_t number);

/// Masked instance normalisation of the whole volume, as the study asks for.
PreparedCase Harmonized(PreparedCase phantom, const Study& study);

/// Phantoms 0 ... count - 1, harmonised.
std::vector<PreparedCase> HarmonizedPhantoms(std::uint64_t count, const Study& study);

/// x -> scale * x + bias, as another scanner would store it.
PreparedCase AsScannedBy(PreparedCase phantom, double scale, double bias);

}  // namespace isoscan
