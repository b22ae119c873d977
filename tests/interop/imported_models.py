#!/usr/bin/env python3
"""Trains with unmodified nnU-Net for some steps, imports the model, and compares its labels here and there.

Of a Decathlon cohort of one channel, whose first cases are held out: raw images in LPS order
(`isoscan-client harmonize --nnunet` of a study that normalises nothing), nnU-Net's own planning, preprocessing
and trainer on the others, `deploy/convert_model.py`, `isoscan-client import`, then `isoscan-client predict` on
the held-out cases beside `nnUNetv2_predict_from_modelfolder` on their LPS copies. Fails where the Dice of a
label is below 0.999.

    venv/bin/python tests/interop/imported_models.py --cohort Task04_Hippocampus --programs build/release/bin
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import SimpleITK as sitk

from exported_models import LEAST, dice, lps, nnunet, run, some_cases

STUDY = """name = "imported"
channels = {channels}
labels = {labels}

[harmonization]
{harmonization}

[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]

[training]
patch_size = [8, 8, 8]
"""
EPOCHS = 15
# What a study does first, and what nnU-Net calls a channel that it is not to normalise itself.
HARMONIZATION = {"zscore": 'normalize = "none"', "instance": 'normalize = "instance"\nmask = "whole"'}
UNTOUCHED = "noNorm"


def lps_labels(cohort, out):
    """Answers with {case: labels}, and leaves them in LPS order in a folder."""
    out.mkdir(parents=True)
    labels = {}
    for path in sorted((cohort / "labelsTr").glob("*.nii.gz")):
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        sitk.WriteImage(image, str(out / path.name))
        labels[path.name.split(".")[0]] = sitk.GetArrayFromImage(image)
    return labels


def train(folder, raw, options):
    """nnU-Net as it is, on a plan of fewer features and smaller patches; answers with the model's folder.

    The patch is smaller than the crops, so that predictions are put together of several windows.
    """
    for kind in "raw", "preprocessed", "results":
        os.environ[f"nnUNet_{kind}"] = str(folder / kind)
        (folder / kind).mkdir(exist_ok=True)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
    programs = pathlib.Path(sys.executable).parent
    planner = {"plain": "ExperimentPlanner", "residual": "nnUNetPlannerResEncM"}[options.network]
    run([programs / "nnUNetv2_plan_and_preprocess", "-d", 1, "-c", "3d_fullres", "-np", 1, "-npfp", 1, "-pl", planner],
        env=os.environ)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans_file, = (folder / "preprocessed" / raw.name).glob("*Plans.json")
    plans = json.loads(plans_file.read_text())
    plan = plans["configurations"]["3d_fullres"]
    plan["batch_size"], plan["patch_size"] = 2, [32, 40, 32]
    stages = len(plan["architecture"]["arch_kwargs"]["features_per_stage"])
    plan["architecture"]["arch_kwargs"]["features_per_stage"] = [8 * 2**stage for stage in range(stages)]
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, "3d_fullres", "all", json.loads((raw / "dataset.json").read_text()),
                            device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_val_iterations_per_epoch = EPOCHS, 1
    trainer.num_iterations_per_epoch = -(-options.steps // EPOCHS)
    trainer.run_training()
    return pathlib.Path(trainer.output_folder_base)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "cohort", "programs":
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--cases", type=int, default=20, help="the first so many are held out")
    parser.add_argument("--training-cases", type=int, default=60, help="the next so many train")
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--network", choices=["plain", "residual"], default="plain")
    parser.add_argument("--normalize", choices=["zscore", "instance"], default="zscore",
                        help="zscore: nnU-Net's own, of raw images; instance: ours, of the whole volume, before "
                             "nnU-Net sees it (NoNormalization)")
    parser.add_argument("--model", type=pathlib.Path, help="a model folder that such a run has trained; trains none")
    parser.add_argument("--keep", type=pathlib.Path, help="a new folder for everything; otherwise it is removed")
    options = parser.parse_args()
    options.overlap = 0.5
    with tempfile.TemporaryDirectory() as name:
        if options.keep:
            options.keep.mkdir(parents=True)
        return compare(options, (options.keep or pathlib.Path(name)).resolve())


def compare(options, folder):
    client = options.programs / "isoscan-client"
    convert = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "convert_model.py"
    description = json.loads((options.cohort / "dataset.json").read_text())
    names = [name for value, name in sorted(description["labels"].items()) if value != "0"]
    channels = list(description["modality"].values())
    some_cases(options.cohort, options.cases, folder / "held_out")
    some_cases(options.cohort, options.training_cases, folder / "cohort", first=options.cases)
    study = folder / "study.toml"
    study.write_text(STUDY.format(channels=json.dumps(channels), labels=json.dumps(names),
                                  harmonization=HARMONIZATION[options.normalize]))
    run([client, "harmonize", folder / "held_out", folder / "images", "--nnunet", "--study", study])
    truth = lps_labels(folder / "held_out", folder / "truth")
    model = options.model
    if not model:
        raw = folder / "raw" / "Dataset001_Imported"
        run([client, "harmonize", folder / "cohort", raw / "imagesTr", "--nnunet", "--study", study])
        lps_labels(folder / "cohort", raw / "labelsTr")
        (raw / "dataset.json").write_text(json.dumps({
            "channel_names": {"0": channels[0] if options.normalize == "zscore" else UNTOUCHED}, "file_ending": ".nii.gz", "numTraining": options.training_cases,
            "labels": {"background": 0} | {name: i + 1 for i, name in enumerate(names)}}))
        model = train(folder, raw, options)
    run([sys.executable, convert, "nnunet", model, folder / "start"])
    text = (folder / "start" / "study.toml").read_text()
    if options.normalize != "zscore":  # What its owner has to complete.
        text = text.replace(UNTOUCHED, channels[0]).replace('normalize = "instance"', HARMONIZATION["instance"])
    study.write_text('name = "imported"\n' + text)
    print(study.read_text(), file=sys.stderr)
    run([client, "import", folder / "start" / "weights.safetensors", folder / "model.safetensors",
         "--study", study])
    run([client, "predict", folder / "held_out", folder / "ours", "--study", study,
         "--model", folder / "model.safetensors"])
    (folder / "out").mkdir()
    theirs = nnunet(options, model, folder / "images", folder / "out")
    worst, good = 1.0, []
    for case, labels in theirs.items():
        mine = lps(folder / "ours" / f"{case}.nii.gz")
        scores = [dice(mine, labels, label + 1) for label in range(len(names))]
        worst = min([worst, *scores])
        good.append([dice(labels, truth[case], label + 1) for label in range(len(names))])
        print(f"{case:20} {' '.join(f'{score:.5f}' for score in scores)}  "
              f"{(labels > 0).sum()} voxels of labels, {(mine != labels).sum()} differ")
    print(f"worst Dice {worst:.5f}; nnU-Net's own with the truth "
          f"{' '.join(f'{score:.3f}' for score in np.mean(good, axis=0))}")
    if np.min(np.max(good, axis=0)) == 0:
        sys.exit("there is a label that the model never finds: train it longer")
    return worst < LEAST


if __name__ == "__main__":
    sys.exit(main())
