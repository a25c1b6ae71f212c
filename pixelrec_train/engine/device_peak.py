"""What a device computes at most, as its maker says."""

import re

import torch

from pixelrec_train import distributed

# bf16 (V100: fp16), dense, on tensor cores, in TFLOP/s, by NVIDIA's data sheets. Cards of a like name that
# compute less (PCIe, NVL, D, Laptop) and parts of one (MIG) are not here: none is better than a wrong one.
PEAK_TFLOPS = {
    r"B200": 2250, r"H200": 989, r"H100 80GB HBM3": 989, r"GH200 [0-9]+GB": 989,
    r"A100-(SXM4|PCIE)-[48]0GB": 312, r"A100 80GB PCIe": 312, r"L40S": 362,
    r"GeForce RTX 4090": 165, r"GeForce RTX 3090": 71, r"V100-SXM[23]-[0-9]+GB": 125,
}  # fmt: skip


def peak_tflops(name):
    """Of a device by the name it gives itself, as "NVIDIA H200"; None where it is not known."""
    name = re.sub(r"^(NVIDIA|Tesla) ", "", name)
    return next((peak for pattern, peak in PEAK_TFLOPS.items() if re.fullmatch(pattern, name)), None)


def own_peak():
    """Of this rank's device; None on CPUs, and where it is not known."""
    return peak_tflops(torch.cuda.get_device_name()) if distributed.uses_gpu() else None
