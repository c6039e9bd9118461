"""Times torchvision's deformable convolution, forward and backward. Needs only torch, torchvision and NumPy.

Called by `dcn bench` with the interpreter that has them, as: torchvision_times.py TENSORS.npz REPEATS THREADS. The file
contains, channels first: x, the image; k, the kernel; o, the offsets; g, the gradient of the output. Prints JSON:
"seconds" of each repeat and the "version" of torchvision.
"""

import json
import sys
import time

import numpy as np
import torch
import torchvision


def main(path: str, repeats: int, threads: int) -> None:
    torch.set_num_threads(threads)
    with np.load(path) as arrays:
        x, k, o, g = (torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in ("x", "k", "o", "g"))
    for tensor in (x, k, o):
        tensor.requires_grad_()
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        torchvision.ops.deform_conv2d(x, o, k, padding=1).backward(g)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds[1:], "version": torchvision.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
