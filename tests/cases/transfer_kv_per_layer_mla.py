"""Cases of transfer_kv_per_layer_mla: an MLA cache, one layer, layer first to layer first."""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_per_layer_mla")
