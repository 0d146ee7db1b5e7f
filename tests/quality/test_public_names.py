"""Public names are a promise: adding or dropping one is a decision, taken here and told in the changelog."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import PACKAGES, ROOT

PUBLIC = {
    "flower_edge.strategies": {
        "AtMost",
        "CellTier",
        "Cells",
        "Compressed",
        "Coverage",
        "CoverageFedAvg",
        "Covered",
        "FedAsync",
        "FedBuff",
        "Gossip",
        "GradientExchange",
        "GroupLimits",
        "Grouped",
        "GroupedByModels",
        "GroupedResult",
        "Handover",
        "Hierarchical",
        "HierarchicalFedAvg",
        "Identity",
        "Layer",
        "Layered",
        "LayeredGrid",
        "LocalTier",
        "LowerEdgeRounds",
        "Metered",
        "MidRound",
        "MostStable",
        "Retire",
        "Selected",
        "Stage",
        "StopWhen",
        "Tier",
        "VersionGate",
        "WithConfig",
        "blocks",
        "by_property",
        "constant",
        "grouped_by",
        "hinge",
        "polynomial",
    },
    "flower_edge.clients": {
        "ConditionsMod",
        "PeriodMod",
        "StepMod",
        "StepRange",
        "ThrottleMod",
        "answer_availability",
        "answer_conditions",
        "answer_properties",
        "codec_mod",
        "conditions_mod",
        "edge_app",
        "gossip_mod",
        "gradient_mod",
        "measure_conditions",
        "period_mod",
        "request",
        "request_to_join",
        "step_mod",
        "steps_of",
        "wants_new_data",
        "withdraw_request",
    },
    "flower_edge.runtime": {
        "Change",
        "Continue",
        "Detach",
        "Device",
        "Drop",
        "Fault",
        "GridProxy",
        "ImportedFrom",
        "JoinedGrid",
        "LaunchResult",
        "Link",
        "LoadModel",
        "LocalGrid",
        "NarrowedGrid",
        "NodeState",
        "Progress",
        "Replace",
        "RoundClock",
        "StepEvent",
        "SteppedGrid",
        "Stop",
        "Trip",
        "UntilPeriodEnds",
        "VirtualClock",
        "Work",
        "WrappedGrid",
        "ask_nodes",
        "conditions_of",
        "draw_devices",
        "draw_links",
        "launch",
        "server_worker",
        "without_conditions",
    },
    "flower_edge.data": {
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
    },
    "flower_edge.models": {
        "MODELS",
        "EvalResult",
        "Model",
        "NumpyMLP",
        "Schedule",
        "TrainResult",
        "evaluate",
        "get_arrays",
        "make_model",
        "set_arrays",
        "train",
    },
    "flower_edge.coverage": {
        "ByFunction",
        "ByPosition",
        "ByTrace",
        "Jumping",
        "Located",
        "Mobility",
        "Moves",
        "OutOfCoverage",
        "PositionTrace",
        "RandomWalk",
        "RandomWaypoint",
        "Regions",
        "Still",
        "moves_between",
        "plot_attachment",
        "plot_map",
        "write_attachment",
        "write_trace",
    },
    "flower_edge.selection": {
        "Candidates",
        "Deadline",
        "Experience",
        "FedCS",
        "Job",
        "Known",
        "Oort",
        "Pipeline",
        "PipelineState",
        "PowerOfChoice",
        "RandomScore",
        "RoundRobin",
        "Score",
        "known_of",
        "pack",
        "statistical_utility",
    },
    "flower_edge.topology": {
        "BLUETOOTH",
        "D2D_NLOS",
        "DIRECT",
        "GivenProcessing",
        "Intermediary",
        "LENET_BITS",
        "LTE_DIRECT",
        "MACRO",
        "NormalProcessing",
        "OPERATOR",
        "PathLoss",
        "PowerLaw",
        "ProcessingTimes",
        "Radio",
        "RadioWorld",
        "SET_UPS",
        "Shadowing",
        "ShannonRadio",
        "Technologies",
        "Technology",
        "Topology",
        "UnionWindow",
        "WIFI_DIRECT",
        "WINNER_LOS",
        "WinnerLos",
        "World",
        "base_k_plus_1",
        "best_constant",
        "cheapest_links",
        "connected",
        "consensus_bias",
        "draw_means_s",
        "equal",
        "fdla",
        "link_stability",
        "matchings",
        "max_degree",
        "metropolis",
        "nearest",
        "one_peer_exponential",
        "periodically_connected",
        "plot_networks",
        "reaches_all",
        "ring",
        "safe_prunes",
        "second_eigenvalue",
        "second_singular_value",
        "set_up",
        "sinkhorn",
        "spectral_gap",
        "stability_seen",
        "stationary",
        "within_range",
    },
    "flower_edge.control": {
        "Auto",
        "Bandwidth",
        "BaseKPlus1",
        "CONTROLLERS",
        "ClosedForm",
        "Constant",
        "Control",
        "Controller",
        "Dcent",
        "DoublyStochastic",
        "DynamicOpt",
        "Equal",
        "Ewma",
        "Forecast",
        "Joint",
        "Last",
        "Matcha",
        "Mean",
        "MeanPlusDeviation",
        "MinMax",
        "NoComm",
        "Observation",
        "Ogd",
        "OnePeerExponential",
        "PerBit",
        "Quantile",
        "Resource",
        "ResourceControl",
        "Shrunk",
        "Sparse",
        "Start",
        "State",
        "Static",
        "TimeOptimal",
        "Trace",
        "VectorDcent",
        "WeightsOnly",
        "WithResources",
        "first_look",
        "link_costs",
        "make_controller",
        "min_max_bandwidth",
        "objective",
        "observe",
        "processor",
        "receiver_power",
        "round_time_s",
        "simulate",
        "weighted_optimum",
    },
    "flower_edge.peers": {
        "Letter",
        "Mailbox",
        "Packet",
        "RelayMailbox",
        "RelayStore",
        "SharedFolder",
        "SharedMemoryMailbox",
        "open_mailbox",
    },
    "flower_edge.codecs": {
        "Aggregator",
        "Block",
        "ByLayer",
        "BySize",
        "Codec",
        "Correlated",
        "Delta",
        "Eden",
        "ErrorFeedback",
        "Half",
        "Identity",
        "Layout",
        "Lgc",
        "Log4",
        "LowRank",
        "Moment",
        "Predicted",
        "Public",
        "RandomK",
        "RateControlled",
        "SharedSupport",
        "Sign",
        "Sparse",
        "Teacher",
        "Told",
        "TopK",
        "VectorCodec",
        "dense",
        "from_config",
        "label",
        "make_codec",
        "stc",
    },
    "flower_edge.store": {"Row", "RunFolder", "load_tree", "save_tree", "tree_from_bytes", "tree_to_bytes"},
}
#: Rooms without public names of their own: the command line is used, not imported, and of the inner rooms the outer
#: ones tell what is public.
CLOSED = {
    "flower_edge",
    "flower_edge.cli",
    "flower_edge.codecs.fast",
    "flower_edge.codecs.lgc",
    "flower_edge.codecs.reference",
    "flower_edge.runtime.clock",
    "flower_edge.runtime.launching",
    "flower_edge.runtime.steps",
    "flower_edge.strategies.compression",
    "flower_edge.strategies.coverage",
    "flower_edge.strategies.gossip",
    "flower_edge.strategies.gradients",
    "flower_edge.strategies.groups",
    "flower_edge.strategies.hierarchy",
}


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_the_public_names_are_those_that_were_promised(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_every_public_class_and_function_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    silent = []
    for name in PUBLIC[package]:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        # A dataclass or Protocol gets a made-up docstring from Python: it must have one of its own.
        own = inspect.getdoc(value) or ""
        if not own or own.startswith(f"{name}("):
            silent.append(name)
            continue
        if inspect.isclass(value):
            silent += [
                f"{name}.{member}"
                for member, entry in vars(value).items()
                if not member.startswith("_") and inspect.isroutine(entry) and not inspect.getdoc(entry)
            ]
    assert silent == []


def test_every_package_of_the_library_is_in_the_list_above() -> None:
    folders = {path.parent for folder in PACKAGES for path in (ROOT / folder).rglob("__init__.py")}
    found = set()
    for folder in folders:
        first, *rest = folder.relative_to(ROOT).parts
        found.add(".".join([PACKAGES[first], *rest]))
    assert found == set(PUBLIC) | CLOSED


def test_a_name_that_is_not_there_is_refused_and_the_public_ones_are_listed() -> None:
    import flower_edge.runtime as runtime

    with pytest.raises(AttributeError, match="'GridMock'"):
        runtime.GridMock  # noqa: B018
    assert set(runtime.__all__) <= set(dir(runtime))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flower_edge", ("flwr", "torch", "numpy", "sqlalchemy")),
        ("import flower_edge.models", ("torch", "flwr")),
        ("import flower_edge.data", ("torch", "sklearn", "matplotlib", "flwr")),
        ("from flower_edge.runtime import Device, Link", ("torch", "sqlalchemy", "flwr.serverapp")),
        ("from flower_edge.strategies import Hierarchical", ("torch", "ray")),
        ("from flower_edge.clients import edge_app", ("torch", "ray")),
        ("import flower_edge.control", ("torch", "flwr", "matplotlib", "sqlalchemy")),
        ("import flower_edge.topology", ("torch", "flwr", "matplotlib")),
        ("import flower_edge.peers", ("flwr", "numpy", "scipy")),
        ("import flower_edge.codecs", ("torch", "flwr", "numba", "scipy", "networkx")),
    ],
)
def test_importing_a_room_does_not_import_what_it_may_not_need(
    statement: str, absent: tuple[str, ...], tmp_path: Path
) -> None:
    script = f"import sys\n{statement}\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
