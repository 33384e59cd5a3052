"""Which images? ``load_data`` goes from ``photos``, ``digits`` or a folder to two splits of images.

A damaged file is named in ``ImageData.damaged`` and left out, never fatal. Images are fitted to one size: the
shorter side is resized and the centre cut out. They are normalised with the training images' own mean and
deviation, unless ``ImageData.normalised_with`` says others, as it must for a network that was trained with
others. Of a folder without ``train`` and ``validation`` in it a fifth of each class is for validation.
Limits: pictures only, one label each; nothing is downloaded.
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
