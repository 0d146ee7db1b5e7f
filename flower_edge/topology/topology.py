"""`Topology`: who can hear whom. Directed links between numbered nodes, kept per receiver.

Link k goes from node `sender[k]` to node `receiver[k]`. Links are sorted by receiver, then by sender (receiver-major
CSR), and everything else about links - weights W, bandwidth B, spectral efficiency S - is a flat array in that order.
Nothing here is dense in nodes x nodes but `dense`, for tests and small pictures. No radio, no weights, no time.

Letters:
    i   receiver, the row
    j   sender, the column
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..errors import TopologyError
from .rows import Floats, Indices

__all__ = ["Topology"]


class Topology:
    """Directed links between nodes 0 .. nodes - 1, without self loops. A value: not to be changed.

    Args:
        nodes: how many.
        receiver, sender: the two ends of each link, int [links], in any order; each link once.
        positions_m: (x, y) of each node in metres, float64 [nodes, 2], where they are known.

    Raises:
        TopologyError: an end that is no node, a self loop, a link given twice, positions of another shape.

    >>> path = Topology(3, receiver=[1, 2], sender=[0, 1])
    >>> path.indptr, path.sender, path.has(1, 0), path.has(0, 1)
    (array([0, 0, 1, 2]), array([0, 1]), True, False)
    """

    def __init__(
        self,
        nodes: int,
        receiver: npt.ArrayLike,
        sender: npt.ArrayLike,
        positions_m: npt.ArrayLike | None = None,
    ) -> None:
        if nodes < 0:
            raise TopologyError(f"nodes = {nodes}: expected 0 or more")
        into, out_of = _numbers("receiver", receiver), _numbers("sender", sender)
        if len(into) != len(out_of):
            raise TopologyError(f"{len(into)} receivers and {len(out_of)} senders; give both ends of each link")
        for name, ends in (("receiver", into), ("sender", out_of)):
            outside = (ends < 0) | (ends >= nodes)
            if outside.any():
                k = int(outside.argmax())
                raise TopologyError(f"{name}[{k}] = {ends[k]} is no node; nodes are 0 to {nodes - 1}")
        if (into == out_of).any():
            raise TopologyError(f"node {into[int((into == out_of).argmax())]} is its own neighbour; drop the self loop")
        key = into * nodes + out_of
        if not (key[1:] > key[:-1]).all():
            order = np.argsort(key)
            into, out_of = into[order], out_of[order]
        twice = (np.diff(into) == 0) & (np.diff(out_of) == 0)
        if twice.any():
            k = int(twice.argmax())
            raise TopologyError(f"link {out_of[k]} -> {into[k]} is given twice")
        self._set(nodes, into, out_of, _positions(positions_m, nodes))

    def _set(
        self,
        nodes: int,
        receiver: Indices,
        sender: Indices,
        positions_m: Floats | None,
        indptr: Indices | None = None,
    ) -> None:
        """Links that are known to be good, and sorted."""
        self.nodes = nodes
        self.receiver: Indices = receiver
        self.sender: Indices = sender
        if indptr is None:
            indptr = np.zeros(nodes + 1, np.int64)
            np.cumsum(np.bincount(receiver, minlength=nodes), out=indptr[1:])
        self.indptr: Indices = indptr
        self.positions_m = positions_m
        for array in (self.receiver, self.sender, self.indptr):
            array.flags.writeable = False

    # -- making one --------------------------------------------------------------------------------------------------

    @classmethod
    def complete(cls, nodes: int, positions_m: npt.ArrayLike | None = None) -> Topology:
        """Everybody hears everybody."""
        ends = np.arange(nodes)
        receiver, sender = np.repeat(ends, nodes), np.tile(ends, nodes)
        other = receiver != sender
        return cls(nodes, receiver[other], sender[other], positions_m)

    @classmethod
    def from_networkx(cls, graph: nx.Graph[Any]) -> Topology:
        """Of any networkx graph. An edge u -> v of a directed one lets v hear u; an undirected edge is two links.

        Nodes are numbered in the graph's own order; a node attribute `pos` of (x, y) becomes its position in metres.

        Raises:
            TopologyError: a self loop, or parallel edges.
        """
        number = {node: i for i, node in enumerate(graph.nodes)}
        ends = [(number[u], number[v]) for u, v in graph.edges()]
        if not graph.is_directed():
            ends += [(v, u) for u, v in ends]
        positions = nx.get_node_attributes(graph, "pos")
        known = [positions[node] for node in graph.nodes] if len(positions) == len(number) and number else None
        return cls(len(number), [v for _, v in ends], [u for u, _ in ends], known)

    def to_networkx(self, **values: npt.NDArray[Any]) -> nx.DiGraph[int]:
        """A directed graph, an edge j -> i per link; each keyword an edge attribute from an array [links]."""
        graph: nx.DiGraph[int] = nx.DiGraph()
        for i in range(self.nodes):
            graph.add_node(i, **({} if self.positions_m is None else {"pos": tuple(self.positions_m[i].tolist())}))
        columns = {name: np.asarray(array).tolist() for name, array in values.items()}
        for k, (j, i) in enumerate(zip(self.sender.tolist(), self.receiver.tolist(), strict=True)):
            graph.add_edge(j, i, **{name: column[k] for name, column in columns.items()})
        return graph

    @classmethod
    def of_sorted(
        cls,
        nodes: int,
        receiver: Indices,
        sender: Indices,
        positions_m: npt.ArrayLike | None = None,
        *,
        indptr: Indices | None = None,
    ) -> Topology:
        """Of the links of another topology, in its order, as a state holds them. Nothing about them is looked at.

        Args:
            indptr: the other's, where that is at hand; it saves a pass over the links.
        """
        new = cls.__new__(cls)
        new._set(nodes, receiver, sender, _positions(positions_m, nodes), indptr)
        return new

    # -- reading it --------------------------------------------------------------------------------------------------

    @property
    def links(self) -> int:
        """How many directed links."""
        return len(self.sender)

    @cached_property
    def in_degree(self) -> Indices:
        """How many neighbours each node hears, int64 [nodes]."""
        return np.diff(self.indptr)

    @cached_property
    def out_degree(self) -> Indices:
        """How many neighbours hear each node, int64 [nodes]."""
        return np.bincount(self.sender, minlength=self.nodes).astype(np.int64)

    def row(self, i: int) -> slice:
        """Where the links into node i lie in an array over links."""
        return slice(int(self.indptr[i]), int(self.indptr[i + 1]))

    def find(self, receiver: npt.ArrayLike, sender: npt.ArrayLike) -> Indices:
        """Index of each link asked for, -1 where there is none. int64, the shape of the arguments."""
        i, j = np.asarray(receiver, np.int64), np.asarray(sender, np.int64)
        key = i * self.nodes + j
        if not self.links:
            return np.full(key.shape, -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, key), self.links - 1)
        # The key of a number that is no node may be another link's.
        return np.where((self._keys[at] == key) & (j >= 0) & (j < self.nodes), at, -1)

    def has(self, receiver: int, sender: int) -> bool:
        """Whether the receiver hears the sender."""
        return int(self.find(receiver, sender)) >= 0

    @cached_property
    def by_sender(self) -> Indices:
        """Links in the order of their senders, then receivers: `values[by_sender]` is sender-major. int64 [links]."""
        if not self.links:
            return np.zeros(0, np.int64)
        numbers = np.arange(self.links, dtype=np.int64)
        shape = (self.nodes, self.nodes)
        return np.asarray(sparse.csr_matrix((numbers, self.sender, self.indptr), shape=shape).tocsc().data, np.int64)

    @cached_property
    def out_indptr(self) -> Indices:
        """Where the links from each node begin in an array in the order of `by_sender`. int64 [nodes + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.out_degree)])

    @cached_property
    def reverse_link(self) -> Indices:
        """For the link j -> i, the index of i -> j, -1 where there is none. int64 [links]."""
        order = self.by_sender
        if np.array_equal(self.sender[order], self.receiver) and np.array_equal(self.receiver[order], self.sender):
            counterpart = np.empty(self.links, np.int64)
            counterpart[order] = np.arange(self.links)
            return counterpart
        return self.find(self.sender, self.receiver)

    @property
    def symmetric(self) -> bool:
        """Whether every link has its counterpart."""
        return bool((self.reverse_link >= 0).all())

    @cached_property
    def _keys(self) -> Indices:
        return self.receiver * self.nodes + self.sender

    # -- others from it ----------------------------------------------------------------------------------------------

    def keep(self, links: npt.NDArray[np.bool_]) -> Topology:
        """Only the links marked, bool [links]."""
        if links.shape != (self.links,) or links.dtype != np.bool_:
            raise TopologyError(f"links of shape {links.shape}, {links.dtype}: expected bool [{self.links}]")
        return Topology.of_sorted(self.nodes, self.receiver[links], self.sender[links], self.positions_m)

    def reversed(self) -> Topology:
        """Every link the other way round."""
        return Topology(self.nodes, self.sender, self.receiver, self.positions_m)

    def at(self, positions_m: npt.ArrayLike) -> Topology:
        """The same links with nodes at other places."""
        return Topology.of_sorted(self.nodes, self.receiver, self.sender, positions_m)

    def with_links(self, pairs: Iterable[tuple[int, int]]) -> Topology:
        """With further links, each (receiver, sender)."""
        more = np.array(list(pairs), np.int64).reshape(-1, 2)
        return Topology(
            self.nodes,
            np.concatenate([self.receiver, more[:, 0]]),
            np.concatenate([self.sender, more[:, 1]]),
            self.positions_m,
        )

    # -- matrices ----------------------------------------------------------------------------------------------------

    def matrix(self, values: npt.ArrayLike, diagonal: npt.ArrayLike | None = None) -> sparse.csr_matrix:
        """Values over links, and a diagonal, as a sparse matrix [nodes, nodes]; entry (i, j) belongs to j -> i."""
        flat = np.asarray(values, np.float64)
        whole = sparse.csr_matrix((flat, self.sender, self.indptr), shape=(self.nodes, self.nodes))
        if diagonal is None or self.nodes == 0:
            return whole
        return (whole + sparse.diags(np.asarray(diagonal, np.float64), format="csr")).tocsr()

    def dense(self, values: npt.ArrayLike, diagonal: npt.ArrayLike | None = None) -> Floats:
        """As `matrix`, dense: for small networks."""
        out = np.zeros((self.nodes, self.nodes))
        out[self.receiver, self.sender] = values
        if diagonal is not None:
            np.fill_diagonal(out, diagonal)
        return out

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Topology)
            and self.nodes == other.nodes
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.sender, other.sender)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Topology({self.nodes} nodes, {self.links} links)"


def _positions(positions_m: npt.ArrayLike | None, nodes: int) -> Floats | None:
    if positions_m is None:
        return None
    places = np.array(positions_m, np.float64)
    if places.shape != (nodes, 2) or not np.isfinite(places).all():
        raise TopologyError(f"positions_m of shape {places.shape}: expected one finite row (x, y) for {nodes} nodes")
    places.flags.writeable = False
    return places


def _numbers(name: str, ends: npt.ArrayLike) -> Indices:
    given = np.asarray(ends).ravel()
    if given.size and given.dtype.kind not in "iu":
        raise TopologyError(f"{name} is {given.dtype}; expected the numbers of nodes, int")
    return given.astype(np.int64)
