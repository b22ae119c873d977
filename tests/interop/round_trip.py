#!/usr/bin/env python3
"""Takes a model of MONAI through deploy/convert_model.py, import and export, and back, bit by bit.

A DynUNet of MONAI, saved with torch.save, is converted and imported; what is exported of it to nnU-Net and to
MONAI is converted and imported again, and must have the same digest, and MONAI the same state dict. Then files
that would run a program, or are none of PyTorch's, which have to be refused by what is wrong with them.

    venv/bin/python tests/interop/round_trip.py --programs build/release/bin
"""
import argparse
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import torch
from monai.networks.nets import DynUNet

CONVERT = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "convert_model.py"


def run(*command, fails=False):
    done = subprocess.run([str(part) for part in command], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if bool(done.returncode) != fails:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def imported(client, study, folder, out):
    """The digest that `isoscan-client import` prints."""
    said = run(client, "import", folder / "weights.safetensors", out, "--study", study)
    line, = [line for line in said.splitlines() if line.startswith("initial_weights = ")]
    return line.split('"')[1]


class Program:
    """Runs when a pickle that has it is read without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch '{self.trace}'",)


def check_refusals(folder):
    trace = folder / "it-ran"
    (folder / "evil").mkdir()
    torch.save({"network_weights": {}, "more": Program(trace)}, folder / "evil" / "archive.pth")
    torch.save(Program(trace), folder / "evil" / "older.pth", _use_new_zipfile_serialization=False)
    (folder / "evil" / "pickle.pth").write_bytes(pickle.dumps({"more": Program(trace)}, protocol=2))
    (folder / "evil" / "text.pth").write_text("no model\n")
    (folder / "evil" / "empty.pth").write_bytes(b"")
    torch.save([1, 2], folder / "evil" / "list.pth")
    torch.save({"weight": torch.zeros(3)}, folder / "evil" / "other.pth")
    for name, words in {"archive": "would call posix.system", "older": "would call posix.system",
                        "pickle": "would call posix.system", "text": "no file that PyTorch can read",
                        "empty": "no file that PyTorch can read", "list": "holds a list",
                        "other": "no input_block.conv1.conv.weight", "absent": "there is no"}.items():
        said = run(sys.executable, CONVERT, "dynunet", folder / "evil" / f"{name}.pth", folder / "evil" / "out",
                   fails=True)
        assert words in said and "Traceback" not in said, said
        assert not (folder / "evil" / "out").exists()
    assert not trace.exists(), "the program ran"
    print("refused by name: posix.system in three kinds of .pth, and four files that are no state dict")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    client = parser.parse_args().programs / "isoscan-client"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        torch.manual_seed(1)
        network = DynUNet(spatial_dims=3, in_channels=2, out_channels=3, kernel_size=[3] * 4, strides=[1, 2, 2, 2],
                          upsample_kernel_size=[2, 2, 2], filters=[8, 16, 32, 64],
                          norm_name=("INSTANCE", {"affine": True}), deep_supervision=True, deep_supr_num=2,
                          trans_bias=True)
        torch.save({"epoch": 7, "state_dict": network.state_dict()}, folder / "theirs.pth")
        run(sys.executable, CONVERT, "dynunet", folder / "theirs.pth", folder / "start")
        study = folder / "study.toml"
        study.write_text('name = "round-trip"\n' + (folder / "start" / "study.toml").read_text())
        model = folder / "model.safetensors"
        digest = imported(client, study, folder / "start", model)

        for kind, file in ("nnunet", ""), ("dynunet", "dynunet.pth"):
            run(client, "export", folder / kind, "--format", kind, "--study", study, "--model", model)
            run(sys.executable, CONVERT, kind, folder / kind / file, folder / f"{kind}-again")
            again = imported(client, study, folder / f"{kind}-again", folder / f"{kind}-again.safetensors")
            assert again == digest, f"{kind}: {again} and not {digest}"
            assert (folder / f"{kind}-again.safetensors").read_bytes() == model.read_bytes()
            print(f"{kind}: {digest} there and back, without --trust")
        exported = torch.load(folder / "dynunet" / "dynunet.pth", weights_only=True)
        ours = DynUNet(**json.loads((folder / "dynunet" / "dynunet.json").read_text()))
        ours.load_state_dict(exported, strict=True)
        assert exported.keys() == network.state_dict().keys()
        assert all(torch.equal(exported[key], tensor) for key, tensor in network.state_dict().items())
        print(f"dynunet: the same {len(exported)} entries that MONAI had")
        check_refusals(folder)


if __name__ == "__main__":
    main()
