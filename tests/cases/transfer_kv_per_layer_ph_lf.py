"""Cases of transfer_kv_per_layer_ph_lf: K and V, one layer, page head to layer first."""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_per_layer_ph_lf")
