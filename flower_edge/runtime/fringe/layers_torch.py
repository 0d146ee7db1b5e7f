"""A layer of a part as data: its class by name, and the options that make it again. Arrays travel beside it.

Only classes that are listed here are made, and only by their constructors. What is not listed is a module of the user's
own that could not be traced: it is named by its place in the model's architecture, which each machine builds itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...errors import FringeError
from ...fringe.pair_shapes import PairShape
from ...fringe.pair_torch import Decoder, Encoder
from ...fringe.pruned_layers_torch import Map, Scatter, Select

__all__ = ["layer_config", "layer_from"]

#: From a layer to the option, where it is not the attribute of that name.
_PRESENT: Final = frozenset({"bias"})


def _named(names: str) -> tuple[str, ...]:
    return tuple(names.split())


_CONV: Final = _named("in_channels out_channels kernel_size stride padding dilation groups bias padding_mode")
_TURNED: Final = _named("in_channels out_channels kernel_size stride padding output_padding groups bias dilation")
_NORM: Final = _named("num_features eps momentum affine track_running_stats")
_MAX: Final = _named("kernel_size stride padding dilation return_indices ceil_mode")
_RECURRENT: Final = _named("input_size hidden_size num_layers bias batch_first dropout bidirectional")
_AVERAGE: Final = _named("kernel_size stride padding ceil_mode count_include_pad")
_INPLACE: Final = ("inplace",)
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Linear": _named("in_features out_features bias"),
    "Bilinear": _named("in1_features in2_features out_features bias"),
    **{f"Conv{n}d": _CONV for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": _TURNED for n in (1, 2, 3)},
    **{f"BatchNorm{n}d": _NORM for n in (1, 2, 3)},
    **{f"InstanceNorm{n}d": _NORM for n in (1, 2, 3)},
    "GroupNorm": _named("num_groups num_channels eps affine"),
    "LayerNorm": _named("normalized_shape eps elementwise_affine bias"),
    "RMSNorm": _named("normalized_shape eps elementwise_affine"),
    "Embedding": _named("num_embeddings embedding_dim padding_idx max_norm norm_type"),
    "LSTM": (*_RECURRENT, "proj_size"),
    "GRU": _RECURRENT,
    "RNN": (*_RECURRENT, "nonlinearity"),
    "MultiheadAttention": _named("embed_dim num_heads dropout kdim vdim batch_first bias"),
    "TransformerEncoderLayer": _named(
        "d_model nhead dim_feedforward dropout activation layer_norm_eps batch_first norm_first bias"
    ),
    **{f"MaxPool{n}d": _MAX for n in (1, 2, 3)},
    "AvgPool1d": _AVERAGE,
    **dict.fromkeys(("AvgPool2d", "AvgPool3d"), (*_AVERAGE, "divisor_override")),
    **{f"AdaptiveAvgPool{n}d": ("output_size",) for n in (1, 2, 3)},
    **{f"AdaptiveMaxPool{n}d": _named("output_size return_indices") for n in (1, 2, 3)},
    **dict.fromkeys(_named("ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid"), _INPLACE),
    **dict.fromkeys(_named("Tanh Sigmoid LogSigmoid Softsign Tanhshrink Identity"), ()),
    "LeakyReLU": _named("negative_slope inplace"),
    **{name: _named("alpha inplace") for name in _named("ELU CELU")},
    "GELU": ("approximate",),
    "Softplus": _named("beta threshold"),
    "Hardtanh": _named("min_val max_val inplace"),
    "PReLU": ("num_parameters",),
    **dict.fromkeys(_named("Softmax LogSoftmax"), ("dim",)),
    **{name: _named("p inplace") for name in _named("Dropout Dropout1d Dropout2d Dropout3d AlphaDropout")},
    "Flatten": _named("start_dim end_dim"),
    "Unflatten": _named("dim unflattened_size"),
    "Upsample": _named("size scale_factor mode align_corners"),
    "PixelShuffle": ("upscale_factor",),
    "PixelUnshuffle": ("downscale_factor",),
    "ChannelShuffle": ("groups",),
    "ZeroPad2d": ("padding",),
}  # fmt: skip


def layer_config(layer: nn.Module) -> dict[str, Any] | None:
    """Its class and options as plain values, or None for one that only its architecture can make.

    >>> layer_config(nn.ReLU(inplace=True))
    {'layer': 'ReLU', 'options': {'inplace': True}}
    """
    kind = type(layer)
    if kind is Select:
        return {"layer": "Select", "options": {"axis": layer.axis}}
    if kind is Scatter:
        return {"layer": "Scatter", "options": {"channels": layer.channels, "axis": layer.axis}}
    if kind is Map:
        return {"layer": "Map", "options": {"axis": layer.axis}}
    if isinstance(layer, Encoder | Decoder) and kind in (Encoder, Decoder):
        return {"layer": kind.__name__, "options": {"shape": layer.shape.config(), "hidden": _hidden(layer)}}
    if getattr(nn, kind.__name__, None) is not kind or kind.__name__ not in _OPTIONS or not _plain(layer):
        return None
    if isinstance(layer, nn.TransformerEncoderLayer):
        return _encoder_layer(layer)
    found: dict[str, Any] = {}
    for name in _OPTIONS[kind.__name__]:
        value = getattr(layer, name, None)
        if name == "bias" and isinstance(layer, nn.MultiheadAttention):
            value = layer.in_proj_bias
        found[name] = (value is not None and value is not False) if name in _PRESENT else _plainly(value)
    return {"layer": kind.__name__, "options": found}


def layer_from(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """The layer again, its arrays without numbers yet.

    Args:
        config: of `layer_config`.
        arrays: its own, by their names in it; what pruning inserted takes its size from them.

    Raises:
        FringeError: another class, or options that it does not take.
    """
    name, options = config.get("layer"), config.get("options")
    if not isinstance(name, str) or not isinstance(options, Mapping) or name not in (*_OPTIONS, *_OWN):
        raise FringeError(f"a layer of class {str(name)[:60]!r}; expected one of torch.nn that layers_torch lists")
    taken = {str(key): _tupled(value) for key, value in options.items()}
    try:
        # On no device: numbers that are drawn only to be replaced take time and torch's global random state.
        with torch.device("meta"):
            if name in _OWN:
                return _OWN[name](taken, arrays)
            made: nn.Module = getattr(nn, name)(**taken)
            return made
    except FringeError:
        raise
    except Exception as error:  # a constructor's own checks
        raise FringeError(f"a layer {name}({', '.join(map(str, taken))}): {str(error)[:200]}") from error


def _plain(layer: nn.Module) -> bool:
    """Nothing of the user's hangs on it, and its arrays are its own."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    odd = isinstance(layer, nn.MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn)
    if isinstance(layer, nn.Embedding) and (layer.scale_grad_by_freq or layer.sparse):
        odd = False  # matters in training only
    if isinstance(layer, nn.Flatten | nn.Identity):
        return not hooked
    return not (hooked or odd or hasattr(layer, "parametrizations"))


def _encoder_layer(layer: nn.TransformerEncoderLayer) -> dict[str, Any] | None:
    """What torch's own layer does not keep under its constructor's names; None where somebody put others inside."""
    inside = {name: type(one) for name, one in layer.named_children()}
    linears, norms, drops = (
        {f"{name}{number}": kind for number in ("1", "2")}
        for name, kind in (("linear", nn.Linear), ("norm", nn.LayerNorm), ("dropout", nn.Dropout))
    )
    own = {"self_attn": nn.MultiheadAttention, **linears, **norms, **drops, "dropout": nn.Dropout}
    activation = {functional.relu: "relu", functional.gelu: "gelu"}.get(layer.activation)
    if inside != own or activation is None or not all(_plain(one) for one in layer.children()):
        return None
    options = {
        "d_model": layer.self_attn.embed_dim,
        "nhead": layer.self_attn.num_heads,
        "dim_feedforward": layer.linear1.out_features,
        "dropout": layer.dropout.p,
        "activation": activation,
        "layer_norm_eps": layer.norm1.eps,
        "batch_first": layer.self_attn.batch_first,
        "norm_first": layer.norm_first,
        "bias": layer.linear1.bias is not None,
    }
    return {"layer": "TransformerEncoderLayer", "options": options}


def _hidden(layer: Encoder | Decoder) -> int | None:
    """Channels in between, as its constructor takes them."""
    if len(layer.shape.joined) == 3:
        norms = [one for one in layer.body.modules() if isinstance(one, nn.BatchNorm2d)]
        return norms[0].num_features
    widen = getattr(layer.body, "widen", None)
    return None if widen is None else int(widen.out_features)


def _plainly(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(one) for one in value) if isinstance(value, list | tuple) else value


def _index(arrays: Mapping[str, np.ndarray], name: str) -> list[int]:
    found = arrays.get(name)
    if found is None or found.dtype != np.int64 or found.ndim != 1:
        raise FringeError(f"array {name!r} of what pruning inserted; expected int64 [channels]")
    return [int(one) for one in found]


def _map(options: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> nn.Module:
    weight = arrays.get("weight")
    if weight is None or weight.ndim != 2:
        raise FringeError("array 'weight' of a Map; expected [channels, kept]")
    return Map(np.zeros(weight.shape), int(options["axis"]), torch.empty(0))


def _end(kind: type[Encoder] | type[Decoder]) -> Callable[..., nn.Module]:
    def make(options: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> nn.Module:
        del arrays
        hidden = options["hidden"]
        return kind(PairShape.from_config(options["shape"]), None if hidden is None else int(hidden))

    return make


_OWN: Final[dict[str, Callable[..., nn.Module]]] = {
    "Select": lambda options, arrays: Select(_index(arrays, "keep"), int(options["axis"])),
    "Scatter": lambda o, arrays: Scatter(_index(arrays, "keep"), int(o["channels"]), int(o["axis"])),
    "Map": _map,
    "Encoder": _end(Encoder),
    "Decoder": _end(Decoder),
}
