#!/usr/bin/env python3
"""Writes tests/golden/interop/networks.json: what PyPI's networks are, for network_test and interop_test.

Of small PlainConvUNets and ResidualEncoderUNets (dynamic_network_architectures) and DynUNets (MONAI):
the keys of their state dicts, each with its shape or the key that it is an alias of, and every so many of the
scores of the former for weights and an image that both sides compute by the same formula. docs/interop.md says how to get the packages.

    venv/bin/python tests/interop/networks.py
"""
import argparse
import importlib.metadata
import json
import pathlib
import zlib

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks.nets import DynUNet

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "interop" / "networks.json"
PACKAGES = "torch", "dynamic_network_architectures", "monai"

ISOTROPIC = {"features": [4, 6, 6], "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
             "kernels": [[3, 3, 3]] * 3}
THICK_SLICES = {"features": [3, 5, 8], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}
NETWORKS = {
    "plain": ISOTROPIC | {"kind": "plain", "norm": "instance"},
    "plain_batch": ISOTROPIC | {"kind": "plain", "norm": "batch"},
    "plain_no_norm": ISOTROPIC | {"kind": "plain", "norm": "none"},
    "plain_thick_slices": THICK_SLICES | {"kind": "plain", "norm": "instance"},
    "residual": ISOTROPIC | {"kind": "residual", "norm": "instance", "blocks_per_stage": [1, 3, 2]},
    "residual_thick_slices": THICK_SLICES | {"kind": "residual", "norm": "instance",
                                             "blocks_per_stage": [2, 1, 2]},
    "residual_batch": ISOTROPIC | {"kind": "residual", "norm": "batch", "blocks_per_stage": [1, 2, 2]},
    "residual_no_norm": ISOTROPIC | {"kind": "residual", "norm": "none", "blocks_per_stage": [1, 2, 2]},
    "dynunet": ISOTROPIC | {"kind": "dynunet", "deep_supervision": False},
    "dynunet_heads": {"features": [4, 5, 6, 7], "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2], [2, 2, 2]],
                      "kernels": [[3, 3, 3]] * 4, "kind": "dynunet", "deep_supervision": True},
}
CHANNELS, CLASSES, PATCH, EVERY = 2, 3, [8, 8, 12], 7


def numbers(name, shape):
    """Numbers from -0.5 to 0.5 that belong to a name: plain arithmetic of 32 bits, in C++ as here."""
    mixed = (np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint32) * np.uint32(2654435761)
             ^ np.uint32(zlib.crc32(name.encode())))
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(2246822519)
    mixed ^= mixed >> np.uint32(13)
    return (mixed.astype(np.float64) / 2**32 - 0.5).astype(np.float32).reshape(shape)


def weights(name, shape):
    values = numbers(name, shape)
    if name.endswith(("norm.weight", "running_var")):
        return values + np.float32(1)
    # A power of two, so that scaling rounds nothing; near 1 / sqrt(inputs) for most of these shapes.
    return values / np.float32(4) if len(shape) > 1 else values


def build(plan):
    stages = len(plan["features"])
    if plan["kind"] == "dynunet":
        heads = {"deep_supervision": True, "deep_supr_num": stages - 2} if plan["deep_supervision"] else {}
        return DynUNet(3, CHANNELS, CLASSES, plan["kernels"], plan["strides"], plan["strides"][1:],
                       filters=plan["features"], trans_bias=True, **heads)
    norm = {"instance": torch.nn.InstanceNorm3d, "batch": torch.nn.BatchNorm3d, "none": None}[plan["norm"]]
    common = dict(input_channels=CHANNELS, n_stages=stages, features_per_stage=plan["features"],
                  conv_op=torch.nn.Conv3d, kernel_sizes=plan["kernels"], strides=plan["strides"],
                  num_classes=CLASSES, conv_bias=True, norm_op=norm,
                  norm_op_kwargs={"eps": 1e-5, "affine": True} if norm else None,
                  nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True)
    if plan["kind"] == "plain":
        return PlainConvUNet(n_conv_per_stage=2, n_conv_per_stage_decoder=2, **common)
    return ResidualEncoderUNet(n_blocks_per_stage=plan["blocks_per_stage"], n_conv_per_stage_decoder=1, **common)


def describe(plan):
    network = build(plan)
    keys, first = {}, {}
    for key, tensor in network.state_dict().items():
        owner = first.setdefault(tensor.data_ptr(), key)
        keys[key] = list(tensor.shape) if owner == key else owner
    described = {"plan": plan, "keys": keys}
    if plan["kind"] == "dynunet":
        return described
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if isinstance(keys[key], list) and tensor.dtype == torch.float32:
                tensor.copy_(torch.from_numpy(weights(key, tuple(tensor.shape))))
        image = torch.from_numpy(numbers("image", (1, CHANNELS, *PATCH))) * 4
        scores = network.eval()(image)
    described["scores"] = [[float(f"{value:.7g}") for value in head.flatten()[::EVERY].tolist()] for head in scores]
    return described


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    networks = ",\n".join(f"{json.dumps(name)}: {json.dumps(describe(plan))}" for name, plan in NETWORKS.items())
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f'{{"versions": {json.dumps(versions)}, "channels": {CHANNELS}, "classes": {CLASSES}, '
                      f'"patch": {PATCH}, "every": {EVERY}, "networks": {{\n{networks}\n}}}}\n')


if __name__ == "__main__":
    main()
