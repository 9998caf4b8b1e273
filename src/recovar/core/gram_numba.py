"""Gram matrices of many channels, in tiles that stay in registers."""

from typing import no_type_check

import numba
import numpy as np

TILE = 4
"""Channels of a tile; tables of channels are padded to a multiple of it."""


@numba.njit(fastmath=True, cache=True, error_model="numpy")
@no_type_check
def add_gram(channels, length, total):
    """Add the inner products of all pairs of channels to the upper triangle of `total`.

    Args:
        channels: Samples of every channel, float32; a multiple of `TILE` channels.
        length: Samples that count.
        total: Square, float64; entries below the diagonal of tiles are left alone.
    """
    zero = np.float32(0)
    for i in range(0, channels.shape[0], TILE):
        a, b, c, d = channels[i], channels[i + 1], channels[i + 2], channels[i + 3]
        for j in range(i, channels.shape[0], TILE):
            e, f, g, h = channels[j], channels[j + 1], channels[j + 2], channels[j + 3]
            ae = af = ag = ah = be = bf = bg = bh = zero
            ce = cf = cg = ch = de = df = dg = dh = zero
            for r in range(length):
                ae += a[r] * e[r]
                af += a[r] * f[r]
                ag += a[r] * g[r]
                ah += a[r] * h[r]
                be += b[r] * e[r]
                bf += b[r] * f[r]
                bg += b[r] * g[r]
                bh += b[r] * h[r]
                ce += c[r] * e[r]
                cf += c[r] * f[r]
                cg += c[r] * g[r]
                ch += c[r] * h[r]
                de += d[r] * e[r]
                df += d[r] * f[r]
                dg += d[r] * g[r]
                dh += d[r] * h[r]
            total[i, j] += ae
            total[i, j + 1] += af
            total[i, j + 2] += ag
            total[i, j + 3] += ah
            total[i + 1, j] += be
            total[i + 1, j + 1] += bf
            total[i + 1, j + 2] += bg
            total[i + 1, j + 3] += bh
            total[i + 2, j] += ce
            total[i + 2, j + 1] += cf
            total[i + 2, j + 2] += cg
            total[i + 2, j + 3] += ch
            total[i + 3, j] += de
            total[i + 3, j + 1] += df
            total[i + 3, j + 2] += dg
            total[i + 3, j + 3] += dh
