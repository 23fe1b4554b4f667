"""read.py FORM FOLDER: reads what gantry has exported with readers that are not ours, and prints one
JSON object: by sample, the size (x, y, z), the spacing in mm, the sum of the image's values and the
number of marked voxels, each where the form says it."""

import json
import pathlib
import sys
import tarfile

import numpy as np

form, folder = sys.argv[1], pathlib.Path(sys.argv[2])
found = {}


def simple_itk(image, mask):
    import SimpleITK as sitk

    image, mask = sitk.ReadImage(str(image)), sitk.ReadImage(str(mask))
    assert image.GetOrigin() == mask.GetOrigin() and image.GetDirection() == mask.GetDirection()
    return {
        "size": list(image.GetSize()),
        "spacing": [round(one, 4) for one in image.GetSpacing()],
        "origin": [round(one, 3) for one in image.GetOrigin()],
        "sum": float(sitk.GetArrayViewFromImage(image).sum(dtype=np.float64)),
        "marked": int((sitk.GetArrayViewFromImage(mask) > 0).sum()),
    }


if form in ("nifti", "nrrd", "mha"):
    end = {"nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha"}[form]
    for path in (folder / "images").iterdir():
        found[path.name.removesuffix(end)] = simple_itk(path, folder / "masks" / path.name)
elif form == "nnunet":
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"]["background"] == 0 and about["file_ending"] == ".nii.gz"
    splits = json.loads((folder / "splits_final.json").read_text())
    train = {case for case in splits[0]["train"] + splits[0]["val"]}
    images = list((folder / "imagesTr").iterdir())
    assert len(images) == about["numTraining"] == len(train)
    assert not set(splits[0]["train"]) & set(splits[0]["val"])
    for path in images:
        case = path.name.removesuffix("_0000.nii.gz")
        assert case in train
        found[case] = simple_itk(path, folder / "labelsTr" / f"{case}.nii.gz")
elif form == "decathlon":
    about = json.loads((folder / "dataset.json").read_text())
    assert about["numTraining"] == len(about["training"])
    for pair in about["training"] + about["validation"]:
        case = pathlib.Path(pair["image"]).name.removesuffix(".nii.gz")
        found[case] = simple_itk(folder / pair["image"], folder / pair["label"])
elif form == "npz":
    for path in folder.iterdir():
        arrays = np.load(path)
        assert arrays["image"].shape == arrays["mask"].shape
        found[path.stem] = {
            "size": list(arrays["image"].shape[::-1]),
            "spacing": [round(float(one), 4) for one in arrays["spacing_mm"]],
            "origin": [round(float(one), 3) for one in arrays["origin_mm"]],
            "sum": float(arrays["image"].sum(dtype=np.float64)),
            "marked": int((arrays["mask"] > 0).sum()),
        }
elif form == "webdataset":
    import nibabel
    import webdataset

    shards = [str(path) for path in sorted(folder.iterdir())]
    for shard in shards:
        tarfile.open(shard).close()
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        import gzip

        read = lambda end: nibabel.Nifti1Image.from_bytes(gzip.decompress(sample[end]))
        image, mask = read("image.nii.gz"), read("mask.nii.gz")
        found[sample["__key__"]] = {
            "size": list(image.shape),
            "spacing": [round(float(one), 4) for one in image.header.get_zooms()],
            "sum": float(np.asarray(image.dataobj).sum(dtype=np.float64)),
            "marked": int((np.asarray(mask.dataobj) > 0).sum()),
        }
elif form == "dicom-seg":
    import highdicom

    for path in folder.iterdir():
        segmentation = highdicom.seg.segread(path)
        found[path.stem] = {"marked": int(segmentation.pixel_array.sum())}
elif form == "coco":
    from pycocotools.coco import COCO
    from PIL import Image

    coco = COCO(folder / "annotations.json")
    for number, image in coco.imgs.items():
        picture = Image.open(folder / image["file_name"])
        assert picture.size == (image["width"], image["height"])
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[number], iscrowd=None)):
            mask = coco.annToMask(one)
            assert mask.sum() == one["area"]
            rows, columns = np.nonzero(mask)
            x, y, width, height = one["bbox"]
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() + 1 - x, rows.max() + 1 - y) == (width, height)
            found.setdefault(image["sample"], {"marked": 0})["marked"] += int(mask.sum())
print("\n" + json.dumps(found))
