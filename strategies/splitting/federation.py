"""`Federation`: what the server of a split session knows between rounds, and what a round does with it.

Who is in the session, everybody's copy of the model, the plan, what was measured. Rounds are planned from it and come
back into it; whole models leave it to be merged. Nothing here sends a frame or averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ProtocolError
from flower_edge.runtime.splitting.messages import Asked, Offered
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.plan import DeviceView, Plan
from flower_edge.splitting.planner import Planner
from flower_edge.splitting.results import WorkResult
from flower_edge.splitting.standardise import Standard

from ..gossip.environment import numbered
from ..model_digest import session_name
from .checkpoint import federation_state, load_federation
from .copies import Copies, not_finite
from .enrolment import RATES, ask, capacity_of, collect_requests, make_ready, merged_moments, unsaid
from .merging import prepare_merge, whole_reply
from .outcome import lose
from .peer_merge import PeerMerge
from .plane import Task
from .plans import plan_for_all, widened
from .prepared import Models, Prepared, device_names
from .records import Records
from .session import EnrolRules, Phase, Session, Standing
from .settings import Settings
from .tasks import make_tasks, nobody

if TYPE_CHECKING:
    from flower_edge.splitting.conversation_torch import CloudHalf

__all__ = ["Federation"]

log = getLogger("flwr.edge")


@dataclass
class Federation:
    """Of one run.

    Attributes:
        settings, architecture, models, planner, merging: as `Split` was told.
        standard: how samples are standardised; None: not at all. Fitted when the session is ready.
        session: who is in, and how far.
        records: what rounds were like.
        numbers: of every node that was ever there, by node id.
        copies, prepared: None before the session is ready.
        since_merge: rounds since the last merge.
        fresh: whether all begin from the loop's model in the next round.
        merged: whether the last round ended with a merge.
        merges: how many there were; the strategy that merges counts them as its rounds.
        cuts: of every device's last order.
        peers: merges what it can among the devices; None where the server merges all.
        plan_now: the last one; one cloud half for all keeps it until a merge.
        unsaid: which of a device's rates it did not offer for this round: what it measures of them counts.
    """

    settings: Settings
    architecture: ArchitectureSpec
    models: Models | None
    planner: Planner
    merging: Strategy
    standard: Standard | None
    session: Session
    records: Records = field(default_factory=Records)
    numbers: dict[int, int] = field(default_factory=dict)
    name: str = ""
    copies: Copies | None = None
    prepared: Prepared | None = None
    since_merge: int = 0
    fresh: bool = True
    merged: bool = False
    merges: int = 0
    merge_now: bool = False
    cuts: dict[int, int] = field(default_factory=dict)
    peers: PeerMerge | None = None
    plan_now: Plan | None = None
    tasks: dict[int, Task] = field(default_factory=dict)
    unsaid: dict[int, frozenset[str]] = field(default_factory=dict)
    _shared: CloudHalf | None = None

    @classmethod
    def of(cls, rules: EnrolRules, **told: Any) -> Federation:
        """Before its first round."""
        return cls(session=Session(rules), **told)

    def present(self, grid: Grid) -> dict[int, int]:
        """Node ids of the devices that are on the Grid, by number, in order."""
        there = list(grid.get_node_ids())
        if any(node not in self.numbers for node in there):
            self.numbers |= numbered(grid, there, None, self.numbers)
        return dict(sorted((self.numbers[node], node) for node in there))

    # -- the session -------------------------------------------------------------------------------------------------

    def begin_round(self, arrays: ArrayRecord, grid: Grid, timeout_s: float, *, anew: bool) -> None:
        """Bring the session to where it trains, and all to the model they begin from.

        Args:
            arrays: the loop's model.
            grid: where devices are.
            timeout_s: the most to wait for answers.
            anew: whether the loop's model is another than the one that was merged last.

        Raises:
            NotEnoughNodes: too few devices ask for training, or are ready.
            SplitError: the model cannot be built or cut.
            ModelMismatch: the loop's model is not the architecture's.
        """
        self.session.training_goes_on()
        begun = self.session.phase not in (Phase.REQUEST, Phase.PREPARE)
        if not begun:
            self._open(grid, timeout_s)
            self.name = self.name or session_name(self.settings.seed, arrays)
        prepared = self.ready()
        if self.copies is None:
            self.copies = Copies(prepared.spec, shared=self.settings.shared)
        gone = begun and not set(self.session.members) & set(self.present(grid))
        if not (self.fresh or anew or gone):
            return
        if begun:
            self._admit(grid, timeout_s)
            if not self.fresh and any(copy.since_merge for copy in self.copies.of.values()):
                why = "the loop gave another model" if anew else "no device of the session is there any more"
                self.records.tell("begun-anew", f"{why} before a merge was due: what was trained since is left")
        self.copies.begin_from(arrays, self.session.members, keep_optimiser=self.settings.keep_optimiser)
        self.since_merge, self.fresh, self.plan_now, self.cuts = 0, False, None, {}

    def ready(self) -> Prepared:
        """What was prepared; built again in a resumed run."""
        if self.prepared is None:
            self.prepared = Prepared.of(self.architecture, self.models)
        return self.prepared

    def _open(self, grid: Grid, timeout_s: float) -> None:
        """REQUEST to TRAIN."""
        session = self.session
        if session.phase is Phase.REQUEST:
            collect_requests(session, grid, lambda: self.present(grid), timeout_s)
        prepared = self.ready()
        self.architecture = prepared.architecture
        wanted = self.standard.config() if self.standard is not None and self.standard.needs_moments else None
        offers = make_ready(session, grid, self.present(grid), prepared.architecture, wanted, timeout_s)
        if wanted is not None and self.standard is not None:
            self.standard = self.standard.fitted(
                merged_moments(session, offers, self.standard, prepared.architecture.input_shape)
            )
        session.begin()

    def _admit(self, grid: Grid, timeout_s: float) -> None:
        """Let in who was too late before: all begin from one model now."""
        session, present = self.session, self.present(grid)
        session.enrol(present)
        late = session.with_standing(Standing.ENROLLED, Standing.DROPPED, Standing.REQUESTED)
        asked = Asked(least_samples=session.rules.least_samples, architecture=self.architecture, capacity=False)
        nodes = {number: present[number] for number in late if number in present}
        for number, offered in ask(grid, nodes, asked, timeout_s).items():
            session.requested(number, offered)
            if session.devices[number].standing is Standing.REQUESTED:
                session.ready(number, offered.digest, self.architecture.digest, offered.why)
        session.admit()

    # -- a round -----------------------------------------------------------------------------------------------------

    def prepare_merge(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, *, last: bool) -> None:
        """If the round ends with a merge, let the strategy that merges take note.

        Raises:
            NotEnoughNodes: it wants more devices than there are.
        """
        self.merge_now = last or self.since_merge + 1 >= self.settings.merge_every
        if self.merge_now:
            nodes = self._nodes()
            roster = [nodes[number] for number in self.session.members]
            prepare_merge(self.merging, self.merges + 1, arrays, config, grid, roster)

    def plan(self, server_round: int, grid: Grid, timeout_s: float) -> dict[int, Task]:
        """Everybody's work in a round, by number.

        Raises:
            ProtocolError: no device of the session is there.
            SplitError: a plan that does not fit the model.
        """
        present = self.present(grid)
        nodes = {number: present[number] for number in self.session.members if number in present}
        views = self._views(server_round, grid, nodes, timeout_s)
        if not views:
            raise ProtocolError(
                f"round {server_round}: none of the session's devices {self.session.members} is there and answers; "
                "are their ClientApps made with split_client, and running?"
            )
        plan = self.plan_now if self.settings.shared else None
        if plan is None or not set(views) <= set(plan.assignments):
            made = plan_for_all(self.planner, self.ready().profile, views, server_round, self.records.tell)
            plan = made if plan is None else widened(plan, made)
            self.records.planned(plan, self.ready().profile, server_round)
        self.plan_now = plan
        assert self.copies is not None
        self.tasks, self._shared = make_tasks(
            server_round,
            self.name,
            {number: nodes[number] for number in views if number in plan.assignments},
            plan,
            self.ready(),
            self.copies,
            self.settings,
            None if self.standard is None else self.standard.config(),
        )
        self.cuts |= {number: task.order.work.cut for number, task in self.tasks.items()}
        if self.peers is not None:
            self.peers.begin(
                server_round,
                self.tasks,
                self.ready().model,
                {number: self._weight(number) for number in self.tasks} if self.merge_now else None,
                frozenset(number for number in self.session.members if self.copies.of[number].since_merge),
                self.settings.tail,
            )
        return self.tasks

    def _views(
        self, server_round: int, grid: Grid, nodes: Mapping[int, int], timeout_s: float
    ) -> dict[int, DeviceView]:
        offers: dict[int, Offered] = {}
        asks = self.settings.measure == "rounds"
        if asks:
            asked = Asked(least_samples=self.session.rules.least_samples, round=server_round)
            offers = ask(grid, nodes, asked, timeout_s)
            for number in sorted(nodes):
                if (told := offers.get(number)) is None or not told.requests:
                    why = "does not answer" if told is None else f"asks for no training ({told.why})"
                    self.records.tell("absent", f"round {server_round}: device {number} {why} and sits out")
                    offers.pop(number, None)
        views: dict[int, DeviceView] = {}
        for number in sorted(offers if asks else nodes):
            device, offered = self.session.devices[number], offers.get(number)
            if offered is not None:
                device.samples = offered.samples
            capacity, history = capacity_of(offered, self.records.history(number), self.settings.assumed)
            self.records.histories[number] = history
            self.unsaid[number] = unsaid(offered) if asks else frozenset(RATES)
            links = tuple(self.settings.shared_links.get(number, ()))
            views[number] = DeviceView(capacity, max(1, device.samples), history, links, links)
        return views

    def cloud_part(self, task: Task) -> WorkResult | None:
        """What the cloud trained for this device alone. A device whose part is not finite is lost."""
        result = None if task.lost or task.work is None or self._shared is not None else task.work.result()
        if result is not None and (bad := not_finite(result.arrays, result.optimiser)):
            lose(task, f"what the cloud trained for it is not finite any more, {bad!r} first; has it diverged?")
        return result

    def take(self, server_round: int) -> dict[str, float]:
        """The round's tasks are over: halves go where they belong. Its numbers.

        Raises:
            NobodyContributed: every device was lost.
        """
        prepared, copies, plan = self.ready(), self.copies, self.plan_now
        assert copies is not None
        assert plan is not None
        rows = []
        for number, task in self.tasks.items():
            device, cloud = device_names(prepared.model, task.order.work)
            result = self.cloud_part(task)
            row = self.records.noted(
                task,
                plan.assignments[number],
                samples=self.session.devices[number].samples,
                units=prepared.profile.last,
                rates=self.unsaid.get(number, frozenset()),
            )
            rows.append(row)
            if task.lost or task.new_half is None or task.new_optimiser is None:
                continue
            copies.joined(number, (task.new_half, task.new_optimiser), int(row["steps"]), float(row["loss"]), device)
            if result is not None:
                copies.cloud_joined(number, (result.arrays, result.optimiser), cloud)
        if self._shared is not None:
            copies.cloud_joined(-1, (self._shared.arrays(), self._shared.state()), list(self._shared.arrays()))
        tasks, self.tasks, self._shared = self.tasks, {}, None
        if all(task.lost for task in tasks.values()):
            raise nobody(server_round, tasks)
        self.since_merge += 1
        found = self.records.metrics(rows, plan)
        if self.peers is not None:
            for what, text in self.peers.take_events():
                self.records.tell(what, text)
            found |= self.peers.metrics()
        return found

    def merge(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand all whole models to the strategy that merges; what it made of them."""
        prepared, copies, nodes = self.ready(), self.copies, self._nodes()
        assert copies is not None
        self.session.merging()
        replies = []
        for number in self.session.members:
            copy = copies.of[number]
            if not copy.since_merge:
                continue  # it was not there since the last one: it has nothing to say
            cut = self.cuts[number]
            last = prepared.profile.last
            names = prepared.model.names(0, cut)
            if cut < last:
                names += prepared.model.names(last - self.settings.tail, last)
            metrics = {self._weighted_by: self._weight(number), "train_loss": copy.losses / copy.since_merge}
            replies.append(whole_reply(nodes[number], copies.whole(number, names), metrics, self._arrays_key))
        try:
            arrays, metrics_record = self.merging.aggregate_train(self.merges + 1, replies)
        finally:
            self.session.merged()
        if arrays is not None and self.peers is not None:
            arrays = self.peers.overlaid(arrays)
        self.fresh = arrays is not None
        self.merges += self.fresh
        return arrays, metrics_record

    def _weight(self, number: int) -> int:
        """Of a device's model in a merge."""
        return max(1, self.session.devices[number].samples)

    @property
    def _weighted_by(self) -> str:
        return str(getattr(self.merging, "weighted_by_key", "num-examples"))

    @property
    def _arrays_key(self) -> str:
        return str(getattr(self.merging, "arrayrecord_key", "arrays"))

    def _nodes(self) -> dict[int, int]:
        """Where each device was seen last, by number."""
        return {number: node for node, number in self.numbers.items()}

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds."""
        return federation_state(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: of another model, or of samples standardised in another way.
        """
        load_federation(self, state)
