"""The same as torch_slices.py in JAX: gantry does not care which framework a job uses.

    gantry library export npz DIR
    gantry submit --gpus 1 --retries 3 -- python3 jax_slices.py DIR
"""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy

EPOCHS = int(os.environ.get("EPOCHS", "20"))
RATE = 0.1


def samples(folder):
    images, masks = [], []
    for path in sorted(pathlib.Path(folder).glob("*.npz")):
        with numpy.load(path) as sample:
            image = sample["image"].astype("float32")
            images.append((image - image.mean()) / (image.std() + 1e-6))
            masks.append(sample["mask"] != 0)
    return jnp.asarray(numpy.concatenate(images)[:, None]), jnp.asarray(numpy.concatenate(masks)[:, None])


def begin():
    keys = jax.random.split(jax.random.PRNGKey(1), 3)
    shapes = [(8, 1, 3, 3), (8, 8, 3, 3), (1, 8, 1, 1)]
    scale = [numpy.sqrt(2 / numpy.prod(shape[1:])) for shape in shapes]
    kernels = [jax.random.normal(key, shape) * one for key, shape, one in zip(keys, shapes, scale)]
    return [(kernel, jnp.zeros((1, kernel.shape[0], 1, 1))) for kernel in kernels]


def forward(weights, x):
    for place, (kernel, shift) in enumerate(weights):
        x = jax.lax.conv(x, kernel, (1, 1), "SAME") + shift
        x = jax.nn.relu(x) if place + 1 < len(weights) else x
    return x


def loss_of(weights, images, masks):
    logits = forward(weights, images)
    return jnp.mean(jnp.maximum(logits, 0) - logits * masks + jnp.log1p(jnp.exp(-jnp.abs(logits))))


@jax.jit
def step(weights, images, masks):
    loss, gradients = jax.value_and_grad(loss_of)(weights, images, masks)
    return loss, jax.tree.map(lambda weight, gradient: weight - RATE * gradient, weights, gradients)


def main():
    images, masks = samples(sys.argv[1])
    folder = pathlib.Path(os.environ["GANTRY_CHECKPOINT"])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, weights, first = folder / "state.npz", begin(), 0
    if checkpoint.exists():
        with numpy.load(checkpoint) as state:
            flat = [jnp.asarray(state[f"arr_{place}"]) for place in range(2 * len(weights))]
            weights, first = list(zip(flat[::2], flat[1::2])), int(state["epoch"])
        print(f"goes on after epoch {first}", flush=True)
    for epoch in range(first + 1, EPOCHS + 1):
        loss, weights = step(weights, images, masks)
        with open(folder / "state.new", "wb") as file:
            numpy.savez(file, *(one for layer in weights for one in layer), epoch=epoch)
        (folder / "state.new").replace(checkpoint)
        print(f"::metric loss {float(loss):.6f} {epoch}")
        print(f"::progress {100 * epoch // EPOCHS}%", flush=True)


main()
