#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// Names and shapes of every tensor of the study's network, by nnU-Net's names without its aliases
/// (`all_modules.*`, `decoder.encoder.*`).
///
///   encoder.stages.{s}.0.convs.{j}.conv.weight   [features_s, in, kz, ky, kx]; stride on j = 0
///   encoder.stages.{s}.0.convs.{j}.{conv.bias, norm.weight, norm.bias}   [features_s]
///
/// or, of Kind::kResidual,
///
///   encoder.stem.convs.0...                      full resolution, features_0
///   encoder.stages.{s}.blocks.{b}.conv1...       as convs.{j}; stride on b = 0
///   encoder.stages.{s}.blocks.{b}.conv2...
///   encoder.stages.{s}.blocks.0.skip.1.{conv.weight, norm...}   [features_s, in, 1, 1, 1], no
///   bias;
///                                                where features change; skip.0 without a stride
///
/// and of both
///
///   decoder.transpconvs.{d}.{weight, bias}       d = 0 is the coarsest; kernel = stride
///   decoder.stages.{d}.convs.{j}...              input is cat(up, skip)
///   decoder.seg_layers.{d}.{weight, bias}        every head, with or without deep supervision
///
/// Norm::kNone leaves out norm.*; Norm::kBatch adds norm.running_mean and norm.running_var: they
/// are averaged like weights, which is a mean of sites' statistics and not the statistic of the
/// union (docs/fairness.md). Source: docs/references.md#isensee2021, #isensee2024;
/// dynamic-network-architectures' PlainConvUNet and ResidualEncoderUNet.
TensorShapes NetworkShapes(const Study& study);

/// The weights that every round-1 model starts from: a pure function of the plan and the seed, the
/// same bits on every platform and with every LibTorch, so they are never uploaded by anyone.
///
/// He normal for convolutions (a = 0.01, fan in), zero biases, norm scale 1 (0 at the end of a
/// residual block, which so begins as the identity) and shift 0, running mean 0 and variance 1.
/// Each tensor draws from the stream of its own name. Source: docs/references.md#he2015; nnU-Net's
/// InitWeights_He(1e-2).
NamedTensors InitialWeights(const Study& study);

/// The name of weights whatever file they lie in: the SHA-256 of one that has them and no metadata.
std::string WeightsDigest(const NamedTensors& weights);

/// OK for weights that the study can start from. `source` begins the message.
/// Errors: INVALID_ARGUMENT naming the first tensor that is missing, superfluous, of another shape
///         or not finite; both digests, where the study names another.
absl::Status CheckStartingWeights(const Study& study, const std::string& source,
                                  const NamedTensors& weights);

}  // namespace isoscan
