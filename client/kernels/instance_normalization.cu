#include "client/kernels/instance_normalization_gpu.h"

namespace isoscan {
namespace {

/// A block of threads, as instance_normalization_lanes.h wants it.
struct ThreadBlock {
  template <typename Value, typename Make>
  __device__ Value Reduce(Make make) const {
    __shared__ Value values[kLanesOfBlock];
    const int lane = static_cast<int>(threadIdx.x);
    values[lane] = make(lane, kLanesOfBlock);
    __syncthreads();
    for (int half = kLanesOfBlock / 2; half > 0; half /= 2) {
      if (lane < half) values[lane] = Merged(values[lane], values[lane + half]);
      __syncthreads();
    }
    return values[0];
  }

  template <typename Work>
  __device__ void ForEach(std::int64_t count, Work work) const {
    for (std::int64_t i = threadIdx.x; i < count; i += kLanesOfBlock) work(i);
  }

  __device__ bool leads() const { return threadIdx.x == 0; }
};

/// What a block works on: piece `piece` of channel `item % channels` of sample `item / channels`.
struct Place {
  std::int64_t item;
  std::int64_t piece;
  std::int64_t first;  ///< Of the tensor.
  std::int64_t count;
};

__device__ Place PlaceOfBlock(const InstanceNormalization& plan) {
  const std::int64_t pieces = PiecesOf(plan.voxels);
  Place place{};
  place.item = blockIdx.x / pieces;
  place.piece = blockIdx.x % pieces;
  const std::int64_t start = place.piece * kLanePiece;
  place.first = place.item * plan.voxels + start;
  place.count = start + kLanePiece < plan.voxels ? kLanePiece : plan.voxels - start;
  return place;
}

__device__ LaneMap MapOf(const InstanceNormalization& plan, const Place& place,
                         const LaneStatistics& statistics, const float* scale, const float* shift) {
  const std::int64_t channel = place.item % plan.channels;
  return {statistics.mean, statistics.inverse_deviation, scale[channel], shift[channel],
          plan.slope};
}

template <typename Number>
__global__ void SumKernel(InstanceNormalization plan, const Number* input, LaneMoments* moments) {
  const Place place = PlaceOfBlock(plan);
  SumPiece(ThreadBlock(), input + place.first, place.count, moments + blockIdx.x);
}

template <typename Number>
__global__ void NormalizeKernel(InstanceNormalization plan, const LaneMoments* moments,
                                const Number* input, const float* scale, const float* shift,
                                Number* output, LaneStatistics* statistics) {
  const Place place = PlaceOfBlock(plan);
  const std::int64_t pieces = PiecesOf(plan.voxels);
  LaneStatistics unused{};
  NormalizePiece(ThreadBlock(), moments + place.item * pieces, pieces,
                 static_cast<float>(plan.epsilon), MapOf(plan, place, unused, scale, shift),
                 input + place.first, place.count, output + place.first,
                 place.piece == 0 ? statistics + place.item : &unused);
}

template <typename Number>
__global__ void SumGradientKernel(InstanceNormalization plan, const Number* input,
                                  const LaneStatistics* statistics, const float* scale,
                                  const float* shift, const Number* outer, LaneGradientSums* sums) {
  const Place place = PlaceOfBlock(plan);
  SumGradientPiece(ThreadBlock(), MapOf(plan, place, statistics[place.item], scale, shift),
                   input + place.first, outer + place.first, place.count, sums + blockIdx.x);
}

template <typename Number>
__global__ void GradientKernel(InstanceNormalization plan, const LaneGradientSums* sums,
                               const Number* input, const LaneStatistics* statistics,
                               const float* scale, const float* shift, const Number* outer,
                               Number* gradient, LaneGradientSums* channel_sums) {
  const Place place = PlaceOfBlock(plan);
  const std::int64_t pieces = PiecesOf(plan.voxels);
  LaneGradientSums unused{};
  GradientPiece(ThreadBlock(), sums + place.item * pieces, pieces, plan.voxels,
                MapOf(plan, place, statistics[place.item], scale, shift), input + place.first,
                outer + place.first, place.count, gradient + place.first,
                place.piece == 0 ? channel_sums + place.item : &unused);
}

unsigned BlocksOf(const InstanceNormalization& plan) {
  return static_cast<unsigned>(plan.samples * plan.channels * PiecesOf(plan.voxels));
}

std::string LastError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace

template <typename Number>
std::string NormalizeAndActivateOnGpu(const InstanceNormalization& plan, const Number* input,
                                      const float* scale, const float* shift, Number* output,
                                      LaneStatistics* statistics, LaneMoments* scratch,
                                      void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  SumKernel<<<BlocksOf(plan), kLanesOfBlock, 0, queue>>>(plan, input, scratch);
  NormalizeKernel<<<BlocksOf(plan), kLanesOfBlock, 0, queue>>>(plan, scratch, input, scale, shift,
                                                               output, statistics);
  return LastError();
}

template <typename Number>
std::string NormalizeAndActivateGradientOnGpu(const InstanceNormalization& plan,
                                              const Number* input, const LaneStatistics* statistics,
                                              const float* scale, const float* shift,
                                              const Number* output_gradient, Number* input_gradient,
                                              LaneGradientSums* channel_sums,
                                              LaneGradientSums* scratch, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  SumGradientKernel<<<BlocksOf(plan), kLanesOfBlock, 0, queue>>>(plan, input, statistics, scale,
                                                                 shift, output_gradient, scratch);
  GradientKernel<<<BlocksOf(plan), kLanesOfBlock, 0, queue>>>(plan, scratch, input, statistics,
                                                              scale, shift, output_gradient,
                                                              input_gradient, channel_sums);
  return LastError();
}

template std::string NormalizeAndActivateOnGpu(const InstanceNormalization&, const float*,
                                               const float*, const float*, float*, LaneStatistics*,
                                               LaneMoments*, void*);
template std::string NormalizeAndActivateOnGpu(const InstanceNormalization&, const Bfloat16*,
                                               const float*, const float*, Bfloat16*,
                                               LaneStatistics*, LaneMoments*, void*);
template std::string NormalizeAndActivateGradientOnGpu(const InstanceNormalization&, const float*,
                                                       const LaneStatistics*, const float*,
                                                       const float*, const float*, float*,
                                                       LaneGradientSums*, LaneGradientSums*, void*);
template std::string NormalizeAndActivateGradientOnGpu(const InstanceNormalization&,
                                                       const Bfloat16*, const LaneStatistics*,
                                                       const float*, const float*, const Bfloat16*,
                                                       Bfloat16*, LaneGradientSums*,
                                                       LaneGradientSums*, void*);

}  // namespace isoscan
