#include "client/harmonization/n4.h"

#include <fmt/format.h>
#include <itkCommand.h>
#include <itkImage.h>
#include <itkMultiThreaderBase.h>
#include <itkN4BiasFieldCorrectionImageFilter.h>
#include <itkThreadPool.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

#include "common/process/resources.h"
#include "common/status/status_macros.h"

namespace isoscan {

using Image = itk::Image<float, 3>;
using MaskImage = itk::Image<std::uint8_t, 3>;
using Filter = itk::N4BiasFieldCorrectionImageFilter<Image, MaskImage, Image>;
using Fitter = Filter::BSplineFilterType;
using Lattice = Filter::BiasFieldControlPointLatticeType;

constexpr std::size_t kSplineOrder = 3;
constexpr std::size_t kSplinePoints = kSplineOrder + 1;

namespace {

constexpr std::int64_t kFewestVoxels = 64;  // As many as control points of one cubic patch.
constexpr double kLowPercentile = 0.001;
constexpr double kHighPercentile = 0.999;
constexpr double kMappedRange = 999;  // From 1 to 1000.
constexpr double kMappedStep = 0.5;

/// ITK cuts a sum into four pieces per thread, and a sum of floats depends on how it is cut. The
/// pool gets the cores that there are; the pieces are the same everywhere.
void PrepareItkThreads() {
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr itk::ThreadIdType kThreadsThatPiecesAreCutFor = 4;
    itk::MultiThreaderBase::SetGlobalDefaultNumberOfThreads(
        static_cast<itk::ThreadIdType>(AvailableCores()));
    itk::ThreadPool::GetInstance();
    itk::MultiThreaderBase::SetGlobalDefaultNumberOfThreads(kThreadsThatPiecesAreCutFor);
  });
}

}  // namespace
}  // namespace isoscan

/// Adds a share of the points to the lattices of one thread, in place of ITK's own function: the
/// same sums up to rounding, with 12 values of the spline per point where ITK computes 192. N4
/// spent 85 % of its time there. No axis of N4's lattice is closed.
template <>
void isoscan::Fitter::ThreadedGenerateDataForFitting(const RegionType&, itk::ThreadIdType thread) {
  using isoscan::kSplinePoints;
  const auto pieces = this->GetNumberOfWorkUnits();
  const itk::SizeValueType points = this->GetInput()->GetNumberOfPoints();
  const itk::SizeValueType start = thread * (points / pieces);
  const itk::SizeValueType end = thread == pieces - 1 ? points : start + points / pieces;

  std::array<RealType, 3> spans;
  std::array<RealType, 3> scale;
  std::array<RealType, 3> epsilon;
  for (unsigned i = 0; i < 3; ++i) {
    spans[i] =
        static_cast<RealType>(this->m_CurrentNumberOfControlPoints[i] - this->m_SplineOrder[i]);
    scale[i] = static_cast<RealType>(
        spans[i] / (static_cast<RealType>(this->m_Size[i] - 1) * this->m_Spacing[i]));
    epsilon[i] = static_cast<RealType>(scale[i] * this->m_Spacing[i] *
                                       static_cast<double>(this->m_BSplineEpsilon));
  }
  RealImageType& omega = *this->m_OmegaLatticePerThread[thread];
  PointDataImageType& delta = *this->m_DeltaLatticePerThread[thread];
  RealType* const omega_values = omega.GetBufferPointer();
  auto* const delta_values = reinterpret_cast<RealType*>(delta.GetBufferPointer());

  for (itk::SizeValueType n = start; n < end; ++n) {
    PointType point;
    this->GetInput()->GetPoint(n, &point);
    typename RealImageType::IndexType first;
    std::array<std::array<double, kSplinePoints>, 3> along;
    for (unsigned i = 0; i < 3; ++i) {
      auto place = static_cast<RealType>((point[i] - this->m_Origin[i]) * scale[i]);
      if (std::abs(place - spans[i]) <= epsilon[i]) place = spans[i] - epsilon[i];
      if (place < 0 && std::abs(place) <= epsilon[i]) place = 0;
      if (place < 0 || place >= spans[i]) {
        itkExceptionMacro("a point lies at " << place << " spans, outside [0, " << spans[i] << ")");
      }
      first[i] = static_cast<itk::IndexValueType>(place);
      for (std::size_t k = 0; k < kSplinePoints; ++k) {
        const auto u =
            static_cast<RealType>(static_cast<double>(place - static_cast<RealType>(first[i]) -
                                                      static_cast<RealType>(k)) +
                                  0.5 * static_cast<double>(this->m_SplineOrder[i] - 1));
        along[i][k] = this->m_KernelOrder3->Evaluate(static_cast<double>(u));
      }
    }
    std::array<RealType, kSplinePoints * kSplinePoints * kSplinePoints> products;
    RealType squares = 0;
    std::size_t at = 0;
    for (const double z : along[2]) {
      for (const double y : along[1]) {
        for (const double x : along[0]) {
          const auto plane =
              static_cast<RealType>(static_cast<double>(static_cast<RealType>(x)) * y);
          products[at] = static_cast<RealType>(static_cast<double>(plane) * z);
          squares += products[at] * products[at];
          ++at;
        }
      }
    }
    const RealType weight = this->m_PointWeights->GetElement(static_cast<unsigned>(n));
    const RealType data = this->m_InputPointData->GetElement(n)[0];
    const itk::OffsetValueType* const strides = omega.GetOffsetTable();
    const RealType* product = products.data();
    for (std::size_t z = 0; z < kSplinePoints; ++z) {
      for (std::size_t y = 0; y < kSplinePoints; ++y, product += kSplinePoints) {
        const auto row = omega.ComputeOffset(first) +
                         static_cast<itk::OffsetValueType>(y) * strides[1] +
                         static_cast<itk::OffsetValueType>(z) * strides[2];
        for (std::size_t x = 0; x < kSplinePoints; ++x) {
          const RealType t = product[x];
          omega_values[row + static_cast<itk::OffsetValueType>(x)] += weight * t * t;
          delta_values[row + static_cast<itk::OffsetValueType>(x)] +=
              data * (t * t * t * weight / squares);
        }
      }
    }
  }
}

namespace isoscan {
namespace {

/// One axis of the coarse copy: sample i is voxel first + i * step.
struct CoarseAxis {
  std::int64_t first = 0;
  std::int64_t step = 1;
  std::int64_t samples = 1;
};

/// Samples lie centred along the axis. An axis with few voxels is shrunk less, so that four samples
/// are left wherever there are four voxels.
CoarseAxis Coarsen(std::int64_t size, std::int64_t shrink) {
  CoarseAxis axis;
  axis.step = std::clamp<std::int64_t>((size - 1) / 3, 1, shrink);
  axis.samples = (size - 1) / axis.step + 1;
  axis.first = (size - 1 - (axis.samples - 1) * axis.step) / 2;
  return axis;
}

struct Coarse {
  std::array<CoarseAxis, 3> axes;
  std::vector<float> voxels;
  std::vector<std::uint8_t> mask;
};

Coarse CoarseCopy(const Volume& volume, const Mask& mask, std::int64_t shrink) {
  Coarse coarse;
  const auto& size = volume.geometry.size;
  for (std::size_t axis = 0; axis < 3; ++axis) coarse.axes[axis] = Coarsen(size[axis], shrink);
  const auto& [x_axis, y_axis, z_axis] = coarse.axes;
  for (std::int64_t z = 0; z < z_axis.samples; ++z) {
    for (std::int64_t y = 0; y < y_axis.samples; ++y) {
      const std::int64_t row =
          ((z_axis.first + z * z_axis.step) * size[1] + y_axis.first + y * y_axis.step) * size[0];
      for (std::int64_t x = 0; x < x_axis.samples; ++x) {
        const auto voxel = static_cast<std::size_t>(row + x_axis.first + x * x_axis.step);
        coarse.voxels.push_back(volume.voxels[voxel]);
        coarse.mask.push_back(mask[voxel] != 0 ? 1 : 0);
      }
    }
  }
  return coarse;
}

/// The order statistic itself, without interpolation: it moves with the intensities exactly.
double Percentile(std::vector<float> values, double fraction) {
  const auto rank =
      static_cast<std::ptrdiff_t>(std::lround(fraction * static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return static_cast<double>(values[static_cast<std::size_t>(rank)]);
}

template <typename ItkImage, typename Value>
typename ItkImage::Pointer ToItk(const std::array<CoarseAxis, 3>& axes,
                                 const std::vector<Value>& values) {
  typename ItkImage::SizeType size;
  for (unsigned axis = 0; axis < 3; ++axis) {
    size[axis] = static_cast<itk::SizeValueType>(axes[axis].samples);
  }
  auto image = ItkImage::New();
  image->SetRegions(size);
  image->Allocate();
  std::copy(values.begin(), values.end(), image->GetBufferPointer());
  return image;
}

/// The control points of the field's logarithm; the result's residual and iterations.
Lattice::ConstPointer Fit(const Coarse& coarse, const N4Plan& plan, BiasField& result) {
  PrepareItkThreads();
  auto filter = Filter::New();
  filter->SetInput(ToItk<Image>(coarse.axes, coarse.voxels));
  filter->SetMaskImage(ToItk<MaskImage>(coarse.axes, coarse.mask));
  filter->UseMaskLabelOn();
  filter->SetMaskLabel(1);
  filter->SetSplineOrder(kSplineOrder);
  Filter::ArrayType control_points;
  control_points.Fill(static_cast<unsigned>(plan.control_points));
  filter->SetNumberOfControlPoints(control_points);
  Filter::ArrayType levels;
  levels.Fill(static_cast<unsigned>(plan.levels));
  filter->SetNumberOfFittingLevels(levels);
  Filter::VariableSizeArrayType iterations(static_cast<unsigned>(plan.levels));
  iterations.Fill(static_cast<unsigned>(plan.iterations));
  filter->SetMaximumNumberOfIterations(iterations);
  filter->SetConvergenceThreshold(static_cast<float>(plan.convergence));
  filter->AddObserver(itk::IterationEvent(),
                      [&result](const itk::EventObject&) { ++result.iterations; });
  filter->Update();
  result.residual = static_cast<double>(filter->GetCurrentConvergenceMeasurement());
  return filter->GetLogBiasFieldControlPointLattice();
}

/// The four control points that reach a voxel along one axis, and what each counts for.
struct SplineWeights {
  std::size_t first = 0;
  std::array<float, kSplineOrder + 1> weights{};
};

/// For every voxel of an axis. Before the first and behind the last sample of the coarse copy the
/// field stays as it is there.
std::vector<SplineWeights> WeightsAlong(std::int64_t size, const CoarseAxis& axis,
                                        std::size_t control_points) {
  const auto last = static_cast<double>(axis.samples - 1);
  const std::size_t spans = control_points - kSplineOrder;
  std::vector<SplineWeights> result(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) {
    const double sample =
        std::clamp(static_cast<double>(i - axis.first) / static_cast<double>(axis.step), 0.0, last);
    const double place = sample / last * static_cast<double>(spans);
    SplineWeights& voxel = result[static_cast<std::size_t>(i)];
    voxel.first = std::min(static_cast<std::size_t>(place), spans - 1);
    const double t = place - static_cast<double>(voxel.first);
    const double u = 1 - t;
    voxel.weights = {
        static_cast<float>(u * u * u / 6), static_cast<float>((3 * t * t * t - 6 * t * t + 4) / 6),
        static_cast<float>((3 * u * u * u - 6 * u * u + 4) / 6), static_cast<float>(t * t * t / 6)};
  }
  return result;
}

/// Sums four neighbours along the slowest axis of `values`, which is cut into pieces of `stride`.
void Collapse(const SplineWeights& voxel, const float* values, std::size_t stride,
              std::vector<float>& result) {
  const float* const first = values + voxel.first * stride;
  for (std::size_t i = 0; i < stride; ++i) {
    result[i] = voxel.weights[0] * first[i] + voxel.weights[1] * first[stride + i] +
                voxel.weights[2] * first[2 * stride + i] + voxel.weights[3] * first[3 * stride + i];
  }
}

/// The field at every voxel: the tensor product of cubic B-splines, one axis after the other.
std::vector<float> FieldOf(const Lattice& lattice, const std::array<CoarseAxis, 3>& axes,
                           const std::array<std::int64_t, 3>& size) {
  const auto points = lattice.GetLargestPossibleRegion().GetSize();
  const auto* const values = reinterpret_cast<const float*>(lattice.GetBufferPointer());
  const std::vector<SplineWeights> along_x = WeightsAlong(size[0], axes[0], points[0]);
  const std::vector<SplineWeights> along_y = WeightsAlong(size[1], axes[1], points[1]);
  const std::vector<SplineWeights> along_z = WeightsAlong(size[2], axes[2], points[2]);
  std::vector<float> field(static_cast<std::size_t>(size[0] * size[1] * size[2]));
#pragma omp parallel
  {
    std::vector<float> plane(points[0] * points[1]);
    std::vector<float> row(points[0]);
#pragma omp for
    for (std::int64_t z = 0; z < size[2]; ++z) {
      Collapse(along_z[static_cast<std::size_t>(z)], values, plane.size(), plane);
      float* voxel = field.data() + z * size[0] * size[1];
      for (const SplineWeights& y : along_y) {
        Collapse(y, plane.data(), row.size(), row);
        for (const SplineWeights& x : along_x) {
          const float* const near = row.data() + x.first;
          *voxel++ = std::exp(x.weights[0] * near[0] + x.weights[1] * near[1] +
                              x.weights[2] * near[2] + x.weights[3] * near[3]);
        }
      }
    }
  }
  return field;
}

absl::Status Check(const Volume& volume, const Mask& mask) {
  RETURN_IF_ERROR(CheckVoxels(volume));
  if (mask.size() != volume.voxels.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the mask has {} voxels, the volume {}", mask.size(), volume.voxels.size()));
  }
  const auto& size = volume.geometry.size;
  if (*std::min_element(size.begin(), size.end()) < 2) {
    return absl::InvalidArgumentError(fmt::format(
        "N4 needs two voxels along each axis, the volume has {} x {} x {}: leave n4 out for it",
        size[0], size[1], size[2]));
  }
  return absl::OkStatus();
}

absl::StatusOr<BiasField> Correct(Volume& volume, const Mask& mask, const N4Plan& plan) {
  RETURN_IF_ERROR(Check(volume, mask));
  Coarse coarse = CoarseCopy(volume, mask, plan.shrink);
  const auto chosen = std::count(coarse.mask.begin(), coarse.mask.end(), 1);
  if (chosen < kFewestVoxels) {
    return absl::InvalidArgumentError(
        fmt::format("the mask has {} voxels on N4's coarse grid, at least {} are needed: use a "
                    "smaller shrink, or look whether the mask lies on the tissue",
                    chosen, kFewestVoxels));
  }
  const double low = Percentile(coarse.voxels, kLowPercentile);
  const double range = Percentile(coarse.voxels, kHighPercentile) - low;
  if (!(range > 0)) {
    return absl::InvalidArgumentError(
        "nearly all voxels have one intensity: there is no tissue that N4 could see a field on");
  }
  // N4 stops when its field has settled, so the last digit of one voxel decides on another round of
  // iterations, and digits are what another scale and bias change: they are rounded away.
  for (float& voxel : coarse.voxels) {
    const double mapped = 1 + (static_cast<double>(voxel) - low) * kMappedRange / range;
    voxel = static_cast<float>(std::max(std::round(mapped / kMappedStep) * kMappedStep, 1.0));
  }

  BiasField result;
  const Lattice::ConstPointer lattice = Fit(coarse, plan, result);
  const Volume field{.geometry = volume.geometry,
                     .voxels = FieldOf(*lattice, coarse.axes, volume.geometry.size)};
  RETURN_IF_ERROR(CheckVoxels(field));
  const IntensityStatistics statistics = StatisticsOf(field, mask);
  result.standard_deviation = statistics.standard_deviation / statistics.mean;

  // y = (x - zero) / field + zero, where `zero` is the intensity that N4 saw as none at all.
  const double zero = low - range / kMappedRange;
  const auto count = static_cast<std::int64_t>(volume.voxels.size());
  float minimum = std::numeric_limits<float>::infinity();
  float maximum = 0;
#pragma omp parallel for reduction(min : minimum) reduction(max : maximum)
  for (std::int64_t i = 0; i < count; ++i) {
    const auto voxel = static_cast<std::size_t>(i);
    const float here = field.voxels[voxel];
    if (mask[voxel] != 0) {
      minimum = std::min(minimum, here);
      maximum = std::max(maximum, here);
    }
    volume.voxels[voxel] = static_cast<float>((static_cast<double>(volume.voxels[voxel]) - zero) *
                                                  statistics.mean / static_cast<double>(here) +
                                              zero);
  }
  result.minimum = static_cast<double>(minimum) / statistics.mean;
  result.maximum = static_cast<double>(maximum) / statistics.mean;
  return result;
}

}  // namespace

absl::StatusOr<BiasField> CorrectBiasField(Volume& volume, const Mask& mask, const N4Plan& plan) {
  try {
    return Correct(volume, mask, plan);
  } catch (const itk::ExceptionObject& error) {
    return absl::InternalError(fmt::format("N4 failed: {}", error.GetDescription()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        fmt::format("N4 of {} voxels needs more memory than there is", volume.geometry.voxels()));
  }
}

}  // namespace isoscan
