"""Reprice, explain and export: statements from a stored run, without playing it again."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import PriceError, RunError
from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import post
from factory_sim.results.explain import explain
from factory_sim.results.reprice import changed_money, money_figures, reprice, run_terms
from factory_sim.results.statement import (
    accounts,
    cash,
    customer_margins,
    key_figures,
    load_curve,
    margins,
    statement,
    unit_costs_by_period,
    units,
    units_by_period,
)
from factory_sim.results.store import read_run, write_run
from factory_sim.results.workbook import write_tables, write_workbook
from tests.made_up_run import HOURS, MONEY, store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return store(tmp_path_factory.mktemp("runs") / "run")


def value(table, figure, window="whole", service="all", column="value"):
    found = table[(table.figure == figure) & (table.window == window) & (table.service == service)]
    return float(found[column].iloc[0])


def test_the_same_terms_give_the_same_statement(run):
    found = reprice(run)
    pd.testing.assert_frame_equal(found.before, found.after.drop(columns=["low", "high"]))
    assert found.reacting == ()


def test_doubling_all_prices_doubles_the_statement_exactly(run):
    found = reprice(run, scales=["prices=2"])
    for figure in ("revenue", "cost", "margin", "cost_per_million_output_tokens"):
        for service in ("all", "chat", "code"):
            assert value(found.after, figure, service=service) == 2 * value(found.before, figure, service=service)
    assert value(found.after, "gross_margin") == value(found.before, "gross_margin")


def test_one_line_can_be_scaled_alone(run):
    found = reprice(run, scales=["rent=1.5"])
    assert value(found.after, "cost") == pytest.approx(1.5 * value(found.before, "cost"))
    assert value(found.after, "revenue") == value(found.before, "revenue")
    sales = reprice(run, scales=["sales=3", "output_tokens=2"])
    assert value(sales.after, "cost") == value(sales.before, "cost")
    assert value(sales.after, "revenue") > 3 * value(sales.before, "revenue")


def test_a_setting_reprices_what_it_names(run):
    found = reprice(run, settings=["plans.chat.output_usd_per_million=4", "money.costs.compute.vintage='2026-04'"])
    gain = value(found.after, "revenue", service="chat") - value(found.before, "revenue", service="chat")
    output = run.tables["windows"].query("service == 'chat'").groupby("replication").output_tokens.sum().median()
    assert gain == pytest.approx(2.0 * output / 1e6 * (0.75 + 0.125), rel=1e-9)
    assert value(found.after, "cost", service="chat") == pytest.approx(HOURS * 8 * 1.60, rel=1e-9)


def test_windows_of_a_statement_add_up(run):
    table = reprice(run).after
    weeks = [value(table, "cost", window) for window in ("week_1", "week_2")]
    assert sum(weeks) == pytest.approx(value(table, "cost"))
    assert value(table, "cost", "stage_old") == pytest.approx(value(table, "cost", service="chat"))
    assert value(table, "cost", column="low") <= value(table, "cost", column="high")


def test_a_run_whose_demand_saw_the_price_is_marked(tmp_path):
    assert reprice(store(tmp_path / "a", price_elasticity=-1.11)).reacting == ("chat",)
    assert reprice(store(tmp_path / "b", price_elasticity=0.0)).reacting == ()


@pytest.mark.parametrize(
    ("settings", "scales", "message"),
    [
        (["services.chat.slo=3"], [], "changes money only"),
        (["plans.chat.output_usd=3"], [], r"plans\.chat.*unknown key.*did you mean 'output_usd_per_million'"),
        (["plans.chat.output_usd_per_million=-3"], [], "greater than or equal to 0"),
        (["plans.chat.output_usd_per_million"], [], "write path=value"),
        (["plans.chta.output_usd_per_million=3"], [], "no service of this name; did you mean 'chat'"),
        (["plans.chat.tiers.bach.share=0.1"], [], "did you mean 'batch'"),
        ([], ["prices=0"], "factor above 0"),
        ([], ["price=2"], "did you mean 'prices'"),
    ],
)
def test_wrong_changes_are_refused(run, settings, scales, message):
    with pytest.raises(PriceError, match=message):
        reprice(run, settings, scales)


def test_money_figures_are_those_of_the_postings(run):
    terms = run_terms(run.scenario_yaml)
    windows = run.tables["windows"]
    postings = post(windows, terms.money, start=terms.start)
    table = money_figures(windows, postings, postings)
    cost = postings[postings.debit.str.startswith("cost:")].groupby("replication").amount_nusd.sum().median() / 1e9
    assert value(table, "cost") == pytest.approx(cost)
    tokens = windows.groupby("replication").output_tokens.sum()
    assert value(table, "cost_per_million_output_tokens") == pytest.approx(float((cost / tokens * 1e6).median()))


def _adds_up(node):
    if node.row is not None:
        assert node.value == pytest.approx(node.quantity * node.row.value, rel=1e-6), node.label
    elif node.children and node.formula == "sum of the lines":
        assert node.value == pytest.approx(sum(child.value for child in node.children))
    for child in node.children:
        _adds_up(child)


@pytest.mark.parametrize(
    "figure",
    ["cost", "revenue", "margin", "gross_margin", "cost_per_million_output_tokens", "cost_per_million_tokens",
     "attributed_cost_per_million_input_tokens", "fully_loaded_cost_per_million_output_tokens", "cost_of_idle_capacity",
     "energy_contained_in_rent", "cost_reduction_first_to_last_week", "utilisation", "ttft_p95", "slo_attainment"],
)  # fmt: skip
def test_a_figure_is_explained_down_to_quantity_times_price(run, figure):
    if figure == "cost_reduction_first_to_last_week":
        with pytest.raises(RunError, match="no figure"):
            explain(run, figure)
        return
    found = explain(run, figure)
    _adds_up(found.root)
    assert found.trust == pytest.approx({"measured": 0.5, "interpolated": 0.5})
    if figure not in ("utilisation", "ttft_p95", "slo_attainment"):
        assert sum(found.shares.values()) == pytest.approx(1)


def test_an_explanation_agrees_with_the_statement(run):
    table = reprice(run).after
    means = run.tables["windows"].groupby("replication").output_tokens.sum()
    assert means.nunique() == 2
    for service in ("all", "chat"):
        root = explain(run, "cost", service=service).root
        assert root.value == pytest.approx(value(table, "cost", service=service))
    week = explain(run, "revenue", window="week_1").root
    assert week.value == pytest.approx(value(table, "revenue", "week_1"), rel=0.02)


def test_assumptions_and_stale_prices_are_named(tmp_path):
    money = MONEY | {"costs": {"compute": {"kind": "own"}}}
    found = explain(store(tmp_path / "own", money), "cost")
    assert 0 < found.shares["assumption"] < 1
    assert any("electricity_price_industrial/us-oh/2025-04: stale" in warning for warning in found.warnings)
    guess = Money.model_validate({"plans": {"chat": {"output_usd_per_million": 1.0, "source": "guess"}}})
    assert changed_money(guess, [], []).plans["chat"].source == "guess"


def test_unknown_figures_windows_and_services_name_the_closest(run):
    with pytest.raises(RunError, match="did you mean 'revenue'"):
        explain(run, "revenu")
    with pytest.raises(RunError, match="did you mean 'week_2'"):
        explain(run, "cost", window="week_22")
    with pytest.raises(RunError, match="did you mean 'chat'"):
        explain(run, "cost", service="chatt")


class _Sheets:
    """A reckoner for the few formulas that the workbook uses: a second way to its totals."""

    def __init__(self, path):
        from openpyxl import load_workbook

        self.book = load_workbook(path)
        self.known = {}

    def cell(self, sheet, name):
        key = (sheet, name.replace("$", ""))
        if key not in self.known:
            found = self.book[sheet][key[1]]
            formula = isinstance(found.value, str) and found.data_type == "f"
            self.known[key] = self._formula(sheet, found.value[1:]) if formula else found.value
        return self.known[key]

    def _span(self, sheet, text):
        text = text.strip()
        if "!" in text:
            sheet, text = text.split("!")
        return [self.cell(sheet, c.coordinate) for row in self.book[sheet][text.replace("$", "")] for c in row]

    def _formula(self, sheet, text):
        if match := re.fullmatch(r"SUM\(([A-Z]+\d+:[A-Z]+\d+)\)", text):
            return sum(v for v in self._span(sheet, match[1]) if v not in ("", None))
        if match := re.fullmatch(r"(-?[\d.e-]+)\*(SUMIFS\(.*\))", text):
            return float(match[1]) * self._formula(sheet, match[2])
        if text.startswith("SUMIFS("):
            amounts, *conditions = re.findall(r'"[^"]*"|[^,]+', text[7:-1])
            keep = np.ones(len(self._span(sheet, amounts)), dtype=bool)
            for span, wanted in zip(conditions[::2], conditions[1::2]):
                right = wanted.strip('"') if wanted.startswith('"') else self.cell(sheet, wanted)
                keep &= np.array([v == right for v in self._span(sheet, span)])
            return float(np.array(self._span(sheet, amounts))[keep].sum())
        if match := re.fullmatch(r'IF\((\w+)=0,"",(.*)\)', text):
            return "" if self.cell(sheet, match[1]) == 0 else self._formula(sheet, match[2])
        parts = re.split(r"([*/-])", text) if not re.search(r"e-\d", text) else re.split(r"([*/])", text)
        result = self._operand(sheet, parts[0])
        for sign, part in zip(parts[1::2], parts[2::2]):
            other = self._operand(sheet, part)
            result = result * other if sign == "*" else result / other if sign == "/" else result - other
        return result

    def _operand(self, sheet, text):
        if re.fullmatch(r"[\d.]+(e-?\d+)?", text):
            return float(text)
        if "!" in text:
            sheet, text = text.split("!")
        return self.cell(sheet, text)


def _statement(sheets):
    page = sheets.book["Statement"]
    last = page.max_column
    return {row[0].value: sheets.cell("Statement", row[last - 1].coordinate) for row in page.iter_rows(min_row=2)}


@pytest.mark.parametrize("kind", ["rent", "own"])
def test_the_workbook_says_what_the_ledger_says(tmp_path, kind):
    run = store(tmp_path / "run", MONEY | {"costs": {"compute": {"kind": kind}}})
    path = write_workbook(run, tmp_path / "pack.xlsx")
    statement = _statement(_Sheets(path))
    assert statement["Total cost"] == pytest.approx(explain(run, "cost").root.value, rel=1e-9)
    assert statement["Total revenue"] == pytest.approx(explain(run, "revenue").root.value, rel=1e-9)
    assert statement["Margin"] == pytest.approx(statement["Total revenue"] - statement["Total cost"])
    per_million = explain(run, "cost_per_million_output_tokens").root.value
    assert statement["Cost per million output tokens, USD"] == pytest.approx(per_million, rel=1e-9)


def test_changing_a_price_cell_changes_the_statement(tmp_path):
    run = store(tmp_path / "run", MONEY | {"costs": {"compute": {"kind": "own"}}})
    path = write_workbook(run, tmp_path / "pack.xlsx")
    before = _statement(_Sheets(path))
    sheets = _Sheets(path)
    prices = {row[0].value: row[1] for row in sheets.book["Prices"].iter_rows(min_row=2)}
    prices["purchase_price_market/b200/2026-06"].value *= 2
    prices["plan/chat/output_tokens"].value = 20e-6
    after = _statement(sheets)
    expected = reprice(run, ["plans.chat.output_usd_per_million=20"])
    assert after["Total revenue"] == pytest.approx(value(expected.after, "revenue"), rel=0.02)
    assert after["Total revenue"] > 2 * before["Total revenue"]
    assert after["Depreciation of owned machines"] > before["Depreciation of owned machines"]
    assert after["Cost of capital"] > before["Cost of capital"]
    assert after["Facility"] == before["Facility"]


def test_a_workbook_is_never_written_over_by_accident(run, tmp_path):
    path = tmp_path / "pack.xlsx"
    write_workbook(run, path)
    content = path.read_bytes()
    with pytest.raises(RunError, match="--force"):
        write_workbook(run, path)
    (tmp_path / ".~lock.pack.xlsx#").touch()
    with pytest.raises(RunError, match="is open in another program"):
        write_workbook(run, path, force=True)
    assert path.read_bytes() == content
    with pytest.raises(RunError, match=r"ends in \.xlsx"):
        write_workbook(run, tmp_path / "pack.ods")
    with pytest.raises(RunError, match="cannot be written"):
        write_workbook(run, tmp_path / "missing" / "pack.xlsx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".~lock.pack.xlsx#", "pack.xlsx"]


def test_words_are_never_formulas(tmp_path):
    money = json.loads(json.dumps(MONEY))
    money["plans"]["chat"]["source"] = '=HYPERLINK("http://example.com")'
    path = write_workbook(store(tmp_path / "run", money), tmp_path / "pack.xlsx")
    from openpyxl import load_workbook

    sources = [row[7] for row in load_workbook(path)["Prices"].iter_rows(min_row=2)]
    assert any(str(cell.value).startswith("=HYPERLINK") for cell in sources)
    assert all(cell.data_type == "s" for cell in sources)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_pack_as_tables(run, tmp_path, kind):
    paths = write_tables(run, tmp_path / "pack", kind)
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in ("prices", "quantities", "traffic")]
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    quantities, prices = read(paths[1]), read(paths[0]).set_index("row")
    again = quantities.quantity * quantities.price_row.map(prices.value)
    assert again.to_numpy() == pytest.approx(quantities.usd.to_numpy(), rel=1e-6)
    with pytest.raises(RunError, match="already there"):
        write_tables(run, tmp_path / "pack", kind)


def test_customers_have_their_invoices_in_the_pack(tmp_path):
    groups = [{"name": "many", "service": "chat", "share": 1.0, "count": 3}]
    found = store(tmp_path / "run", MONEY | {"customers": groups})
    paths = write_tables(found, tmp_path / "pack", "csv")
    invoices = pd.read_csv(paths[-1])
    assert sorted(set(invoices.customer)) == [1, 2, 3]
    assert invoices.usd.sum() == pytest.approx(explain(found, "revenue", service="chat").root.value, rel=1e-6)


OFFICE = shutil.which("soffice") or shutil.which("libreoffice")


def reckoned(path, folder):
    """The statement of a workbook as LibreOffice reckons it, without a window: label -> total."""
    from openpyxl import load_workbook

    convert = [OFFICE, f"-env:UserInstallation=file://{folder / 'profile'}", "--headless", "--convert-to",
               "xlsx:Calc MS Excel 2007 XML", "--outdir", str(folder), str(path)]  # fmt: skip
    subprocess.run(convert, check=True, capture_output=True, timeout=120)
    book = load_workbook(folder / path.name, data_only=True)
    page = book["Statement"]
    assert all(abs(row[3].value) < 0.01 for row in book["Check"].iter_rows(min_row=2)) or "changed" in path.name
    return {row[0].value: row[page.max_column - 1].value for row in page.iter_rows(min_row=2)}


@pytest.mark.skipif(OFFICE is None, reason="LibreOffice is not installed")
def test_libreoffice_reckons_what_the_ledger_says_and_follows_a_changed_price(tmp_path):
    from openpyxl import load_workbook

    money = json.loads(json.dumps(MONEY)) | {"costs": {"compute": {"kind": "own"}}}
    money["plans"]["chat"]["sla"] = {"availability": [{"below": 0.999, "credit": 0.1}]}
    run = store(tmp_path / "run", money)
    path = write_workbook(run, tmp_path / "pack.xlsx")
    before = reckoned(path, tmp_path / "out")
    for label, number in _statement(_Sheets(path)).items():
        assert before[label] == pytest.approx(number, rel=1e-9), label
    assert before["Total cost"] == pytest.approx(explain(run, "cost").root.value, rel=1e-9)
    assert before["Total revenue"] == pytest.approx(explain(run, "revenue").root.value, rel=1e-9)
    assert before["Service credits"] < 0

    book = load_workbook(path)
    for row in book["Prices"].iter_rows(min_row=2):
        if row[0].value.startswith(("plan/chat/", "electricity")) and row[2].value != "USD/USD":
            row[1].value = row[1].value * 3
    book.save(tmp_path / "changed.xlsx")
    after = reckoned(tmp_path / "changed.xlsx", tmp_path / "out")
    prices = [f"plans.chat.{side}_usd_per_million={3 * price}" for side, price in (("input", 0.5), ("output", 2.0))]
    expected = reprice(run, prices, ["energy=3"])
    mean = explain_totals(expected)
    assert after["Total revenue"] == pytest.approx(mean["revenue"], rel=1e-9)
    assert after["Total cost"] == pytest.approx(mean["cost"], rel=1e-9)
    assert after["Service credits"] == pytest.approx(3 * before["Service credits"], rel=1e-9)


def explain_totals(found):
    """Revenue and cost of a repriced run, mean over its two replications."""
    from factory_sim.ledger.statements import totals

    return (totals(found.books.postings).iloc[0] / 2).to_dict()


def test_a_stated_price_is_one_cell_whatever_derives_from_it(tmp_path):
    server = {"value": 30000, "unit": "USD/GPU", "as_of": "2026-10-01", "source": "offer"}
    money = json.loads(json.dumps(MONEY))
    money["costs"] = {"compute": {"kind": "own", "server": {"h200": server, "b200": server}}}
    money["plans"]["chat"]["tiers"].append(
        {"name": "priority", "multiplier": 2.0, "share": 0.75}
    )  # nothing at the list
    sheets = _Sheets(write_workbook(store(tmp_path / "run", money), tmp_path / "pack.xlsx"))
    before = _statement(sheets)
    again = _Sheets(tmp_path / "pack.xlsx")
    prices = {row[0].value: row[1] for row in again.book["Prices"].iter_rows(min_row=2)}
    for name in (
        "server/h200",
        "server/b200",
        *(f"plan/chat/{kind}_tokens" for kind in ("input", "cached_input", "output")),
    ):
        prices[name].value *= 2
    for name, cell in prices.items():
        assert ("<-" in name) == isinstance(cell.value, str), name
    after = _statement(again)
    expected = reprice(read_run(tmp_path / "run"), [
        "costs.compute.server.h200.value=60000", "costs.compute.server.b200.value=60000",
        "plans.chat.input_usd_per_million=1", "plans.chat.output_usd_per_million=4",
    ])  # fmt: skip
    mean = explain_totals(expected)
    assert after["Total revenue"] == pytest.approx(mean["revenue"], rel=1e-9)
    assert after["Total cost"] == pytest.approx(mean["cost"], rel=1e-9)
    assert after["Total cost"] > before["Total cost"]


def test_lines_that_are_not_settled_anew_say_so(tmp_path):
    from openpyxl import load_workbook

    money = json.loads(json.dumps(MONEY))
    money["plans"]["chat"] |= {"minimum_usd_per_month": 1e6}
    book = load_workbook(write_workbook(store(tmp_path / "run", money), tmp_path / "pack.xlsx"))
    how = {row[3].value: row[11].value for row in book["Quantities"].iter_rows(min_row=2)}
    assert how["Top-up to the minimum bill"] == "settled in the run; follows its own price only"
    assert how["Output tokens"] == "quantity x price"
    facts = {row[0].value: row[1].value for row in book["Assumptions"].iter_rows(min_row=2)}
    assert "top-ups to minimums" in facts["not live"]
    assert facts["money.plans.chat.output_usd_per_million"] == "2.0"
    assert facts["money.costs.compute.vintage"] == "2026-07"


@pytest.mark.parametrize(("period", "count"), [("hour", HOURS), ("day", 8), ("week", 2), ("month", 1)])
def test_profit_and_loss_by_period_adds_up(run, period, count):
    table = statement(accounts(run), period)
    periods = [name for name in table.columns if name not in ("kind", "title", "total")]
    assert len(periods) == count
    cost = table[table.kind == "cost"]
    assert cost.total.sum() == pytest.approx(explain(run, "cost").root.value)
    assert cost[periods].to_numpy().sum() == pytest.approx(cost.total.sum())
    assert table.kind.tolist() == sorted(table.kind, reverse=True)
    lines = cost.set_index("title").total
    assert {"Rent of GPUs", "Rent of GPUs, idle", "Rent of GPUs, failed"} == set(lines.index)
    assert lines["Rent of GPUs, failed"] == pytest.approx(0.1 * HOURS * (2.90 + 3.70))


def test_a_statement_of_one_service(run):
    chat, code = (statement(accounts(run, name)) for name in ("chat", "code"))
    whole = statement(accounts(run))
    assert chat.total.sum() + code.total.sum() == pytest.approx(whole.total.sum())
    with pytest.raises(RunError, match="did you mean 'chat'"):
        accounts(run, "chatt")


def test_cash_under_rent_is_the_margin(run):
    found = accounts(run)
    table = statement(found)
    margin = table[table.kind == "revenue"].total.sum() - table[table.kind == "cost"].total.sum()
    assert cash(found).usd.sum() == pytest.approx(margin)
    figures = key_figures(found, margin_fraction=0.5)
    assert figures["price_factor_for_margin"] == pytest.approx(
        2 * table[table.kind == "cost"].total.sum() / table[table.kind == "revenue"].total.sum()
    )
    assert figures["lost_sales_usd"] == 0
    load = 0.4  # of what the fleet could serve
    ratio = table[table.kind == "cost"].total.sum() / table[table.kind == "revenue"].total.sum()
    assert figures["break_even_utilisation"] == pytest.approx(load * ratio)


def test_units_of_a_run_add_up_to_its_revenue(run):
    found = accounts(run)
    table = units(found).set_index("unit")
    requests = run.tables["windows"].requests_completed.sum() / 2
    assert table.cost_usd["request"] * requests == pytest.approx(explain(run, "cost").root.value)
    assert table.revenue_usd["request"] * requests == pytest.approx(explain(run, "revenue").root.value)
    assert {"page in", "image in (1024x1024)", "minute of audio in", "second of video in"} <= set(table.index)


def test_a_user_earns_fees_beside_tokens(tmp_path):
    money = json.loads(json.dumps(MONEY)) | {"users": 100}
    money["plans"]["chat"]["subscription"] = {
        "fee_usd_per_month": 20, "allowance_tokens_per_month": 1e6, "subscribers": 50, "overage": "bill",
    }  # fmt: skip
    run = store(tmp_path / "run", money)
    table = units(accounts(run)).set_index("unit")
    assert table.revenue_usd["user"] * 100 == pytest.approx(explain(run, "revenue").root.value)
    assert table.cost_usd["user"] * 100 == pytest.approx(explain(run, "cost").root.value)


def test_customers_of_a_stored_run(tmp_path, run):
    groups = [
        {"name": "many", "service": "chat", "share": 0.75, "count": 3},
        {"name": "one", "service": "chat", "share": 0.25, "plan": "deal"},
    ]
    plans = MONEY["plans"] | {"deal": {"output_usd_per_million": 1.0}}
    found = accounts(store(tmp_path / "run", {"plans": plans, "customers": groups}))
    table = customer_margins(found).set_index("group")
    chat = statement(accounts(run, "chat"))
    cost = chat[chat.kind == "cost"].total.sum()
    assert table.cost_usd.to_dict() == pytest.approx({"many": 0.75 * cost, "one": 0.25 * cost})
    assert table.revenue_usd["many"] == pytest.approx(0.75 * chat[chat.kind == "revenue"].total.sum())
    assert table.plan.to_dict() == {"many": "chat", "one": "deal"}
    assert table.margin_usd.to_numpy() == pytest.approx((table.revenue_usd - table.cost_usd).to_numpy())
    with pytest.raises(RunError, match=r"money\.customers"):
        customer_margins(accounts(run))


def test_margins_by_service_plan_and_customers_each_add_up(tmp_path, run):
    groups = [
        {"name": "many", "service": "chat", "share": 0.75, "count": 3},
        {"name": "one", "service": "chat", "share": 0.25, "plan": "deal"},
    ]
    plans = MONEY["plans"] | {"deal": {"output_usd_per_million": 1.0}}
    found = accounts(store(tmp_path / "run", {"plans": plans, "customers": groups, "scale": {"prices": 2}}))
    table = margins(found)
    whole = statement(found).groupby("kind").total.sum()
    for level in ("service", "plan"):
        own = table[table.level == level]
        assert own.revenue_usd.sum() == pytest.approx(whole["revenue"])
        assert own.cost_usd.sum() == pytest.approx(whole["cost"])
    assert table[table.level == "plan"].name.tolist() == ["code", "chat", "deal"]
    chat = table[(table.level == "service") & (table.name == "chat")].iloc[0]
    customers = table[table.level == "customers"]
    assert customers.customers.tolist() == [3, 1]
    assert customers.revenue_usd.sum() == pytest.approx(chat.revenue_usd)
    assert margins(accounts(run)).level.tolist() == ["service", "service", "plan", "plan"]


def test_cost_follows_one_over_the_load_where_all_cost_is_fixed(run):
    found = accounts(run)
    curve = load_curve(found)
    per_million = explain(run, "cost_per_million_output_tokens").root.value
    assert key_figures(found)["load"] == pytest.approx(0.4)
    product = (curve.usd_per_million_output_tokens * curve.load).to_numpy()
    assert product == pytest.approx(np.full(len(curve), per_million * 0.4))


def test_a_run_without_capacity_has_no_load(tmp_path):
    from tests.made_up_run import _windows

    run = store(tmp_path / "run")
    found = accounts(run)
    bare = replace(found, windows=_windows().assign(capacity_requests=np.nan))
    assert load_curve(bare).usd_per_million_output_tokens.isna().all()
    assert key_figures(bare)["load"] is None
    assert key_figures(bare)["break_even_utilisation"] is None


def test_costs_that_follow_tokens_do_not_fall_with_load(tmp_path):
    egress = {"value": 1000.0, "unit": "USD/GB", "as_of": "2026-10-01", "source": "test"}
    plain_run, with_egress = store(tmp_path / "a"), store(tmp_path / "b", MONEY | {"costs": {"egress": egress}})
    more = [load_curve(accounts(r)).usd_per_million_output_tokens for r in (plain_run, with_egress)]
    assert (more[1] - more[0]).to_numpy() == pytest.approx(40.0 * 1e6 / 1e9 * 1000, rel=1e-6)


def test_emissions_are_reported_with_and_without_a_price(tmp_path):
    found = []
    for price in (None, {"value": 60, "unit": "USD/t", "as_of": "2026-01-01", "source": "guess"}):
        run = store(tmp_path / str(price is None), MONEY | {"costs": {"carbon": {"price": price}}})
        found.append((key_figures(accounts(run))["emissions_t"], explain(run, "cost").root.value))
    assert found[0][0] == found[1][0] > 0
    assert found[1][1] - found[0][1] == pytest.approx(60 * found[0][0], rel=1e-6)
    assert "emissions_t" not in key_figures(accounts(store(tmp_path / "plain")))


def test_prices_for_a_margin_give_it(run):
    figures = key_figures(accounts(run), margin_fraction=0.5)
    factor = figures["price_factor_for_margin"]
    again = reprice(run, scales=[f"sales={factor!r}"])
    assert value(again.after, "gross_margin") == pytest.approx(0.5, abs=0.01)
    assert figures["output_usd_per_million_for_margin"] > figures["input_usd_per_million_for_margin"] > 0


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_units_of_each_period_cost_its_bill(run, period):
    found = accounts(run)
    table = units_by_period(found, period)
    requests = unit_costs_by_period(found, period).set_index("period").requests_completed
    own = table[table.unit == "request"].set_index("period")
    bill = statement(found, period)
    for kind, column in (("cost", "cost_usd"), ("revenue", "revenue_usd")):
        expected = bill[bill.kind == kind].drop(columns=["kind", "title", "total"]).sum()
        assert (own[column] * requests / 2).to_dict() == pytest.approx(expected.to_dict())


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_cash_and_unit_costs_by_period(run, period):
    found = accounts(run)
    whole = statement(found, period)
    costs = unit_costs_by_period(found, period)
    periods = [name for name in whole.columns if name not in ("kind", "title", "total")]
    assert costs.period.tolist() == periods
    assert costs.cost.sum() == pytest.approx(2 * whole[whole.kind == "cost"].total.sum())
    flows = cash(found, period).groupby("period").usd.sum()
    for name in periods:
        margin = whole[whole.kind == "revenue"][name].sum() - whole[whole.kind == "cost"][name].sum()
        assert flows[name] == pytest.approx(margin)


def test_a_training_run_has_its_break_even(tmp_path):
    price = {"value": 5000.0, "unit": "USD/run", "as_of": "2026-10-01", "source": "test"}
    money = MONEY | {"costs": {"training": [{"name": "pre", "service": "chat", "price": price, "tokens_served": 1e12}]}}
    money["plans"] = {"chat": {"output_usd_per_million": 20.0}, "code": {"output_usd_per_million": 20.0}}
    figures = key_figures(accounts(store(tmp_path / "run", money)))
    assert 0 < figures["break_even_day"] < 8
    assert "2026-11-02" <= figures["break_even_date"] <= "2026-11-10"
    assert figures["break_even_tokens"] > 0


def test_a_played_run_reprices_to_its_own_figures(small_run, tmp_path):
    write_run(
        tmp_path / "run",
        scenario_yaml=small_run.scenario_yaml,
        provenance=small_run.provenance,
        tables=small_run.tables,
        summary=small_run.summary,
    )
    stored = read_run(tmp_path / "run")
    table = reprice(stored, scales=["prices=2"])
    figures = stored.figures
    for figure in ("cost", "revenue", "cost_per_million_output_tokens", "margin"):
        for window in ("whole", "week_1", "stage_old", "stage_new"):
            rows = figures[(figures.figure == figure) & (figures.window == window) & (figures.service == "all")]
            if len(rows):
                assert value(table.before, figure, window) == pytest.approx(float(rows.value.iloc[0]), rel=1e-9)
                assert value(table.after, figure, window) == 2 * value(table.before, figure, window)
    for figure in ("cost_reduction_first_to_last_stage", "revenue_growth_first_to_last_week"):
        found = explain(stored, figure)
        assert found.root.value == pytest.approx(found.summary["value"], rel=0.1)
        _adds_up(found.root)
    energy = explain(stored, "energy").root
    gpus, hosts, pue = (child.value for child in energy.children)
    assert (gpus + hosts) * pue == pytest.approx(energy.value, rel=0.02)
    used = explain(stored, "utilisation").root
    assert used.children[0].value / used.children[1].value == pytest.approx(used.value, rel=0.02)
    explained = explain(stored, "cost_per_million_output_tokens")
    assert explained.root.value > 0
    assert [profile["stage"] for profile in explained.profiles] == ["old", "new"]
    assert sum(profile["share"] for profile in explained.profiles) == pytest.approx(1)
    assert all(profile["measured_rows"] > 0 and profile["first_date"] for profile in explained.profiles)
    assert set(explained.trust) <= {"measured", "interpolated", "extrapolated", "estimated"}


def test_one_h100_played_at_three_loads_lies_on_one_curve(tmp_path):
    """The shipped scenario at 2, 10 and 95 % of its load: each run alone tells what the others cost."""
    from pathlib import Path

    from factory_sim.inputs.overrides import load_scenario
    from factory_sim.inputs.prices import price_book
    from factory_sim.results.run import run as play

    path = Path(__file__).parents[2] / "scenarios" / "one-h100.yaml"
    at_full, cost, load = [], [], []
    for variant in ("nearly-idle", "tenth", "full"):
        played = play(load_scenario(path, ["simulation.replications=1"], variant))
        folder = tmp_path / variant
        write_run(
            folder, scenario_yaml=played.scenario_yaml, provenance=played.provenance, tables=played.tables,
            summary=played.summary,
        )  # fmt: skip
        found = accounts(read_run(folder))
        at_full.append(load_curve(found).usd_per_million_output_tokens.iloc[-1])
        cost.append(explain(read_run(folder), "cost_per_million_output_tokens").root.value)
        load.append(key_figures(found)["load"])
    assert load == pytest.approx([0.02, 0.1, 0.95], rel=0.05)
    assert np.array(cost) * load == pytest.approx(at_full, rel=1e-6)
    assert at_full == pytest.approx([np.mean(at_full)] * 3, rel=0.03)
    study = price_book().row("self_hosted_cost_of_output/one-h100-from-near-idle-to-full-load")
    assert at_full[0] < study.low < cost[0] < study.high
