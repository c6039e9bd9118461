"""What modules of PyTorch compute, to compare with. Needs only torch, torchvision and NumPy.

Run as `python3 tests/torch_cases.py CASES.npz`, it writes for each case the state of a module, an input and the output,
channels first. The modules that predict their offsets are MMCV's `DeformConv2dPack` and `ModulatedDeformConv2dPack`,
whose forward passes are a convolution and torchvision's operator.
"""

import sys

import numpy as np
import torch
import torchvision

# filters, channels, kernel, stride, dilation, groups, offset groups, modulated, whether it predicts its offsets
CASES = {
    "torchvision": (4, 6, (3, 2), (1, 1), (1, 2), 2, 1, False, False),
    "pack": (4, 6, (3, 3), (1, 1), (1, 1), 1, 3, False, True),
    "pack, strided": (6, 4, (3, 2), (2, 1), (1, 1), 2, 2, False, True),
    "modulated pack": (4, 6, (3, 3), (1, 1), (1, 1), 2, 2, True, True),
}


def main(path):
    torch.manual_seed(0)
    found = {}
    for name, case in CASES.items():
        filters, channels, kernel, stride, dilation, groups, offset_groups, modulated, predicts = case
        count = offset_groups * kernel[0] * kernel[1]
        module = torchvision.ops.DeformConv2d(
            channels, filters, kernel, stride, dilation=dilation, groups=groups, bias=predicts
        )
        predicting = torch.nn.Conv2d(channels, (3 if modulated else 2) * count, kernel, stride, dilation=dilation)
        x = torch.randn(2, channels, 9, 8)
        predicted = predicting(x) if predicts else torch.zeros_like(predicting(x))
        mask = torch.sigmoid(predicted[:, 2 * count :]) if modulated else None
        state = dict(module.state_dict())
        if predicts:
            state |= {f"conv_offset.{key}": value for key, value in predicting.state_dict().items()}
        arrays = {**state, "x": x, "y": module(x, predicted[:, : 2 * count], mask)}
        found |= {f"{name}/{key}": value.detach().numpy() for key, value in arrays.items()}
    np.savez_compressed(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
