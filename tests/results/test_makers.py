"""Statements of a factory that makes images and videos beside tokens: each is paid by its own, and all of it adds up."""

import pytest

from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results import statement as books
from factory_sim.results.explain import explain
from factory_sim.results.reprice import reprice
from factory_sim.results.run import run
from factory_sim.results.store import read_run, write_run
from factory_sim.results.workbook import pack
from tests.engine.test_outputs import CHAT, IMAGES, VIDEOS, scenario


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    result = run(parse_scenario(scenario(chat=CHAT, images=IMAGES, videos=VIDEOS)))
    folder = tmp_path_factory.mktemp("runs") / "studio"
    write_run(folder, scenario_yaml=result.scenario_yaml, provenance=result.provenance, tables=result.tables,
              summary=result.summary)  # fmt: skip
    return read_run(folder)


def test_tokens_bear_the_cost_of_their_own_service_in_every_statement(stored):
    whole, chat = (books.accounts(stored, name) for name in ("all", "chat"))
    columns = [name for name in books.unit_costs_by_period(chat) if "per_million" in name]
    for name in columns:
        mine, own = (books.unit_costs_by_period(found)[name].iloc[0] for found in (whole, chat))
        assert mine == pytest.approx(own, rel=1e-12), name
    assert books.load_curve(whole).equals(books.load_curve(chat))
    units = [books.units(found).set_index("unit").drop(index="user", errors="ignore") for found in (whole, chat)]
    assert units[0].cost_usd.to_dict() == pytest.approx(units[1].cost_usd.to_dict(), rel=1e-12)


def test_images_videos_and_tokens_together_bear_the_whole_bill(stored):
    whole = books.accounts(stored)
    outputs = books.outputs(whole).set_index("unit")
    margins = books.margins(whole).set_index("name").cost_usd
    assert list(outputs.index) == ["image", "video", "second of video"]
    for unit, service in (("image", "images"), ("video", "videos"), ("second of video", "videos")):
        row = outputs.loc[unit]
        assert row["count"] * row.cost_usd == pytest.approx(margins[service].max())
    assert outputs.loc["image"].revenue_usd == pytest.approx(0.04, rel=1e-6)
    assert not len(books.outputs(books.accounts(stored, "chat")))
    assert not len(books.units(books.accounts(stored, "images")))


@pytest.mark.parametrize(
    ("figure", "unit"),
    [("cost_per_image", "USD/image"), ("cost_per_video_second", "USD/video-second"),
     ("cost_per_million_output_tokens", "USD/million tokens")],
)  # fmt: skip
def test_a_figure_is_explained_down_to_the_services_that_make_it(stored, figure, unit):
    told = explain(stored, figure)
    assert told.root.unit == unit
    assert told.root.value == pytest.approx(told.summary["value"], rel=1e-6)
    assert all(row["measured_rows"] > 0 for row in told.profiles if row["service"] != "chat")


def test_a_new_price_of_images_moves_their_revenue_and_no_cost_of_tokens(stored):
    before, after = (
        table.query("window == 'whole' and service == 'all'").set_index("figure").value
        for found in [reprice(stored, ["money.plans.images.image_usd=0.08"])]
        for table in (found.before, found.after)
    )
    images = stored.tables["windows"].images.sum()
    assert after.revenue - before.revenue == pytest.approx(0.04 * images, rel=1e-6)
    assert after.cost_per_million_output_tokens == before.cost_per_million_output_tokens


def test_a_workbook_of_mixed_services_shows_no_cost_of_tokens_over_all(stored):
    content = pack(stored)
    assert not content.tokens_only
    assert "images, videos make images or videos" in content.facts["cost of tokens"]
    sold = content.quantities.query("kind == 'revenue'").groupby("line").quantity.sum()
    assert sold["images"] == pytest.approx(stored.tables["windows"].images.sum(), rel=1e-6)
