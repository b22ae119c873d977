"""The peers' side of `tests/benchmarks/beside sliding_window`, which starts it:

    sliding_window.py sliding_window SCRATCH IMAGE DxHxW

nnU-Net's network (4 stages, 32 to 256 features) over the middle D x H x W voxels of the image: windows of 40 x 56 x 40,
overlap 0.5, Gaussian weights. The protocol is that of imaging.py. One batch goes first and is not timed. Neither
mirrors; MONAI scores four windows at a time, nnU-Net's own loop one, and sums in half precision.
"""
import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import time
import types

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # would mislead OpenBLAS about this CPU
    os.environ.pop(name, None)

import nibabel
import numpy as np
import torch

THREADS, CLASSES, BATCH = 2, 3, 4
PATCH = (40, 56, 40)
torch.set_num_threads(THREADS)


def network_of_nnunet():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    return PlainConvUNet(
        input_channels=1, n_stages=4, features_per_stage=(32, 64, 128, 256), conv_op=torch.nn.Conv3d, kernel_sizes=3,
        strides=(1, 2, 2, 2), n_conv_per_stage=2, num_classes=CLASSES, n_conv_per_stage_decoder=2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01, "inplace": True}, deep_supervision=False)


def monai_inferer(network):
    from monai.inferers import sliding_window_inference
    return lambda image: sliding_window_inference(image, PATCH, BATCH, network, overlap=0.5, mode="gaussian")


def nnunet_inferer(network):
    with contextlib.redirect_stdout(sys.stderr):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False,
                                    device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = network
    predictor.configuration_manager = types.SimpleNamespace(patch_size=PATCH)
    predictor.label_manager = types.SimpleNamespace(num_segmentation_heads=CLASSES)
    return lambda image: predictor.predict_sliding_window_return_logits(image[0])[None]


WAYS = {  # inferer, channels-last, bfloat16, compiled
    "float32: MONAI": (monai_inferer, False, False, False),
    "float32: MONAI, channels-last": (monai_inferer, True, False, False),
    "float32: MONAI, channels-last, compiled": (monai_inferer, True, False, True),
    "float32: nnU-Net": (nnunet_inferer, False, False, False),
    "bfloat16: MONAI": (monai_inferer, False, True, False),
    "bfloat16: MONAI, channels-last": (monai_inferer, True, True, False),
}


def middle_of(path, size):
    head = np.asarray(nibabel.load(path).dataobj, np.float32).T  # z, y, x
    first = [(whole - part) // 2 for whole, part in zip(head.shape, size)]
    middle = head[tuple(slice(start, start + part) for start, part in zip(first, size))].copy()
    return torch.from_numpy((middle - middle.mean()) / middle.std())[None, None]


def run(way, path, size):
    inferer, channels_last, bfloat16, compiled = WAYS[way]
    torch.manual_seed(0)
    network, windows = network_of_nnunet().eval(), 0

    def count(_, inputs):
        nonlocal windows
        windows += inputs[0].shape[0]

    if channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
    if not compiled:
        network.register_forward_pre_hook(count)
    image = middle_of(path, size)
    called = torch.compile(network) if compiled else network
    call = inferer(called)
    cast = torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()
    with torch.inference_mode(), cast:
        called(torch.zeros(BATCH if inferer is monai_inferer else 1, 1, *PATCH))
        windows = 0
        start = time.perf_counter()
        labels = call(image)[0].argmax(0)
        milliseconds = (time.perf_counter() - start) * 1e3
    shares = [round(float((labels == label).float().mean()), 4) for label in range(CLASSES)]
    return milliseconds, {"windows": windows or None, "shares": shares}


def main():
    path, size = sys.argv[3], tuple(map(int, sys.argv[4].split("x")))
    print(json.dumps({"ways": list(WAYS)}), flush=True)
    for way in (line.rstrip("\n") for line in sys.stdin):
        milliseconds, result = run(way, path, size)
        packages = {"torch": "torch", "monai": "monai", "nnunetv2": "nnunetv2", "nibabel": "nibabel",
                    "dynamic_network_architectures": "dynamic_network_architectures"}
        print(json.dumps({"ms": milliseconds, "result": result,
                          "versions": {name: importlib.metadata.version(name) for module, name in packages.items()
                                       if module in sys.modules},
                          "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}), flush=True)


main()
