"""The scenario pieces of docs/how-to-price.md are right and can be posted."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from factory_sim.inputs.money import Money
from factory_sim.ledger.plan_facts import fact_columns
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import totals

PAGE = Path(__file__).parents[2] / "docs" / "how-to-price.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_page_can_be_posted(make_windows, block):
    money = Money.model_validate(yaml.safe_load(block))
    named = [name for name in money.plans if name != "all"]
    service = "chat" if "chat" in named or not named else named[0]
    windows = make_windows(hours=24, output_tokens=1e8, input_tokens=1e8, service=service, images=1e3, videos=1e2, video_s=5e2)
    windows = windows.assign(**dict.fromkeys(fact_columns(money), 0.5))
    books = totals(post(windows, money, start=datetime(2026, 8, 31, 12, tzinfo=UTC)))
    assert books.cost.iloc[0] > 0
    assert books.revenue.iloc[0] > 0 or not money.plans


def test_the_page_has_blocks():
    assert len(BLOCKS) >= 8
