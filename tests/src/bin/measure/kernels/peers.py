"""The image operations' peers on the phantom that `measure kernels` wrote.

usage: peers.py FOLDER THREADS [--slow] [--only WORDS]
Reads volume.raw (float32, x fastest) and grid.json; prints one JSON object a line: what, library,
best and median milliseconds. A library that is not installed is left out, and so is what has not WORDS in
its name.
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
only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""


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
corner = (depth // 4, height // 2, width // 4)
within = tuple(slice(k, k + length // 4) for k, length in zip(corner, volume.shape))
part = np.ascontiguousarray(volume[within])
part_seed = [at - k for at, k in zip(seed, corner[::-1])]
part_markers = (markers[within] == 1).astype(np.int32)
part_markers[0, 0, 0] = 2


def report(what, library, work, rounds):
    if only not in what and not (what.startswith("watershed") and only in "seeded growing, 3 seeds"):
        return
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


def canny_cv_slices():
    for k in range(depth):
        smooth = cv2.GaussianBlur(whole_numbers[k], (0, 0), 1.0)
        cv2.Canny(cv2.Sobel(smooth, cv2.CV_16S, 1, 0), cv2.Sobel(smooth, cv2.CV_16S, 0, 1), 160, 480)


whole_numbers = volume.astype(np.int16)
if cv2:
    report("canny 2-D", "OpenCV", canny_cv, 30)
    report("sobel 2-D", "OpenCV", lambda: cv2.magnitude(cv2.Sobel(middle, cv2.CV_32F, 1, 0), cv2.Sobel(middle, cv2.CV_32F, 0, 1)), 30)
    report("gaussian 2-D", "OpenCV", lambda: cv2.GaussianBlur(middle, (0, 0), 2.0), 30)
    report("gaussian 3-D", "OpenCV", gaussian_cv, 3)
    report("canny 3-D", "OpenCV, slice by slice", canny_cv_slices, 3)
    report("rescale", "OpenCV", lambda: cv2.addWeighted(volume, 1.5, volume, 0.0, -1024.0), 3)
if sitk:
    image = sitk.GetImageFromArray(volume)
    flat = sitk.GetImageFromArray(middle)
    smooth = sitk.DiscreteGaussian(image, 1.0)
    mask = sitk.GetImageFromArray(noisy)
    whole = sitk.Cast(image, sitk.sitkInt16)
    report("canny 2-D", "SimpleITK", lambda: sitk.CannyEdgeDetection(flat, 20, 60, [1.0] * 2), 10)
    report("sobel 2-D", "SimpleITK", lambda: sitk.SobelEdgeDetection(flat), 10)
    small, speed = sitk.GetImageFromArray(part), sitk.GetImageFromArray(np.exp(-np.abs(part - 110) / 100))
    report("bias correction 2-D", "SimpleITK", lambda: sitk.N4BiasFieldCorrection(flat), 1)
    report("bias correction 3-D", "SimpleITK", lambda: sitk.N4BiasFieldCorrection(small), 1)
    report("anisotropic diffusion 3-D, 5 steps", "SimpleITK", lambda: sitk.GradientAnisotropicDiffusion(small, 0.0625, 3.0, 1, 5), 2)
    report("fast marching 3-D", "SimpleITK", lambda: sitk.FastMarching(speed, [part_seed]), 2)
    report("window", "SimpleITK", lambda: sitk.IntensityWindowing(image, -160, 240, 0, 1), 3)
    report("rescale", "SimpleITK", lambda: sitk.ShiftScale(image, -1024 / 1.5, 1.5), 3)
    report("clip", "SimpleITK", lambda: sitk.Clamp(image, sitk.sitkFloat32, -160, 240), 3)
    report("threshold", "SimpleITK", lambda: sitk.BinaryThreshold(image, 60, 160), 3)
    report("otsu", "SimpleITK", lambda: sitk.OtsuThreshold(image), 2)
    report("gaussian 3-D", "SimpleITK", lambda: sitk.DiscreteGaussian(image, 4.0), 2)
    report("laplacian of gaussian", "SimpleITK", lambda: sitk.LaplacianRecursiveGaussian(image, 2.0), 2)
    report("curvature flow, 2 steps", "SimpleITK", lambda: sitk.CurvatureFlow(image, 0.0625, 2), 1)
    report("resample to half the voxels, linear", "SimpleITK", lambda: sitk.Resample(image, [width, height, depth // 2], sitk.Transform(), sitk.sitkLinear, [0.0] * 3, [1.0, 1.0, 2.0]), 2)
    report("sobel 3-D", "SimpleITK", lambda: sitk.SobelEdgeDetection(image), 2)
    report("canny 3-D", "SimpleITK", lambda: sitk.CannyEdgeDetection(image, 20, 60, [1.0] * 3), 2)
    report("median 3-D", "SimpleITK", lambda: sitk.Median(whole, [1, 1, 1]), 2)
    report("connected threshold, small region", "SimpleITK", lambda: sitk.ConnectedThreshold(smooth, [seed], 60, 160), 3)
    report("connected threshold, large region", "SimpleITK", lambda: sitk.ConnectedThreshold(smooth, [seed], -200, 1000), 3)
    report("confidence connected", "SimpleITK", lambda: sitk.ConfidenceConnected(smooth, [seed], 4, 2.5, 2, 1), 3)
    report("neighbourhood connected", "SimpleITK", lambda: sitk.NeighborhoodConnected(smooth, [seed], 60, 160, [1, 1, 1]), 3)
    report("components, 6 neighbours", "SimpleITK", lambda: sitk.ConnectedComponent(mask, False), 2)
    report("components, 26 neighbours", "SimpleITK", lambda: sitk.ConnectedComponent(mask, True), 2)
    report("dilate by 2 voxels", "SimpleITK", lambda: sitk.BinaryDilate(mask, [2] * 3), 2)
    report("erode by 2 voxels", "SimpleITK", lambda: sitk.BinaryErode(mask, [2] * 3), 2)
    report("fill holes", "SimpleITK", lambda: sitk.BinaryFillhole(mask), 2)
    report("distance, signed", "SimpleITK", lambda: sitk.SignedMaurerDistanceMap(mask, False, False, True), 2)
if cc3d:
    for count in [6, 26]:
        report(f"components, {count} neighbours", "cc3d", lambda: cc3d.connected_components(noisy, connectivity=count), 3)
if segmentation and slow:
    # These know one thread only.
    filters, feature, ndimage = module("skimage.filters"), module("skimage.feature"), module("scipy.ndimage")
    report("canny 2-D", "scikit-image", lambda: feature.canny(middle, 1.0, 160, 480), 10)
    report("sobel 2-D", "scikit-image", lambda: filters.sobel(middle), 10)
    report("gaussian 2-D", "SciPy", lambda: ndimage.gaussian_filter(middle, 2.0), 10)
    report("gaussian 3-D", "SciPy", lambda: ndimage.gaussian_filter(volume, 2.0), 2)
    report("sobel 3-D", "scikit-image", lambda: filters.sobel(volume), 1)
    report("canny 3-D", "scikit-image, slice by slice", lambda: [feature.canny(one, 1.0, 160, 480) for one in volume], 1)
    report("components, 6 neighbours", "SciPy", lambda: ndimage.label(noisy), 2)
    report("components, 26 neighbours", "SciPy", lambda: ndimage.label(noisy, np.ones((3, 3, 3))), 2)
    soft = sitk.GetArrayFromImage(smooth) if sitk else volume
    x, y, z = seed
    report("connected threshold, small region", "scikit-image, flood", lambda: segmentation.flood(soft, (z, y, x), tolerance=50), 2)
    if cc3d:
        def by_labels():
            labels = cc3d.connected_components((soft >= 60) & (soft <= 160), connectivity=6)
            return labels == labels[z, y, x]
        report("connected threshold, small region", "cc3d, threshold and label", by_labels, 2)
    slope = sitk.GetArrayFromImage(sitk.GradientMagnitude(smooth)) if sitk else volume
    report("random walker 2-D", "scikit-image", lambda: segmentation.random_walker(middle, flat_markers, beta=130, mode="cg_j"), 1)
    report("random walker 3-D", "scikit-image", lambda: segmentation.random_walker(part, part_markers, beta=130, mode="cg_j"), 1)
    report("watershed, 3 markers", "scikit-image", lambda: segmentation.watershed(slope, markers), 1)
    if sitk:
        heights, starts = sitk.GetImageFromArray(slope), sitk.GetImageFromArray(markers)
        report("watershed, 3 markers", "SimpleITK", lambda: sitk.MorphologicalWatershedFromMarkers(heights, starts, False, False), 1)
