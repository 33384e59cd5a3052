"""Resolvers of timm's, torchvision's and Hugging Face's networks: built here, never downloaded.

They come with fresh weights; trained ones are loaded from a file. Their own settings say how images are
prepared and what the classes are called.
"""

import inspect
import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.networks.preprocessing import Preprocessing, default_preprocessing
from convscope.networks.request import Request, Resolved, unbuildable

# Options by which a zoo would fetch or unpickle weights itself.
_WEIGHT_OPTIONS = ("pretrained", "checkpoint_path", "weights", "weights_backbone")
_PHOTO = (3, 224, 224)
_NUM_FRAMES = 16


def timm_network(request: Request) -> Resolved:
    """Return ``timm:NAME``, at the size that its configuration names.

    Raises:
        ConvscopeError: timm is absent or can't be imported, has no such network, or can't build it so.
    """
    timm = _library("timm", "timm")
    _refuse_weight_options(request)
    # Names with a prefix of their own (hf-hub:, local-dir:) would reach for the network or for other files.
    _check_name(request, request.name.split(".")[0], timm.list_models())
    try:
        wishes = _timm_wishes(request, timm.get_pretrained_cfg(request.name))
        model = timm.create_model(request.name, pretrained=False, **{**wishes, **request.options})
    except Exception as error:  # timm's builders raise whatever their layers raise
        raise unbuildable(request, error) from error
    images = timm.data.resolve_model_data_config(model)
    input_shape = request.input_shape or tuple(images["input_size"])
    return Resolved(model, input_shape, _timm_preprocessing(images, input_shape), _timm_classes(timm, model))


def torchvision_network(request: Request) -> Resolved:
    """Return ``torchvision:NAME``, with the preprocessing of its published weights.

    Raises:
        ConvscopeError: torchvision is absent or can't be imported, has no such network, or can't build it so.
    """
    models = _library("torchvision", "torchvision").models
    _refuse_weight_options(request)
    _check_name(request, request.name, models.list_models())
    options = dict(request.options)
    if request.num_classes is not None:
        options["num_classes"] = request.num_classes
    if "weights_backbone" in inspect.signature(models.get_model_builder(request.name)).parameters:
        options["weights_backbone"] = None  # the default would download it
    try:
        with warnings.catch_warnings():
            # About which initialisation a later version will use.
            warnings.simplefilter("ignore", FutureWarning)
            model = models.get_model(request.name, weights=None, **options)
    except Exception as error:  # builders raise whatever their layers raise
        raise unbuildable(request, error) from error
    return _with_published_settings(request, model, models.get_model_weights(request.name).DEFAULT)


def hugging_face_network(request: Request) -> Resolved:
    """Return ``hf:FOLDER``: an image classifier from the ``config.json`` in a local folder or in the cache.

    Raises:
        ConvscopeError: transformers is absent, nothing is found without a download, or it can't be built.
    """
    transformers = _library("transformers", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(
            request.name, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ConvscopeError(
            f"network {request.reference!r}: no configuration found without a download",
            "a folder with a config.json",
            "download the model's files first; convscope reaches for no network",
        ) from error
    if request.num_classes is not None:
        config.num_labels = request.num_classes
    try:
        model = transformers.AutoModelForImageClassification.from_config(config, **request.options)
    except Exception as error:  # builders raise whatever their layers raise
        raise unbuildable(request, error) from error
    size = getattr(config, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shape = request.input_shape or (getattr(config, "num_channels", 3), height, width)
    names = tuple(config.id2label[number] for number in range(config.num_labels))
    return Resolved(model, shape, default_preprocessing(shape, request.reference), names)


ZOOS = {"timm": timm_network, "torchvision": torchvision_network, "hf": hugging_face_network}


def zoo_names(zoo: str) -> tuple[str, ...]:
    """Return the names that ``"timm"`` or ``"torchvision"`` offers.

    Raises:
        ConvscopeError: the library is absent or can't be imported.
    """
    library = _library(zoo, zoo)
    return tuple((library if zoo == "timm" else library.models).list_models())


def _library(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConvscopeError(
            f"{package} can't be imported ({error})", f"{package} installed", f"pip install {package}"
        ) from error
    except (ImportError, RuntimeError, AttributeError) as error:
        if "torchvision::" in str(error):
            raise ConvscopeError(
                f"{package} can't be imported: the torchvision that is installed has no compiled operators "
                f"for this PyTorch ({error})",
                "a torchvision that was built for the torch beside it",
                "install both from one index, such as pip install torch torchvision --index-url "
                "https://download.pytorch.org/whl/cpu",
            ) from error
        raise ConvscopeError(
            f"{package} is installed and can't be imported ({error})",
            "builds of torch, torchvision and timm that belong together",
            "install the torchvision release made for this torch",
        ) from error


def _refuse_weight_options(request: Request) -> None:
    for option in _WEIGHT_OPTIONS:
        if option in request.options:
            raise ConvscopeError(
                f"network {request.reference!r}: option {option!r}",
                "no download and no unpickling",
                "pass weights=FILE, which is read safely",
            )


def _check_name(request: Request, name: str, names: Iterable[str]) -> None:
    known = list(names)
    if name not in known:
        library = request.reference.partition(":")[0]
        raise ConvscopeError(
            f"unknown network {request.reference!r}",
            f"one of {library}'s {len(known)} names",
            nearest(name, known, "`convscope networks` lists them"),
        )


def _timm_wishes(request: Request, settings: Any) -> dict[str, Any]:
    """The request's classes and input shape as timm's options; few networks take another image size."""
    wishes: dict[str, Any] = {} if request.num_classes is None else {"num_classes": request.num_classes}
    if request.input_shape is not None and settings is not None:
        channels, *size = request.input_shape
        if channels != settings.input_size[0]:
            wishes["in_chans"] = channels
        if settings.fixed_input_size and tuple(size) != settings.input_size[1:]:
            wishes["img_size"] = tuple(size)
    return wishes


def _timm_preprocessing(settings: dict[str, Any], shape: tuple[int, ...]) -> Preprocessing | None:
    if len(settings["mean"]) != shape[0]:
        return default_preprocessing(shape, "timm's network on other channels")
    return Preprocessing(
        (shape[1], shape[2]),
        tuple(settings["mean"]),
        tuple(settings["std"]),
        settings["interpolation"],
        settings["crop_pct"],
        "timm's configuration",
    )


def _timm_classes(timm: Any, model: Any) -> tuple[str, ...]:
    """ImageNet's names where the network was configured for one of ImageNet's class lists."""
    subset = timm.data.infer_imagenet_subset(model)
    if not subset:
        return ()
    info = timm.data.ImageNetInfo(subset)
    if info.num_classes() != model.num_classes:
        return ()
    return tuple(info.index_to_description(number) for number in range(info.num_classes()))


def _with_published_settings(request: Request, model: Any, weights: Any) -> Resolved:
    settings = weights.transforms()
    crop = getattr(settings, "crop_size", None) or getattr(settings, "resize_size", None) or [_PHOTO[-1]]
    height, width = crop[0], crop[-1]
    video = type(settings).__name__ == "VideoClassification"
    shape = request.input_shape or ((3, _NUM_FRAMES, height, width) if video else (3, height, width))
    names = tuple(weights.meta.get("categories", ()))
    if request.num_classes is not None and request.num_classes != len(names):
        names = ()
    if not hasattr(settings, "crop_size") or len(shape) != 3 or shape[0] != 3:
        return Resolved(model, shape, default_preprocessing(shape, request.reference), names)
    preprocessing = Preprocessing(
        (shape[1], shape[2]),
        tuple(settings.mean),
        tuple(settings.std),
        settings.interpolation.value,
        crop[0] / settings.resize_size[0],
        "torchvision's published weights",
    )
    return Resolved(model, shape, preprocessing, names)
