"""One seed, one run: events, a loss, a promotion, and a judgement.

`python -m tests.chaos.run --seed N` plays one again and tells what happens.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from pmlog.log import LogReader
from tests.chaos.history import Promotion, faults
from tests.chaos.plan import Event, Plan, make_plan
from tests.chaos.world import BrokenRunError, Service, World, read_state, until
from tests.chaos.writer import Ended
from tests.support import PATIENCE_S, SHM, faults_of

RING_OFFSET = 65536
AFTER_S = 0.05
"""How long the application writes at the promoted receiver."""


class Run:
    """A run.

    Args:
        plan: What happens.
        folder: Where; empty.
        is_loud: Whether to tell at once.
    """

    def __init__(self, plan: Plan, folder: Path, *, is_loud: bool = False) -> None:
        self.plan = plan
        self.world = World(plan, folder)
        self.is_loud = is_loud
        self.promotions: list[Promotion] = []
        self._power: list[threading.Thread] = []
        self._is_off = False
        self.survivor = folder
        self._promoted: set[str] = set()
        self.figures: dict[str, int] = {}

    def log(self, text: str) -> None:
        """Note what happens."""
        self.world.log(text)
        if self.is_loud:
            print(self.world.events[-1], flush=True)

    def play(self) -> None:
        """Play it; a fault is raised."""
        world = self.world
        try:
            self._begin()
            self._events()
            if self.plan.is_healed:
                self._heal()
            getattr(self, f"_end_by_{self.plan.ending}")()
            self.go_on()
            if self.plan.returns and self.promotions:
                self._return()
            self.judge()
        except BaseException:
            for name, service in (("shipper", world.shipper), *world.receivers.items()):
                if service.is_alive and not service.is_stopped:
                    what = "/v1/pools" if name == "shipper" else "/v1/status"
                    self.log(f"{name}: {service.ask(what)[1]}")
            raise
        finally:
            for thread in self._power:
                thread.join(1.0)
            world.close()

    # ---- events --------------------------------------------------------------------------------

    def _begin(self) -> None:
        world = self.world
        world.start_writer()
        until(world.pool.joinpath("control").exists, "the pool is made")
        until(lambda: world.claims()[0].committed, "the writer writes")
        world.shipper.start()
        for name, receiver in world.receivers.items():
            if name not in self.plan.late:
                receiver.start()
        self.log("all are up")

    def _events(self) -> None:
        begun = time.monotonic()
        steps = [(event.at_s, 0, event) for event in self.plan.events]
        steps += [(event.at_s + event.lasts_s, 1, event) for event in self.plan.events]
        for at_s, is_over, event in sorted(steps, key=lambda step: step[:2]):
            time.sleep(max(0.0, begun + at_s - time.monotonic()))
            words = f"{event.kind} {event.who} {event.how or ''}"
            self.log(f"{'over: ' if is_over else ''}{words}")
            (self._over if is_over else self._start)(event)

    def _start(self, event: Event) -> None:
        world, who = self.world, event.who
        service = world.shipper if who == "shipper" else world.receivers.get(who)
        match event.kind:
            case "kill" if service is not None:
                service.kill()
            case "kill":
                world.kill_writer()
            case "end" if service is not None:
                service.end()
            case "end":
                world.end_writer()
            case "stop" if service is not None:
                service.stop()
            case "stop":
                world.signal_writer(signal.SIGSTOP)
            case "cut":
                world.relays[who].cut(event.how)
            case "slow":
                world.relays[who].throttle(event.how)
            case "delay":
                world.relays[who].delay_s = event.how
            case "flip":
                world.relays[who].flip(event.how)
            case "power":
                self._off(event.how)

    def _over(self, event: Event) -> None:
        world, who = self.world, event.who
        service = world.shipper if who == "shipper" else world.receivers.get(who)
        match event.kind:
            case "kill" | "end" | "join" if service is not None:
                service.start()
            case "kill" | "end":
                world.start_writer()
            case "stop" if service is not None:
                service.go_on()
            case "stop":
                world.signal_writer(signal.SIGCONT)
            case "cut":
                world.relays[who].restore()
            case "slow":
                world.relays[who].throttle(None)
            case "delay":
                world.relays[who].delay_s = 0.0
            case "flip":
                world.relays[who].flip(0)
                self.figures["flipped"] = world.relays[who].flipped
            case "power":
                self._ask_in_background("DELETE", None)

    # ---- power ---------------------------------------------------------------------------------

    def _off(self, timeout_s: float) -> None:
        self._is_off = True
        self._ask_in_background("POST", {"timeout_s": timeout_s})

    def _ask_in_background(self, method: str, body: Any) -> None:
        if not self.world.shipper.is_alive or self.world.shipper.is_stopped:
            return

        def ask() -> None:
            try:
                _code, answer = self.world.shipper.ask("/v1/power-loss", method, body)
            except BrokenRunError as error:
                self.log(f"{method} power-loss: {error}")
                return
            self.log(f"{method} power-loss: {answer}")

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        self._power.append(thread)

    # ---- healing -------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Everybody is well again; then everything must arrive, and nobody may be stuck."""
        world = self.world
        self.log("heal")
        world.heal()
        if self._is_off:
            for thread in self._power:
                thread.join()
            until(
                lambda: world.shipper.ask("/v1/power-loss", "DELETE")[1].get("restored"),
                "power is back for the pool",
            )
            self._is_off = False
        if world.ended() is Ended.BROKEN:
            raise BrokenRunError("a writer broke")
        world.start_writer()
        before = world.claims()[-1].committed
        until(lambda: world.claims()[-1].committed > before, "the writer goes on")
        world.end_writer()
        end = _end_of(world.pool)
        for name, receiver in world.receivers.items():
            until(partial(_has, receiver, end), f"receiver {name} has everything")
        self.log(f"all have everything up to LSN {end}")
        for name in world.receivers:
            self._compare_bytes(name, end)
        world.start_writer()
        until(lambda: world.claims()[-1].committed, "the writer goes on")

    def _compare_bytes(self, name: str, end: int) -> None:
        """The logs of primary and replica hold the same bytes wherever both hold the log."""
        world = self.world
        first = world.receivers[name].ask("/v1/status")[1]["lsn_first"] or end
        ours = (world.pool / "log").read_bytes()[RING_OFFSET:]
        theirs = (world.folder / name / "pool" / "log").read_bytes()[RING_OFFSET:]
        size = len(ours)
        for lsn in range(max(first, end - size), end):
            if ours[lsn % size] != theirs[lsn % size]:
                raise BrokenRunError(f"the log of {name} differs at LSN {lsn}")

    # ---- the end -------------------------------------------------------------------------------

    def _end_by_power(self) -> None:
        if not self.plan.is_healed:
            self.world.shipper.go_on()
            self.world.shipper.start()
        for thread in self._power:
            thread.join()  # orders are given one after the other
        sealed = end_by_power(self)
        if self.plan.is_healed and self.plan.battery_s >= 1 and not sealed:
            raise BrokenRunError("everybody was well, and the log was not sealed")

    def _end_by_host(self) -> None:
        self.world.lose_host()
        self.log("the host is lost")
        self.promote(must_be_complete=False)

    def _end_by_promotion(self) -> None:
        """A promotion while the old primary lives: it is fenced, and what it writes is nowhere."""
        world = self.world
        if self._is_off:
            self.log("power is off: the host is lost")
            world.lose_host()
        self.promote(must_be_complete=False, is_furthest=False)
        if world.pool.exists() and self.promotions:
            world.heal()
            world.start_writer()
            until(lambda: world.ended() is Ended.FENCED, "the old primary's writer is fenced")
            self.log("the old primary is fenced")
            world.shipper.kill()

    def promote(self, *, must_be_complete: bool, is_furthest: bool = True) -> None:
        """Promote the receiver that is furthest on; without a seal only with loss accepted."""
        world = self.world
        for receiver in world.receivers.values():
            receiver.go_on()
            receiver.start()
        known = {name: one.ask("/v1/status")[1] for name, one in world.receivers.items()}
        for name, said in known.items():
            words = ("state", "sealed", "incomplete", "txn_durable", "lsn_durable")
            self.log(f"{name}: " + ", ".join(f"{word} {said.get(word)}" for word in words))
        order = sorted(
            known,
            key=lambda name: (known[name]["sealed"], known[name]["lsn_durable"] or 0),
            reverse=True,
        )
        for name in order:
            receiver = world.receivers[name]
            code, answer = self._ask_promotion(receiver, None)
            self.log(f"promote {name}: {code} {answer}")
            if code == 409 and not must_be_complete:
                if known[name]["sealed"]:
                    raise BrokenRunError(f"{name} is sealed, and its promotion is refused")
                code, answer = self._ask_promotion(receiver, {"accept_loss": True})
                self.log(f"promote {name} with loss: {code} {answer}")
                if code == 200 and answer["complete"]:
                    raise BrokenRunError("a promotion with loss calls itself complete")
            if code == 200:
                self._note_promotion(name, answer, is_furthest=is_furthest)
                return
            if must_be_complete:
                raise BrokenRunError(f"sealed, and {name} cannot be promoted: {answer}")
        acknowledged = max((one.replicated for one in world.claims()), default=0)
        if acknowledged and is_furthest:
            raise BrokenRunError(f"{acknowledged} was acknowledged, and nobody can be promoted")
        self.log("nobody can be promoted, and nothing was acknowledged")
        self.figures["nobody"] = 1

    def _ask_promotion(self, receiver: Service, body: Any) -> tuple[int, Any]:
        """Promote; in some runs the receiver is killed on the way, and has to finish it."""
        if self.plan.kills_promoter_s is None:
            return receiver.ask("/v1/promote", "POST", body)
        asking = threading.Thread(target=receiver.ask, args=("/v1/promote", "POST", body))
        asking.start()
        time.sleep(self.plan.kills_promoter_s)
        receiver.kill()
        asking.join()
        receiver.start()
        said = receiver.ask("/v1/status")[1]
        self.log(f"{receiver.name} was killed while it was promoted: {said['state']}")
        if said["state"] != "promoted":
            return receiver.ask("/v1/promote", "POST", body)
        return 200, said

    def _note_promotion(self, name: str, answer: dict[str, Any], *, is_furthest: bool) -> None:
        self.survivor = Path(answer["path"])
        self._promoted.add(name)
        state = read_state(self.survivor)
        furthest = is_furthest or self.plan.require == len(self.plan.receivers)
        self.promotions.append(Promotion(answer["epoch"], state.last, answer["complete"], furthest))
        self.log(f"{name} is promoted at {state.last}, complete: {answer['complete']}")

    def go_on(self) -> None:
        """Let the application go on at the survivor."""
        if not self.promotions:
            return
        world = self.world
        world.kill_writer()
        world.start_writer(self.survivor)
        until(lambda: world.claims()[-1].committed, "the application goes on")
        time.sleep(AFTER_S)
        world.kill_writer()
        world.start_writer(self.survivor)
        until(lambda: world.claims()[-1].committed, "the application goes on after a kill")
        world.end_writer()

    def _return(self) -> None:
        """All others follow the survivor, and end up with the same; then one of them takes over."""
        world = self.world
        world.end_writer()
        world.shipper = world.service("shipper2", "ship", str(self.survivor))
        world.shipper.relays.extend(world.relays.values())
        world.shipper.start()
        followers = {}
        for name, receiver in world.receivers.items():
            if name not in self._promoted:
                world.relays[name].cut()
                world.relays[name].restore()
                receiver.start()
                followers[name] = world.folder / name / "pool"
        if world.pool.exists():
            world.receivers["back"] = back = world.service(
                "back", "receive", "--from", world.shipper.url, "--dir", str(world.folder / "back"),
                "--name", "back", "--replica", str(world.pool),
            )  # fmt: skip
            back.start()
            followers["back"] = world.pool
        self.log(f"follow: {', '.join(followers)}")
        world.start_writer(self.survivor)
        if self.plan.returns == "kill":
            for name in followers:
                time.sleep(random.Random(self.plan.seed).uniform(0, 0.2))
                self.log(f"kill {name}")
                world.receivers[name].kill()
                world.receivers[name].start()
        until(lambda: world.claims()[-1].committed, "the application goes on with followers")
        time.sleep(AFTER_S)
        world.end_writer()
        end = _end_of(self.survivor)
        ours = read_state(self.survivor)
        for name, path in followers.items():
            until(partial(_has, world.receivers[name], end), f"{name} follows to LSN {end}")
            if read_state(path) != ours:
                raise BrokenRunError(f"{name} holds something else than the survivor")
            if wrong := faults_of(path):
                raise BrokenRunError(f"{name}: {wrong}")
        self.figures["followers"] = len(followers)
        if followers and self.plan.returns == "seal":
            code, answer = world.shipper.ask("/v1/power-loss", "POST")
            self.log(f"power loss: {code} {answer}")
            if not answer["sealed"]:
                raise BrokenRunError("everybody was well, and the log was not sealed")
            world.shipper.kill()
            name = next(reversed(followers))
            code, answer = world.receivers[name].ask("/v1/promote", "POST")
            self.log(f"promote {name}: {code} {answer}")
            if code != 200 or not answer["complete"]:
                raise BrokenRunError(f"sealed, and {name} cannot be promoted: {answer}")
            self._note_promotion(name, answer, is_furthest=True)
            self.go_on()

    def judge(self) -> None:
        """Compare the survivor with what writers were told; check it, and what processes logged."""
        world = self.world
        wrong = world.complaints()
        if self.promotions:
            found = read_state(self.survivor)
            wrong += faults(self.plan.seed, world.claims(), self.promotions, found)
            wrong += faults_of(self.survivor)
            self.figures["transactions"] = found.last
        if wrong:
            raise BrokenRunError("\n".join(wrong))
        self.log("all is well")


def end_by_power(run: Run, *, to_the_end: bool = True) -> bool:
    """Announce a power loss, lose the host, promote; return whether the log was sealed.

    A battery that lasts longer than it takes to seal need not be waited for, unless to the end.
    """
    world, plan = run.world, run.plan
    # A simulated battery decides when it ends; without one the caller does.
    wait = {"timeout_s": PATIENCE_S if plan.is_simulated else plan.battery_s}
    code, answer = world.shipper.ask("/v1/power-loss", "POST", wait)
    run.log(f"power loss: {code} {answer}")
    sealed = bool(answer.get("sealed"))
    run.figures["sealed"] = sealed
    committed = max((one.committed for one in world.claims()), default=0)
    if plan.is_simulated and (to_the_end or not sealed):
        until(lambda: not world.pool.exists(), "the lights go out")
        run.log("the lights are out")
    world.lose_host()
    late = max((one.committed for one in world.claims()), default=0)
    if sealed and late != committed:
        raise BrokenRunError(f"sealed at {committed}, and {late} was committed")
    run.promote(must_be_complete=sealed)
    return sealed


def _has(receiver: Service, end: int) -> bool:
    said = receiver.ask("/v1/status")[1]
    return said.get("lsn_durable") == end and not said["incomplete"]


def _end_of(path: Path) -> int:
    with LogReader(path) as reader:
        return reader.lsn_durable


def play(seed: int, *, is_loud: bool = False) -> Run:
    """Play a run in a directory of its own; a fault is raised with the story and the seed."""
    folder = Path(tempfile.mkdtemp(prefix="pmlog-chaos-", dir=SHM if SHM.is_dir() else None))
    plan = make_plan(seed)
    run = Run(plan, folder, is_loud=is_loud)
    try:
        run.play()
    except Exception as error:
        story = "\n".join((str(plan), *run.world.events))
        raise BrokenRunError(f"seed {seed}: {error}\n{story}\nleft in {folder}") from error
    shutil.rmtree(folder, ignore_errors=True)
    return run


def main() -> None:
    """Play the runs that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--runs", type=int, default=1, help="so many, of this seed and the next")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens")
    given = parser.parse_args()
    bad = 0
    for seed in range(given.seed, given.seed + given.runs):
        begun = time.monotonic()
        if given.verbose:
            print(make_plan(seed))
        try:
            run = play(seed, is_loud=given.verbose)
            print(f"seed {seed}: {time.monotonic() - begun:.1f} s {run.figures}", flush=True)
        except BrokenRunError as error:
            bad += 1
            print(error, flush=True)
    print(f"{given.runs} runs, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
