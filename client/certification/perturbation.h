#pragma once

#include "client/imaging/volume.h"
#include "common/invariance/certificate.h"
#include "common/random/philox.h"

namespace isoscan {

/// x' = scale * x + bias on every voxel, in double, rounded to float once.
Volume Rescaled(const Volume& scan, double scale, double bias);

/// The scan as a scanner would have stored it that differs by more than scale and bias.
///
/// A stored scan has an unknown bias, so signal is what a voxel has above the least one of its
/// scan; for the magnitude of an MRI with air in it, that is the physical signal. Everything is
/// relative to the scan's own range, and so follows it under x' = s x + b, s > 0 (but for
/// rounding): the curves do not depend on the scale and bias of the scanner that they are measured
/// on.
///
///   kGamma           range * (signal / range)^amount
///   kLinearField     signal * (1 + amount * t), t from -1 to 1 along the diagonal of the volume
///   kQuadraticField  signal * (1 + amount * (1 - 2 r^2)), r from 0 in the middle to 1 in corners
///   kRicianNoise     |signal + sd * (n1 + i n2)|, sd = amount * the 95th percentile of the signal
///                    (bright tissue, as BrainWeb's reference), n1 and n2 standard normal
///   kSliceThickness  slices `amount` times as thick and as far apart, each the mean of what it
///                    covers, then interpolated linearly back; across the axis of the widest
///                    spacing, of equal ones the last
///   kNegativeScale   least + greatest - x: the mirrored contrast; amount is -1 (1 changes nothing)
///
/// The neutral amount gives the scan itself. `random` is drawn from for kRicianNoise alone.
/// Source: docs/references.md#kwan1999 (levels of noise and non-uniformity).
Volume Perturbed(const Volume& scan, Perturbation perturbation, double amount, RandomStream random);

}  // namespace isoscan
