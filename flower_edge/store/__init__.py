"""What a run leaves behind: trees of arrays in one file, metrics, models, checkpoints, run folders.

Nothing here knows Flower, torch or a terminal; whoever runs something hands values in and reads them back.
"""

from .metrics import Row
from .run_folder import RunFolder
from .tree import load_tree, save_tree, tree_from_bytes, tree_to_bytes

__all__ = ["Row", "RunFolder", "load_tree", "save_tree", "tree_from_bytes", "tree_to_bytes"]
