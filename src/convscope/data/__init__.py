"""Which images? ``load_data`` goes from ``photos``, ``digits`` or a folder to two splits of images.

A damaged file is named in ``ImageData.damaged`` and left out, never fatal. Images are fitted to one size: the
shorter side is resized and the centre cut out. They are normalised with the training images' own mean and
deviation, unless ``ImageData.normalised_with`` says others, as it must for a network that was trained with
others. Of a folder without ``train`` and ``validation`` in it a fifth of each class is for validation.

``list_pictures`` opens nothing: it lists a folder, tar files or a Hugging Face data set of any number of
pictures, to be looked at rather than learnt from.
Limits: pictures only, one label each; nothing is downloaded.
"""

from convscope.data.augment import augmented
from convscope.data.damage import Damage
from convscope.data.dataset import SETS, load_data, split_folders
from convscope.data.folder import Folder, open_folder
from convscope.data.images import ImageData, ImageSet
from convscope.data.listing import Listing, list_pictures
from convscope.data.normalisation import Normalisation, listed_normalisation
from convscope.data.pictures import fit, read_picture

__all__ = [
    "SETS",
    "Damage",
    "Folder",
    "ImageData",
    "ImageSet",
    "Listing",
    "Normalisation",
    "augmented",
    "fit",
    "list_pictures",
    "listed_normalisation",
    "load_data",
    "open_folder",
    "read_picture",
    "split_folders",
]
