#!/usr/bin/env python3
"""Runs an exported model in unmodified nnU-Net and MONAI and compares their labels with ours.

Of the first cases of a cohort (Decathlon, nnU-Net or BIDS): `isoscan-client harmonize --nnunet`, `export`,
`predict`; `nnUNetv2_predict_from_modelfolder` as it is installed; MONAI's DynUNet, loaded with strict=True
and weights_only=True, under its sliding_window_inference. Prints the Dice of each label of each case and
fails where one is below 0.999. docs/interop.md says how to get the packages, and what it showed.

    venv/bin/python tests/interop/exported_models.py --cohort Task04_Hippocampus --study plan.toml \\
        --model model.safetensors --programs build/release/bin
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib

import numpy as np
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import DynUNet

LEAST = 0.999


def run(command, **more):
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    print(f"{pathlib.Path(command[0]).name} {command[1]}: {time.monotonic() - start:.1f} s", file=sys.stderr)


def some_cases(cohort, count, folder, first=0):
    """Some of a Decathlon cohort's cases, in the order of their names, as links."""
    description = json.loads((cohort / "dataset.json").read_text())
    description["training"] = sorted(description["training"], key=lambda entry: entry["image"])
    description["training"] = description["training"][first:first + count]
    for entry in description["training"]:
        for path in entry.values():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to((cohort / path).resolve())
    (folder / "dataset.json").write_text(json.dumps(description))


def lps(path):
    """[D, H, W] in LPS order, as a study sees it."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))


def nnunet(options, model, images, out):
    environment = os.environ | {f"nnUNet_{kind}": str(out) for kind in ("raw", "preprocessed", "results")}
    run([pathlib.Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder", "-m", model, "-f", "all",
         "-i", images, "-o", out, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta",
         "-step_size", 1 - options.overlap], env=environment)
    return {path.name.split(".")[0]: lps(path) for path in sorted(out.glob("*.nii.gz"))}


def monai(options, model, images, patch, channels):
    network = DynUNet(**json.loads((model / "dynunet.json").read_text()))
    network.load_state_dict(torch.load(model / "dynunet.pth", weights_only=True), strict=True)
    network.eval()
    labels = {}
    for first in sorted(images.glob("*_0000.nii.gz")):
        case = first.name[:-len("_0000.nii.gz")]
        image = np.stack([lps(images / f"{case}_{channel:04}.nii.gz") for channel in range(channels)])
        with torch.inference_mode():
            scores = sliding_window_inference(torch.from_numpy(image)[None], patch, 2, network,
                                              overlap=options.overlap, mode="gaussian", sigma_scale=0.125)
        labels[case] = scores[0].argmax(0).numpy()
    return labels


def dice(left, right, label):
    left, right = left == label, right == label
    total = left.sum() + right.sum()
    return 1.0 if total == 0 else float(2 * (left & right).sum() / total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "cohort", "study", "model", "programs":
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--format", choices=["nnunet", "dynunet"], action="append",
                        help="only this one; otherwise both")
    parser.add_argument("--ours", type=pathlib.Path,
                        help="labels CASE.nii.gz to compare with, instead of those of `isoscan-client predict`")
    options = parser.parse_args()
    study = tomllib.loads(options.study.read_text())
    options.overlap = study.get("evaluation", {}).get("overlap", 0.5)
    client = options.programs / "isoscan-client"
    worst = 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        some_cases(options.cohort, options.cases, folder / "cohort")
        ours = options.ours
        if not ours:
            ours = folder / "ours"
            run([client, "predict", folder / "cohort", ours, "--study", options.study, "--model", options.model])
        run([client, "harmonize", folder / "cohort", folder / "images", "--nnunet", "--study", options.study,
             "--model", options.model])
        for kind in options.format or ["nnunet", "dynunet"]:
            run([client, "export", folder / kind, "--format", kind, "--study", options.study, "--model", options.model])
            (folder / "out").mkdir(exist_ok=True)
            if kind == "nnunet":
                theirs = nnunet(options, folder / kind, folder / "images", folder / "out")
            else:
                theirs = monai(options, folder / kind, folder / "images", study["training"]["patch_size"],
                               len(study["channels"]))
            assert len(theirs) == options.cases, sorted(theirs)
            for case, labels in theirs.items():
                mine = lps(ours / f"{case}.nii.gz")
                scores = [dice(mine, labels, label + 1) for label in range(len(study["labels"]))]
                worst = min([worst, *scores])
                print(f"{kind:8} {case:20} {' '.join(f'{score:.5f}' for score in scores)}  "
                      f"{np.count_nonzero(mine != labels)} of {labels.size} voxels differ")
    print(f"worst Dice {worst:.5f}")
    return worst < LEAST


if __name__ == "__main__":
    sys.exit(main())
