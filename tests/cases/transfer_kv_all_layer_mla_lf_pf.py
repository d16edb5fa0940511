"""Cases of transfer_kv_all_layer_mla_lf_pf.

An MLA cache; tables of all layers, layer first to page first.
"""

from __future__ import annotations

from transfer.inputs import kernel_case

CASE = kernel_case("transfer_kv_all_layer_mla_lf_pf")
