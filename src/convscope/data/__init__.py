"""Which images? ``load_data`` goes from ``photos``, ``digits`` or a folder to two splits of images.

A damaged file is named in ``ImageData.damaged`` and left out, never fatal. Images are fitted to one size by
cutting out the centre and are normalised with the training images' own mean and deviation. Limits: pictures
only, one label each; nothing is downloaded.
"""

from convscope.data.augment import augmented
from convscope.data.dataset import SETS, load_data
from convscope.data.folder import Damage, Folder, open_folder
from convscope.data.images import ImageData, ImageSet
from convscope.data.normalisation import Normalisation
from convscope.data.pictures import fit, read_picture

__all__ = [
    "SETS",
    "Damage",
    "Folder",
    "ImageData",
    "ImageSet",
    "Normalisation",
    "augmented",
    "fit",
    "load_data",
    "open_folder",
    "read_picture",
]
