"""A PyTorch program of one's own as a job of gantry: it needs no part of gantry, only its contract.

    gantry library export npz DIR
    gantry submit --gpus 1 --retries 3 -- python3 torch_slices.py DIR

* It reads the samples that were exported: `image` and `mask` of each, slices first.
* It keeps its state in the folder that GANTRY_CHECKPOINT names, under another name first, so that a
  start after a kill goes on from the last epoch that is whole.
* Lines `::metric NAME VALUE STEP` become live curves, `::progress P%` says how far it is.
"""

import os
import pathlib
import sys

import numpy
import torch
from torch import nn

EPOCHS = int(os.environ.get("EPOCHS", "20"))


def samples(folder):
    images, masks = [], []
    for path in sorted(pathlib.Path(folder).glob("*.npz")):
        with numpy.load(path) as sample:
            image = sample["image"].astype("float32")
            images.append((image - image.mean()) / (image.std() + 1e-6))
            masks.append(sample["mask"] != 0)
    return numpy.concatenate(images)[:, None], numpy.concatenate(masks)[:, None]


def main():
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, masks = (torch.from_numpy(one).to(device) for one in samples(sys.argv[1]))
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 1, 1),
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    folder = pathlib.Path(os.environ["GANTRY_CHECKPOINT"])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, first = folder / "state.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
        print(f"goes on after epoch {first}", flush=True)
    for epoch in range(first + 1, EPOCHS + 1):
        loss = nn.functional.binary_cross_entropy_with_logits(network(images), masks.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, folder / "state.new")
        (folder / "state.new").replace(checkpoint)
        print(f"::metric loss {loss.item():.6f} {epoch}")
        print(f"::progress {100 * epoch // EPOCHS}%", flush=True)


main()
