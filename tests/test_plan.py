"""Plans: queues against textbooks and a simulation, limits, laws of loads and objectives, and bad input."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.planning.answer import Plan
from llm_perf_model.planning.candidates import cases
from llm_perf_model.planning.latency import QUIET, Latency
from llm_perf_model.planning.load import Load, points
from llm_perf_model.planning.queueing import Wait, later, line, occupancy
from llm_perf_model.planning.service import Batching, Replica, stacked
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.plan import Lengths, PlanRequest

from .running import Run, runner

CARDS = ["h100-sxm-80gb", "a100-sxm-80gb", "l4-pcie-24gb"]
LOAD = {"requests_per_s": 20, "input_len": 1024, "output_len": 256}
SMALL = {"model": "llama-3.1-8b", "gpus": CARDS, "max_replica_devices": 2, "max_batch_size": 64}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80, "plan")


def small(**options: object) -> Plan:
    return lpm.plan(**{**SMALL, **LOAD, **options})


def replica(request: PlanRequest) -> Replica:
    model, gpu = load(lpm.ModelSpec, str(request.model)), load(lpm.GpuSpec, str((request.gpus or ("",))[0]))
    case = next(iter(cases(request, model, (gpu,), [])))
    batching = Batching(request.max_batch_size, float(request.prefill_chunk), request.percentile)
    return Replica(case, Load.of(request), batching)


# Queues against textbooks.


def test_one_place_is_the_queue_of_one_server() -> None:
    """M/M/1 with utilisation 0.6: idle 0.4, and as many wait as find it busy (Kleinrock, section 3.2)."""
    found = occupancy(np.array([0.6]), np.ones((1, 1)), np.array([1]))
    assert found.chance[0] == pytest.approx([0.4, 0.6])
    assert found.waiting[0] == pytest.approx(0.6)


@pytest.mark.parametrize(("servers", "offered", "chance"), [(2, 1.0, 1 / 3), (10, 8.0, 0.40918), (1, 0.5, 0.5)])
def test_places_that_share_nothing_are_erlangs_servers(servers: int, offered: float, chance: float) -> None:
    """Erlang C, by hand for 1 and 2 servers; 10 servers: 0.409, table 2 of Allen's book."""
    rates = np.arange(1.0, 17.0)[np.newaxis]
    found = occupancy(np.array([offered]), rates, np.array([servers]))
    assert found.waiting[0] == pytest.approx(chance, rel=1e-4)
    assert found.utilisation[0] == pytest.approx(offered / servers)


def test_sequences_without_a_limit_are_poisson() -> None:
    """M/G/infinity: mean and variance are the arrivals in a service."""
    found = occupancy(np.array([5.0]), np.arange(1.0, 65.0)[np.newaxis], np.array([64]))
    numbers = np.arange(65)
    assert found.mean[0] == pytest.approx(5.0)
    assert found.chance[0] @ numbers**2 - 25.0 == pytest.approx(5.0)


@pytest.mark.parametrize(("variation", "mean_s"), [(0.0, 0.5), (1.0, 1.0), (3.0, 2.0)])
def test_a_line_waits_as_pollaczek_and_khinchine_say(variation: float, mean_s: float) -> None:
    """W = rho / (1 - rho) (1 + C^2) / 2 at rho = 0.5 and a service of a second."""
    wait = line(np.array([0.5]), np.array([1.0]), 1.0, variation)
    assert wait.chance[0] * wait.mean_s[0] == pytest.approx(mean_s)


def test_two_waits_add_up() -> None:
    """Rates 1 and 2: P(X + Y > t) = 2 exp(-t) - exp(-2 t); equal rates: (1 + t) exp(-t)."""
    one, two = Wait(np.array([1.0]), np.array([1.0])), Wait(np.array([1.0]), np.array([0.5]))
    at = np.array([1.5])
    assert later(one, two, at)[0] == pytest.approx(2.0 * math.exp(-1.5) - math.exp(-3.0))
    assert later(one, one, at)[0] == pytest.approx(2.5 * math.exp(-1.5), rel=1e-5)
    assert later(one, two, np.array([-0.1]))[0] == 1.0


# Loads.


@given(st.floats(10.0, 1e4), st.floats(0.05, 1.2))
def test_points_keep_the_mean_and_most_of_the_variation(mean: float, cv: float) -> None:
    values, shares = points(Lengths(mean=mean, cv=cv))
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ values == pytest.approx(mean)
    assert 0.85 * cv <= math.sqrt(shares @ values**2 / mean**2 - 1.0) <= 1.0001 * cv


def test_the_context_of_equal_sequences_is_in_the_middle_of_their_decode() -> None:
    """1024 tokens of a prompt and, over 255 steps, half of them."""
    asked = Load.of(PlanRequest.of({"model": "m", **LOAD}))
    assert asked.context_tokens == 1024 + 255 / 2


def test_long_outputs_are_met_more_often() -> None:
    """Outputs of 11 and 101 tokens in equal numbers: of 110 steps 100 are of the long ones, around their 50th."""
    asked = Load.of(PlanRequest.of({"model": "m", "requests_per_s": 1, "input_len": 100, "output_len": [11, 101]}))
    assert asked.context_tokens == pytest.approx(100 + (10 * 5 + 100 * 50) / 110)


def write(path: Path, header: str, rows: list[tuple[float, ...]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return str(path)


def test_a_trace_of_equal_requests_is_the_load_of_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "arrival_s,input_len,output_len", [(0.05 * i, 1024, 256) for i in range(101)])
    traced = Load.of(PlanRequest.of({"model": "m", "trace": path}))
    numbers = Load.of(PlanRequest.of({"model": "m", **LOAD}))
    assert traced.requests_per_s == pytest.approx(20.0)
    assert traced.context_tokens == pytest.approx(numbers.context_tokens)
    assert traced.arrival_variation == pytest.approx(0.0, abs=1e-9)  # one after another at equal times
    assert traced.prompt_tokens == pytest.approx(numbers.prompt_tokens)


def test_a_trace_of_many_lengths_keeps_their_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = [(t, float(rng.integers(10, 3000)), float(rng.integers(2, 400))) for t in np.sort(rng.random(500))]
    path = write(tmp_path / "t.csv", "arrival_s,input_len,output_len", rows)
    asked = Load.of(PlanRequest.of({"model": "m", "trace": path}))
    assert asked.prompt_tokens.size <= 24
    assert asked.prompt_fraction.sum() == pytest.approx(1.0)
    assert asked.prompt_fraction @ asked.prompt_tokens == pytest.approx(np.mean([row[1] for row in rows]))


# Limits and a simulation.


@pytest.mark.parametrize(("input_len", "prefill_chunk"), [(512, 2048), (3000, 1024)])
def test_a_vanishing_load_is_a_single_request(input_len: int, prefill_chunk: int) -> None:
    fields = {"model": "llama-3.1-8b", "requests_per_s": 1e-4, "input_len": input_len, "output_len": 129}
    request = PlanRequest.of({**fields, "gpus": "h100-sxm-80gb", "prefill_chunk": prefill_chunk})
    row = stacked([replica(request).shared()])
    latency = Latency(row, Load.of(request), 0.95)
    state = latency.state(QUIET * row.capacity_per_s)
    e = lpm.estimate(
        "llama-3.1-8b", gpu="h100-sxm-80gb", engine="generic-serving", input_len=input_len, output_len=129,
        prefill_chunk=prefill_chunk,
    )  # fmt: skip
    assert latency.ttft_s(state)[0] == pytest.approx(e.ttft_s, rel=1e-3)
    assert latency.tpot_s(state)[0] == pytest.approx(e.tpot_s, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 8, 48])
def test_a_step_without_prompts_is_that_of_an_estimate(batch_size: int) -> None:
    of = replica(PlanRequest.of({"model": "llama-3.1-8b", **LOAD, "gpus": "h100-sxm-80gb"}))
    workload = {"batch_size": batch_size, "input_len": 1024, "output_len": 256}
    e = lpm.estimate("llama-3.1-8b", gpu="h100-sxm-80gb", engine="generic-serving", **workload)
    assert of.step(float(batch_size), 0.0).time_s == pytest.approx(e.tpot_s, rel=1e-3)


def test_completions_by_hand() -> None:
    """8 sequences of 255 steps: 255 / 8 steps, and a prompt's 1024 tokens on top of one of them."""
    of = replica(PlanRequest.of({"model": "llama-3.1-8b", **LOAD, "gpus": "h100-sxm-80gb"}))
    plain_s, mixed_s = (float(np.max(of.step(8.0, tokens).time_s)) for tokens in (0.0, 1024.0))
    seconds = 255 / 8 * plain_s + (mixed_s - plain_s)
    assert of.shared().completions_per_s[7] == pytest.approx(1.0 / seconds, rel=1e-9)


PARTS = (0.0, 512.0, 1024.0, 1536.0, 2048.0)
REQUESTS = 3000


def simulated(of: Replica, largest: int, rate: float) -> tuple[float, float, float]:
    """Mean batch, and p95 of TTFT and TPOT, of steps one after another that serve requests of one size."""
    table = np.stack([of.batching.at_all(of.step(of.batching.numbers, part).time_s) for part in PARTS])
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1.0 / rate, REQUESTS))
    first, last = np.zeros(REQUESTS), np.zeros(REQUESTS)
    clock, come, busy_s, area = 0.0, 0, 0.0, 0.0
    queue: list[int] = []
    prompts: list[list[float]] = []
    left: dict[int, float] = {}
    while not last.all():
        while come < REQUESTS and arrivals[come] <= clock:
            queue.append(come)
            come += 1
        while queue and len(left) + len(prompts) < largest:
            prompts.append([queue.pop(0), of.load.input_tokens])
        if not left and not prompts:
            busy_s, clock = busy_s + arrivals[come] - clock, float(arrivals[come])
            continue
        taken = 0.0
        for each in prompts:
            part = min(PARTS[-1] - taken, each[1])
            each[1], taken = each[1] - part, taken + part
        step_s = float(np.interp(taken, PARTS, table[:, max(len(left) - 1, 0)]))
        clock, busy_s, area = clock + step_s, busy_s + step_s, area + step_s * len(left)
        left = {number: steps - 1.0 for number, steps in left.items()}
        for number in [number for number, steps in left.items() if steps <= 0.0]:
            del left[number]
            last[number] = clock
        for each in [each for each in prompts if each[1] <= 0.0]:
            prompts.remove(each)
            first[int(each[0])], left[int(each[0])] = clock, of.load.decode_steps
    kept = slice(REQUESTS // 10, -REQUESTS // 10)
    ttft_s, tpot_s = (first - arrivals)[kept], (last - first)[kept] / of.load.decode_steps
    return area / busy_s, float(np.quantile(ttft_s, 0.95)), float(np.quantile(tpot_s, 0.95))


@pytest.mark.parametrize("busy", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("input_len", "output_len"), [(1024, 128), (4096, 64)])
def test_closed_forms_meet_a_simulation_of_steps(input_len: int, output_len: int, busy: float) -> None:
    """Requests that come at random, steps one after another: the batch within a quarter, percentiles within a third."""
    fields = {"requests_per_s": 1, "input_len": input_len, "output_len": output_len, "gpus": "h100-sxm-80gb"}
    of = replica(PlanRequest.of({"model": "llama-3.1-8b", **fields}))
    row = stacked([of.shared()])
    latency, rate = Latency(row, of.load, 0.95), busy * row.capacity_per_s
    state = latency.state(rate)
    batch, ttft_s, tpot_s = simulated(of, int(row.largest[0]), float(rate[0]))
    assert state.occupancy.mean[0] == pytest.approx(batch, rel=0.25)
    assert latency.ttft_s(state)[0] == pytest.approx(ttft_s, rel=0.33)
    assert latency.tpot_s(state)[0] == pytest.approx(tpot_s, rel=0.25)


# Laws of plans.


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 60.0), st.floats(1.0, 4.0))
def test_more_load_never_needs_fewer_devices(requests_per_s: float, factor: float) -> None:
    wanted = {"ttft_s": 1.0, "tpot_s": 0.06, "objective": "devices"}
    less, more = (small(**wanted, requests_per_s=rate).best for rate in (requests_per_s, requests_per_s * factor))
    assert more.devices >= less.devices


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 2.0), st.floats(0.02, 0.1), st.floats(1.0, 3.0), st.floats(1.0, 3.0))
def test_a_looser_objective_never_costs_more(ttft_s: float, tpot_s: float, later: float, slower: float) -> None:
    tight, loose = small(ttft_s=ttft_s, tpot_s=tpot_s), small(ttft_s=ttft_s * later, tpot_s=tpot_s * slower)
    assert (loose.best.usd_per_hour or 0.0) <= (tight.best.usd_per_hour or 0.0)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 200.0), st.sampled_from([0.5, 0.9, 0.99]), st.floats(0.0, 1.0))
def test_every_option_serves_the_load_within_the_objectives(rate: float, percentile: float, cv: float) -> None:
    lengths = {"input_len": {"mean": 800, "cv": cv}, "output_len": {"mean": 200, "cv": cv}}
    found = small(ttft_s=2.0, tpot_s=0.1, requests_per_s=rate, percentile=percentile, **lengths)
    for option in found.options:
        assert 0.0 < option.utilisation < 1.0
        assert option.headroom_fraction >= -1e-6
        assert option.ttft_s <= 2.0 * (1.0 + 1e-6)
        assert option.tpot_s <= 0.1
        assert option.power_w > 0.0
        assert option.mean_batch_size <= option.max_batch_size


def test_a_higher_percentile_is_never_faster() -> None:
    times = [small(gpus="h100-sxm-80gb", max_replica_devices=1, max_devices=2, percentile=q) for q in (0.5, 0.9, 0.99)]
    assert times[0].best.ttft_s < times[1].best.ttft_s < times[2].best.ttft_s
    assert times[0].best.tpot_s < times[1].best.tpot_s < times[2].best.tpot_s


@pytest.mark.parametrize("objective", ["usd_per_hour", "devices", "power_w"])
def test_the_best_needs_least_of_the_objective(objective: str) -> None:
    found = small(objective=objective, tpot_s=0.05)
    assert getattr(found.best, objective) == min(getattr(option, objective) for option in found.options)


def test_the_price_is_that_of_all_devices() -> None:
    """By hand: the lowest listed price of each device, over 20 x 256 tokens a second."""
    from llm_perf_model.cost import listed_usd_per_hour

    best = small().best
    hourly = best.devices * (listed_usd_per_hour(best.gpu) or 0.0)
    assert best.usd_per_hour == hourly
    assert best.usd_per_million_output_tokens == pytest.approx(hourly / (20 * 256 * 3600) * 1e6)


def test_a_load_that_one_replica_serves_ten_times_needs_ten() -> None:
    """With no objective of latency replicas fill up to the same utilisation, whatever their number."""
    one = small(gpus="h100-sxm-80gb", max_replica_devices=1, requests_per_s=1e-3).best
    fills = one.capacity_ratio * 1e-3
    ten = small(gpus="h100-sxm-80gb", max_replica_devices=1, requests_per_s=9.5 * fills)
    assert {option.replicas for option in ten.options if not option.prefill_replicas} == {10}


def test_a_model_larger_than_a_node_has_stages_and_experts_are_spread() -> None:
    """810 GB of weights, on nodes of 8 x 80 GB: two of them; 46.7 billion weights with 8 experts: whole or sliced."""
    asked = {"requests_per_s": 1, "input_len": 500, "output_len": 100, "gpus": "h100-sxm-80gb"}
    large = lpm.plan("llama-3.1-405b", **asked)
    assert large.best.layout == "tp 8 pp 2"
    assert large.best.replica_devices == 16
    assert {each.reason.split(":")[0] for each in large.rejected} == {"memory"}
    sparse = lpm.plan("mixtral-8x7b", **asked)
    assert {"tp 2", "tp 2 ep 2", "tp 4 ep 4"} <= {option.layout for option in sparse.options}


def test_prefills_apart_leave_the_decode_alone() -> None:
    """Tight times per token and long prompts: replicas of their own, in a ratio of prefill to decode."""
    asked = {"requests_per_s": 30, "input_len": 8000, "output_len": 100, "gpus": "h100-sxm-80gb", "tpot_s": 0.012}
    found = small(**asked, max_replica_devices=1, ttft_s=2.0)
    apart = [option for option in found.options if option.prefill_replicas]
    together = [option for option in found.options if not option.prefill_replicas]
    assert found.best in apart
    assert all((option.usd_per_hour or 0.0) > (found.best.usd_per_hour or 0.0) for option in together)


def test_a_cache_that_waits_for_a_place_makes_tokens_late() -> None:
    """Of an exponential wait that a share w has, p95 is its mean times ln(w / 0.05); 64 steps share it."""
    fields = {"requests_per_s": 1, "input_len": 512, "output_len": 65, "gpus": "h100-sxm-80gb", "max_batch_size": 2}
    of = replica(PlanRequest.of({"model": "llama-3.1-8b", **fields}))
    row = stacked([of.shared()])
    apart, together = (Latency(row, of.load, 0.95, waits_later=later) for later in (True, False))
    state = apart.state(0.8 * row.capacity_per_s)
    wait_s = state.place.mean_s * math.log(float(state.place.chance[0]) / 0.05)
    assert float(wait_s[0]) > 0.0
    assert apart.tpot_s(state) - together.tpot_s(state) == pytest.approx(wait_s / 64)


# The answer.


def test_the_answer_as_text_and_as_data() -> None:
    found = small(ttft_s=1.0, tpot_s=0.05)
    text = found.report().text(80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "price +" in text
    data = found.to_dict()
    assert data["best"]["devices"] == found.best.devices
    assert data["request"]["gpus"] == CARDS
    assert len(data["options"]) == len(found.options)


def test_a_runner_up_says_why_it_lost() -> None:
    found = small(objective="devices", requests_per_s=1.0, max_replica_devices=1)
    assert found.best.devices == 1
    for option in found.runners_up:
        assert found.lost_by(option).startswith("power +" if option.devices == 1 else "devices +100.0%")
    cheap = small(requests_per_s=1.0, max_replica_devices=1)
    dearer = cheap.runners_up[0]
    ratio = (dearer.usd_per_hour or 0.0) / (cheap.best.usd_per_hour or 1.0)
    assert cheap.lost_by(dearer) == f"price +{ratio - 1.0:.1%}"


def test_all_devices_with_a_price_are_tried() -> None:
    found = lpm.plan("llama-3.1-8b", **LOAD, max_replica_devices=1)
    known = {option.gpu for option in found.options} | {each.gpu for each in found.rejected}
    assert {"h100-sxm-80gb", "l4-pcie-24gb", "rtx-4090", "mi300x-oam-192gb"} <= known
    assert "p4-pcie-8gb" not in {option.gpu for option in found.options}


def test_the_command_gives_the_same(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    flags = ["--requests_per_s=20", "--input_len=1024", "--output_len={mean:256,cv:0.5}", "--format=csv"]
    cards = ["--gpus=h100-sxm-80gb,l4-pcie-24gb", "--max_replica_devices=1", f"--output={path}"]
    code, out, err = run("llama-3.1-8b", *flags, *cards)
    assert (code, out.strip(), err) == (0, f"written: {path}", "")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["gpu"] for row in rows} == {"h100-sxm-80gb", "l4-pcie-24gb"}


# Bad input.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"requests_per_s": 0}, "requests_per_s: is 0; must be a number above 0"),
        ({"requests_per_s": None}, "request: requests_per_s is missing; give it, or a trace"),
        ({"input_len": -5}, "input_len: is -5; must be a number of at least 1, {mean: 512, cv: 0.8} or "
         "{values: [128, 1024], weights: [3, 1]}"),
        ({"output_len": {"values": [1, 2], "weights": [1]}}, "output_len: is {'values': [1, 2], 'weights': [1]}; "
         "must be a number of at least 1, {mean: 512, cv: 0.8} or {values: [128, 1024], weights: [3, 1]}"),
        ({"output_len": 1}, "output_len: is 1; must be above 1 on average: prefills alone share no steps"),
        ({"percentile": 95}, "percentile: is 95; must be a number from 0.5 to 0.999"),
        ({"objective": "price"}, "objective: is 'price'; must be one of usd_per_hour, devices, power_w"),
        ({"ttft": 1.0}, "ttft: is not a known field; did you mean ttft_s?"),
        ({"gpus": []}, "gpus: is an empty list; leave it out for all"),
        ({"trace": "x.csv"}, "request: trace and input_len or output_len exclude each other: a trace has lengths of "
         "its own"),
        ({"model": "bert-large"}, "model: bert-large is no decoder of text; plans are of those"),
        ({"model": "resnet50"}, "model: resnet50 is a network of layers; a plan is of models that generate text"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(lpm.RequestError) as found:
        small(**fields)
    assert str(found.value) == message


def test_an_unknown_device_has_a_near_one() -> None:
    with pytest.raises(lpm.UnknownNameError, match="did you mean h100-sxm-80gb"):
        small(gpus=["h100-sxm-80g"])


def test_a_trace_without_a_column_or_with_a_wrong_number_says_where(tmp_path: Path) -> None:
    asked = {"input_len": None, "output_len": None, "requests_per_s": None}
    path = write(tmp_path / "t.csv", "arrival_s,input_len", [(0.0, 1.0)])
    with pytest.raises(
        lpm.RequestError, match=r"t\.csv has no column output_len; must have arrival_s, input_len, output"
    ):
        small(**asked, trace=path)
    path = write(tmp_path / "u.csv", "arrival_s,input_len,output_len", [(0.0, 9.0, 9.0), (1.0, 0.0, 9.0)])
    with pytest.raises(lpm.RequestError, match=r"u\.csv line 3: input_len is '0\.0'; must be a number of at least 1"):
        small(**asked, trace=path)
    with pytest.raises(lpm.RequestError, match=r"trace: cannot read .*none\.csv: No such file"):
        small(**asked, trace=str(tmp_path / "none.csv"))


def test_what_no_device_meets_names_the_nearest() -> None:
    with pytest.raises(
        lpm.InfeasibleError, match=r"nearest: h100-sxm-80gb w16a16 tp 2: tpot_s 0\.00\d+ at least, more"
    ):
        small(tpot_s=0.001)
    with pytest.raises(lpm.InfeasibleError, match=r"usd_per_hour [\d.]+, more than max_usd_per_hour = 0\.1"):
        small(max_usd_per_hour=0.1)
    with pytest.raises(lpm.InfeasibleError, match="131072 positions"):
        small(input_len=200000)
