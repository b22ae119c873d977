"""Computes intensity-normalization.txt with the package of that name; README.md says how.

The phantom's formula stands twice: here, and in tests/unit/client/harmonization/brain_phantom.h. It
takes whole numbers alone, so both sides build the same voxels.
"""

import importlib.metadata
import pathlib

import nibabel
import numpy as np
from intensity_normalization import (FCMNormalizer, KDENormalizer, LSQNormalizer, Modality,
                                     NyulNormalizer, TissueType, WhiteStripeNormalizer,
                                     ZScoreNormalizer, create_image)

SIZE = (24, 28, 20)  # x, y, z
CASES = 6
FCM_STARTS = 40


def phantom(case):
    """Skull, CSF, grey and white matter as shells, noisy 12-bit integers; and the brain's mask."""
    voxels = np.zeros(SIZE)
    mask = np.zeros(SIZE, dtype=np.uint8)
    state = 12345 + 1000 * case
    csf, grey, white = 420 + 15 * case, 800 - 10 * case, 1120 + 25 * case
    for z in range(SIZE[2]):
        for y in range(SIZE[1]):
            for x in range(SIZE[0]):
                r = 64 * (2 * x - 23) ** 2 + 47 * (2 * y - 27) ** 2 + 92 * (2 * z - 19) ** 2
                tissue = (white if r < 9000 else grey if r < 17000 else csf if r < 21000 else
                          1500 if 24000 < r < 28000 else 30)
                noise = 0
                for _ in range(4):
                    state = (1664525 * state + 1013904223) % 2**32
                    noise += state >> 24
                value = max(0, tissue + noise * 3 // 10 - 153)
                voxels[x, y, z] = value * (4 + case) // 4 + 7 * case
                mask[x, y, z] = r < 21000
    image = nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4))
    return create_image(image), create_image(nibabel.Nifti1Image(mask, np.eye(4)))


def probes(image):
    """Every 97th voxel, x fastest."""
    return image.get_data().flatten(order="F")[::97]


def divisor(image, normalised):
    """What every voxel was divided by."""
    return image.get_data().max() / normalised.get_data().max()


def main():
    lines = []

    def put(name, *values):
        lines.append(" ".join([name] + [repr(float(v)) for v in np.ravel(values)]))

    images, masks = zip(*(phantom(case) for case in range(CASES)))
    put("phantom", probes(images[0]))
    put("phantom_mask", [int(m.get_data().sum()) for m in masks])

    zscore = ZScoreNormalizer().fit(images[0], masks[0])
    put("zscore", zscore.mean, zscore.std)
    put("zscore_probes", probes(zscore.transform(images[0])))

    nyul = NyulNormalizer().fit_population(images, masks)
    put("nyul_scale", nyul.standard_scale)
    for case in (0, CASES - 1):
        put(f"nyul_probes_{case}", probes(nyul.transform(images[case], masks[case])))

    for modality in Modality.T1, Modality.T2, Modality.FLAIR, Modality.PD:
        kde = KDENormalizer(modality=modality).fit(images[0], masks[0])
        put(f"kde_{modality.value}", kde.tissue_mode)
        put(f"kde_probes_{modality.value}", probes(kde.transform(images[0])))
        stripe = WhiteStripeNormalizer(modality=modality).fit(images[0], masks[0])
        put(f"white_stripe_{modality.value}", stripe.mean, stripe.std, stripe.whitestripe_mask.sum())
        put(f"white_stripe_probes_{modality.value}", probes(stripe.transform(images[0])))

    # The package starts fuzzy c-means from numpy's random numbers, without a seed, and stops after
    # 50 iterations: FCM_STARTS starts, of which the median counts and the spread is told.
    for tissue in TissueType.CSF, TissueType.GM, TissueType.WM:
        means = []
        for seed in range(FCM_STARTS):
            np.random.seed(seed)
            fcm = FCMNormalizer(tissue_type=tissue).fit(images[0], masks[0])
            means.append(divisor(images[0], fcm.transform(images[0])))
        put(f"fcm_{tissue.value}", np.median(means), (max(means) - min(means)) / np.median(means))
    scales = []
    for seed in range(FCM_STARTS):
        np.random.seed(seed)
        lsq = LSQNormalizer().fit_population(images[:1], masks[:1])
        scales.append((lsq.standard_tissue_means.ravel(),
                       divisor(images[3], lsq.transform(images[3], masks[3]))))
    put("lsq_standard", np.median([s for s, _ in scales], axis=0))
    put("lsq_scale_3", np.median([c for _, c in scales]), np.ptp([c for _, c in scales]) /
        np.median([c for _, c in scales]))

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in
                         ("intensity-normalization", "scikit-fuzzy", "numpy", "scipy", "nibabel"))
    header = f"# Written by generate.py with {versions}.\n"
    folder = pathlib.Path(__file__).parent
    (folder / "intensity-normalization.txt").write_text(header + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
