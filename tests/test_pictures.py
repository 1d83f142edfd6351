"""Pictures: what is drawn is what sweeps and estimates say; wrong wishes are one line; files are whole or not there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

import llm_perf_model as lpm
from llm_perf_model.machine import units
from llm_perf_model.pictures.canvas import COLOURS, MARKS, Picture, spans_decades
from llm_perf_model.pictures.front import MOST_POINTS, Cloud, Front, front
from llm_perf_model.plots import PARTS
from llm_perf_model.sweeping.metrics import label, unit_of, words

from .running import Run, runner

ROOT = Path(__file__).resolve().parents[1]
CARDS = ["rtx-4090", "h100-sxm-80gb", "rtx-3090ti"]
BATCHES = [64, 1, 4, 16, 256]
MS = 1e-3


@pytest.fixture(scope="module")
def s() -> lpm.Sweep:
    """Three cards, the last without a price, of which some batches do not fit, and one layout is skipped."""
    return lpm.sweep(
        "llama-3.1-8b", gpu=CARDS, tp=[1, 2, 3], batch_size=BATCHES, engine="vllm", input_len=1024, output_len=128
    )


@pytest.fixture(scope="module")
def e() -> lpm.Estimate:
    return lpm.estimate("llama-3.1-8b", gpu="h100-sxm-80gb", engine="vllm", batch_size=8, input_len=1024, tp=2)


def panel(picture: Picture) -> Axes:
    (axes,) = picture.axes
    return axes


def named(axes: Axes) -> dict[str, Any]:
    """Lines by what the legend calls them."""
    return {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}


def told(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def note(picture: Picture) -> str:
    return picture.get_supxlabel()


# Lines


def test_lines_are_the_arrays_of_the_sweep(s: lpm.Sweep) -> None:
    axes = panel(s.plot("tpot_s", where={"tp": 1}))
    lines, order = named(axes), np.argsort(BATCHES)
    assert list(lines) == [*CARDS, "cannot run *"]
    for place, card in enumerate(CARDS):
        x, y = lines[card].get_data()
        wanted = np.where(s.runs, s["tpot_s"] / MS, np.nan)[place, 0][order]
        np.testing.assert_array_equal(x, np.sort(BATCHES))
        np.testing.assert_array_equal(y, wanted)


def test_what_cannot_run_is_faint_and_meets_what_runs(s: lpm.Sweep) -> None:
    axes = panel(s.plot("tpot_s", where={"tp": 1, "gpu": "rtx-4090"}))
    line, faint = axes.lines[:2]
    assert faint.get_alpha() < 0.5
    order = np.argsort(BATCHES)
    runs, values = s.runs[0, 0][order], s["tpot_s"][0, 0][order] / MS
    assert 0 < np.count_nonzero(runs) < len(runs)
    edge = int(np.count_nonzero(runs)) - 1
    np.testing.assert_array_equal(np.isfinite(line.get_ydata()), runs)
    np.testing.assert_array_equal(faint.get_ydata()[edge:], values[edge:])
    assert not np.any(np.isfinite(faint.get_ydata()[:edge]))


def test_what_was_skipped_is_a_gap(s: lpm.Sweep) -> None:
    axes = panel(s.plot("tpot_s", x="tp", where={"batch_size": 1}))
    assert not np.any(np.isfinite(named(axes)["rtx-4090"].get_ydata()[2:]))
    assert "tp = 3" in s.skipped[0].reason


def test_labels_have_units_and_the_title_says_what_runs_where(s: lpm.Sweep) -> None:
    axes = panel(s.plot("peak_bytes", by="tp", where={"gpu": "h100-sxm-80gb"}))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("batch size", "peak, GiB")
    title = axes.get_title(loc="left")
    assert title == "llama-3.1-8b, h100-sxm-80gb, vllm, w16a16\ninput 1024, output 128"
    assert axes.get_legend().get_title().get_text() == "tensor-parallel ranks"


def test_axes_are_logarithmic_where_values_span_decades(s: lpm.Sweep) -> None:
    axes = panel(s.plot("ttft_s", where={"tp": 1}))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "16", "64", "256"]
    near = lpm.sweep("llama-3.1-8b", batch_size=[1, 2, 3])
    assert panel(near.plot("peak_bytes")).get_xscale() == "linear"


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=9))
def test_a_logarithmic_axis_holds_positive_numbers_only(values: list[float]) -> None:
    assert spans_decades(np.array(values)) == (max(values) >= 20.0 * min(values))
    assert not spans_decades(np.array([*values, 0.0]))
    assert spans_decades(np.array([*values, np.nan])) == spans_decades(np.array(values))


def test_lines_differ_in_mark_and_dashes_too(s: lpm.Sweep) -> None:
    lines = list(named(panel(s.plot("tpot_s", where={"tp": 1}))).values())[:3]
    for looks in ([line.get_marker() for line in lines], [line.get_linestyle() for line in lines]):
        assert len(set(looks)) == 3
    assert len(set(COLOURS)) == len(set(MARKS)) == 8


def test_names_stand_on_the_axis_where_there_are_no_numbers(s: lpm.Sweep) -> None:
    axes = panel(s.plot("tpot_s", x="gpu", by="tp", where={"batch_size": 1}))
    assert [text.get_text() for text in axes.get_xticklabels()] == CARDS
    assert named(axes)["1"].get_linestyle() == "None"
    np.testing.assert_array_equal(named(axes)["1"].get_ydata()[:2], s["tpot_s"][:2, 0, 1] / MS)


def test_every_metric_and_field_has_words() -> None:
    assert words("decode_hbm_bytes") == "decode hbm, GiB"
    assert words("pp") == "pp"
    assert words("prefill_flops_utilisation") == "prefill flops, %"
    assert unit_of("tpot_s") == 1e-3
    assert label("tpot_s").endswith("ms")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tpot_s",), 'plot: tp has several values beside batch_size and gpu; choose one of each, as where={"tp": 1}'),
        (("tpots",), "tpots is not a known metric; did you mean tpot_s?"),
        (("tpot_s", "bach_size"), "x: the sweep has no axis bach_size; did you mean batch_size?"),
        (("tpot_s", "tp", "gpus"), "by: the sweep has no axis gpus; did you mean gpu?"),
        (("tpot_s", "tp", "tp"), "plot: x and by are both tp; give two axes, of gpu, tp, batch_size"),
        (("tpot_s", None, None, {"gpus": 1}), "where: the sweep has no axis gpus; did you mean gpu?"),
        (("tpot_s", None, None, {"gpu": "h100"}), "where: gpu has no value h100; did you mean h100-sxm-80gb?"),
        (("tpot_s", None, None, {"tp": 7}), "where: tp has no value 7; values: 1, 2, 3"),
        (("fits", None, None, {"tp": 1}), "fits: is no number; name another metric"),
    ],
)
def test_a_wrong_wish_is_one_line(s: lpm.Sweep, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(lpm.RequestError) as error:
        s.plot(*arguments)
    assert str(error.value) == message


def test_a_sweep_of_one_configuration_has_no_lines() -> None:
    with pytest.raises(lpm.RequestError, match="the sweep has one configuration; give a field several values"):
        lpm.sweep("test-13b").plot("tpot_s")


# The front


def test_points_and_front_are_those_of_the_sweep(s: lpm.Sweep) -> None:
    axes = panel(s.plot_pareto("throughput_tokens_per_s", "tpot_s"))
    best = s.pareto("throughput_tokens_per_s", "tpot_s")
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith("not beaten"))
    np.testing.assert_array_equal(line.get_xdata(), best["throughput_tokens_per_s"])
    np.testing.assert_array_equal(line.get_ydata(), best["tpot_s"] / MS)
    faint = [line for line in axes.lines if line.get_alpha() == 0.35]
    drawn = np.sort(np.concatenate([line.get_xdata() for line in faint]))
    np.testing.assert_array_equal(drawn, np.sort(s["throughput_tokens_per_s"][s.runs]))
    for number, card in enumerate(dict.fromkeys(best["gpu"])):
        assert number < 8
        np.testing.assert_array_equal(
            named(axes)[card].get_xdata(), best["throughput_tokens_per_s"][best["gpu"] == card]
        )


def test_points_of_the_front_are_called_by_what_changes(s: lpm.Sweep) -> None:
    best = s.within(np.asarray(s.done & True)).pareto("throughput_tokens_per_s", "tpot_s")
    found = told(panel(s.plot_pareto("throughput_tokens_per_s", "tpot_s")))
    known = {
        ", ".join(f"{label(name)} {best[name][at]}" for name in ("tp", "batch_size") if len(set(best[name])) > 1)
        for at in range(len(best))
    }
    assert found
    assert set(found) <= known


def test_a_front_of_chosen_cells(s: lpm.Sweep) -> None:
    axes = panel(s.plot_pareto("throughput_tokens_per_s", "ttft_s", where={"gpu": "rtx-4090", "tp": [1, 2]}))
    only = s.within(np.array([card == "rtx-4090" for card in CARDS])[:, None, None])
    best = only.pareto("throughput_tokens_per_s", "ttft_s")
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith("not beaten"))
    np.testing.assert_array_equal(line.get_ydata(), best["ttft_s"] / MS)
    assert "rtx-4090" in axes.get_title(loc="left")


def test_a_front_needs_what_runs(s: lpm.Sweep) -> None:
    with pytest.raises(lpm.InfeasibleError, match="no configuration fits and stays within"):
        s.plot_pareto("ttft_s", "tpot_s", where={"tp": 3})
    dear = "usd_per_million_output_tokens"
    with pytest.raises(lpm.InfeasibleError, match=f"no configuration that runs has both tpot_s and {dear}"):
        s.plot_pareto("tpot_s", dear, where={"gpu": "rtx-3090ti", "tp": 2})


def test_of_many_points_some_are_drawn_and_the_picture_says_so() -> None:
    numbers = np.linspace(1.0, 9.0, 3 * MOST_POINTS)
    edge = Front("not beaten in both", numbers[:1], numbers[:1], [""], ["all"])
    picture = front("", ("a", "b"), [Cloud("", numbers, numbers)], "", edge)
    assert len(panel(picture).lines[0].get_xdata()) == MOST_POINTS
    assert note(picture) == "one of 3 configurations is drawn; the front is that of all 300,000"
    assert panel(picture).lines[0].get_rasterized()


# Cost


def test_bars_are_the_best_of_each_card_and_the_rest_is_named(s: lpm.Sweep) -> None:
    picture = s.plot_cost("tpot_s <= 0.03")
    axes = panel(picture)
    lengths = [bar.get_width() for bar in axes.patches]
    cards = [text.get_text() for text in axes.get_yticklabels()]
    assert lengths == sorted(lengths)
    for card, length in zip(cards, lengths, strict=True):
        only = s.within(np.array([each == card for each in CARDS])[:, None, None])
        best = only.best("usd_per_million_output_tokens", "tpot_s <= 0.03")
        assert length == best["usd_per_million_output_tokens"]
        assert f"${length:.3g}   tp {best['tp']}, batch {best['batch_size']}" in told(axes)
    assert note(picture) == "left out: rtx-3090ti: no listed price"
    assert "with tpot_s <= 0.03" in axes.get_title(loc="left")


def test_a_card_that_meets_no_constraint_is_named_with_its_nearest(s: lpm.Sweep) -> None:
    text = note(s.plot_cost(["tpot_s <= 0.008"]))
    assert re.search(r"left out: rtx-4090: no configuration meets tpot_s <= 0.008: the lowest is 0\.0\d+", text)


def test_cost_without_any_price_is_one_line(s: lpm.Sweep) -> None:
    with pytest.raises(lpm.InfeasibleError) as error:
        s.plot_cost(where={"gpu": "rtx-3090ti"})
    assert str(error.value) == "plot_cost: nothing to show; rtx-3090ti: no listed price"
    with pytest.raises(lpm.RequestError, match="by: the sweep has no axis gpu; axes: batch_size"):
        lpm.sweep("test-13b", batch_size=[1, 2]).plot_cost()


# The roofline


def test_points_are_the_operators_of_the_breakdown(e: lpm.Estimate) -> None:
    picture = e.plot_roofline()
    for axes, phase in zip(picture.axes, ("prefill", "decode"), strict=True):
        assert axes.get_title(loc="left") == phase
        records = [each for each in e.breakdown("ops").records if each["phase"] == phase]
        placed = sorted((each for each in records if each["flops"] > 0), key=lambda each: -each["share"])
        found = [dots.get_offsets()[0].tolist() for dots in axes.collections]
        wanted = [[each["flops"] / each["hbm_bytes"], each["flops"] / each["time_s"]] for each in placed]
        assert found == wanted
        areas = [float(dots.get_sizes()[0]) for dots in axes.collections]
        assert areas == sorted(areas, reverse=True)
        assert f"{placed[0]['name']} " in " ".join(told(axes))
        for each in records:
            if each["flops"] == 0 and each["share"] >= 5e-4:
                assert f" {each['name']} " in note(picture)


def test_roofs_are_those_of_the_device(e: lpm.Estimate) -> None:
    axes = e.plot_roofline().axes[0]
    slope, *levels = axes.lines[:3]
    x, y = slope.get_data()
    gpu = e.case.gpu
    np.testing.assert_allclose(np.asarray(y) / np.asarray(x), gpu.hbm_bytes_per_s, rtol=1e-12)
    assert [line.get_ydata()[0] for line in levels] == [
        gpu.peak_flops_per_s["tensor_fp16"], gpu.peak_flops_per_s["vector_fp32"],
    ]  # fmt: skip
    assert "tensor fp16, 989 TFLOP/s" in told(axes)


def test_no_operator_is_above_the_roof_of_an_ideal_engine() -> None:
    e = lpm.estimate("llama-3.1-8b", gpu="a100-sxm-80gb", engine="ideal", batch_size=4)
    peak, rate = max(e.case.gpu.peak_flops_per_s.values()), e.case.gpu.hbm_bytes_per_s
    for axes in e.plot_roofline().axes:
        for dots in axes.collections:
            x, y = dots.get_offsets()[0]
            assert y <= min(peak, rate * x) * (1.0 + 1e-9)


@pytest.mark.parametrize("precision", ["w16a16", "fp8", "w4a16", "w8a8", "fp32"])
def test_units_are_those_whose_rates_an_ideal_engine_reaches(precision: str) -> None:
    case = lpm.estimate("mixtral-8x7b", gpu="h100-sxm-80gb", engine="ideal", precision=precision, tp=8).case
    found = units(case.gpu, case.running)
    for kind, unit in found.items():
        assert case.machine.rates[kind].flops_per_s == case.gpu.peak_flops_per_s[unit], kind
    others = {kind for kind in case.machine.rates if kind not in found}
    assert not others & {node.kind for node in case.graph if node.role != "communication"}


def test_a_phase_without_time_has_no_panel() -> None:
    assert len(lpm.estimate("bert-base-uncased").plot_roofline().axes) == 1
    assert len(lpm.estimate("resnet50", engine="generic-fused").plot_roofline().axes) == 1


def test_the_title_says_what_runs_where(e: lpm.Estimate) -> None:
    head = "llama-3.1-8b on 2 x NVIDIA H100 80GB SXM5 (tp 2), vllm, w16a16"
    assert e.plot_roofline().get_suptitle() == f"{head}\nbatch 8, 1024 tokens in, 32 out"
    assert panel(e.plot_memory()).get_title(loc="left") == f"{head}\n1024 tokens in, 32 out"
    network = lpm.estimate("resnet50", engine="generic-fused", gpu="a100-sxm-80gb")
    for picture in (network.plot_roofline(), network.plot_memory()):
        assert panel(picture).get_title(loc="left").startswith("resnet50 on NVIDIA A100 80GB SXM4, generic-fused")
    assert "KV cache" not in {str(part.get_label()) for part in panel(network.plot_memory()).collections}


def test_prefill_and_decode_on_devices_of_their_own_have_roofs_of_their_own() -> None:
    e = lpm.estimate(
        "llama-3.1-8b", gpu="a100-sxm-80gb", engine="vllm", disaggregated=True, prefill_gpu="h100-sxm-80gb"
    )
    peaks = [max(line.get_ydata()[0] for line in axes.lines[1:3]) for axes in e.plot_roofline().axes]
    assert peaks == [e.prefill_case.gpu.peak_flops_per_s["tensor_fp16"], e.case.gpu.peak_flops_per_s["tensor_fp16"]]


def test_labels_do_not_cover_each_other(e: lpm.Estimate) -> None:
    picture = e.plot_roofline()
    picture.draw_without_rendering()
    for axes in picture.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        pairs = ((a, b) for at, a in enumerate(boxes) for b in boxes[at + 1 :])
        assert not any(a.overlaps(b) for a, b in pairs)


# Memory


def test_layers_of_the_stack_add_up_to_the_peak(e: lpm.Estimate) -> None:
    batches = [1, 10, 100, 400]
    axes = panel(e.plot_memory(batches))
    found = {str(part.get_label()): part for part in axes.collections}
    below = np.zeros(4)
    for word, field in PARTS.items():
        each = [getattr(lpm.estimate(**request(e) | {"batch_size": batch}).memory, field) for batch in batches]
        above = below + np.array(each) / 2**30
        for x, low, high in zip(batches, below, above, strict=True):
            heights = found[word].get_paths()[0].vertices
            assert {low, high} <= set(heights[heights[:, 0] == x, 1])
        below = above
    peaks = [lpm.estimate(**request(e) | {"batch_size": batch}).memory.peak_bytes / 2**30 for batch in batches]
    np.testing.assert_allclose(below, peaks, rtol=1e-12)


def request(e: lpm.Estimate) -> dict[str, Any]:
    return {name: getattr(e.request, name) for name in ("model", "gpu", "engine", "tp", "input_len", "output_len")}


def test_the_lines_of_the_stack_are_capacity_share_and_largest_batch(e: lpm.Estimate) -> None:
    lines = named(panel(e.plot_memory()))
    assert lines["capacity"].get_ydata()[0] == e.memory.capacity_bytes / 2**30
    assert lines["what the engine takes"].get_ydata()[0] == e.memory.limit_bytes / 2**30
    assert lines[f"largest batch that fits: {e.max_batch_size:,.0f}"].get_xdata()[0] == e.max_batch_size


def test_a_model_that_never_fits_has_a_stack_without_a_largest_batch() -> None:
    lines = named(panel(lpm.estimate("llama-3.1-70b", gpu="rtx-4090").plot_memory()))
    assert list(lines) == ["capacity"]


@pytest.mark.parametrize("batches", [[], [4], [2, 1], [0, 1], ["a", "b"], 7, [[1, 2]]])
def test_batches_ascend_from_one(e: lpm.Estimate, batches: Any) -> None:
    with pytest.raises(lpm.RequestError) as error:
        e.plot_memory(batches)
    assert str(error.value) == "batch_size: give two or more ascending numbers from 1 on, as range(1, 129)"


@pytest.mark.parametrize("name", ["plot_roofline", "plot_memory"])
def test_a_picture_of_an_estimate_is_of_one_configuration(name: str) -> None:
    many = lpm.estimate("test-13b", batch_size=np.array([1.0, 2.0]))
    with pytest.raises(lpm.RequestError) as error:
        getattr(many, name)()
    assert str(error.value) == f"{name}: the estimate holds 2 configurations; give it one"


# Figures and files


def test_pictures_are_figures_that_notebooks_show_and_need_no_display(e: lpm.Estimate) -> None:
    picture = e.plot_memory()
    assert picture._repr_png_().startswith(b"\x89PNG")
    drawn = "l.estimate('test-13b').plot_memory()"
    code = f"import sys, llm_perf_model as l; {drawn}; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_the_same_picture_has_the_same_bytes(e: lpm.Estimate, form: Any) -> None:
    assert e.plot_memory().rendered(form) == e.plot_memory().rendered(form)


def test_settings_of_the_user_change_nothing(e: lpm.Estimate) -> None:
    plain = e.plot_memory().rendered("svg")
    with mpl.rc_context({"font.size": 20.0, "axes.grid": False, "svg.hashsalt": "other", "axes.labelcolor": "red"}):
        bent = e.plot_memory().rendered("svg")
    assert len(bent) == pytest.approx(len(plain), rel=0.02)


def test_start_up_does_not_wait_for_matplotlib() -> None:
    code = "import sys, llm_perf_model as l; l.estimate('test-13b'); l.sweep; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("drawn", ["s.plot('tpot_s')", "s.plot_cost()", "e.plot_roofline()", "e.plot_memory()"])
def test_without_matplotlib_one_line_says_what_to_install(drawn: str) -> None:
    code = (
        "import sys\nsys.modules['matplotlib'] = None\nimport llm_perf_model as l\n"
        "e, s = l.estimate('test-13b'), l.sweep('test-13b', gpu=['a100-sxm-80gb', 'h100-sxm-80gb'])\n"
        f"for _ in range(2):\n  try:\n    {drawn}\n  except l.RequestError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == 2 * "a picture needs the package matplotlib: pip install 'llm-perf-model[plot]'\n"


# Commands


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


SWEEP = ("sweep", "--model", "llama-3.1-8b", "--engine", "vllm", "--batch_size", "1:16:x4", "--output_len", "16")
INFER = ("infer", "--model", "llama-3.1-8b", "--engine", "vllm")


@pytest.mark.parametrize(
    ("command", "start"),
    [
        (INFER, b"<?xml"),
        (SWEEP, b"<?xml"),
        ((*SWEEP, "--tp", "1,2"), b"<?xml"),
        ((*SWEEP, "--tp", "1,2", "--gpu", "l4,h100-sxm-80gb", "--pareto", "ttft_s,tpot_s"), b"<?xml"),
    ],
)
def test_commands_write_pictures(run: Run, tmp_path: Path, command: tuple[str, ...], start: bytes) -> None:
    place = tmp_path / "p.svg"
    plain, done = run(*command), run(*command, "--picture", str(place))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(plain.out.rstrip("\n"))
    assert f"picture written: {place}" in done.out.replace("\n", " ")
    assert place.read_bytes().startswith(start)
    assert [each.name for each in tmp_path.iterdir()] == ["p.svg"]


def test_a_picture_beside_a_table_in_json_and_a_file(run: Run, tmp_path: Path) -> None:
    place, table = tmp_path / "p.png", tmp_path / "t.csv"
    assert run(*INFER, "--picture", str(place), "--format", "json").out.startswith("{")
    assert place.read_bytes().startswith(b"\x89PNG")
    done = run(*SWEEP, "--picture", str(tmp_path / "q.pdf"), "--output", str(table))
    assert (done.code, len(table.read_text().splitlines())) == (0, 4)
    assert (tmp_path / "q.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*INFER, "--picture", "p.svgz"), "picture: p.svgz ends in none of .png, .svg, .pdf; did you mean .svg?"),
        ((*SWEEP, "--picture", "p"), "picture: p ends in none of .png, .svg, .pdf"),
        ((*SWEEP, "--picture", "no/p.svg"), "picture no/p.svg: cannot be written: No such file or directory"),
        ((*SWEEP, "--picture"), "picture: needs the name of a file"),
        (
            (*SWEEP, "--tp", "1,2", "--pp", "1,2", "--picture", "p.svg"),
            "picture: batch_size, tp, pp have several values; lines show one or two such fields, and pareto any number",
        ),
        (
            ("sweep", "--model", "test-13b", "--picture", "p.svg"),
            "picture: all fields have one value; lines show one or two such fields, and pareto any number",
        ),
        ((*SWEEP, "--best", "tpot_s", "--picture", "p.svg"), "picture: shows all configurations; leave best out"),
        (
            (*SWEEP, "--metrics", "decode_bound", "--picture", "p.svg"),
            "picture: decode_bound is no number; name another metric first",
        ),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_anything_is_computed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], message: str
) -> None:
    def computed(*_: Any, **__: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llm_perf_model.commands.estimates.answer", computed)
    monkeypatch.setattr("llm_perf_model.sweeping.queries.sweep", computed)
    done = run(*command)
    assert (done.code, done.out, done.err) == (1, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_cannot_run_leaves_no_picture(run: Run, tmp_path: Path) -> None:
    done = run("infer", "--model", "llama-3.1-70b", "--gpu", "rtx-4090", "--picture", str(tmp_path / "p.svg"))
    assert (done.code, done.out) == (1, "")
    assert list(tmp_path.iterdir()) == []


# The pictures of the papers

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def written() -> Any:
    spec = importlib.util.spec_from_file_location("write_pictures", IMAGES / "write_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_of_the_papers_are_current(written: Any) -> None:
    """Where Matplotlib is the one that drew them: the same words and shapes, each number within half a pixel."""
    number = r"-?\d+\.\d+"
    for name, drawn in written.PICTURES.items():
        kept, current = (IMAGES / f"{name}.svg").read_text(encoding="utf-8"), drawn().rendered("svg").decode()
        if f"Matplotlib v{mpl.__version__}," not in kept:
            pytest.skip("another Matplotlib drew them")
        hashes = r"(?<=[#\"])[mphC][0-9a-f]{8,}(_\d+)?"
        texts = [re.sub(hashes, "id", text) for text in (kept, current)]
        assert re.sub(number, "", texts[0]) == re.sub(number, "", texts[1]), f"{name}: run write_pictures.py"
        places = ([float(each) for each in re.findall(number, text)] for text in texts)
        assert all(abs(a - b) < 0.5 for a, b in zip(*places, strict=True)), f"{name}: run write_pictures.py"


def test_pictures_of_the_papers_are_small_and_shown(written: Any) -> None:
    page = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    for name in written.PICTURES:
        assert (IMAGES / f"{name}.svg").stat().st_size < 150_000
        assert f"](images/{name}.svg)" in page
