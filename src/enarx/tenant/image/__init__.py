"""The keep image: which files a keep consists of, and what they weigh.

``image_files()`` is the list that whatever packs an image must pack; the rules of ``tests/architecture`` hold for it.
"""

from enarx.tenant.image._contents import DISTRIBUTIONS, PackedFile, distribution_files, image_files, own_files
from enarx.tenant.image._inventory import Group, Inventory, Item, Kind, take_inventory
from enarx.tenant.image._sbom import bill_of_materials

__all__ = [
    "DISTRIBUTIONS",
    "Group",
    "Inventory",
    "Item",
    "Kind",
    "PackedFile",
    "bill_of_materials",
    "distribution_files",
    "image_files",
    "own_files",
    "take_inventory",
]
