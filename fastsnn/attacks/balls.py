"""Balls around the input: a random start in them, a step of steepest ascent, and the way back, exactly.

    Linf   moved = adv + alpha * sign(g)                       delta clipped to [-eps, eps]
    L2,L1  moved = adv + alpha * g / |g|                       delta scaled by min(1, eps / |delta|)
           out   = clip(origin + delta, 0, 1), delta = moved - origin

Linf is ops/attack_step. L2 and L1 follow foolbox's order of operations; so for L1 the direction is the gradient itself
(not its largest entries alone), and the way back is a scaling (not the nearest point of the ball).
"""

from __future__ import annotations

import torch

from ..ops import attack_step, check
from ..ops.attack_step import default_batch_axis
from . import rows
from .draws import Draw, Generators, for_each, like
from .rows import beside, of_each

_ALMOST = 1 - 2.0**-50  # of the budget, so that no order of a float64 sum finds more than all of it


class Linf:
    """max |delta| <= eps."""

    whole = 2  # budgets in FGSM's step: the projection then lands on x +- eps itself

    def draw(self, generator: Generators) -> Draw:
        """Return the draw of points that are uniform in the ball of budget 1 (Madry et al. 2017)."""
        return lambda x: like(torch.rand, x, generator).mul_(2).sub_(1)

    def surface(self, generator: Generators) -> Draw:
        """Return the draw of points on the ball's surface, as APGD starts (uniform ones, pushed outwards)."""
        return lambda x: _pushed(
            self.draw(generator)(x), lambda x, axis: of_each(lambda flat: flat.amax(1), x, axis, torch.abs)
        )

    def step(
        self,
        adv: torch.Tensor,
        origin: torch.Tensor,
        direction: torch.Tensor,
        eps: torch.Tensor,
        alpha: torch.Tensor,
        axis: int,
        exact: bool,
    ) -> torch.Tensor:
        """Return the next iterate like adv; eps and alpha hold one value for each sample, exact rounds inwards."""
        return attack_step.step(adv, origin, direction, eps, alpha, axis, exact, None)

    def back(self, adv: torch.Tensor, origin: torch.Tensor, eps: torch.Tensor, axis: int, exact: bool) -> torch.Tensor:
        """Return the nearest point of ball and cube to an iterate; see step."""
        return self.step(adv, origin, origin, eps, torch.zeros_like(eps), axis, exact)  # along anything, by 0

    def face(self, origin: torch.Tensor, eps: torch.Tensor, way: int, axis: int) -> torch.Tensor:
        """Return the corner of ball and cube where all values are least (way -1) or largest (1), exactly in the ball.

        A step of twice the cube's side and the ball's radius leaves the ball everywhere.
        """
        return self.step(origin, origin, torch.full_like(origin, way), eps, 2 + 2 * eps, axis, True)

    def inside(self, out: torch.Tensor, origin: torch.Tensor, eps: torch.Tensor, axis: int) -> torch.Tensor:
        """Return out, with every value that rounding put outside the ball moved one float towards the origin."""
        outside = (out.double() - origin.double()).abs() > beside(eps.double(), out, axis)
        return torch.where(outside, torch.nextafter(out, origin), out)


class _Scaled:
    """|delta| <= eps in a norm, its size; methods as in Linf."""

    whole = 1

    def step(self, adv, origin, direction, eps, alpha, axis, exact):
        """Return the next iterate; see Linf.step."""
        moved = (direction * self._over_norm(direction, axis)).mul_(beside(alpha, adv, axis)).add_(adv)
        return self._scaled(moved.sub_(origin), origin, eps, axis, exact)

    def back(self, adv, origin, eps, axis, exact):
        """Return an iterate scaled into the ball, and clipped; see step."""
        return self._scaled(adv - origin, origin, eps, axis, exact)

    def _scaled(self, delta, origin, eps, axis, exact):
        factor = self._over_norm(delta, axis).mul_(beside(eps, delta, axis)).clamp_(max=1)
        out = delta.mul_(factor).add_(origin).clamp_(0, 1)
        return self.inside(out, origin, eps, axis) if exact else out

    def _over_norm(self, x, axis):
        """Return 1 / |x|, beside x."""
        return beside(self.size(x, axis).clamp(min=1e-12).reciprocal(), x, axis)

    def inside(self, out: torch.Tensor, origin: torch.Tensor, eps: torch.Tensor, axis: int) -> torch.Tensor:
        """Return out where its norm in float64 is at most eps, else scaled to eps and rounded inwards; may write it."""
        most = eps.double() * _ALMOST
        size = self.size(out.double().sub_(origin), axis)
        outside = size > most
        if not rows.read_at_once(outside):
            return torch.where(beside(outside, out, axis), self._shrunk(out, origin, most / size, axis), out)
        some = outside.nonzero().squeeze(1)
        if len(some):
            part = (tensor.index_select(axis, some) for tensor in (out, origin))
            out.index_copy_(axis, some, self._shrunk(*part, (most / size)[some], axis))
        return out

    def _shrunk(self, out, origin, factor, axis):
        """Return origin + factor * (out - origin) in float32, every value rounded towards the origin."""
        centre = origin.double()
        delta = out.double().sub_(centre).mul_(beside(factor, out, axis))
        nearest = (centre + delta).float()
        rounded_out = nearest.double().sub_(centre).abs_() > delta.abs_()
        return torch.where(rounded_out, torch.nextafter(nearest, origin), nearest)


class L2(_Scaled):
    """Euclidean; methods as in Linf."""

    def size(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the norm of each sample [B]."""
        return of_each(lambda flat: flat.sum(1).sqrt(), x, axis, torch.square)

    def draw(self, generator: Generators) -> Draw:
        """Return the draw of points that are uniform in the ball of budget 1."""

        def draw(x: torch.Tensor) -> torch.Tensor:
            axis = default_batch_axis(x)
            radius = for_each(torch.rand, x, generator) ** (x.shape[axis] / max(1, x.numel()))
            return self.surface(generator)(x) * beside(radius, x, axis)

        return draw

    def surface(self, generator: Generators) -> Draw:
        """Return the draw of points that are uniform on the ball's surface."""
        return lambda x: _pushed(like(torch.randn, x, generator), self.size)


class L1(_Scaled):
    """Sum of absolute values; methods as in Linf."""

    def size(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the norm of each sample [B]."""
        return of_each(lambda flat: flat.sum(1), x, axis, torch.abs)

    def draw(self, generator: Generators) -> Draw:
        """Return the draw of points that are uniform in the ball of budget 1: exponential numbers over their sum."""

        def draw(x: torch.Tensor) -> torch.Tensor:
            axis = default_batch_axis(x)
            signed, more = like(torch.rand, x, generator).mul_(2).sub_(1), for_each(torch.rand, x, generator)
            size, more = -_log(signed.abs()), -_log(more)
            total = more + self.size(size, axis)
            return signed.sign() * size / beside(total, x, axis)

        return draw


def _log(u):
    return u.clamp(min=torch.finfo(torch.float32).tiny).log()


def _pushed(noise, size):
    axis = default_batch_axis(noise)
    return noise / (beside(size(noise, axis), noise, axis) + 1e-12)


BALLS = {"linf": Linf(), "l2": L2(), "l1": L1()}


def ball_of(norm: str) -> Linf | L2 | L1:
    """Return the ball called "linf", "l2" or "l1"."""
    return BALLS[check.one_of("norm", norm, BALLS)]
