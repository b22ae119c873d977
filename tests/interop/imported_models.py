#!/usr/bin/env python3
"""Trains with unmodified nnU-Net for some steps, imports the model, and compares its labels here and there.

Of a Decathlon cohort of one channel: raw images in LPS order (`isoscan-client harmonize --nnunet` of a study
that normalises nothing), nnU-Net's own planning, preprocessing and trainer, `deploy/convert_model.py`,
`isoscan-client import`, then `isoscan-client predict` on the cohort beside
`nnUNetv2_predict_from_modelfolder` on the LPS copies. Fails where the Dice of a label is below 0.999.

    venv/bin/python tests/interop/imported_models.py --cohort Task04_Hippocampus --programs build/release/bin
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile

from exported_models import LEAST, dice, lps, nnunet, run, some_cases

STUDY = """name = "imported"
channels = {channels}
labels = {labels}

[harmonization]
normalize = "none"

[network]
features = [4, 8]
strides = [[1, 1, 1], [2, 2, 2]]

[training]
patch_size = [8, 8, 8]
"""


def train(folder, raw, steps, network):
    """nnU-Net as it is, on a plan with a quarter of the features, for one epoch; answers with the model's folder."""
    for kind in "raw", "preprocessed", "results":
        os.environ[f"nnUNet_{kind}"] = str(folder / kind)
        (folder / kind).mkdir(exist_ok=True)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"}
    programs = pathlib.Path(sys.executable).parent
    planner = {"plain": "ExperimentPlanner", "residual": "nnUNetPlannerResEncM"}[network]
    run([programs / "nnUNetv2_plan_and_preprocess", "-d", 1, "-c", "3d_fullres", "-np", 1, "-npfp", 1, "-pl", planner],
        env=os.environ)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans_file, = (folder / "preprocessed" / raw.name).glob("*Plans.json")
    plans = json.loads(plans_file.read_text())
    plan = plans["configurations"]["3d_fullres"]
    plan["batch_size"] = 4
    stages = len(plan["architecture"]["arch_kwargs"]["features_per_stage"])
    plan["architecture"]["arch_kwargs"]["features_per_stage"] = [8 * 2**stage for stage in range(stages)]
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, "3d_fullres", "all", json.loads((raw / "dataset.json").read_text()),
                            device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, steps, 1
    trainer.run_training()
    return pathlib.Path(trainer.output_folder_base)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in "cohort", "programs":
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--network", choices=["plain", "residual"], default="plain")
    options = parser.parse_args()
    options.overlap = 0.5
    client = options.programs / "isoscan-client"
    convert = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "convert_model.py"
    description = json.loads((options.cohort / "dataset.json").read_text())
    names = [name for value, name in sorted(description["labels"].items()) if value != "0"]
    channels = list(description["modality"].values())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        some_cases(options.cohort, options.cases, folder / "cohort")
        study = folder / "study.toml"
        study.write_text(STUDY.format(channels=json.dumps(channels), labels=json.dumps(names)))
        raw = folder / "raw" / "Dataset001_Imported"
        run([client, "harmonize", folder / "cohort", raw / "imagesTr", "--nnunet", "--study", study])
        (raw / "labelsTr").mkdir()
        import SimpleITK as sitk
        for label in sorted((folder / "cohort" / "labelsTr").glob("*.nii.gz")):
            sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(label)), "LPS"), str(raw / "labelsTr" / label.name))
        (raw / "dataset.json").write_text(json.dumps({
            "channel_names": {"0": channels[0]}, "file_ending": ".nii.gz", "numTraining": options.cases,
            "labels": {"background": 0} | {name: i + 1 for i, name in enumerate(names)}}))
        model = train(folder, raw, options.steps, options.network)
        run([sys.executable, convert, "nnunet", model, folder / "start", "--trust"])
        study.write_text('name = "imported"\n' + (folder / "start" / "study.toml").read_text())
        print(study.read_text(), file=sys.stderr)
        run([client, "import", folder / "start" / "weights.safetensors", folder / "model.safetensors",
             "--study", study])
        run([client, "predict", folder / "cohort", folder / "ours", "--study", study,
             "--model", folder / "model.safetensors"])
        (folder / "out").mkdir()
        theirs = nnunet(options, model, raw / "imagesTr", folder / "out")
        worst, predicted = 1.0, 0
        for case, labels in theirs.items():
            mine = lps(folder / "ours" / f"{case}.nii.gz")
            scores = [dice(mine, labels, label + 1) for label in range(len(names))]
            worst = min([worst, *scores])
            predicted += (labels > 0).sum()
            print(f"{case:20} {' '.join(f'{score:.5f}' for score in scores)}  "
                  f"{(labels > 0).sum()} voxels of labels, {(mine != labels).sum()} differ")
    print(f"worst Dice {worst:.5f}")
    if predicted == 0:
        sys.exit("the model finds nothing: train it longer")
    return worst < LEAST


if __name__ == "__main__":
    sys.exit(main())
