"""Writes tests/golden/planning/nnunet_plans.json: what nnU-Net's own planner answers to the cohorts
of COHORTS, or with --random to others. Needs no image and no GPU; docs/planning.md says how to run it.

Every number of a cohort has at most four significant digits, so that rounding to them changes none;
but for `as_scanned`, whose spacings are what scanners write.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "planning" / "nnunet_plans.json"
PACKAGES = ("nnunetv2", "dynamic_network_architectures", "torch", "numpy")
RUNS = (("plain", 8), ("residual_m", 8), ("residual_l", 24))


def same(count, spacing, size):
    return [[count, spacing, size]]


def spread(count, spacings, sizes):
    """`count` different cases: every axis runs through its lists, at a pace of its own."""
    return [[1, [axis[(5 * i + 3 * a) % len(axis)] for a, axis in enumerate(spacings)],
             [axis[(7 * i + 2 * a) % len(axis)] for a, axis in enumerate(sizes)]]
            for i in range(count)]


# name: (channels, classes, relative size after cropping, [cases, spacing in mm, size in voxels]);
# axes z, y, x.
COHORTS = {
    "tumour": (4, 4, 0.16, same(484, [1, 1, 1], [138, 169, 138])),
    "t1_brain": (1, 4, 0.7, same(40, [1, 1, 1], [160, 192, 160])),
    "hippocampus": (1, 3, 1, same(260, [1, 1, 1], [36, 50, 35])),
    "ixi_tiny": (1, 2, 1, same(453, [1, 1, 1], [48, 60, 48])),
    "prostate": (2, 3, 1, same(32, [3.6, 0.625, 0.625], [20, 320, 319])),
    "flair_2d": (1, 2, 0.5, same(60, [5, 0.9, 0.9], [28, 220, 180])),
    # The coarse axis takes its 10th percentile.
    "heart": (1, 4, 1, spread(100, [[5, 10, 10, 8, 10, 6.5, 10], [1.5, 1.25, 1.75], [1.5, 1.25, 1.75]],
                              [[9, 10, 8, 12], [240, 256, 220], [208, 216, 256, 232]])),
    # The same, but finer than in plane: it takes the plane's, and 1e-5.
    "finer_than_the_plane": (1, 2, 1, same(70, [6, 1.5, 1.5], [20, 200, 200])
                             + same(30, [0.7, 1.5, 1.5], [20, 200, 200])),
    "sagittal": (1, 2, 1, same(80, [0.8, 0.8, 4], [256, 256, 36])),
    "coronal": (1, 3, 1, same(50, [0.9, 3.2, 0.8], [190, 60, 240])),
    "cube": (1, 2, 1, same(100, [1, 1, 1], [256, 256, 256])),
    "two_tied": (1, 2, 1, same(100, [2, 1, 1], [96, 256, 256])),
    "tiny": (1, 2, 1, same(30, [1, 1, 1], [12, 14, 10])),
    "tiny_many": (1, 2, 1, same(9000, [1, 1, 1], [16, 16, 16])),
    "batch_cap": (1, 3, 1, same(21, [1, 1, 1], [36, 50, 35])),
    "huge": (1, 2, 1, same(50, [0.8, 0.6, 0.6], [500, 700, 700])),
    "huge_anisotropic": (1, 6, 1, same(130, [3, 0.45, 0.45], [150, 900, 900])),
    "two_protocols": (2, 2, 0.6, same(41, [1.2, 0.9375, 0.9375], [160, 256, 256])
                      + same(40, [0.9, 0.9, 0.9], [200, 260, 240])),
    "many_protocols": (1, 5, 0.9, spread(75, [[1, 1.2, 3, 2, 4, 5, 1.5], [0.5, 0.9, 1, 0.7], [0.5, 1, 0.8]],
                                         [[160, 40, 60, 90, 176], [320, 256, 224], [300, 256, 240, 192]])),
    "half_a_voxel": (1, 3, 1, same(30, [1.5, 0.8, 0.8], [61, 180, 171])
                     + same(30, [1.5, 0.8, 0.8], [68, 203, 200])),
    "few_slices": (1, 2, 1, same(30, [6, 0.6, 0.6], [9, 320, 320])),
    "seven_slices": (1, 2, 1, same(30, [6, 0.6, 0.6], [7, 320, 320])),
    "short_middle_axis": (1, 2, 1, same(30, [1, 1, 1], [64, 7, 80])),
    "short_last_axis": (1, 2, 1, same(30, [1, 1, 1], [64, 80, 7])),
    "as_scanned": (1, 2, 1, same(17, [1.1999969482421875, 0.48828125, 0.48828125], [140, 512, 512])
                   + same(16, [0.8999994, 0.4882812798, 0.4882812798], [190, 448, 460])
                   + same(12, [1, 1.0000001192, 0.9999998807], [170, 240, 241])),
}


def random_cohort(draw):
    """Up to 20 protocols, one axis up to 8 times as coarse."""
    def spacing(mm):
        return float(f"{mm:.4g}")

    cases = []
    axis, coarser, finest = draw.randrange(3), draw.choice([1, 1, 1, 2, 4, 8]), draw.uniform(0.4, 1.5)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        spacings = [spacing(finest * draw.choice([1, 1, draw.uniform(0.7, 1.4)])) for _ in range(3)]
        spacings[axis] = spacing(finest * coarser * draw.choice([1, 1, 0.8, 1.2]))
        size = [draw.randint(draw.choice([10, 150]), 320) for _ in range(3)]
        size[axis] = max(5, int(size[axis] / coarser / draw.uniform(0.8, 1.5)))
        cases.append([draw.randint(1, 40), spacings, size])
    return draw.choice([1, 1, 2, 4]), draw.choice([2, 3, 5, 20]), draw.choice([1, 0.75, 0.749]), cases


def run(root, planners, cohort, preset, memory_gb):
    """nnU-Net's plan of the cohort."""
    channels, classes, relative_size, groups = cohort
    cases = [(spacing, size) for count, spacing, size in groups for _ in range(count)]
    raw, preprocessed = (root / kind / "Dataset001_Cohort" for kind in ("raw", "preprocessed"))
    for folder in (raw, preprocessed):
        shutil.rmtree(folder, ignore_errors=True)  # A planner keeps what an earlier plan had.
        folder.mkdir(parents=True)
    names = [f"case_{i:05d}" for i in range(len(cases))]
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {str(c): "MRI" for c in range(channels)},
        "labels": {"background": 0} | {f"label_{c}": c for c in range(1, classes)},
        "numTraining": len(cases), "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {name: {"images": [f"{name}_0000.nii.gz"], "label": f"{name}.nii.gz"}
                    for name in names}}))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps({
        "spacings": [spacing for spacing, _ in cases], "shapes_after_crop": [size for _, size in cases],
        "foreground_intensity_properties_per_channel": {},
        "median_relative_size_after_cropping": relative_size}))

    planner = planners[preset]("Dataset001_Cohort", gpu_memory_target_in_gb=memory_gb)
    plans = planner.plan_experiment()

    def grid(name):
        if name not in plans["configurations"]:
            return None
        plan = plans["configurations"][name]
        kwargs = plan["architecture"]["arch_kwargs"]
        return {
            "spacing_mm": [float(v) for v in plan["spacing"]],
            "median_size": [float(v) for v in plan["median_image_size_in_voxels"]],
            "patch_size": [int(v) for v in plan["patch_size"]], "batch_size": int(plan["batch_size"]),
            "features": list(kwargs["features_per_stage"]), "strides": kwargs["strides"],
            "kernels": kwargs["kernel_sizes"],
            "encoder_blocks": list(kwargs.get("n_blocks_per_stage", kwargs.get("n_conv_per_stage"))),
            "decoder_convolutions": list(kwargs["n_conv_per_stage_decoder"]),
            "feature_map_numbers": int(planner.static_estimate_VRAM_usage(
                plan["patch_size"], channels, classes, plan["architecture"]["network_class_name"],
                kwargs, plan["architecture"]["_kw_requires_import"])),
            "batch_dice": plan["batch_dice"]}

    full = plans["configurations"]["3d_fullres"]
    return {"transpose_forward": plans["transpose_forward"],
            "normalize_nonzero": bool(full["use_mask_for_norm"][0]),
            "full_resolution": grid("3d_fullres"), "low_resolution": grid("3d_lowres")}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--random", type=int, default=0, help="so many random cohorts instead")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    draw = random.Random(chosen.seed)
    wanted = {f"random_{i}": random_cohort(draw) for i in range(chosen.random)} or COHORTS
    cohorts = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for kind in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{kind}"] = str(pathlib.Path(folder) / kind)
        import torch
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
            ExperimentPlanner)
        from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
            residual_encoder_unet_planners as residual)
        planners = {"plain": ExperimentPlanner, "residual_m": residual.nnUNetPlannerResEncM,
                    "residual_l": residual.nnUNetPlannerResEncL}
        # The planner builds every network that it weighs: without values, which it does not look at.
        torch.set_default_device("meta")
        start = time.monotonic()
        for name, cohort in wanted.items():
            channels, classes, relative_size, groups = cohort
            runs = RUNS + ((("plain", 4), ("plain", 40)) if name in ("tumour", "prostate") else ())
            cohorts.append({
                "name": name, "channels": channels, "classes": classes,
                "relative_size": relative_size, "cases": groups,
                "plans": [{"preset": preset, "memory_gb": memory_gb}
                          | run(pathlib.Path(folder), planners, cohort, preset, memory_gb)
                          for preset, memory_gb in runs]})
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    lines = ",\n".join(json.dumps(cohort) for cohort in cohorts)
    GOLDEN.write_text(f'{{"versions": {json.dumps(versions)}, "cohorts": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
