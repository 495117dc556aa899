"""Sums of the products of all sets of tokens, size by size.

Letters: T tokens, C channels.
"""

from recsys_had.interactions.algebra import Expr, add, pool


def symmetric_sums(x: Expr, order: int) -> list[Expr]:
    """Sums the products of all sets of one token, of two, up to ``order``, each ``(1, C)``.

    ``A_m = sum_{i1<...<im} x_i1 * ... * x_im``: the ANOVA kernels, or elementary symmetric
    polynomials, which Newton's identities give from the power sums ``p_k = sum_i x_i^k``:
    ``m A_m = sum_{k=1}^{m} (-1)^(k-1) A_{m-k} * p_k``. Linear in T.
    """
    powers = [x]
    for _ in range(order - 1):
        powers.append(powers[-1] * x)
    sums = [pool(power, "T") for power in powers]
    kernels = [sums[0]]
    for m in range(2, order + 1):
        terms = [kernels[m - k - 1] * sums[k - 1] * (-1.0) ** (k - 1) for k in range(1, m)]
        kernels.append((1 / m) * add(*terms, sums[m - 1] * (-1.0) ** (m - 1)))
    return kernels
