"""Errors of left-out rows, split: every row is counted once, under a label that says what else was measured."""

import numpy as np
import pytest

from factory_sim.calibration import error_split
from factory_sim.errors import MeasurementError
from factory_sim.inputs.measurements import serving


@pytest.mark.parametrize("by", [("elsewhere",), ("gpu", "engine"), error_split.BY])
def test_a_split_counts_every_row_once(by):
    residuals = error_split.shipped_residuals()
    found = error_split.split(residuals, "model_gpu", by)
    assert found[found.metric == "tpot"].n.sum() == (residuals.scheme == "model_gpu").sum()


def test_one_part_has_the_errors_of_its_rows():
    residuals = error_split.shipped_residuals()
    found = error_split.split(residuals, "model_gpu", ("model", "gpu")).set_index(["mode", "model", "gpu", "metric"])
    rows = serving()
    here = rows.measurement_id[(rows.model == "Llama-3.1-70B") & (rows.gpu == "h100")]
    part = residuals[(residuals.scheme == "model_gpu") & residuals.measurement_id.isin(here)]
    assert found.loc[("agg", "Llama-3.1-70B", "h100", "tpot"), "median"] == pytest.approx(
        100 * np.median(np.abs(np.exp(-part.log_tpot_error) - 1))
    )


def test_labels_say_what_other_gpus_have():
    rows = serving()
    label = dict(zip(rows.measurement_id, error_split.elsewhere(rows)))

    def of(model, gpu, engine, precision):
        keep = (rows.model == model) & (rows.gpu == gpu) & (rows.backend == engine) & (rows.precision == precision)
        return {label[one] for one in rows.measurement_id[keep & (rows["mode"] == "agg")]}

    assert of("MiniMax-M2.5", "b300", "vllm", "fp4") == {"same engine and precision"}
    assert of("Llama-3.1-8B", "h100", "trtllm", "bf16") == {"neither"}
    assert of("Qwen3-235B-A22B", "h100", "trtllm", "fp8") == {"same precision, other engine"}


def test_an_unknown_label_is_refused_with_those_that_exist():
    with pytest.raises(MeasurementError, match="use one of elsewhere"):
        error_split.split(error_split.shipped_residuals(), by=("layout",))
