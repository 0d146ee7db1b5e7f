"""A worker tells the server which agent is beside it, so that others can reach and know that agent."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.peers.agent_client import AgentClient
from flower_edge.runtime.queries import AGENT

__all__ = ["agent_socket", "answer_agent"]


def agent_socket(context: Context) -> str:
    """The socket of this node's agent: `agent` in its node config; empty where the environment has to say."""
    return str(context.node_config.get(AGENT, ""))


def answer_agent(app: ClientApp) -> ClientApp:
    """Register the answer to `query.agent` on `app`, and return `app`.

    The answer is one ConfigRecord `agent`: the address, certificate fingerprint and signing key of the agent on this
    host, which is found by `agent` in the node config, or by `FLOWER_EDGE_AGENT`.

    Raises:
        PeerError: when the question comes and there is no agent; the server sees an error reply, and nobody hears this
            worker.
    """

    @app.query(AGENT)
    def answer(message: Message, context: Context) -> Message:
        with AgentClient(agent_socket(context)) as agent:
            card = agent.status()["card"]
        told = {name: str(card[name]) for name in ("address", "fingerprint", "key")}
        return Message(RecordDict({AGENT: ConfigRecord(dict(told))}), reply_to=message)

    return app
