"""Imports every room that is named, and all its public names; tells what could not be, as JSON. Runs on the device."""

from __future__ import annotations

import importlib
import json
import platform
import sys


def main(rooms: list[str]) -> None:
    """Print what there is."""
    missing: dict[str, str] = {}
    names = 0
    for room in rooms:
        try:
            module = importlib.import_module(room)
        except ImportError as error:
            missing[room] = error.name or str(error)
            continue
        for name in getattr(module, "__all__", ()):
            try:
                getattr(module, name)
            except ImportError as error:
                missing[f"{room}.{name}"] = error.name or str(error)
            else:
                names += 1
    told = {"machine": platform.machine(), "names": names, "missing": missing, "torch": "torch" in sys.modules}
    print(json.dumps(told))


main(sys.argv[1:])
