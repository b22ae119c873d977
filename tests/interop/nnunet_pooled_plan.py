"""Prints nnU-Net's own plan of the pooled training cases of sites' folders, as one JSON line: to hold
beside what `isoscan-admin study plan` makes of the sites' fingerprints (docs/planning.md).

    nnunet_pooled_plan.py FOLDER ... [--every 5]

A folder is a cohort in Decathlon's layout, or BIDS with one image per case and a mask per label. Cases
0, k, 2k, ... of each folder, by name, are held out, as the study's `rule = "every"` does it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile


def cases_of(folder):
    """(image, labels) by the case's name."""
    if (folder / "imagesTr").is_dir():
        images = sorted((folder / "imagesTr").glob("[!.]*.nii.gz"))
        return [(image, folder / "labelsTr" / image.name) for image in images]
    cases = []
    for image in sorted(folder.glob("sub-*/anat/*.nii.gz")):
        subject = image.parts[-3]
        cases.append((image, next(folder.glob(f"derivatives/*/{subject}/anat/*_mask.nii.gz"))))
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--labels", type=int, default=1, help="labels beside background")
    parser.add_argument("--gb", type=float, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        plan(pathlib.Path(root), options)


def plan(root, options):
    raw = root / "raw" / "Dataset001_pooled"
    for folder in (raw / "imagesTr", raw / "labelsTr", root / "preprocessed", root / "results"):
        folder.mkdir(parents=True)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(root / name)
    count = 0
    for folder in options.folders:
        for index, (image, labels) in enumerate(cases_of(folder.resolve())):
            if index % options.every == 0:
                continue
            (raw / "imagesTr" / f"case{count:05}_0000.nii.gz").symlink_to(image.resolve())
            (raw / "labelsTr" / f"case{count:05}.nii.gz").symlink_to(labels.resolve())
            count += 1
    names = {"background": 0} | {f"label{i + 1}": i + 1 for i in range(options.labels)}
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "MRI"}, "labels": names, "numTraining": count, "file_ending": ".nii.gz"}))
    with contextlib.redirect_stdout(sys.stderr):
        from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
        extract_fingerprints([1], num_processes=2, check_dataset_integrity=False, clean=True, verbose=False)
        plan_experiments([1], gpu_memory_target_in_gb=options.gb)
    full = json.loads(next((root / "preprocessed").rglob("nnUNetPlans.json")).read_text())
    transpose = full["transpose_forward"]
    full = full["configurations"]["3d_fullres"]
    network = full["architecture"]["arch_kwargs"]
    print(json.dumps({"cases": count, "transpose_forward": transpose, "spacing": full["spacing"],
                      "median_size": full["median_image_size_in_voxels"], "patch_size": full["patch_size"],
                      "batch_size": full["batch_size"], "features": network["features_per_stage"],
                      "strides": network["strides"], "kernels": network["kernel_sizes"]}))


if __name__ == "__main__":
    main()
