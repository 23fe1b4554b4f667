"""The networks of gantry in PyTorch, with the names and shapes of the weights that gantry keeps.

A network is a list of operations, which gantry draws once for all that computes it, and keeps in the
model's file beside the weights. `load` makes a network of such a file:

    network = load("weights.safetensors")
    logits, features = network(images)     # images: (batch, 1, rows, columns), float32,
                                           # with slices before the rows for a network over stacks
"""

import json

import torch
import torch.nn.functional as functional
from torch import nn


class Network(nn.Module):
    """Gives the logits (batch, classes, and the picture's axes if any) and features (batch, features)."""

    def __init__(self, graph):
        super().__init__()
        self.axes, self.ops, self.epsilon = graph["axes"], graph["ops"], graph["epsilon"]
        self.results = graph["logits"], graph["features"]
        # Logits of pictures whose sides are halved so often, while a network is supervised deeply.
        self.aids = [(aid["op"], aid["halved"]) for aid in graph.get("aids", ())]
        kept = {*self.results, *(op for op, _ in self.aids)}
        for op in self.ops:
            kind = op["op"]
            if kind == "conv":
                kernel = [op["size"]] * self.axes
                self.weight(op, "kernel", torch.zeros(op["outputs"], op["inputs"], *kernel))
                if op["shift"]:
                    self.weight(op, "shift", torch.zeros(op["outputs"]))
            elif kind == "norm":
                self.weight(op, "scale", torch.ones(op["channels"]))
                self.weight(op, "shift", torch.zeros(op["channels"]))
            elif kind == "linear":
                self.weight(op, "kernel", torch.zeros(op["outputs"], op["inputs"]))
                self.weight(op, "shift", torch.zeros(op["outputs"]))
        self.done_after = [[] for _ in self.ops]
        last = list(range(len(self.ops)))
        for number, op in enumerate(self.ops):
            for taken in (op.get("of"), op.get("and")):
                if taken is not None:
                    last[taken] = number
        for number, after in enumerate(last):
            if number not in kept:
                self.done_after[after].append(number)

    def weight(self, op, part, value):
        """A weight under its dotted name, which makes a module of each part of it."""
        place = self
        for name in op["name"].split("."):
            if not hasattr(place, name):
                place.add_module(name, nn.Module())
            place = getattr(place, name)
        place.register_parameter(part, nn.Parameter(value))

    def of(self, op):
        place = self
        for name in op["name"].split("."):
            place = getattr(place, name)
        return place

    def forward(self, images):
        return self.all(images)[:2]

    def all(self, images):
        """Logits, features, and the logits of halved sides, each with how often they are halved."""
        results = []
        for op, done in zip(self.ops, self.done_after):
            results.append(self.one(op, images, results, done))
            for number in done:
                results[number] = None
        logits, features = self.results
        return results[logits], results[features], [(halved, results[op]) for op, halved in self.aids]

    def one(self, op, images, results, done):
        kind = op["op"]
        if kind == "input":
            return images
        x = results[op["of"]]
        if kind == "conv":
            own = self.of(op)
            shift = own.shift if op["shift"] else None
            convolve = functional.conv2d if self.axes == 2 else functional.conv3d
            return convolve(x, own.kernel, shift, op["stride"], op["size"] // 2)
        if kind == "norm":
            own = self.of(op)
            return functional.group_norm(x, op["groups"], own.scale, own.shift, self.epsilon)
        if kind == "relu":
            return functional.relu(x, inplace=op["of"] in done)
        if kind == "add":
            return x + results[op["and"]]
        if kind == "concat":
            return torch.cat([x, results[op["and"]]], dim=1)
        if kind == "twice":
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        if kind == "max_pool":
            return functional.max_pool2d(x, 3, 2, 1)
        if kind == "mean_pool":
            return functional.avg_pool2d(x, 2)
        if kind == "mean":
            return x.flatten(2).mean(dim=2)
        if kind == "linear":
            own = self.of(op)
            return functional.linear(x, own.kernel, own.shift)
        raise ValueError(f"this program does not know the operation {kind}; use the one of your gantry")


def load(path):
    """The network whose weights are in a safetensors file of gantry's library."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    drawing = header.pop("__metadata__", {}).get("graph")
    if drawing is None:
        raise ValueError("the file does not say its network; train the model again")
    flat = torch.frombuffer(data, dtype=torch.float32)
    weights = {}
    for name, one in header.items():
        begin, end = (bound // 4 for bound in one["data_offsets"])
        weights[name] = flat[begin:end].reshape(one["shape"])
    network = Network(json.loads(drawing))
    network.load_state_dict(weights)
    return network.eval()
