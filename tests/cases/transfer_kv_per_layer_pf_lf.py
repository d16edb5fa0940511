"""Cases of transfer_kv_per_layer_pf_lf: K and V, one layer, page first to layer first."""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_per_layer_pf_lf")
