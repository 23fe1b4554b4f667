"""The networks of gantry in PyTorch, with the names and shapes of the weights that gantry keeps.

A model of gantry's library is one safetensors file; `load` makes a network of it:

    network = load("weights.safetensors")
    logits, features = network(images)          # images: (batch, 1, rows, columns), float32

The U-Net is the one of the embedded engine (Ronneberger, Fischer and Brox 2015, drawn as nnU-Net
does): four levels, convolutions of stride 2 on the way down, a 1 x 1 convolution and repetition of
pixels on the way up, and after every convolution but the last group normalisation (Wu and He 2018)
and a rectifier.
"""

import torch
import torch.nn.functional as functional
from torch import nn

DEPTH = 3
GROUP = 8
EPSILON = 1e-5


class Layer(nn.Module):
    """One convolution with its weights: `kernel`, `shift`, and `scale` where it is normalised."""

    def __init__(self, inputs, outputs, size, stride, normalised=True):
        super().__init__()
        self.stride = stride
        self.padding = size // 2
        self.kernel = nn.Parameter(torch.zeros(outputs, inputs, size, size))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(outputs)) if normalised else None
        self.groups = outputs // GROUP if outputs % GROUP == 0 else 1

    def forward(self, x):
        if self.scale is None:
            return functional.conv2d(x, self.kernel, self.shift, self.stride, self.padding)
        x = functional.conv2d(x, self.kernel, None, self.stride, self.padding)
        x = functional.group_norm(x, self.groups, self.scale, self.shift, EPSILON)
        return functional.relu(x, inplace=True)


class UNet(nn.Module):
    """Gives the logits (batch, classes, rows, columns) and the features (batch, features)."""

    def __init__(self, base_channels, classes):
        super().__init__()
        self.base_channels, self.classes = base_channels, classes
        for level in range(DEPTH + 1):
            channels, above = base_channels << level, base_channels << level >> 1
            layers = nn.ModuleDict()
            if level == 0:
                layers["first"] = Layer(1, channels, 3, 1)
            else:
                layers["first"] = Layer(above, channels, 3, 2)
            layers["second"] = Layer(channels, channels, 3, 1)
            if level < DEPTH:
                layers["raise"] = Layer(2 * channels, channels, 1, 1)
                layers["merge"] = Layer(2 * channels, channels, 3, 1)
            if level == 0:
                layers["classes"] = Layer(channels, classes, 1, 1, normalised=False)
            self.add_module(f"level{level}", layers)

    def forward(self, x):
        levels = [getattr(self, f"level{level}") for level in range(DEPTH + 1)]
        seen = []
        for level in levels:
            x = level["second"](level["first"](x))
            seen.append(x)
        features = x.mean(dim=(2, 3))
        for level, earlier in zip(reversed(levels[:-1]), reversed(seen[:-1])):
            x = functional.interpolate(level["raise"](x), size=earlier.shape[2:], mode="nearest")
            x = level["merge"](torch.cat([x, earlier], dim=1))
        return levels[0]["classes"](x), features


def build(description):
    """The network that a model's metadata describe in `network`."""
    return UNet(description["base_channels"], description["classes"])


def load(path):
    """The network whose weights are in a safetensors file of gantry's library."""
    from safetensors.torch import load_file

    weights = load_file(path)
    base_channels = weights["level0.first.kernel"].shape[0]
    classes = weights["level0.classes.kernel"].shape[0]
    network = UNet(base_channels, classes)
    network.load_state_dict(weights)
    return network.eval()
