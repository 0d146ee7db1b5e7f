"""The direct mailbox keeps every law of mailboxes, and gives the models of all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_office import AgentOffice
from laws.mailbox_laws import MailboxLaws, Office

pytestmark = pytest.mark.slow


class TestDirectMailbox(MailboxLaws):
    def open_office(self, tmp_path: Path) -> Office:
        return AgentOffice(tmp_path)
