#!/usr/bin/env python3
"""Makes starting weights for a study of a model that nnU-Net or MONAI has trained.

    python3 deploy/convert_model.py nnunet MODEL_FOLDER OUT
    python3 deploy/convert_model.py dynunet STATE_DICT.pth OUT

writes OUT/weights.safetensors and OUT/study.toml, the part of a study that the model decides. No program of
Isoscan reads a .pth, since reading one can run whatever is in it: this is done here, in your own Python with
PyTorch, once. Then `isoscan-client import` (docs/interop.md).

MODEL_FOLDER holds plans.json, dataset.json and a fold; a PlainConvUNet or ResidualEncoderUNet is taken.
STATE_DICT is of a DynUNet without residual blocks.
"""
import argparse
import contextlib
import json
import pathlib
import pickle
import re
import struct
import sys

try:
    import numpy
    import torch
except ImportError:
    sys.exit("this needs PyTorch: run it with the Python of nnU-Net or MONAI")

ONES = [1, 1, 1]


def refuse(why):
    sys.exit(f"error: {why}")


def numbers_of_numpy():
    """What torch.load may call beside its own: NumPy's numbers, as nnU-Net's log of losses has them."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # Before 2.6.
        return contextlib.nullcontext()
    scalar = numpy.float32(1).__reduce__()[0]
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    types = {type(numpy.dtype(name)) for name in ("f4", "f8", "i4", "i8", "b1")}
    return torch.serialization.safe_globals([(scalar, name) for name in names] + [numpy.dtype, *types])


def load(path, trust):
    try:
        with numbers_of_numpy():
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except FileNotFoundError:
        refuse(f"there is no {path}")
    except IsADirectoryError:
        refuse(f"{path} is a folder; of a DynUNet its state dict is read, of nnU-Net its model folder")
    except Exception as error:  # Of a file of another kind nearly every one has been seen.
        called = re.search(r"GLOBAL (\S+)", str(error))
        if not called:
            refuse(f"{path} is no file that PyTorch can read: {type(error).__name__}, "
                   f"{str(error).strip().partition(chr(10))[0]}")
        refuse(f"{path} has more than values in it: reading it would call {called[1]}, which can run a program. "
               "If you trust where it comes from, add --trust")


def write_safetensors(path, tensors):
    """docs/wire-format.md, without metadata: the same tensors always give the same bytes."""
    header, offset = {}, 0
    for name in sorted(tensors):
        size = 4 * tensors[name].numel()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name].numpy().astype("<f4").tobytes())


def toml(value):
    return json.dumps(value)


def write_study(path, comments, tables):
    lines = [f"# {line}" for line in comments]
    for table, entries in tables.items():
        lines += ([""] if lines else []) + ([f"[{table}]"] if table else [])
        for key, value in entries.items():
            text, _, comment = value if isinstance(value, tuple) else (toml(value), "", "")
            lines.append(f"{key} = {text}" + (f"  # {comment}" if comment else ""))
    path.write_text("\n".join(lines) + "\n")


def noted(value, comment):
    return toml(value), "#", comment


# --- nnU-Net


def old_architecture(configuration):
    """Plans of before 2.4 describe the network by other keys."""
    stages = len(configuration["n_conv_per_stage_encoder"])
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    residual = configuration["UNet_class_name"] == "ResidualEncoderUNet"
    return configuration["UNet_class_name"], {
        "features_per_stage": [min(base * 2**i, most) for i in range(stages)],
        "kernel_sizes": configuration["conv_kernel_sizes"], "strides": configuration["pool_op_kernel_sizes"],
        "n_blocks_per_stage" if residual else "n_conv_per_stage": configuration["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "nonlin": "torch.nn.LeakyReLU"}


def resolve(configurations, name):
    if name not in configurations:
        refuse(f"plans.json has no configuration {name}; it has {', '.join(configurations)}")
    configuration = configurations[name]
    parent = configuration.get("inherits_from")
    return (resolve(configurations, parent) if parent else {}) | configuration


def same(numbers, what):
    if isinstance(numbers, int):
        return numbers
    if len(set(numbers)) != 1:
        refuse(f"{what} is {numbers}: a study has one number for all stages")
    return numbers[0]


def network_of(configuration, order):
    """[network], with triples from nnU-Net's order of axes to z, y, x."""
    if "architecture" in configuration:
        kind = configuration["architecture"]["network_class_name"].rsplit(".", 1)[-1]
        arguments = configuration["architecture"]["arch_kwargs"]
    else:
        kind, arguments = old_architecture(configuration)
    kinds = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual"}
    if kind not in kinds:
        refuse(f"its network is a {kind}; taken are {' and '.join(kinds)}")
    norm = (arguments.get("norm_op") or "none").rsplit(".", 1)[-1]
    norms = {"InstanceNorm3d": "instance", "BatchNorm3d": "batch", "none": "none"}
    if norm not in norms:
        refuse(f"its normalisation is {norm}; taken are {', '.join(norms)}")
    slope = (arguments.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)
    if arguments["nonlin"] != "torch.nn.LeakyReLU" or slope != 0.01 or arguments.get("nonlin_first"):
        refuse(f"its activation is {arguments['nonlin']} ({slope}); taken is LeakyReLU (0.01) after the norm")
    if arguments.get("dropout_op"):
        refuse("it has dropout, which a study has not")

    def triples(values):
        values = [[v] * 3 if isinstance(v, int) else v for v in values]
        return [[value[axis] for axis in order] for value in values]

    network = {"features": arguments["features_per_stage"], "strides": triples(arguments["strides"]),
               "kernels": triples(arguments["kernel_sizes"]), "norm": norms[norm]}
    decoder = same(arguments["n_conv_per_stage_decoder"], "n_conv_per_stage_decoder")
    if kinds[kind] == "residual":
        blocks = arguments["n_blocks_per_stage"]
        if decoder != 1:
            refuse(f"it has {decoder} convolutions per stage of the decoder; a residual study has 1")
        network["blocks_per_stage"] = [blocks] * len(network["features"]) if isinstance(blocks, int) else blocks
    else:
        encoder = same(arguments["n_conv_per_stage"], "n_conv_per_stage")
        if encoder != decoder:
            refuse(f"it has {encoder} convolutions per stage down and {decoder} up: a study has the same")
        network["convolutions_per_stage"] = encoder
    if kinds[kind] != "plain":
        network = {"kind": kinds[kind]} | network
    return network


def labels_of(dataset):
    labels = {name: value for name, value in dataset["labels"].items() if name not in ("background", "ignore")}
    if not all(isinstance(value, int) for value in labels.values()):
        refuse("it predicts regions, which are not labels of a study")
    labels = sorted(labels, key=labels.get)
    if [dataset["labels"][name] for name in labels] != list(range(1, len(labels) + 1)):
        refuse(f"its labels are not 1, 2, ...: {dataset['labels']}")
    return labels


def harmonization_of(plans, configuration, order):
    schemes, masked = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    if set(schemes) == {"NoNormalization"}:
        normalize = noted("instance", "It was trained without normalisation, on what its owner had made: set "
                                      "what that was")
    elif set(schemes) == {"ZScoreNormalization"}:
        normalize = noted("zscore", "It was trained on nonzero voxels alone: choose instance with a mask"
                          if any(masked) else "It was trained so, after cutting borders of zeros off")
    else:
        normalize = noted("zscore", f"It was trained with {', '.join(schemes)}, which a study has not")
    if configuration.get("resampling_fn_data") == "no_resampling_hack":
        return {"normalize": normalize}
    return {"normalize": normalize, "spacing_mm": [float(configuration["spacing"][axis]) for axis in order]}


def weights_of_nnunet(state, order):
    weights = {}
    for key, tensor in state.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", key)
        if ".all_modules." in name or name.startswith("decoder.encoder.") or name.endswith("num_batches_tracked"):
            continue
        tensor = tensor.to(torch.float32)
        if tensor.dim() == 5:
            tensor = tensor.permute(0, 1, *(2 + axis for axis in order))
        weights[name] = tensor.contiguous()
    # A network without these (conv_bias=False) is one whose biases are 0.
    for name in [name for name in weights if name.endswith(".conv.weight") and ".skip." not in name]:
        weights.setdefault(name[:-len("weight")] + "bias", torch.zeros(weights[name].shape[0]))
    return weights


def convert_nnunet(options):
    folder = options.model
    try:
        plans = json.loads((folder / "plans.json").read_text())
        dataset = json.loads((folder / "dataset.json").read_text())
    except OSError as error:
        refuse(f"{folder} is no model folder of nnU-Net: {error}")
    folds = sorted(folder.glob("fold_*"))
    fold = folder / f"fold_{options.fold}" if options.fold else folds[0] if folds else folder / "fold_all"
    checkpoint = load(fold / options.checkpoint, options.trust)
    configuration_name = options.configuration or checkpoint["init_args"]["configuration"]
    configuration = resolve(plans["configurations"], configuration_name)
    if len(configuration["patch_size"]) != 3:
        refuse(f"{configuration_name} has patches of two dimensions; a study has three")
    if configuration.get("previous_stage"):
        refuse(f"{configuration_name} is the second stage of a cascade, whose input is another model's answer")
    order = plans["transpose_backward"]
    channels = dataset.get("channel_names") or dataset["modality"]
    mirrored = checkpoint.get("inference_allowed_mirroring_axes") or ()
    tables = {
        "": {"channels": [channels[str(i)] for i in range(len(channels))], "labels": labels_of(dataset)},
        "harmonization": harmonization_of(plans, configuration, order),
        "network": network_of(configuration, order),
        "training": {"patch_size": [int(configuration["patch_size"][axis]) for axis in order],
                     "batch_size": configuration["batch_size"], "deep_supervision": True,
                     "mirror_axes": [axis for axis in range(3) if order[axis] in mirrored]}}
    comments = [f"From {folder.name}, {fold.name}/{options.checkpoint}, {configuration_name}.",
                "It saw voxels in the order of its files, studies see them in LPS order: see docs/interop.md."]
    return weights_of_nnunet(checkpoint["network_weights"], order), comments, tables


# --- MONAI


def convert_dynunet(options):
    state = load(options.model, options.trust)
    for key in ("state_dict", "model_state_dict", "model"):  # Where training scripts keep it beside other things.
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        refuse(f"{options.model} holds a {type(state).__name__}, and no state dict")
    state = {re.sub(r"^(module\.|_orig_mod\.)+", "", key): tensor.to(torch.float32).contiguous()
             for key, tensor in state.items() if torch.is_tensor(tensor)}
    if "input_block.conv1.conv.weight" not in state:
        refuse(f"{options.model} is no state dict of a DynUNet: it has no input_block.conv1.conv.weight")
    if "input_block.conv3.conv.weight" in state:
        refuse("it has residual blocks, which are not nnU-Net's")
    if "input_block.norm1.weight" not in state or "input_block.norm1.running_mean" in state:
        refuse("its normalisation is not ('INSTANCE', {'affine': True})")
    blocks = ["input_block"] + [f"downsamples.{i}" for i in range(len(
        {key.split(".")[1] for key in state if key.startswith("downsamples.")}))] + ["bottleneck"]
    stages = len(blocks)
    features = [state[f"{block}.conv1.conv.weight"].shape[0] for block in blocks]
    kernels = [list(state[f"{block}.conv1.conv.weight"].shape[2:]) for block in blocks]
    if len(kernels[0]) != 3:
        refuse("it is a network of two dimensions; a study has three")
    strides = [ONES] + [list(state[f"upsamples.{stages - 1 - s}.transp_conv.conv.weight"].shape[2:])
                        for s in range(1, stages)]
    if len({tuple(kernel) for kernel in kernels}) != 1 or max(max(stride) for stride in strides) > 2:
        refuse(f"kernels {kernels} and strides {strides}: only with equal kernels and strides up to 2 is it "
               "the network that nnU-Net and a study have")
    weights = {}

    def block(theirs, ours):
        for j in 1, 2:
            weight = state[f"{theirs}.conv{j}.conv.weight"]
            weights[f"{ours}.convs.{j - 1}.conv.weight"] = weight
            weights[f"{ours}.convs.{j - 1}.conv.bias"] = torch.zeros(weight.shape[0])
            for part in "weight", "bias":
                weights[f"{ours}.convs.{j - 1}.norm.{part}"] = state[f"{theirs}.norm{j}.{part}"]

    for stage, name in enumerate(blocks):
        block(name, f"encoder.stages.{stage}.0")
    head = state["output_block.conv.conv.weight"]
    untrained = []
    for d in range(stages - 1):
        level = stages - 2 - d
        up = f"upsamples.{d}.transp_conv.conv"
        weights[f"decoder.transpconvs.{d}.weight"] = state[f"{up}.weight"]
        weights[f"decoder.transpconvs.{d}.bias"] = state.get(f"{up}.bias", torch.zeros(features[level]))
        block(f"upsamples.{d}.conv_block", f"decoder.stages.{d}")
        theirs = "output_block" if level == 0 else f"deep_supervision_heads.{level - 1}"
        if f"{theirs}.conv.conv.weight" not in state:
            untrained.append(str(d))
        weights[f"decoder.seg_layers.{d}.weight"] = state.get(
            f"{theirs}.conv.conv.weight", torch.zeros(head.shape[0], features[level], 1, 1, 1))
        weights[f"decoder.seg_layers.{d}.bias"] = state.get(f"{theirs}.conv.conv.bias", torch.zeros(head.shape[0]))
    channels = state["input_block.conv1.conv.weight"].shape[1]
    divisor = [2 * 2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(3)]
    tables = {
        "": {"channels": noted([f"channel-{i + 1}" for i in range(channels)], "Name them."),
             "labels": noted([f"label-{i}" for i in range(1, head.shape[0])], "Name them.")},
        "harmonization": {"normalize": noted("instance", "A state dict does not say: set what it was trained on.")},
        "network": {"features": features, "strides": strides, "kernels": kernels},
        "training": {"patch_size": noted(divisor, "The smallest: set what it was trained on.")}}
    comments = [f"From {options.model.name}, a DynUNet."]
    if untrained != [str(d) for d in range(stages - 2)]:
        tables["training"]["deep_supervision"] = True
    if untrained:
        comments.append(f"It had no heads for decoder.seg_layers.{', '.join(untrained)}: these are 0.")
    return weights, comments, tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["nnunet", "dynunet"])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--trust", action="store_true",
                        help="read a .pth that may run a program: one with more in it than values")
    parser.add_argument("--fold", help="of nnU-Net: 0, 1, ... or all; otherwise the first that is there")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", help="of nnU-Net: its name in the fold")
    parser.add_argument("--configuration", help="of nnU-Net: such as 3d_fullres; otherwise the checkpoint's")
    options = parser.parse_args()
    weights, comments, tables = (convert_nnunet if options.kind == "nnunet" else convert_dynunet)(options)
    options.out.mkdir(parents=True, exist_ok=True)
    write_safetensors(options.out / "weights.safetensors", weights)
    write_study(options.out / "study.toml", comments, tables)
    print(f"{options.out}: weights.safetensors ({len(weights)} tensors, "
          f"{sum(tensor.numel() for tensor in weights.values())} numbers), study.toml\n"
          f"Complete study.toml, then: isoscan-client import {options.out / 'weights.safetensors'} MODEL.safetensors "
          "--study study.toml")


if __name__ == "__main__":
    main()
