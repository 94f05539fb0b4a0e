"""The keep image: which files a keep consists of, and what they weigh.

``image_files()`` is the list that whatever packs an image must pack; the rules of ``tests/architecture`` hold for it.
"""

from enarx.api.keep_image import Image, read_image
from enarx.tenant.image._archive import build_image, installed_image
from enarx.tenant.image._contents import DISTRIBUTIONS, PackedFile, distribution_files, image_files, own_files
from enarx.tenant.image._inventory import Group, Inventory, Item, Kind, take_inventory
from enarx.tenant.image._reference import MEASURED, pef_digests, reference_measurement
from enarx.tenant.image._sbom import bill_of_materials

__all__ = [
    "DISTRIBUTIONS",
    "MEASURED",
    "Group",
    "Image",
    "Inventory",
    "Item",
    "Kind",
    "PackedFile",
    "bill_of_materials",
    "build_image",
    "distribution_files",
    "image_files",
    "installed_image",
    "own_files",
    "pef_digests",
    "read_image",
    "reference_measurement",
    "take_inventory",
]
