"""The networks of gantry, written with PyTorch's own layers.

    networks.py FOLDER_OF_NETWORK_PY WEIGHTS KIND

compares logits, features and every gradient of a model of gantry with them, on the same weights, and
ends with 1 where they are apart.
"""

import sys

import torch
from torch import nn


def norm(channels):
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


class Block(nn.Module):
    def __init__(self, convolution, inputs, outputs, size, stride=1):
        super().__init__()
        self.conv = convolution(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Residual(nn.Module):
    def __init__(self, convolution, inputs, outputs, stride=1):
        super().__init__()
        self.a = Block(convolution, inputs, outputs, 3, stride)
        self.b = nn.Module()
        self.b.conv = convolution(outputs, outputs, 3, 1, 1, bias=False)
        self.b.norm = norm(outputs)
        if stride != 1 or inputs != outputs:
            self.beside = nn.Module()
            self.beside.conv = convolution(inputs, outputs, 1, stride, bias=False)
            self.beside.norm = norm(outputs)

    def forward(self, x):
        beside = self.beside.norm(self.beside.conv(x)) if hasattr(self, "beside") else x
        return (self.b.norm(self.b.conv(self.a(x))) + beside).relu()


class UNet(nn.Module):
    def __init__(self, axes, base, classes, residual):
        super().__init__()
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        self.axes = axes
        for level in range(4):
            inputs, outputs = (base << level >> 1 if level else 1), base << level
            one = nn.Module()
            if residual:
                one.first = Residual(convolution, inputs, outputs, 2 if level else 1)
                one.second = Residual(convolution, outputs, outputs)
            else:
                one.first = Block(convolution, inputs, outputs, 3, 2 if level else 1)
                one.second = Block(convolution, outputs, outputs, 3)
            if level < 3:
                setattr(one, "raise", Block(convolution, 2 * outputs, outputs, 1))
                one.merge = Block(convolution, 2 * outputs, outputs, 3)
            setattr(self, f"level{level}", one)
        self.level0.classes = nn.Module()
        self.level0.classes.conv = convolution(base, classes, 1)
        self.twice = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x):
        levels = [getattr(self, f"level{level}") for level in range(4)]
        seen = []
        for one in levels:
            x = one.second(one.first(x))
            seen.append(x)
        features = x.mean(dim=tuple(range(2, 2 + self.axes)))
        for level in (2, 1, 0):
            x = self.twice(getattr(levels[level], "raise")(x))
            x = levels[level].merge(torch.cat([x, seen[level]], 1))
        return self.level0.classes.conv(x), features


class ResNet18(nn.Module):
    def __init__(self, base, classes):
        super().__init__()
        self.stem = Block(nn.Conv2d, 1, base, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = base
        for stage in range(4):
            one = nn.Module()
            one.first = Residual(nn.Conv2d, inputs, base << stage, 2 if stage else 1)
            one.second = Residual(nn.Conv2d, base << stage, base << stage)
            setattr(self, f"stage{stage}", one)
            inputs = base << stage
        self.classes = nn.Module()
        self.classes.conv = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.pool(self.stem(x))
        for stage in range(4):
            one = getattr(self, f"stage{stage}")
            x = one.second(one.first(x))
        features = x.mean(dim=(2, 3))
        return self.classes.conv(features), features


class Before(nn.Module):
    def __init__(self, inputs, outputs, size):
        super().__init__()
        self.norm = norm(inputs)
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)

    def forward(self, x):
        return self.conv(self.norm(x).relu())


class DenseNet121(nn.Module):
    LAYERS = (6, 12, 24, 16)

    def __init__(self, base, classes):
        super().__init__()
        self.stem = Block(nn.Conv2d, 1, base, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        growth, channels = base // 2, base
        for block, layers in enumerate(self.LAYERS):
            one = nn.Module()
            for layer in range(layers):
                two = nn.Module()
                two.narrow = Before(channels, 4 * growth, 1)
                two.grow = Before(4 * growth, growth, 3)
                setattr(one, f"layer{layer:02}", two)
                channels += growth
            if block < 3:
                one.give = Before(channels, channels // 2, 1)
                channels //= 2
            setattr(self, f"block{block}", one)
        self.last = nn.Module()
        self.last.norm = norm(channels)
        self.classes = nn.Module()
        self.classes.conv = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.pool(self.stem(x))
        for block, layers in enumerate(self.LAYERS):
            one = getattr(self, f"block{block}")
            for layer in range(layers):
                two = getattr(one, f"layer{layer:02}")
                x = torch.cat([x, two.grow(two.narrow(x))], 1)
            if block < 3:
                x = nn.functional.avg_pool2d(one.give(x), 2)
        features = self.last.norm(x).relu().mean(dim=(2, 3))
        return self.classes.conv(features), features


def plain(kind, weights):
    first = "stem" if kind in ("resnet18", "densenet121") else "level0.first"
    first = first if f"{first}.kernel" in weights else f"{first}.a"
    base = weights[f"{first}.kernel"].shape[0]
    if kind == "resnet18":
        return ResNet18(base, 2)
    if kind == "densenet121":
        return DenseNet121(base, 2)
    return UNet(3 if kind.endswith("3d") else 2, base, 2, kind.startswith("residual"))


def ours(name):
    """What gantry calls a weight of these layers."""
    module, part = name.rsplit(".", 1)
    module, layer = module.rsplit(".", 1)
    if layer == "conv":
        return f"{module}.{'kernel' if part == 'weight' else 'shift'}"
    return f"{module}.{'scale' if part == 'weight' else 'shift'}"


def main():
    sys.path.insert(0, sys.argv[1])
    from network import load

    # In double precision, in which no rectifier is opened by rounding.
    network = load(sys.argv[2]).double()
    named = dict(network.named_parameters())
    kind = sys.argv[3]
    peer = plain(kind, named).double()
    theirs = {ours(name): parameter for name, parameter in peer.named_parameters()}
    assert sorted(theirs) == sorted(named), sorted(set(theirs) ^ set(named))
    for name, parameter in theirs.items():
        assert parameter.shape == named[name].shape, name
        parameter.data.copy_(named[name].data)
    torch.manual_seed(1)
    side = 32 if kind in ("resnet18", "densenet121") else 16
    images = torch.randn(2, 1, *([8] if kind.endswith("3d") else []), side, side, dtype=torch.double)
    results = [one(images) for one in (network, peer)]
    for logits, features in results:
        (logits.square().mean() + features.square().mean()).backward()
    apart = max((a - b).abs().max().item() for a, b in zip(*results))
    assert apart < 1e-9, f"results are {apart} apart"
    for name, parameter in named.items():
        apart = (parameter.grad - theirs[name].grad).abs().max().item()
        assert apart <= 1e-9 * max(1.0, parameter.grad.abs().max().item()), f"{name}: {apart}"
    print(f"equal: {len(named)} weights")


if __name__ == "__main__":
    main()
