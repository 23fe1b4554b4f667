"""nnunet.py FOLDER: runs nnU-Net's own integrity check on an export in nnU-Net's raw form. It ends with 0
where the check finds nothing wrong.

The check itself computes with numpy and reads with SimpleITK, but what it is made of names torch (over
700 MB), blosc2 and acvl_utils, which only other parts use. Here stand-ins are found under those names:
they can be imported and put before a function, and can do nothing."""

import importlib.abc
import importlib.machinery
import sys
import types

ABSENT = ("torch", "acvl_utils", "blosc2")


class Nothing:
    """Stands before a function, or for a type."""

    def __new__(cls, *_values, **_names):
        return lambda function: function


class Absent(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


# Also in the processes that the check starts.
sys.meta_path.insert(0, Finder())

if __name__ == "__main__":
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(sys.argv[1], num_processes=1)
