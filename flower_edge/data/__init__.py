"""Data sets, how they are divided over nodes, and when each sample arrives.

Importing this room needs numpy and scipy only: scikit-learn, torchvision and matplotlib are imported by the
call that needs them. Nothing here trains, sends or knows Flower.
"""

from .arrivals import Arrivals
from .catalog import DATA_VARIABLE, DATASETS, load_dataset
from .characters import VOCABULARY, characters, decode, encode
from .dataset import Dataset
from .network_traffic import FLOW_CLASSES, FLOW_FEATURES, network_traffic
from .partition import (
    SCHEMES,
    Partition,
    classes_per_node,
    dirichlet,
    iid,
    make_partition,
    one_class,
    power_law,
    shards,
)
from .partition_plot import plot_partition

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "FLOW_CLASSES",
    "FLOW_FEATURES",
    "SCHEMES",
    "VOCABULARY",
    "Arrivals",
    "Dataset",
    "Partition",
    "characters",
    "classes_per_node",
    "decode",
    "dirichlet",
    "encode",
    "iid",
    "load_dataset",
    "make_partition",
    "network_traffic",
    "one_class",
    "plot_partition",
    "power_law",
    "shards",
]
