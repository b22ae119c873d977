#include "common/planning/plan_toml.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace isoscan {
namespace {

std::string Lists(const std::vector<Triple>& triples) {
  std::vector<std::string> lists;
  for (const Triple& triple : triples)
    lists.push_back(fmt::format("[{}]", fmt::join(triple, ", ")));
  return fmt::format("[{}]", fmt::join(lists, ", "));
}

}  // namespace

std::string PlanToml(const CohortPlan& plan) {
  const GridPlan& grid = plan.full_resolution;
  // Every preset has as many convolutions in each stage of the decoder.
  std::string blocks =
      fmt::format("convolutions_per_stage = {}\n", grid.decoder_convolutions.front());
  if (plan.preset != PlanPreset::kPlain) {
    blocks = fmt::format("kind = \"residual\"\n{}blocks_per_stage = [{}]\n", blocks,
                         fmt::join(grid.encoder_blocks, ", "));
  }
  return fmt::format(
      "# Planned by nnU-Net's rules for {} GB. The median case has {} voxels on this grid.\n"
      "\n"
      "[harmonization]\n"
      "spacing_mm = [{}]\n"
      "\n"
      "[network]\n"
      "features = [{}]\n"
      "strides = {}\n"
      "kernels = {}\n"
      "{}"
      "\n"
      "[training]\n"
      "patch_size = [{}]\n"
      "batch_size = {}\n",
      plan.memory_gb, fmt::join(grid.median_size, " x "), fmt::join(grid.spacing_mm, ", "),
      fmt::join(grid.features, ", "), Lists(grid.strides), Lists(grid.kernels), blocks,
      fmt::join(grid.patch_size, ", "), grid.batch_size);
}

}  // namespace isoscan
