"""The image operations' peers on the phantom that `measure kernels` wrote.

usage: peers.py FOLDER THREADS [--slow]
Reads volume.raw (float32, x fastest) and grid.json; prints one JSON object a line: what, library,
best and median milliseconds. A library that is not installed is left out.
"""
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

folder, threads, slow = Path(sys.argv[1]), int(sys.argv[2]), "--slow" in sys.argv
grid = json.loads((folder / "grid.json").read_text())
volume = np.fromfile(folder / "volume.raw", np.float32).reshape(grid["size"][::-1])
seed = grid["seed"]


def module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


cv2, sitk, cc3d = module("cv2"), module("SimpleITK"), module("cc3d")
segmentation = module("skimage.segmentation")
if cv2:
    cv2.setNumThreads(threads)
if sitk:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)

depth, height, width = volume.shape
middle = volume[depth // 2]
short = middle.astype(np.int16)
noisy = (volume > 60).astype(np.uint8)
markers = np.zeros(volume.shape, np.int32)
for label, (x, y, z) in [(1, seed), (2, (width // 2, height // 2, depth // 2)), (3, (2, 2, min(2, depth - 1)))]:
    markers[z, y, x] = label
flat_markers = markers.max(axis=0)


def report(what, library, work, rounds):
    work() if rounds > 3 else None
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1e3)
    times.sort()
    print(json.dumps({"what": what, "library": library, "best": times[0], "median": times[len(times) // 2]}), flush=True)


def gaussian_cv():
    kernel = cv2.getGaussianKernel(17, 2.0, cv2.CV_32F)
    out = np.empty_like(volume)
    for k in range(depth):
        cv2.sepFilter2D(volume[k], cv2.CV_32F, kernel, kernel, out[k], borderType=cv2.BORDER_REFLECT)
    along = out.reshape(depth, -1)
    return cv2.sepFilter2D(along, cv2.CV_32F, np.ones(1, np.float32), kernel, borderType=cv2.BORDER_REFLECT)


def canny_cv():
    smooth = cv2.GaussianBlur(short, (0, 0), 1.0)
    return cv2.Canny(cv2.Sobel(smooth, cv2.CV_16S, 1, 0), cv2.Sobel(smooth, cv2.CV_16S, 0, 1), 160, 480)


if cv2:
    report("canny 2-D", "OpenCV", canny_cv, 30)
    report("sobel 2-D", "OpenCV", lambda: cv2.magnitude(cv2.Sobel(middle, cv2.CV_32F, 1, 0), cv2.Sobel(middle, cv2.CV_32F, 0, 1)), 30)
    report("gaussian 2-D", "OpenCV", lambda: cv2.GaussianBlur(middle, (0, 0), 2.0), 30)
    report("gaussian 3-D", "OpenCV", gaussian_cv, 3)
if sitk:
    image = sitk.GetImageFromArray(volume)
    smooth = sitk.DiscreteGaussian(image, 1.0)
    mask = sitk.GetImageFromArray(noisy)
    whole = sitk.Cast(image, sitk.sitkInt16)
    report("sobel 3-D", "SimpleITK", lambda: sitk.SobelEdgeDetection(image), 2)
    report("canny 3-D", "SimpleITK", lambda: sitk.CannyEdgeDetection(image, 20, 60, [1.0] * 3), 2)
    report("median 3-D", "SimpleITK", lambda: sitk.Median(whole, [1, 1, 1]), 2)
    report("connected threshold, small region", "SimpleITK", lambda: sitk.ConnectedThreshold(smooth, [seed], 60, 160), 3)
    report("connected threshold, large region", "SimpleITK", lambda: sitk.ConnectedThreshold(smooth, [seed], -200, 1000), 3)
    report("confidence connected", "SimpleITK", lambda: sitk.ConfidenceConnected(smooth, [seed], 4, 2.5, 2, 1), 3)
    report("neighbourhood connected", "SimpleITK", lambda: sitk.NeighborhoodConnected(smooth, [seed], 60, 160, [1, 1, 1]), 3)
    report("distance, signed", "SimpleITK", lambda: sitk.SignedMaurerDistanceMap(mask, False, False, True), 2)
if cc3d:
    for count in [6, 26]:
        report(f"components, {count} neighbours", "cc3d", lambda: cc3d.connected_components(noisy, connectivity=count), 3)
if segmentation and slow:
    slope = sitk.GetArrayFromImage(sitk.GradientMagnitude(smooth)) if sitk else volume
    report("random walker 2-D", "scikit-image", lambda: segmentation.random_walker(middle, flat_markers, beta=130, mode="cg_j"), 1)
    report("watershed, 3 markers", "scikit-image", lambda: segmentation.watershed(slope, markers), 1)
