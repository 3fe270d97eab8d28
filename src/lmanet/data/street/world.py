"""One endless street: what stands where, what moves how, and how the camera drives through it.

The street is made stretch by stretch, each from the seed and its own number, and all movement is a formula of
the time, so any frame can be built without the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmanet.data.street.look import Look, draw_look
from lmanet.data.street.lots import CROWNS, STRETCH_M, Stretch, make_car, make_person, make_stretch
from lmanet.data.street.textures import Pyramid, crown, ground, pyramid, sky
from lmanet.data.street.things import Patch, Thing

SEEN_M = 120.0
"""How far ahead things are drawn."""
BEHIND_M = 10.0
"""How far behind the camera they still are: long walls and trucks begin there."""
CROSSING_PERIOD_M = 40.0
STRETCHES_KEPT = 16
SEED_OFFSET = 2**24
"""Added to numbers that may be negative, because seeds may not."""

LOOK, STRETCH, ONCOMING, LEADER, BIKE_WITH, BIKE_AGAINST = range(6)
WALKERS = ((6, 1, 1.3), (7, 1, -1.4), (8, -1, 1.1), (9, -1, -1.2))
"""Streams of walkers: their generator's number, the side of the street, the speed in m/s."""


class World:
    """The street of one seed, with its traffic and the drive through it.

    Args:
        seed: 0 or more; all else follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = self._rng(LOOK, 0)
        self.look: Look = draw_look(rng)
        self.ground: Pyramid = ground(rng, self.look)
        self.sky, self.sky_labels = sky(rng, self.look)
        self.crowns: tuple[Pyramid, ...] = tuple(pyramid(crown(rng, self.look)) for _ in range(CROWNS))
        self._bends = rng.uniform((0.1, 0.05), (0.4, 0.12)), rng.uniform(0, 2 * np.pi, 2)
        self._speed_mps = rng.uniform(5, 11)
        self._pace = rng.uniform(0, 0.5), rng.uniform(0.3, 0.7), rng.uniform(0, 2 * np.pi)
        self._shake = rng.uniform(0, 2 * np.pi, 4)
        self._start_m = rng.uniform(0, 2000)
        self._leaders = rng.uniform(size=3)
        self._stretch = lru_cache(maxsize=STRETCHES_KEPT)(self._make_stretch)

    def _rng(self, kind: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, kind, number + SEED_OFFSET])

    def _make_stretch(self, number: int) -> Stretch:
        return make_stretch(self._rng(STRETCH, number), self.look, number * STRETCH_M)

    def heading(self, s: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """The road's heading at `s`, radians to the right: two slow bends laid over each other."""
        (slow, quick), (p, q) = self._bends
        turns = 2 * np.pi * np.asarray(s)
        return slow * np.sin(turns / 170 + p) + quick * np.sin(turns / 61 + q)

    def camera_s(self, time_s: float) -> float:
        """How far along the road the camera has come: a steady speed with slow swings."""
        swing, rate, phase = self._pace
        return self._start_m + self._speed_mps * (
            time_s + swing / rate * float(np.sin(rate * time_s + phase))
        )

    def shake(self, time_s: float) -> tuple[float, float, float, float]:
        """The camera's yaw and pitch off the road (rad), drift to the right and bob upwards (m)."""
        a, b, c, d = self._shake
        yaw = 0.035 * np.sin(0.9 * time_s + a) + 0.004 * np.sin(7.3 * time_s + c)
        pitch = 0.006 * np.sin(1.3 * time_s + b) + 0.004 * np.sin(11 * time_s + d)
        return yaw, pitch, 0.25 * np.sin(0.6 * time_s + d), 0.02 * np.sin(11 * time_s + d + 1)

    def around(self, time_s: float, s: float) -> tuple[list[Thing], list[Patch]]:
        """All things and ground patches that may be seen from `s` at `time_s`."""
        things: list[Thing] = list(self._traffic(time_s, s))
        things.extend(self._walkers(time_s, s))
        patches: list[Patch] = []
        first, last = ((s + reach) // STRETCH_M for reach in (-BEHIND_M, SEEN_M))
        for number in range(int(first), int(last) + 1):
            stretch = self._stretch(number)
            things.extend(stretch.things)
            patches.extend(stretch.patches)
            for crosser in stretch.crossers:
                at = (crosser.offset_m + crosser.speed_mps * time_s) % CROSSING_PERIOD_M
                d = at - CROSSING_PERIOD_M / 2
                if abs(d) < self.look.plot_m:
                    person = crosser.person
                    things.append(replace(person, d=d, phase_s=person.phase_s + time_s))
        return things, patches

    def _flow(
        self, kind: int, time_s: float, s: float, speed_mps: float, gap_m: float
    ) -> Iterator[tuple[float, np.random.Generator]]:
        """The members of an endless stream that are near: place along the road and own generator.

        The stream is a row of cells `gap_m` long that moves as a whole; a cell's number seeds its member.
        """
        moved = speed_mps * time_s
        first, last = ((s + reach - moved) // gap_m for reach in (-BEHIND_M, SEEN_M))
        for cell in range(int(first), int(last) + 1):
            rng = self._rng(kind, cell)
            yield (cell + rng.uniform(0.1, 0.6)) * gap_m + moved, rng

    def _traffic(self, time_s: float, s: float) -> Iterator[Thing]:
        """Oncoming cars, cars ahead in the camera's lane, and cyclists at the kerb on both sides."""
        look = self.look
        lane = look.side * look.lane_m / 2
        for place, rng in self._flow(ONCOMING, time_s, s, -0.9 * self._speed_mps, 24.0):
            if rng.random() < look.traffic:
                yield make_car(rng, look, place, -lane + rng.normal(0, 0.15), -1)
        gap = 11.0
        for number, chance in enumerate(self._leaders):
            gap += 7 + 20 * chance
            if chance < look.traffic:
                sway = 3.0 * np.sin(0.4 * time_s + 2 * np.pi * chance)
                drift = 0.2 * np.sin(time_s + number)
                yield make_car(self._rng(LEADER, number), look, s + gap + sway, lane + drift, 1)
        for side, kind, speed in ((1, BIKE_WITH, 3.4), (-1, BIKE_AGAINST, -4.2)):
            for place, rng in self._flow(kind, time_s, s, speed, 26.0):
                if rng.random() < 0.6 * look.people + 0.15:
                    d = side * look.side * (look.lane_m - 0.15 + rng.normal(0, 0.15))
                    yield make_person(
                        rng, look, place, d, along=1 if speed > 0 else -1, cycling=True, time_s=time_s
                    )

    def _walkers(self, time_s: float, s: float) -> Iterator[Thing]:
        """People on the pavements, both ways on both sides."""
        look = self.look
        for kind, side, speed in WALKERS:
            for place, rng in self._flow(kind, time_s, s, speed, 13.0):
                if rng.random() < look.people:
                    d = side * rng.uniform(look.road_half_m + 0.5, look.plot_m - 0.2)
                    yield make_person(
                        rng, look, place, d, along=1 if speed > 0 else -1, cycling=False, time_s=time_s
                    )
