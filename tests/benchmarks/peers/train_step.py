"""The peers' side of `tests/benchmarks/beside train_step`, which starts it:

    train_step.py train_step SCRATCH IMAGE

One step of nnU-Net's plan for the hippocampus: its network (4 stages, 32 to 256 features), 9 patches of 40 x 56 x 40
of noise, Dice + cross entropy with deep supervision, SGD with Nesterov momentum. The protocol is that of imaging.py:
a way's name in, its median over three steps out. Two steps go first and are not timed.
"""
import contextlib
import importlib.metadata
import json
import os
import resource
import statistics
import sys
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # would mislead OpenBLAS about this CPU
    os.environ.pop(name, None)

import torch

THREADS, CLASSES, BATCH, WARM, STEPS = 2, 3, 9, 2, 3
PATCH, FEATURES = (40, 56, 40), (32, 64, 128, 256)
HEADS = len(FEATURES) - 1
torch.set_num_threads(THREADS)


def nnunet():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    network = PlainConvUNet(
        input_channels=1, n_stages=4, features_per_stage=FEATURES, conv_op=torch.nn.Conv3d, kernel_sizes=3,
        strides=(1, 2, 2, 2), n_conv_per_stage=2, num_classes=CLASSES, n_conv_per_stage_decoder=2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01, "inplace": True}, deep_supervision=True)
    weights = [0.5**head for head in range(HEADS)]
    weights[-1] = 0  # as nnU-Net does
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss({"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {},
                       dice_class=MemoryEfficientSoftDiceLoss), [weight / sum(weights) for weight in weights])
    label = torch.randint(0, CLASSES, (BATCH, 1, *PATCH)).float()
    return network, loss, [torch.nn.functional.interpolate(label, scale_factor=0.5**head) for head in range(HEADS)]


def dynunet():
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    network = DynUNet(
        spatial_dims=3, in_channels=1, out_channels=CLASSES, kernel_size=[3] * 4, strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3, filters=FEATURES, norm_name=("INSTANCE", {"affine": True}), deep_supervision=True,
        deep_supr_num=2)
    base = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    loss = lambda stacked, label: sum(0.5**i * base(head, label) for i, head in enumerate(stacked.unbind(1)))
    return network, loss, torch.randint(0, CLASSES, (BATCH, 1, *PATCH)).float()


WAYS = {  # network, channels-last, bfloat16, compiled
    "float32: PyTorch": (nnunet, False, False, False),
    "float32: PyTorch, compiled": (nnunet, False, False, True),
    "float32: PyTorch, channels-last, compiled": (nnunet, True, False, True),
    "float32: MONAI": (dynunet, False, False, False),
    "bfloat16: PyTorch": (nnunet, False, True, False),
    "bfloat16: PyTorch, channels-last": (nnunet, True, True, False),
    "bfloat16: PyTorch, channels-last, compiled": (nnunet, True, True, True),
}


def run(way):
    build, channels_last, bfloat16, compiled = WAYS[way]
    torch.manual_seed(0)
    network, loss, target = build()
    image = torch.randn(BATCH, 1, *PATCH)
    network.train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
        image = image.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    forward = torch.compile(network) if compiled else network
    cast = torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()
    seconds = []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with cast:
            value = loss(forward(image), target)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        value.item()
        seconds.append(time.perf_counter() - start)
    packages = ("torch", "monai", "nnunetv2", "dynamic_network_architectures")
    return {"ms": statistics.median(seconds[WARM:]) * 1e3, "result": {"loss": round(value.item(), 4)},
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "versions": {name: importlib.metadata.version(name) for name in packages}}


def main():
    print(json.dumps({"ways": list(WAYS)}), flush=True)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = run(line.strip())
        print(json.dumps(answer), flush=True)


main()
