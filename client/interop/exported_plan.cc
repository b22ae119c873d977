#include "client/interop/exported_plan.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using nlohmann::ordered_json;

constexpr double kNormEpsilon = 1e-5;

/// Text that is a label or a channel may be any UTF-8 or none.
std::string Dump(const ordered_json& json) {
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

/// Fills in how images, labels and scores come to the grid of the network and back.
absl::Status AddResampling(const Study& study, ordered_json& configuration) {
  const std::array<double, 3>& spacing = study.harmonization.spacing_mm;
  const auto kept = std::count(spacing.begin(), spacing.end(), 0.0);
  if (kept != 0 && kept != 3) {
    return absl::InvalidArgumentError(fmt::format(
        "nnU-Net resamples along every axis or along none, the study's spacing_mm is [{}, {}, {}]",
        spacing[0], spacing[1], spacing[2]));
  }
  // nnU-Net looks at the spacing also where its function leaves everything as it is.
  configuration["spacing"] = kept == 3 ? std::array<double, 3>{1, 1, 1} : spacing;
  const bool cubic =
      study.harmonization.interpolation == HarmonizationPlan::Interpolation::kBSpline;
  for (const char* of : {"data", "seg", "probabilities"}) {
    ordered_json arguments = ordered_json::object();
    if (kept == 0) {
      const bool is_seg = of == std::string_view("seg");
      arguments = {{"is_seg", is_seg},
                   {"order", cubic && of == std::string_view("data") ? 3 : 1},
                   {"order_z", 0},
                   {"force_separate_z", false}};
    }
    configuration[fmt::format("resampling_fn_{}", of)] =
        kept == 3 ? "no_resampling_hack" : "resample_data_or_seg_to_shape";
    configuration[fmt::format("resampling_fn_{}_kwargs", of)] = std::move(arguments);
  }
  return absl::OkStatus();
}

absl::StatusOr<ordered_json> Architecture(const NetworkPlan& network) {
  const bool residual = network.kind == NetworkPlan::Kind::kResidual;
  ordered_json norm = nullptr;
  switch (network.norm) {
    case NetworkPlan::Norm::kInstance:
      norm = "torch.nn.modules.instancenorm.InstanceNorm3d";
      break;
    case NetworkPlan::Norm::kBatch:
      norm = "torch.nn.modules.batchnorm.BatchNorm3d";
      break;
    case NetworkPlan::Norm::kNone:
      if (!residual) break;
      return absl::InvalidArgumentError(
          "nnU-Net cannot make a residual encoder without normalisation: those with norm = "
          "\"instance\" and \"batch\" can be exported");
    case NetworkPlan::Norm::kGroup:
      return absl::InvalidArgumentError(
          "nnU-Net has no group normalisation that its plans could name: networks with norm = "
          "\"instance\", \"batch\" or \"none\" can be exported");
  }
  const std::size_t stages = network.stages();
  ordered_json norm_arguments = nullptr;
  if (!norm.is_null()) norm_arguments = {{"eps", kNormEpsilon}, {"affine", true}};
  return ordered_json{
      {"network_class_name", fmt::format("dynamic_network_architectures.architectures.unet.{}",
                                         residual ? "ResidualEncoderUNet" : "PlainConvUNet")},
      {"arch_kwargs",
       {{"n_stages", stages},
        {"features_per_stage", network.features},
        {"conv_op", "torch.nn.modules.conv.Conv3d"},
        {"kernel_sizes", network.kernels},
        {"strides", network.strides},
        {residual ? "n_blocks_per_stage" : "n_conv_per_stage",
         residual ? network.blocks_per_stage : std::vector(stages, network.convolutions_per_stage)},
        {"n_conv_per_stage_decoder", std::vector(stages - 1, network.convolutions_per_stage)},
        {"conv_bias", true},
        {"norm_op", norm},
        {"norm_op_kwargs", norm_arguments},
        {"dropout_op", nullptr},
        {"dropout_op_kwargs", nullptr},
        {"nonlin", "torch.nn.LeakyReLU"},
        {"nonlin_kwargs", {{"inplace", true}}}}},
      {"_kw_requires_import", {"conv_op", "norm_op", "dropout_op", "nonlin"}}};
}

}  // namespace

absl::StatusOr<std::string> NnunetPlans(const Study& study) {
  const std::size_t channels = study.channels.size();
  ordered_json configuration{
      {"data_identifier", "nnUNetPlans_3d_fullres"},
      {"preprocessor_name", "DefaultPreprocessor"},
      {"batch_size", study.training.batch_size},
      {"patch_size", study.training.patch_size},
      // Of the cases that it was planned for: a study does not know it.
      {"median_image_size_in_voxels", study.training.patch_size},
      {"normalization_schemes", std::vector<std::string>(channels, "NoNormalization")},
      {"use_mask_for_norm", std::vector<bool>(channels, false)},
      {"batch_dice", false}};
  RETURN_IF_ERROR(AddResampling(study, configuration));
  ASSIGN_OR_RETURN(configuration["architecture"], Architecture(study.network));
  ordered_json intensities;
  for (std::size_t channel = 0; channel < channels; ++channel) {
    intensities[fmt::format("{}", channel)] = ordered_json::object();
  }
  return Dump({{"dataset_name", "Dataset001_" + study.name},
               {"plans_name", "nnUNetPlans"},
               {"original_median_spacing_after_transp", configuration["spacing"]},
               {"original_median_shape_after_transp", study.training.patch_size},
               // Voxels in the order of the file, which has to be LPS: no reader of nnU-Net's turns
               // them there.
               {"image_reader_writer", "SimpleITKIO"},
               {"transpose_forward", {0, 1, 2}},
               {"transpose_backward", {0, 1, 2}},
               {"configurations", {{"3d_fullres", std::move(configuration)}}},
               {"experiment_planner_used", "ExperimentPlanner"},
               {"label_manager", "LabelManager"},
               {"foreground_intensity_properties_per_channel", std::move(intensities)}});
}

absl::StatusOr<std::string> NnunetDataset(const Study& study,
                                          const std::map<std::string, std::string>& metadata) {
  ordered_json channels;
  for (std::size_t i = 0; i < study.channels.size(); ++i) {
    channels[fmt::format("{}", i)] = study.channels[i];
  }
  ordered_json labels{{"background", 0}};
  for (std::size_t i = 0; i < study.labels.size(); ++i) {
    if (study.labels[i] == "ignore") {
      return absl::InvalidArgumentError(
          "nnU-Net takes a label that is called \"ignore\" for voxels of which nobody knows what "
          "they are: this study's cannot be exported to it");
    }
    labels[study.labels[i]] = i + 1;
  }
  return Dump({{"channel_names", std::move(channels)},
               {"labels", std::move(labels)},
               {"numTraining", 0},
               {"file_ending", ".nii.gz"},
               {"overwrite_image_reader_writer", "SimpleITKIO"},
               {"isoscan", metadata}});
}

std::string DynUnetArguments(const Study& study) {
  const NetworkPlan& network = study.network;
  const std::size_t stages = network.stages();
  ordered_json arguments{
      {"spatial_dims", 3},
      {"in_channels", study.channels.size()},
      {"out_channels", study.classes()},
      {"kernel_size", network.kernels},
      {"strides", network.strides},
      {"upsample_kernel_size", std::vector(network.strides.begin() + 1, network.strides.end())},
      {"filters", network.features},
      {"norm_name", {"INSTANCE", {{"affine", true}, {"eps", kNormEpsilon}}}},
      {"act_name", {"leakyrelu", {{"inplace", true}, {"negative_slope", 0.01}}}},
      {"deep_supervision", study.training.deep_supervision},
      {"res_block", false},
      {"trans_bias", true}};
  if (study.training.deep_supervision) arguments["deep_supr_num"] = stages - 2;
  return Dump(arguments);
}

}  // namespace isoscan
