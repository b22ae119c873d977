#pragma once

namespace isoscan {

/// The study that fuzzed messages and weights claim to belong to, and one that is yet to be
/// planned.
inline constexpr char kFuzzedStudy[] = R"(name = "tiny"
channels = ["T1w"]
labels = ["left", "right"]
sites = ["berlin", "charite"]
[network]
features = [2, 3]
strides = [[1, 1, 1], [2, 2, 2]]
[training]
patch_size = [8, 8, 8]
batch_size = 1
steps_per_round = 1
[evaluation]
certificate = true
[rounds]
rounds = 2
)";

inline constexpr char kFuzzedDraft[] = R"(name = "draft"
channels = ["T1w"]
labels = ["left", "right"]
sites = ["berlin", "charite"]
[planning]
memory_gb = 0.05
)";

}  // namespace isoscan
