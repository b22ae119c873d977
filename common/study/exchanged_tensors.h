#pragma once

#include <string_view>

#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// What `local_layers` keeps at each site: no global model and no update has such a tensor, and
/// every site has values of its own from InitialWeights() on. "norm" means scale, shift and running
/// statistics of every normalisation layer (docs/references.md#li2021); anything else, the
/// tensors of that name and those below it, such as "decoder.seg_layers".
bool StaysAtSite(const NetworkPlan& network, std::string_view tensor);

/// How the tensors of SCAFFOLD's control variates are called: this and the parameter's name. In a
/// global model that is c, in an update how much the site's c_i has changed.
inline constexpr std::string_view kControl = "control.";

/// Moved by no gradient: batch normalisation's running mean and variance.
bool IsRunningStatistic(std::string_view tensor);

/// Names and shapes of every global model and of every update. Of a study with SCAFFOLD also
/// `control.NAME` for each parameter that is shared.
TensorShapes ExchangedShapes(const Study& study);

/// Moves the tensors that stay at the site out of `weights`.
NamedTensors TakeLocal(const NetworkPlan& network, NamedTensors& weights);

}  // namespace isoscan
