import pytest

from factory_sim.errors import ProfileError
from factory_sim.inputs.parallelism import parse_parallelism


def test_aggregated_short_form_gives_one_worker_and_its_copies():
    layout = parse_parallelism("tp4pp2ep8dpaTr3")
    (worker,) = layout.workers
    assert (worker.role, worker.gpus, worker.expert_parallel, worker.data_parallel_attention) == ("both", 8, 8, True)
    assert (layout.instances, layout.gpus, layout.pooled, worker.name) == (3, 8, False, "dep8")


def test_left_out_parts_mean_plain_tensor_parallelism():
    assert parse_parallelism("tp8") == parse_parallelism("tp8pp1ep1dpaFr1")


def test_pools_count_all_gpus_and_prefill_is_data_parallel_unless_said_otherwise():
    layout = parse_parallelism("P3x4-D4x8tep")
    prefill, decode = layout.workers
    assert layout.gpus == 3 * 4 + 4 * 8
    assert (prefill.name, decode.name) == ("dep4", "tep8")
    assert parse_parallelism("P3x4tep-D4x8tep").workers[0].name == "tep4"


def test_one_gpu_has_no_parallel_attention():
    assert parse_parallelism("P2x1-D1x1dep").workers[0].name == "tp1"


@pytest.mark.parametrize("text", ["", "dp8", "P2-D1x8", "tpx"])
def test_other_text_is_refused_with_an_example(text):
    with pytest.raises(ProfileError, match="P3x4-D4x8dep"):
        parse_parallelism(text)
