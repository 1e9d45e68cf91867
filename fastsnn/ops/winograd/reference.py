"""A 3x3 convolution with padding 1 as fewer products: the matrices, and the transforms in plain torch.

    V = gather x gather^T       each tile of input frames, 6x6 (or the whole 2x2 map)
    U = filters w filters^T     each 3x3 kernel, once
    M[p] = V[p] U[p]            one matrix product over channels for each of the 36 (or 9) planes p
    y = scatter M scatter^T     each tile of output frames, 4x4 (or 2x2)

In one dimension `scatter @ ((filters @ w) * (gather @ x))` is exactly the filtered signal. Tiles of 4 are Cook-Toom's
algorithm at the points 0, 1, -1, 2, -1/2 and infinity; a 2x2 map is Karatsuba's, with 9 products for 16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Matrices(NamedTuple):
    """What turns inputs, filters and products of one dimension into outputs."""

    gather: list[list[float]]
    filters: list[list[float]]
    scatter: list[list[float]]


MATRICES = {
    4: Matrices(
        gather=[
            [2, 3, -4, -3, 2, 0],
            [0, 2, 5, 1, -2, 0],
            [0, 2, 1, -5, 2, 0],
            [0, -1, -2, 1, 2, 0],
            [0, -2, 1, 2, -1, 0],
            [0, 2, 3, -4, -3, 2],
        ],
        filters=[
            [1 / 2, 0, 0],
            [1 / 6, 1 / 6, 1 / 6],
            [1 / 6, -1 / 6, 1 / 6],
            [1 / 30, 1 / 15, 2 / 15],
            [16 / 15, -8 / 15, 4 / 15],
            [0, 0, 1 / 2],
        ],
        scatter=[
            [1, 1, 1, 1, 1, 0],
            [0, 1, -1, 2, -1 / 2, 0],
            [0, 1, 1, 4, 1 / 4, 0],
            [0, 1, -1, 8, -1 / 8, 1],
        ],
    ),
    2: Matrices(
        gather=[[1, 1], [0, 1], [1, 0]],
        filters=[[0, 1, 0], [0, -1, 1], [1, -1, 0]],
        scatter=[[1, 1, 0], [1, 0, 1]],
    ),
}


def filters(weight: torch.Tensor, tile: int) -> torch.Tensor:
    """Return U [planes, in, out] for kernels [out, in, 3, 3], computed in float64."""
    matrix = torch.tensor(MATRICES[tile].filters, dtype=torch.float64, device=weight.device)
    U = torch.einsum("pi,ocij,qj->pqco", matrix, weight.double(), matrix)
    return U.flatten(0, 1).to(weight.dtype).contiguous()


def gather(frames: torch.Tensor, tile: int) -> torch.Tensor:
    """Return V [planes, rows, C] for frames [N, H, W, C]; a row is a tile of a frame."""
    matrix = torch.tensor(MATRICES[tile].gather, dtype=frames.dtype, device=frames.device)
    x, size = frames.permute(0, 3, 1, 2), matrix.shape[1]
    if tile == 4:  # a ring of zeros for the padding, and more where the last tile hangs over
        x = F.pad(x, (1, 1 + -x.shape[3] % tile, 1, 1 + -x.shape[2] % tile))
    tiles = x.unfold(2, size, tile).unfold(3, size, tile)
    V = torch.einsum("pi,ncyxij,qj->pqnyxc", matrix, tiles, matrix)
    return V.flatten(0, 1).flatten(1, 3)


def scatter(M: torch.Tensor, tile: int, size: tuple[int, int, int]) -> torch.Tensor:
    """Return frames [N, H, W, C] of the given size (N, H, W) for M [planes, rows, C]."""
    matrix = torch.tensor(MATRICES[tile].scatter, dtype=M.dtype, device=M.device)
    N, H, W = size
    y, x, products = -(-H // tile), -(-W // tile), matrix.shape[1]
    M = M.reshape(products, products, N, y, x, M.shape[2])
    out = torch.einsum("ip,pqnyxc,jq->nyixjc", matrix, M, matrix)
    return out.reshape(N, y * tile, x * tile, M.shape[5])[:, :H, :W].contiguous()


def convolution(frames: torch.Tensor, planes: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the filtered frames [N, H, W, out] for frames [N, H, W, in] and planes [products^2, in, out].

    What has only zeros in its window is 0, as in the plain sum, and not the remainder of sums that cancel.
    """
    out = scatter(torch.bmm(gather(frames, tile), planes), tile, tuple(frames.shape[:3]))
    is_spike = (frames != 0).any(-1).to(frames.dtype)
    in_window = F.max_pool2d(is_spike[:, None], 3, 1, 1)[:, 0, :, :, None] if frames.numel() else is_spike[..., None]
    return torch.where(in_window > 0, out, 0.0 * out)


def spread(grad: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the gradient [planes, rows, C] at M for one at frames [N, H, W, C]: scatter, transposed."""
    matrix = torch.tensor(MATRICES[tile].scatter, dtype=grad.dtype, device=grad.device)
    g = grad.permute(0, 3, 1, 2)
    g = F.pad(g, (0, -g.shape[3] % tile, 0, -g.shape[2] % tile))
    tiles = g.unfold(2, tile, tile).unfold(3, tile, tile)
    M = torch.einsum("ip,ncyxij,jq->pqnyxc", matrix, tiles, matrix)
    return M.flatten(0, 1).flatten(1, 3)


def unfilter(U: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the gradient [out, in, 3, 3] at the kernels for one at U [planes, in, out]: filters, transposed."""
    matrix = torch.tensor(MATRICES[tile].filters, dtype=U.dtype, device=U.device)
    U = U.unflatten(0, (len(matrix), len(matrix)))
    return torch.einsum("pi,pqco,qj->ocij", matrix, U, matrix).contiguous()


def weight_gradient(frames: torch.Tensor, grad: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the gradient [out, in, 3, 3] at the kernels for frames [N, H, W, in] and grad [N, H, W, out]."""
    return unfilter(torch.bmm(gather(frames, tile).transpose(1, 2), spread(grad, tile)), tile)
