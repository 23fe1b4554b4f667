"""What SimpleITK, scikit-image and SciPy make of the image in a folder, for tests/peers.rs.

usage: peers.py FOLDER
Reads image.raw (float32) and markers.raw, first.raw, second.raw (uint8), x fastest, of the size and
spacing in grid.json; writes NAME.raw for each operation and prints the versions that made them.
"""
import json
import sys
from pathlib import Path

import numpy as np
import scipy
import scipy.ndimage as ndi
import SimpleITK as sitk
import skimage
from skimage import feature, filters, morphology, segmentation

folder = Path(sys.argv[1])
grid = json.loads((folder / "grid.json").read_text())
shape, spacing = grid["size"][::-1], grid["spacing_mm"]


def read(name, dtype):
    return np.fromfile(folder / f"{name}.raw", dtype).reshape(shape)


def write(name, array, dtype=np.float32):
    np.ascontiguousarray(array, dtype).tofile(folder / f"{name}.raw")


def itk(array, spaced=True):
    image = sitk.GetImageFromArray(array)
    if spaced:
        image.SetSpacing(spacing)
    return image


def array(image):
    return sitk.GetArrayFromImage(image)


image, markers = read("image", np.float32), read("markers", np.uint8)
first, second = read("first", np.uint8), read("second", np.uint8)
seed, other = grid["seed"], grid["other"]
flat = image[shape[0] // 2]

for name in ["sobel", "scharr", "prewitt"]:
    write(name, getattr(filters, name)(image) * np.sqrt(3) / 2)
    write(name + "_slice", getattr(filters, name)(flat) * np.sqrt(2) / 2)
laplacian = ndi.gaussian_laplace(image.astype(np.float64), 1.5, mode="nearest").astype(np.float32)
write("laplacian", laplacian)
write("zero_crossings", array(sitk.ZeroCrossing(itk(laplacian))), np.uint8)
write("canny_slice", feature.canny(flat.astype(np.float64), sigma=1.0, low_threshold=40, high_threshold=90), np.uint8)
write("median", array(sitk.Median(itk(image), [1, 1, 1])))
write("median_slice", ndi.median_filter(flat, 5, mode="nearest"))
write("flood", segmentation.flood(image, tuple(seed[::-1]), tolerance=25, connectivity=1), np.uint8)
write("flood_full", segmentation.flood(image, tuple(seed[::-1]), tolerance=25, connectivity=3), np.uint8)
write("isolated_upper", array(sitk.IsolatedConnected(itk(image), other, seed, -500, 500, 1, 0.5, True)), np.uint8)
write("isolated_lower", array(sitk.IsolatedConnected(itk(image), seed, other, -500, 500, 1, 0.5, False)), np.uint8)
write("watershed", segmentation.watershed(image, markers.astype(np.int32)), np.uint8)
write("watershed_full", segmentation.watershed(image, markers.astype(np.int32), connectivity=3), np.uint8)
write("random_walker", segmentation.random_walker(image.astype(np.float64), markers.astype(np.int32), beta=5, mode="cg_j", tol=1e-6), np.uint8)
whole = np.rint(image / 8).astype(np.float32)
write("whole", whole)
for name in ["local_minima", "local_maxima"]:
    write(name, getattr(morphology, name)(whole, connectivity=1), np.uint8)
    write(name + "_full", getattr(morphology, name)(whole, connectivity=3), np.uint8)
speed = np.exp(-np.abs(image) / 100).astype(np.float32)
write("speed", speed)
write("fast_marching", array(sitk.FastMarching(itk(speed), [seed])))
write("diffusion", array(sitk.GradientAnisotropicDiffusion(itk(image), 0.05, 2.0, 1, 4)))
write("multi_otsu", array(sitk.OtsuMultipleThresholds(itk(image), 3, 0, 128)), np.uint8)
write("distance", array(sitk.SignedMaurerDistanceMap(itk(first), False, False, True)))
write("inside", ndi.distance_transform_edt(first, sampling=spacing[::-1]))
write("outside", ndi.distance_transform_edt(first == 0, sampling=spacing[::-1]))

target = sitk.Image([37, 41, 19], sitk.sitkFloat32)
target.SetSpacing([s * n / m for s, n, m in zip(spacing, grid["size"], [37, 41, 19])])
target.SetOrigin([(t - s) / 2 for s, t in zip(spacing, target.GetSpacing())])
for name, how in [("linear", sitk.sitkLinear), ("spline", sitk.sitkBSpline)]:
    write("resample_" + name, array(sitk.Resample(itk(image), target, sitk.Transform(), how, 0.0, sitk.sitkFloat32)))
write("reorient", array(sitk.DICOMOrient(itk(image), "SAR")))

bright = np.exp(image / 300 + 3 + np.linspace(0, 0.8, shape[2])[None, None, :]).astype(np.float32)
write("bright", bright)
write("bias", array(sitk.N4BiasFieldCorrection(itk(bright), itk(np.ones(shape, np.uint8)), 0.001, [20] * 3)))


def surface(mask):
    return mask & ~ndi.binary_erosion(mask, border_value=0)


a, b = surface(first == 1), surface(second == 1)
there = ndi.distance_transform_edt(~b, sampling=spacing[::-1])[a]
back = ndi.distance_transform_edt(~a, sampling=spacing[::-1])[b]
write("surfaces", [max(np.percentile(there, 95), np.percentile(back, 95)), max(there.max(), back.max()), np.concatenate([there, back]).mean()])

print(f"SimpleITK {sitk.Version_VersionString()}, scikit-image {skimage.__version__}, SciPy {scipy.__version__}")
