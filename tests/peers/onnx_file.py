"""Checks an ONNX file of gantry's: its form by onnx, and what onnxruntime computes of it.

    onnx_file.py NETWORK.onnx

Beside it are the raw numbers of `image`, and of `logits` and `features` as they must come out.
"""

import sys

import numpy
import onnx
import onnxruntime

path = sys.argv[1]
model = onnx.load(path)
onnx.checker.check_model(model, full_check=True)
assert {"gantry.labels": "background,lungs"}.items() <= {
    one.key: one.value for one in model.metadata_props
}.items()
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def raw(name):
    return numpy.fromfile(path.removesuffix("onnx") + name, dtype="<f4")


(given,) = session.get_inputs()
assert (given.name, given.shape[:2]) == ("image", ["patches", 1]), given
found = session.run(["logits", "features"], {"image": raw("image").reshape(-1, *given.shape[1:])})
for name, values in zip(("logits", "features"), found):
    wanted = raw(name).reshape(values.shape)
    apart = numpy.abs(values - wanted).max() / max(1.0, numpy.abs(wanted).max())
    assert apart < 1e-4, f"{name} are {apart} apart"
    print(f"{name}: {apart:.1e} apart")
