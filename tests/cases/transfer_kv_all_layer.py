"""Cases of transfer_kv_all_layer: K and V; tables of all layers, layer first to layer first."""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_all_layer")
