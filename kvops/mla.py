"""Multi-head latent attention: writers of the compressed cache and of the indexer cache."""

from __future__ import annotations

import torch
from torch import Tensor


def concat_mla_q(ql_nope: Tensor, q_pe: Tensor, q_out: Tensor) -> None:
    """Concatenate the two parts of an MLA query along the last dimension, bit for bit.

    Args:
        ql_nope: [tokens, heads, N], float16, bfloat16 or float32; last dimension dense, the
            others of any stride.
        q_pe: [tokens, heads, P], dtype and strides likewise.
        q_out: [tokens, heads, N + P], written; dtype and strides likewise.

    Raises:
        RuntimeError: ranks, shapes, dtypes or devices do not agree, or a last dimension is not
            dense.

    Note:
        vLLM takes N = 512 and P = 64 only; here any widths go.

    Source:
        vLLM 0.23 `_C_cache_ops::concat_mla_q`.
    """
    torch.ops.kvops.concat_mla_q.default(ql_nope, q_pe, q_out)
