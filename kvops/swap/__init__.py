"""Swaps: blocks copied between memory pools, on the host and on GPUs, and how they go.

`swap_blocks` and `swap_blocks_batch` are the operators; `offload` and `reload` move blocks of all
layers between caches and a `kvops.PinnedPool`. `use_path` and `calibrate` steer the way they take,
`explain` and `last_path` show it.
"""

from ._blocks import swap_blocks, swap_blocks_batch
from ._calibrate import calibrate, use_calibration
from ._explain import Explanation, Part, explain
from ._offload import offload, reload
from ._paths import last_path, use_path

__all__ = [
    "Explanation",
    "Part",
    "calibrate",
    "explain",
    "last_path",
    "offload",
    "reload",
    "swap_blocks",
    "swap_blocks_batch",
    "use_calibration",
    "use_path",
]
