"""Cases of transfer_kv_all_layer_lf_pf.

K and V; tables of all layers, layer first to page first.
"""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_all_layer_lf_pf")
