"""The canaries of shipper, receiver and what both share: one fault each, and who must catch it.

A canary is a change of one module's source. Its text must stand there exactly once: who changes
that line changes the canary with it, or puts another one in its place.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SIM: Final = "sim"


@dataclass(frozen=True)
class Canary:
    """One fault."""

    name: str
    module: str
    old: str
    new: str
    what: str
    """The fault, in one line."""
    caught_by: str
    """`sim`, or what pytest runs."""

    @property
    def tier(self) -> str:
        """Folder of the tests that catch it."""
        return SIM if self.caught_by == SIM else self.caught_by.split("/")[1]

    def source(self) -> str:
        """Return the text of its module."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).read_text()

    def breaks(self, source: str) -> str:
        """Return the module's text with the fault in it."""
        found = source.count(self.old)
        assert found == 1, (
            f"canary {self.name}: its text stands {found} times in {self.module}; adapt it in "
            "tests/canaries/registry.py"
        )
        return source.replace(self.old, self.new)


_WIRE = "tests/protocol/test_wire.py"
_HOSTILE = "tests/protocol/test_hostile.py"
_LINK = "tests/sim/test_link.py"
_ORDERS = "tests/protocol/test_interleavings.py"
_KEPT = "tests/protocol/test_kept.py"
_STEPS = "tests/protocol/test_baseline_steps.py"
_VAULTS = "tests/protocol/test_vaults.py"
_PROMOTIONS = "tests/unit/test_promotions.py"
_BACKLOG = "tests/unit/test_backlog.py"
_SECURITY = "tests/unit/test_security.py"

_LIST = [
    # ---- receiver ----
    Canary(
        "ack-before-durable", "receiver.link",
        "            durable = replica.position.lsn\n",
        "            durable = replica.lsn_next\n",
        "bytes of an unfinished record are acknowledged as durable", SIM,
    ),
    Canary(
        "ack-seal-unstored", "receiver.link",
        "                sealed=self._state.seal is not None,\n",
        "                sealed=True,\n",
        "the seal is acknowledged whether it is stored or not", SIM,
    ),
    Canary(
        "seal-not-stored", "receiver.link",
        "        await to_end(self._state.set_seal, Seal(place))\n",
        "        self._state.seal = Seal(place)\n",
        "the seal is kept in memory only", SIM,
    ),
    Canary(
        "seal-not-compared", "receiver.link",
        "        if sealing_of(place, replica.position) is not Sealing.COMPLETE:\n",
        "        if False:\n",
        "a seal for another place than the replica's end is taken", _HOSTILE,
    ),
    Canary(
        "seal-kept-beyond", "receiver.link",
        "        if self._state.seal is not None:\n",
        "        if False:\n",
        "the seal is kept though a byte beyond it is taken", _LINK,
    ),
    Canary(
        "unseal-ignored", "receiver.link",
        "            self.saving = False\n            await to_end(self._state.set_seal, None)\n",
        "            self.saving = False\n",
        "a receiver keeps the seal when it is told to give it back", SIM,
    ),
    Canary(
        "lower-epoch-taken", "receiver.link",
        '    if answer.epoch < heard:\n',
        '    if False:\n',
        'a shipper of an earlier epoch is listened to', _LINK,
    ),
    Canary(
        "frame-of-another-pool", "receiver.link",
        "        if frame.pool_id.bytes != replica.pool_id or frame.epoch != self._epoch:\n",
        "        if False:\n",
        "frames of another pool or epoch are taken", _HOSTILE,
    ),
    Canary(
        "block-not-asked-for", "receiver.baseline",
        '    if (frame.pool_id.bytes, frame.epoch, size) != (replica.pool_id, epoch, len(frame.data)):\n',
        '    if frame.pool_id.bytes != replica.pool_id:\n',
        "a baseline's block is stored wherever it says", _LINK,
    ),
    Canary(
        "incomplete-not-marked", "receiver.baseline",
        '        marks.set_incomplete(path, marks.Incomplete("repair" if repair else "baseline"))\n',
        '',
        'a baseline begins without the mark that the copy is incomplete', SIM,
    ),
    Canary(
        "incomplete-removed-early", "receiver.link",
        '        if replica.is_rebuilding and replica.position.lsn >= self._whole_lsn:\n',
        '        if replica.is_rebuilding:\n',
        'a copy counts as whole before the log is applied to the end of the baseline', _LINK,
    ),
    Canary(
        "block-not-stored", "receiver.baseline",
        '    await to_end(replica.store_block, frame.lsn, frame.data)\n',
        '    if frame.lsn >> 16:\n        await to_end(replica.store_block, frame.lsn, frame.data)\n',
        'one block of a baseline is not stored', SIM,
    ),
    Canary(
        "promotion-not-stored", "receiver.receiver",
        "                await asyncio.to_thread(self.state.set_promotion, promotion)\n",
        "                self.state.promotion = promotion\n",
        "a promotion is not durable before the replica is promoted", SIM,
    ),
    Canary(
        "promote-incomplete", "receiver.promote",
        "    if incomplete:\n",
        "    if False:\n",
        "an incomplete replica is promoted", _WIRE,
    ),
    Canary(
        "promote-unsealed", "receiver.promote",
        "    return Verdict.PROMOTE_WITH_LOSS if accept_loss else Verdict.REFUSE_UNSEALED\n",
        "    return Verdict.PROMOTE_WITH_LOSS\n",
        "loss is accepted unasked", _WIRE,
    ),
    Canary(
        "always-complete", "receiver.receiver",
        "verdict is Verdict.PROMOTE)",
        "True)",
        "a promotion with loss calls itself complete", SIM,
    ),
    Canary(
        "empty-is-promoted", "receiver.receiver",
        '            empty=position is None or (not position.txn and not self.is_incomplete),\n',
        '            empty=position is None,\n',
        'a replica that never got a record is promoted', "tests/unit/test_empty_replica.py",
    ),
    Canary(
        "zero-block-not-stored", "receiver.baseline",
        "    await to_end(replica.store_block, frame.lsn, frame.data)\n",
        "    if any(frame.data):\n        await to_end(replica.store_block, frame.lsn, frame.data)\n",
        "a block of zeros is taken for one that does not differ", _STEPS,
    ),
    Canary(
        "whole-before-durable", "receiver.baseline",
        "    replica.finish_baseline()\n    marks.set_incomplete(replica.path, None)\n",
        "    marks.set_incomplete(replica.path, None)\n    replica.finish_baseline()\n",
        "the mark that a copy is incomplete goes before the copy is durable", _STEPS,
    ),
    Canary(
        "tail-not-saved", "receiver.baseline",
        "            kept = saved.save(path, answer.identity, ours, answer.common)\n",
        "            del ours\n",
        "what the new primary lacks is given up without being saved", _STEPS,
    ),
    Canary(
        "epoch-not-heard", "receiver.baseline",
        "History(answer.history, max(known.heard, answer.epoch))",
        "History(answer.history, known.heard)",
        "a copy does not remember its primary's epoch before it has a byte of it", _STEPS,
    ),
    Canary(
        "vault-incomplete-not-marked", "receiver.vault",
        '    marks.set_incomplete(replica.path, marks.Incomplete("baseline"))\n',
        "",
        "a vault's blocks go into a replica that calls itself whole", _VAULTS,
    ),
    # ---- shipper ----
    Canary(
        "seal-before-freeze", "shipper.shared",
        "                await to_end(self.reader.freeze)\n",
        "                pass\n",
        "the log is sealed though the writer was not stopped", SIM,
    ),
    Canary(
        "stop-not-stored", "shipper.shared",
        "        self._set_stop(old.told if old is not None else ())\n",
        "",
        "writers are stopped without the mark that outlives the host", _ORDERS,
    ),
    Canary(
        "told-not-stored", "shipper.session",
        "                pool.note_told(self.name)\n",
        "",
        "who was given the seal is not remembered", _ORDERS,
    ),
    Canary(
        "unseal-not-awaited", "shipper.power_loss",
        'is_free = not missing and not held',
        'is_free = not missing',
        'the writer goes on before the seals are given back', _ORDERS,
    ),
    Canary(
        "absent-holder-forgotten", "shipper.power_loss",
        '        return name not in self.pool.sessions\n',
        '        return False\n',
        'the writer goes on though a holder of the seal is away', _ORDERS,
    ),
    Canary(
        "resume-off-by-one", "shipper.session",
        "        self.lsn_next = reader.position.lsn\n        try:\n            self._claim(reader)\n",
        "        reader.next()\n        self.lsn_next = reader.position.lsn\n        try:\n"
        "            self._claim(reader)\n",
        "the stream begins one record late", SIM,
    ),
    Canary(
        "baseline-block-skipped", "shipper.session",
        "            if xxhash.xxh3_128_digest(data) != digests[16 * number : 16 * number + 16]:\n",
        "            if number and xxhash.xxh3_128_digest(data) != digests[16 * number :][:16]:\n",
        "one block that differs is not sent", SIM,
    ),
    Canary(
        "slot-past-the-ack", "shipper.session",
        "            self._consumer.ack(ack.durable)\n",
        "            self._consumer.ack(self.lsn_next)\n",
        "the pin moves past what the receiver has", SIM,
    ),
    Canary(
        "ack-beyond-what-was-sent", "shipper.session",
        "            now.durable <= ack.durable <= ack.received <= self.lsn_next\n",
        "            now.durable <= ack.durable <= ack.received\n",
        "an acknowledgement of what was never sent is believed", _HOSTILE,
    ),
    Canary(
        "incomplete-counts", "shipper.shared",
        " if name not in self._is_partial)\n        level",
        ")\n        level",
        "a copy in a baseline counts for a level", _ORDERS,
    ),
    Canary(
        "level-from-received", "shipper.shared",
        "self.reader.publish(level.received, level.durable, level.applied, bound)",
        "self.reader.publish(level.received, level.received, level.applied, bound)",
        "what was received is published as durable", SIM,
    ),
    Canary(
        "one-receiver-too-few", "shipper.levels",
        "[require - 1]",
        "[max(0, require - 2)]",
        "K receivers are counted as K - 1", "tests/unit/test_shipper_decisions.py",
    ),
    Canary(
        "later-epoch-ignored", "pmlog.wire",
        "    if later_epoch:\n",
        "    if False:\n",
        "a receiver of a later epoch is served", _WIRE,
    ),
    Canary(
        "not-fenced", "shipper.session",
        "            pool.fence(later)\n",
        "",
        "an old primary hears of the later epoch and goes on", SIM,
    ),
    Canary(
        "required-not-first", "shipper.power.decide",
        "any(one.value < rank.value for one in lacking)",
        "any(one.value > rank.value for one in lacking)",
        "required receivers get the rest of the log last",
        "tests/unit/test_power_decisions.py",
    ),
    Canary(
        "required-pin-left-out", "shipper.session",
        "        required = self.name in self.pool.config.required\n        if not",
        "        required = False\n        if not",
        "the log is not kept for a required receiver", _KEPT,
    ),
    Canary(
        "unfrozen-while-fenced", "shipper.power_loss",
        "            while not self._power.is_failing and pool.is_stopping and not pool.fenced_epoch:\n"
        "                missing",
        "            while not self._power.is_failing and pool.is_stopping:\n                missing",
        "power returns, and a fenced pool can be opened again", _KEPT,
    ),
    Canary(
        "old-connection-believed", "shipper.session",
        "        if self.pool.sessions.get(self.name) is not self:\n"
        "            return  # the receiver has connected again, perhaps with less: this is of the past\n"
        "        if self._is_ending():\n",
        "        if False:\n",
        "what an ended connection says still moves levels and slot", _KEPT,
    ),
    Canary(
        "baseline-ends-early", "shipper.session",
        "        self.whole_lsn = max(reader.lsn_durable, self.lsn_next)\n",
        "        self.whole_lsn = self.lsn_next\n",
        "a copy is called whole at the mark, though its blocks are newer", _KEPT,
    ),
    Canary(
        "limit-never-set", "shipper.backlog",
        "        lsn_limit=held.allowed if held else 0,\n",
        "        lsn_limit=0,\n",
        "writers are given no limit", _BACKLOG,
    ),
    Canary(
        "delay-never-set", "shipper.backlog",
        "        delay_ns=delay_ns(max(0, lsn_end - held.durable), held.limit) if held else 0,\n",
        "        delay_ns=0,\n",
        "writers are never delayed", _BACKLOG,
    ),
    Canary(
        "risk-never-shown", "shipper.backlog",
        "        at_risk=risk is not None and",
        "        at_risk=False and",
        "what may be lost is not said", _BACKLOG,
    ),
    Canary(
        "limit-not-published", "shipper.shared",
        "Bound(verdict.delay_ns, verdict.lsn_limit,",
        "Bound(verdict.delay_ns, 0,",
        "the limit is decided, and no writer hears of it", _KEPT,
    ),
    Canary(
        "delay-not-published", "shipper.shared",
        "Bound(verdict.delay_ns, verdict.lsn_limit,",
        "Bound(0, verdict.lsn_limit,",
        "the delay is decided, and no writer hears of it", _KEPT,
    ),
    Canary(
        "vault-not-noted", "shipper.power_loss",
        "            pool.note_told(PREFIX + str(filled.path))\n",
        "",
        "a vault is sealed, and the stop mark does not name it", _KEPT,
    ),
    Canary(
        "vault-not-voided", "shipper.power_loss",
        "            await asyncio.to_thread(vault.void, Path(name.removeprefix(PREFIX)))\n",
        "",
        "the writer goes on while a sealed vault can be taken in as complete", _KEPT,
    ),
    Canary(
        "vault-frame-missing", "shipper.vault",
        "                yield pack(lsn, piece)\n",
        "                if lsn > first.lsn:\n                    yield pack(lsn, piece)\n",
        "a vault lacks its first frame of the log", _VAULTS,
    ),
    Canary(
        "vault-block-missing", "shipper.vault",
        "                yield pack(offset, blocks.read_sound(offset, length))\n",
        "                if offset >> 16:\n"
        "                    yield pack(offset, blocks.read_sound(offset, length))\n",
        "a vault lacks a block of the image", _VAULTS,
    ),
    # ---- what both share ----
    Canary(
        "vault-file-not-synced", "pmlog.vault",
        "                file.flush()\n                os.fsync(file.fileno())\n",
        "                file.flush()\n",
        "a vault gets its name before its bytes are durable", _VAULTS,
    ),
    Canary(
        "vault-name-not-synced", "pmlog.vault",
        "            os.rename(self._new, self.path)\n            _sync_folder(self.path.parent)\n",
        "            os.rename(self._new, self.path)\n",
        "a vault's name is not durable", _VAULTS,
    ),
    Canary(
        "vault-seal-not-compared", "pmlog.vault",
        "        if sealed is None or sealed.manifest != digest or sealed.place != self.manifest.end:\n",
        "        if sealed is None:\n",
        "a vault's seal is taken for any manifest", _VAULTS,
    ),
    Canary(
        "beginnings-off-by-one", "pmlog.history",
        "if place.epoch <= epoch)",
        "if place.epoch < epoch)",
        "a copy leaves out the promotion that began its own epoch", _PROMOTIONS,
    ),
    Canary(
        "parting-at-the-later-one", "pmlog.history",
        "            return min(place.lsn for place in pair)\n",
        "            return max(place.lsn for place in pair)\n",
        "two histories are taken for one up to the later of two promotions", _PROMOTIONS,
    ),
    Canary(
        "promotion-reuses-an-epoch", "pmlog.history",
        "    epoch = max(end.epoch, history.heard) + 1\n",
        "    epoch = end.epoch + 1\n",
        "a copy that is behind is promoted to the epoch of its living primary", _PROMOTIONS,
    ),
    Canary(
        "token-always-right", "pmlog.security",
        "        same = hmac.compare_digest(heard, security.token.encode())\n",
        "        same = bool(heard)\n",
        "any token will do", _SECURITY,
    ),
    Canary(
        "web-pages-answered", "pmlog.security",
        '    if origin is not None or site == "cross-site":\n',
        '    if site == "cross-site":\n',
        "a request that says that it comes from a web page is answered", _SECURITY,
    ),
    Canary(
        "frame-digest-ignored", "pmlog.wire",
        "    if _digest(lsn, data) != digest:\n",
        "    if False:\n",
        "a frame's digest is not compared", _WIRE,
    ),
    Canary(
        "frame-place-not-covered", "pmlog.wire",
        "    return xxhash.xxh3_128_digest(data, seed=lsn)\n",
        "    return xxhash.xxh3_128_digest(data)\n",
        "a frame's digest says nothing of where its bytes belong", _WIRE,
    ),
    Canary(
        "frame-limit-ignored", "pmlog.wire",
        "    if not 0 < raw_bytes <= limits.FRAME_RAW_BYTES_MAX or",
        "    if",
        "a frame may say any size", _WIRE,
    ),
    Canary(
        "message-limit-ignored", "pmlog.wire",
        "    if len(text) > limits.MESSAGE_BYTES_MAX:\n",
        "    if False:\n",
        "a message may have any size", _WIRE,
    ),
    Canary(
        "mark-not-synced", "pmlog.marks",
        "            os.fsync(file.fileno())\n",
        "",
        "a mark is renamed into place before its bytes are durable", "tests/unit/test_marks.py",
    ),
    Canary(
        "mark-name-not-synced", "pmlog.marks",
        "        os.replace(beside, path)\n        _sync_folder(path.parent)\n",
        "        os.replace(beside, path)\n",
        "a mark's name is not durable", "tests/unit/test_marks.py",
    ),
    Canary(
        "mark-removal-not-synced", "pmlog.marks",
        "            path.unlink()\n            _sync_folder(path.parent)\n",
        "            path.unlink()\n",
        "a removed mark may come back", "tests/unit/test_marks.py",
    ),
    Canary(
        "drill-without-the-log", "pmlog.drill",
        "                    _apply(replica, spool)\n",
        "",
        "a drill's copy gets blocks of different moments and no log", "tests/unit/test_drill.py",
    ),
]  # fmt: skip

CANARIES: Final = {canary.name: canary for canary in _LIST}

ALLOWED: Final[dict[str, str]] = {}
"""Canaries that may live, and why; at most one in twenty, over these and the engine's."""
