"""3.1 b) The model summary, and the output shape of a valid convolution with stride 2 and kernel size 3.

Shape. The kernel's left edge can stand at 0, 2, 4, … as long as its right edge, 2 pixels further, is inside:
2 i + 2 <= T - 1, hence i = 0 … floor((T - 3) / 2): floor((T - 3) / 2) + 1 positions along each side.

So [B, T, T, C] becomes [B, T', T', F] with T' = floor((T - 3) / 2) + 1 and F the number of filters, whatever C is.
The sheet writes the channels last (NHWC, as TensorFlow does); PyTorch's Conv2d expects them second (NCHW):
there [B, C, T, T] becomes [B, F, T', T'].
"""

import contextlib
import io

import torch
from torch import nn
from torchsummary import summary

import common
from common import ConvNet


def valid_output_size(size):
    """Output height or width of a convolution with kernel size 3, stride 2 and no padding (valid)."""
    return (size - 3) // 2 + 1


def check_formula():
    """Compare the formula with torch.nn.Conv2d for T = 3 … 64; raises AssertionError where it is wrong."""
    batch, channels, filters = 2, 3, 5
    convolution = nn.Conv2d(channels, filters, kernel_size=3, stride=2, padding="valid")
    for size in range(3, 65):
        nhwc = torch.zeros(batch, size, size, channels)
        output = convolution(nhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        side = valid_output_size(size)
        assert output.shape == (batch, side, side, filters), f"T = {size}: {list(output.shape)}"


def main():
    args = common.start_run(common.make_parser(__doc__, data=False))
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        summary(ConvNet(), (1, 28, 28), device="cpu")  # its default, "cuda", fails elsewhere
    check_formula()
    common.print_results(args, [
        *table.getvalue().strip().splitlines(), "",
        "[B, T, T, C] -> [B, T', T', F], T' = floor((T - 3) / 2) + 1: checked against Conv2d for T = 3 … 64"])


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_1_b.py
# ----------------------------------------------------------------
#         Layer (type)               Output Shape         Param #
# ================================================================
#             Conv2d-1           [-1, 32, 28, 28]             320
#               ReLU-2           [-1, 32, 28, 28]               0
#             Conv2d-3           [-1, 32, 28, 28]           9,248
#               ReLU-4           [-1, 32, 28, 28]               0
#             Conv2d-5           [-1, 32, 28, 28]           9,248
#               ReLU-6           [-1, 32, 28, 28]               0
#            Flatten-7                [-1, 25088]               0
#             Linear-8                  [-1, 256]       6,422,784
#               ReLU-9                  [-1, 256]               0
#            Linear-10                   [-1, 10]           2,570
# ================================================================
# Total params: 6,444,170
# Trainable params: 6,444,170
# Non-trainable params: 0
# ----------------------------------------------------------------
# Input size (MB): 0.00
# Forward/backward pass size (MB): 1.34
# Params size (MB): 24.58
# Estimated Total Size (MB): 25.93
# ----------------------------------------------------------------
#
# [B, T, T, C] -> [B, T', T', F], T' = floor((T - 3) / 2) + 1: checked against Conv2d for T = 3 … 64
# (Intel Xeon, 2 threads, fp32, torch 2.15.0+cu132, 0.0 minutes)
