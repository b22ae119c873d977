"""Writes tests/golden/evaluation/surface_metrics.json: what DeepMind's surface-distance and MONAI answer to
pairs of small masks, and the areas of surface-distance's 256 neighbourhoods. docs/evaluation.md says how to
run it. Masks are run lengths in the order z, y, x: outside, inside, outside, ...
"""
import contextlib
import importlib.metadata
import json
import pathlib
import sys
import warnings

import numpy as np
import scipy.ndimage

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "evaluation" / "surface_metrics.json"
PACKAGES = ("surface-distance-based-measures", "monai", "numpy", "scipy", "torch")
AREA_SPACINGS = ((1, 1, 1), (0.7, 1.3, 4), (2.5, 0.5, 0.9))


def ellipsoid(shape, centre, radii):
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii)) <= 1


def box(shape, first, end):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(f, e) for f, e in zip(first, end))] = True
    return mask


def blobs(shape, seed, sigma=1.5, share=0.3):
    noise = scipy.ndimage.gaussian_filter(np.random.RandomState(seed).rand(*shape), sigma)
    return noise > np.quantile(noise, 1 - share)


def pairs():
    """name, spacing in mm, reference, predicted; all in the order z, y, x."""
    shape = (18, 22, 26)
    ball = ellipsoid(shape, (9, 11, 12), (6, 7, 8))
    yield "ellipsoids", (1, 1, 1), ball, ellipsoid(shape, (8, 12, 14), (5, 7.5, 8))
    yield "thick slices", (3.3, 0.9, 0.7), ball, ellipsoid(shape, (10, 10, 13), (5, 8, 7))
    yield "coarse in x", (0.6, 0.8, 2.9), ball, ellipsoid(shape, (9, 13, 12), (7, 7, 6))
    yield "blobs", (0.5, 0.8, 1.2), blobs(shape, 1), blobs(shape, 2)
    yield "blobs and their dilation", (1.1, 1.1, 1.1), blobs(shape, 3), scipy.ndimage.binary_dilation(blobs(shape, 3))
    yield "noise", (1.3, 0.7, 1), blobs((10, 11, 12), 4, 0, 0.5), blobs((10, 11, 12), 5, 0, 0.4)
    yield "touching every border", (1, 2, 1), np.ones((5, 6, 7), bool), box((5, 6, 7), (0, 0, 1), (5, 3, 7))
    yield "cube shifted by one", (1, 1, 1), box((10, 10, 10), (3, 3, 3), (7, 7, 7)), box((10, 10, 10), (3, 3, 4), (7, 7, 8))
    yield "voxel against cube", (1, 1, 1), box((8, 8, 8), (2, 2, 2), (3, 3, 3)), box((8, 8, 8), (2, 2, 2), (6, 6, 6))
    yield "one slice", (5, 1, 1), box((1, 20, 20), (0, 4, 4), (1, 15, 13)), box((1, 20, 20), (0, 6, 3), (1, 16, 12))
    yield "equal", (1, 1, 2), ball, ball
    wide = (30, 40, 150)
    yield ("a false blob far away", (1, 1, 1), ellipsoid(wide, (15, 20, 12), (8, 9, 10)),
           ellipsoid(wide, (14, 21, 13), (8, 9, 10)) | box(wide, (25, 33, 139), (28, 36, 143)))
    yield ("far apart", (1.5, 0.6, 0.9), ellipsoid(wide, (6, 7, 20), (5, 6, 9)), ellipsoid(wide, (22, 32, 131), (6, 6, 8)))


def runs_of(mask):
    flat = np.concatenate(([False], mask.ravel()))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate(([0], changes, [mask.size]))).tolist()


def by_elements(reference, predicted, spacing, tolerances):
    import surface_distance as peer
    distances = peer.compute_surface_distances(reference, predicted, spacing)
    return {"hd95_mm": peer.compute_robust_hausdorff(distances, 95), "hd_mm": peer.compute_robust_hausdorff(distances, 100),
            "mean_mm": list(peer.compute_average_surface_distance(distances)),
            "area_mm2": [distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()],
            "nsd": [peer.compute_surface_dice_at_tolerance(distances, tolerance) for tolerance in tolerances]}


def by_voxels(reference, predicted, spacing, tolerances):
    import monai.metrics as peer
    import torch
    masks = [torch.from_numpy(np.stack([~mask, mask]))[None] for mask in (predicted, reference)]
    hausdorff = lambda percentile: peer.compute_hausdorff_distance(*masks, percentile=percentile, spacing=spacing).item()
    return {"hd95_mm": hausdorff(95), "hd_mm": hausdorff(100),
            "assd_mm": peer.compute_average_surface_distance(*masks, symmetric=True, spacing=spacing).item(),
            "nsd": [peer.compute_surface_dice(*masks, [tolerance], spacing=spacing).item() for tolerance in tolerances]}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else float(f"{value:.12g}")


def areas(spacing):
    """By which of the voxels (z, y, x) of 2x2x2 are in the mask: bit x + 2 y + 4 z."""
    from surface_distance import lookup_tables
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    kernel = np.asarray(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL).ravel()
    return [rounded(table[sum(int(kernel[bit]) for bit in range(8) if code >> bit & 1)]) for code in range(256)]


def main():
    warnings.simplefilter("ignore")
    cases = []
    with contextlib.redirect_stdout(sys.stderr):
        for name, spacing, reference, predicted in pairs():
            spacing = tuple(map(float, spacing))
            tolerances = [0, 0.95, 1.75, 3.1]  # Between the distances that occur: rounding decides nothing.
            cases.append({"name": name, "size": reference.shape[::-1], "spacing_mm": spacing[::-1],
                          "reference": runs_of(reference), "predicted": runs_of(predicted), "tolerances_mm": tolerances,
                          "elements": rounded(by_elements(reference, predicted, spacing, tolerances)),
                          "voxels": rounded(by_voxels(reference, predicted, spacing, tolerances))})
        tables = [{"spacing_mm": spacing[::-1], "mm2": areas(spacing)} for spacing in AREA_SPACINGS]
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    lines = lambda entries: ",\n".join(json.dumps(entry) for entry in entries)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines(cases)}\n], "areas": [\n{lines(tables)}\n]}}\n')


if __name__ == "__main__":
    main()
