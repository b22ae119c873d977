"""Processor time of nnU-Net's own training transforms on one core, per patch, for the plans of
train_step_bench.cc; beside its BM_CutBatch, which also cuts the patch. Run by hand: augmentation.py
"""
import time

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PATCHES = 300


def milliseconds(patch):
    flat = max(patch) / patch[0] > 3
    angle = np.pi if flat else np.pi / 6
    limits = (-angle, angle)
    size = [int(s) for s in get_patch_size(patch, limits, limits, limits, (0.85, 1.25))]
    if flat:
        size[0] = patch[0]
    transforms = nnUNetTrainer.get_training_transforms(
        patch, limits, None, (0, 1, 2), flat, use_mask_for_norm=[False])
    images = [torch.randn((1, *size)) for _ in range(8)]
    labels = (torch.arange(images[0].numel()).reshape(1, *size) % 5 == 0).to(torch.int16)
    for image in images:
        transforms(image=image.clone(), segmentation=labels.clone())
    start = time.process_time()
    for number in range(PATCHES):
        transforms(image=images[number % 8].clone(), segmentation=labels.clone())
    return (time.process_time() - start) / PATCHES * 1000


torch.set_num_threads(1)
for patch in ((40, 56, 40), (16, 96, 96)):
    print(patch, f"{milliseconds(patch):.2f} ms per patch")
