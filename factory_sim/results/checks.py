"""Laws that no run may break, checked on every run: conservation, Little, roofline, energy and double entry."""

import numpy as np
import pandas as pd

from factory_sim.inputs.scenario import Scenario

ROUNDING = 1e-9
"""Relative difference that summing floats in another order may make."""


def check(scenario: Scenario, tables: dict[str, pd.DataFrame]) -> list[dict]:
    """All checks of a run: check, ok, detail."""
    audits, windows, postings = tables["audits"], tables["windows"], tables["postings"]
    return [
        _requests_played(audits),
        _tokens_played(audits),
        _time(audits),
        _little(audits),
        _roofline(audits),
        _demand(windows),
        *_batch_jobs(windows),
        _gpus(scenario, windows),
        _stages(scenario, windows),
        _energy(scenario, windows),
        _double_entry(postings),
    ]


def _result(name: str, ok: bool, detail: str) -> dict:
    return {"check": name, "ok": bool(ok), "detail": detail}


def _requests_played(audits: pd.DataFrame) -> dict:
    ways_out = ["completed", "rejected", "timed_out", "lost", "cancelled", "in_system"]
    left = audits[ways_out].sum(axis=1)
    wrong = int((audits["arrived"] != left).sum())
    played = f"{int(audits['arrived'].sum()):,} requests played by {len(audits)} pools"
    detail = f"{played}: arrived = completed + refused + lost + unfinished"
    return _result("requests_conserved", wrong == 0, detail if not wrong else f"{wrong} pools do not add up")


def _tokens_played(audits: pd.DataFrame) -> dict:
    output = audits["output_tokens"] == audits["osl_emitted"] + audits["wasted_tokens"]
    read = audits["input_tokens_computed"] + audits["input_tokens_cached"]
    # requests that were lost or cancelled were read in part, some of them more than once
    inputs = (read == audits["isl_completed"]) | ((audits["isl_partial"] > 0) & (read >= audits["isl_completed"]))
    tokens = audits[audits["makes"] == "tokens"]
    made = f"{int(tokens['output_tokens'].sum()):,} output tokens"
    if len(tokens) < len(audits):
        made += f", {int(audits['output_tokens'].sum() - tokens['output_tokens'].sum()):,} images and videos"
    detail = f"{made}: of the requests = of the replicas; input = computed + cached"
    return _result("tokens_conserved", output.all() and inputs.all(), detail)


def _time(audits: pd.DataFrame) -> dict:
    worst = float((audits["busy_s"] / audits["wall_s"].where(audits["wall_s"] > 0)).max())
    return _result("busy_within_wall_clock", worst <= 1 + ROUNDING, f"largest busy share of a worker {worst:.6f}")


def _little(audits: pd.DataFrame) -> dict:
    error = (audits["system_s"] / audits["sojourn_s"].where(audits["sojourn_s"] > 0) - 1).abs().max()
    error = 0.0 if np.isnan(error) else float(error)
    return _result("little", error <= 1e-6, f"area under the number in system = sum of sojourns within {error:.1e}")


def _roofline(audits: pd.DataFrame) -> dict:
    flops, weights = float(audits["flops_share"].max()), float(audits["bandwidth_share"].max())
    detail = f"at most {100 * flops:.0f} % of peak arithmetic and {100 * weights:.0f} % of bandwidth for the weights"
    outputs = float(audits["outputs_share"].max())
    if outputs:
        detail += f"; at most {100 * outputs:.1f} % of the images or videos that the fastest measured batch makes"
    return _result("roofline", flops <= 1 and weights <= 1 and outputs <= 1 + ROUNDING, detail)


def _demand(windows: pd.DataFrame) -> dict:
    """Latent demand = let in + lost + still waiting, in every replication and service."""
    ordered = windows.sort_values("start_s", kind="stable")
    grouped = ordered.groupby(["replication", "service"])
    last = ordered["start_s"] == grouped["start_s"].transform("max")
    waiting = ordered[last].groupby(["replication", "service"])["requests_waiting"].sum()
    sums = grouped[["latent_requests", "granted_requests", "requests_lost_waiting"]].sum()
    gap = (sums["latent_requests"] - sums["granted_requests"] - sums["requests_lost_waiting"] - waiting).abs()
    error = float((gap / sums["latent_requests"].where(sums["latent_requests"] > 0)).max())
    error = 0.0 if np.isnan(error) else error
    return _result("demand_conserved", error <= 1e-6, f"demand = let in + lost + waiting within {error:.1e}")


def _batch_jobs(windows: pd.DataFrame) -> list[dict]:
    """Batch jobs submitted = answered + dropped + still waiting, where there are any."""
    if "batch_requests_submitted" not in windows or not windows["batch_requests_submitted"].any():
        return []
    last = windows["start_s"] == windows.groupby(["replication", "service"])["start_s"].transform("max")
    names = ("batch_requests_submitted", "batch_requests_completed", "batch_requests_dropped")
    submitted, answered, dropped = (float(windows[name].sum()) for name in names)
    waiting = float(windows.loc[last, "batch_requests_waiting"].sum())
    error = abs(submitted - answered - dropped - waiting) / submitted
    detail = f"{submitted:,.0f} jobs = answered + dropped + waiting within {error:.1e}"
    return [_result("batch_jobs_conserved", error <= 1e-6, detail)]


def _gpus(scenario: Scenario, windows: pd.DataFrame) -> dict:
    """GPUs of all services and jobs at a site, at every moment, against what it holds (rented ones elsewhere aside)."""
    found, ok = [], True
    for name, site in scenario.places.items():
        here = windows[windows["site"] == name] if "site" in windows else windows
        most = 0.0
        for _, rows in here.groupby("replication"):
            moments = np.concatenate([rows["start_s"], rows["end_s"]])
            change = np.concatenate([rows["gpus"], -rows["gpus"]])
            order = np.lexsort((change, moments))  # at one moment GPUs are given back before others are taken
            most = max(most, float(np.cumsum(change[order]).max()))
        ok &= most <= site.gpus * (1 + ROUNDING) + 1e-6
        found.append(f"at most {most:.0f} of {site.gpus} GPUs" + (f" at {name}" if len(scenario.places) > 1 else ""))
    return _result("gpus_within_site", ok, "; ".join(found))


def _stages(scenario: Scenario, windows: pd.DataFrame) -> dict:
    """GPUs that a service holds, at every moment, against those of its stages and its spares.

    Only services whose GPUs nothing but their stages changes: no autoscaler, spot capacity or job, no delivery, move or
    retirement. Before, during and after a change of stage they hold at least the fewest and at most the most of any.
    """
    changing = {
        name
        for event in scenario.events
        if event.kind in ("delivery", "move", "retirement")
        for name in (getattr(event, "service", None), getattr(event, "to", None))
    }
    found, wrong = [], []
    for name, service in scenario.services.items():
        if service.autoscaler or service.spot or name in changing:
            continue
        always = service.spare_gpus + sum(each.gpus for each in service.beside)
        sizes = [stage.gpus + always for stage in service.stages]
        for replication, rows in windows[windows["service"] == name].groupby("replication"):
            change = pd.concat([rows.groupby("start_s")["gpus"].sum(), -rows.groupby("end_s")["gpus"].sum()])
            held = change.groupby(level=0).sum().sort_index().cumsum().iloc[:-1]
            least, most = float(held.min()), float(held.max())
            if least < min(sizes) * (1 - ROUNDING) - 1e-6 or most > max(sizes) * (1 + ROUNDING) + 1e-6:
                wrong.append(
                    f"{name} holds {least:.6g} to {most:.6g} GPUs in replication {replication}, its stages {min(sizes)} to {max(sizes)}"
                )
        found.append(name)
    detail = f"GPUs held = GPUs of the stages: {', '.join(found) or 'no service that nothing else changes'}"
    return _result("gpus_of_stages", not wrong, "; ".join(wrong) or detail)


def _energy(scenario: Scenario, windows: pd.DataFrame) -> dict:
    pue = windows.get("pue", scenario.site.pue)
    it, facility = (windows["it_energy_j"] * pue).sum(), windows["facility_energy_j"].sum()
    error = abs(facility / it - 1) if it else 0.0
    parts = windows["input_energy_j"].sum() + windows["output_energy_j"].sum() + windows["idle_energy_j"].sum()
    split = abs(parts / windows["gpu_energy_j"].sum() - 1) if parts else 0.0
    return _result(
        "energy_closes",
        max(error, split) <= 1e-9,
        f"IT x PUE = facility within {error:.1e}; parts = whole within {split:.1e}",
    )


def _double_entry(postings: pd.DataFrame) -> dict:
    debits = postings.groupby("debit", observed=True)["amount_nusd"].sum().sum()
    credits = postings.groupby("credit", observed=True)["amount_nusd"].sum().sum()
    unnamed = int((postings["price_row"].astype(str) == "").sum())
    detail = f"{len(postings):,} postings: debits = credits to the nano-dollar; each names its price row"
    return _result(
        "double_entry",
        int(debits) == int(credits) and unnamed == 0,
        detail if not unnamed else f"{unnamed} postings name no price",
    )
