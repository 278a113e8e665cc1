"""Every state of a small world: two drivers, two units, messages delayed, resent, lost, outliving their sender.

A driver looks at a unit and sends its PUT until the unit is there, then asks for the content of each, writes the
manifest and `_SUCCESS`. Any message may arrive at any later time or never, and a driver may be killed at any step and
start again; its new attempt makes other bytes, as devices do. What is searched for is a state in which the sealed
content is not what the store holds. The same search must find one when the store overwrites, or checks and then acts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

UNITS = 2
MANIFEST, SUCCESS = UNITS, UNITS + 1


class Message(NamedTuple):
    key: int
    content: object


class Driver(NamedTuple):
    attempt: str
    step: int = 0  # units, then looks at the units, then the manifest, then _SUCCESS, then done
    sent: int = 0
    seen: tuple = ()


class World(NamedTuple):
    store: tuple
    network: frozenset
    checked: frozenset  # messages that a check-then-act store is about to write
    drivers: tuple[Driver, ...]
    crashes: int


class Violation(Exception):
    """The sealed content is not what the store holds."""


def put(store: tuple, message: Message) -> tuple:
    return (*store[: message.key], message.content, *store[message.key + 1 :])


def deliveries(world: World, kind: str) -> Iterator[World]:
    """The store executes one of the messages that are under way."""
    for message in world.network:
        rest = world._replace(network=world.network - {message})
        if kind == "overwrites" or (kind == "atomic" and world.store[message.key] is None):
            yield rest._replace(store=put(world.store, message))
        elif kind == "checks, then acts" and world.store[message.key] is None:
            yield rest._replace(checked=world.checked | {message})
        else:
            yield rest
    for message in world.checked:
        yield world._replace(checked=world.checked - {message}, store=put(world.store, message))


def steps_of(driver: Driver, world: World, sends: int) -> Iterator[tuple[Driver, Message | None]]:
    """What a driver may do next: go on, or send (again) what it waits for."""
    if driver.step < UNITS:
        key, content = driver.step, driver.attempt
    elif driver.step < 2 * UNITS:
        there = world.store[driver.step - UNITS]
        yield driver._replace(step=driver.step + 1, seen=(*driver.seen, there), sent=0), None
        return
    elif driver.step == 2 * UNITS:
        key, content = MANIFEST, driver.seen
        if world.store[MANIFEST] not in (None, driver.seen):
            raise Violation("the manifest is not what a driver saw")
    elif driver.step == 2 * UNITS + 1:
        key, content = SUCCESS, "done"
    else:
        return
    if world.store[key] is not None:
        yield driver._replace(step=driver.step + 1, sent=0), None
    elif driver.sent < sends:
        yield driver._replace(sent=driver.sent + 1), Message(key, content)


def successors(world: World, kind: str, sends: int) -> Iterator[World]:
    yield from deliveries(world, kind)
    for number, driver in enumerate(world.drivers):
        before, after = world.drivers[:number], world.drivers[number + 1 :]
        for moved, message in steps_of(driver, world, sends):
            network = world.network | {message} if message else world.network
            yield world._replace(drivers=(*before, moved, *after), network=network)
        if world.crashes and driver.step <= 2 * UNITS + 1:
            reborn = Driver(driver.attempt + "'")
            yield world._replace(drivers=(*before, reborn, *after), crashes=world.crashes - 1)


def explore(kind: str, sends: int, crashes: int) -> int:
    """The number of states, all of them sound; `Violation` otherwise."""
    start = World((None,) * (UNITS + 2), frozenset(), frozenset(), (Driver("a"), Driver("b")), crashes)
    seen, frontier = {start}, [start]
    while frontier:
        found = set()
        for world in frontier:
            found.update(successors(world, kind, sends))
        found -= seen
        for world in found:
            sealed = world.store[MANIFEST]
            if sealed is not None and world.store[:UNITS] != sealed:
                raise Violation("sealed content changed")
            if world.store[SUCCESS] and (sealed is None or None in sealed):
                raise Violation("_SUCCESS without a whole manifest")
        seen |= found
        frontier = list(found)
    return len(seen)


def test_with_atomic_creates_no_state_is_wrong():
    assert explore("atomic", sends=2, crashes=1) > 40_000


@pytest.mark.slow
def test_with_atomic_creates_no_state_of_a_bigger_world_is_wrong():
    assert explore("atomic", sends=2, crashes=2) > 300_000


@pytest.mark.parametrize("kind", ["overwrites", "checks, then acts"])
def test_weaker_stores_are_caught(kind):
    with pytest.raises(Violation):
        explore(kind, sends=1, crashes=1)
