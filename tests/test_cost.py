"""What an estimate costs: rental and electricity, whose price, and shares by request and by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import llm_perf_model as lpm
from llm_perf_model.cost import Cost, Price, cheapest, usd
from llm_perf_model.errors import RequestError, SpecError
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.price import Offer, PriceSpec, TariffSpec

from .running import Run, runner
from .strategies import DRAWN, powers

LISTS = tuple(load(PriceSpec, name) for name in names(PriceSpec))
OFFERED = sorted({gpu for spec in LISTS for gpu in spec.offers})
UNOFFERED = sorted(set(names(GpuSpec)) - set(OFFERED))
GIVEN: dict[str, Any] = {"batch_size": 4, "input_len": 300, "output_len": 25, "usd_per_gpu_hour": 1.8}
ADDED_UP = ("usd", "usd_per_request", "usd_per_million_input_tokens", "usd_per_million_output_tokens")


@st.composite
def prices(draw: st.DrawFn) -> Price:
    hourly, kwh = draw(st.floats(0.0, 20.0)), draw(st.one_of(st.just(0.0), st.floats(0.01, 1.0)))
    return Price(hourly, kwh, draw(st.floats(1.0, 3.0)), draw(st.floats(0.05, 1.0)), "drawn")


def offers(name: str, **usd_per_hour: float) -> PriceSpec:
    """A list of prices by device, whose names have dashes for underscores."""
    found = {gpu.replace("_", "-"): Offer(usd_per_hour=usd, date="2026-01-31") for gpu, usd in usd_per_hour.items()}
    return PriceSpec(name=name, title=name.title(), assumed=DRAWN, offers=found)


def tariff(usd_per_kwh: float, pue: float) -> TariffSpec:
    return TariffSpec(name="drawn", title="Drawn", assumed=DRAWN, usd_per_kwh=usd_per_kwh, pue=pue, date="2026-01")


def cost(model: str = "test-13b", **options: Any) -> Cost:
    found = lpm.estimate(model, **options).cost
    assert found is not None
    return found


# Dollars of a phase


@pytest.mark.parametrize(
    ("devices", "hours", "kwh", "price", "dollars"),
    [
        (1, 1.0, 0.0, Price(3.0, 0.0, 1.0, 1.0, ""), 3.0),
        (2, 0.5, 0.0, Price(3.0, 0.0, 1.0, 1.0, ""), 3.0),
        (2, 0.5, 0.0, Price(3.0, 0.0, 1.0, 0.5, ""), 6.0),  # pays for idle hours too
        (1, 1.0, 2.0, Price(0.0, 0.1, 1.5, 1.0, ""), 0.3),  # 2 kWh x 1.5 x 0.1
        (1, 1.0, 2.0, Price(0.0, 0.1, 1.5, 0.5, ""), 0.3),  # idle hours draw nothing
        (1, 1.0, 2.0, Price(3.0, 0.1, 1.5, 0.5, ""), 6.3),
        (8, 1.0, 2.0, Price(3.0, 0.0, 2.0, 1.0, ""), 24.0),  # electricity is in the price
        (4, 0.0, 0.0, Price(3.0, 0.1, 1.5, 1.0, ""), 0.0),
    ],
)
def test_dollars_by_hand(devices: int, hours: float, kwh: float, price: Price, dollars: float) -> None:
    assert usd(price, devices, 3600.0 * hours, 3.6e6 * kwh) == pytest.approx(dollars, rel=1e-14)


@given(prices(), st.integers(1, 64), powers(-3.0, 5.0), powers(0.0, 9.0), st.floats(0.01, 100.0))
def test_dollars_are_linear(p: Price, devices: int, time_s: float, energy_j: float, factor: float) -> None:
    """In the prices, in time and energy, and in devices that each draw as much."""
    whole = factor * usd(p, devices, time_s, energy_j)
    dearer = Price(factor * p.usd_per_gpu_hour, factor * p.usd_per_kwh, p.pue, p.utilisation, "")
    assert usd(dearer, devices, time_s, energy_j) == pytest.approx(whole, rel=1e-12)
    assert usd(p, devices, factor * time_s, factor * energy_j) == pytest.approx(whole, rel=1e-12)
    assert usd(p, factor * devices, time_s, factor * energy_j) == pytest.approx(whole, rel=1e-12)


@given(prices(), st.integers(1, 64), powers(-3.0, 5.0), powers(0.0, 9.0))
def test_half_the_utilisation_doubles_the_rental_alone(p: Price, devices: int, time_s: float, energy_j: float) -> None:
    full, half = (Price(p.usd_per_gpu_hour, p.usd_per_kwh, p.pue, u, "") for u in (1.0, 0.5))
    electricity = usd(full, devices, 0.0, energy_j)
    rental = usd(full, devices, time_s, 0.0)
    assert usd(full, devices, time_s, energy_j) == pytest.approx(rental + electricity, rel=1e-12)
    assert usd(half, devices, time_s, energy_j) == pytest.approx(2.0 * rental + electricity, rel=1e-12)
    assert usd(half, devices, 0.0, energy_j) == electricity


@given(prices(), st.lists(st.tuples(powers(-3.0, 5.0), powers(0.0, 9.0)), min_size=1, max_size=5))
def test_arrays_equal_scalars(p: Price, points: list[tuple[float, float]]) -> None:
    time_s, energy_j = (np.array(column) for column in zip(*points, strict=True))
    assert np.asarray(usd(p, 3, time_s, energy_j)).tolist() == [usd(p, 3, *point) for point in points]


# The cost of an estimate


def test_the_cost_of_a_batch_by_hand() -> None:
    """Two devices at 1.80 dollars an hour: half a millidollar a second each."""
    e = lpm.estimate("test-13b", tp=2, **GIVEN)
    c = e.cost
    assert c is not None
    assert c.usd_per_hour == pytest.approx(3.6, rel=1e-12)
    assert c.usd == pytest.approx(1e-3 * e.total_s, rel=1e-12)
    assert c.usd_per_request == pytest.approx(1e-3 * e.total_s / 4, rel=1e-12)
    assert c.usd_per_million_input_tokens == pytest.approx(1e-3 * e.prefill_s / (4 * 300) * 1e6, rel=1e-12)
    assert c.usd_per_million_output_tokens == pytest.approx(1e-3 * e.decode_s / (4 * 25) * 1e6, rel=1e-12)
    assert (c.requests, c.input_tokens, c.output_tokens) == (4, 1200, 100)


@pytest.mark.parametrize("convention", ["power", "tdp"])
def test_electricity_by_hand(convention: str) -> None:
    e = lpm.estimate("test-13b", tp=2, usd_per_kwh=0.25, pue=1.2, energy_convention=convention, **GIVEN)
    c = e.cost
    assert c is not None
    assert c.usd == pytest.approx(1e-3 * e.total_s + e.energy_j / 3.6e6 * 1.2 * 0.25, rel=1e-12)
    if convention == "tdp":
        assert c.usd == pytest.approx((1e-3 + 800.0 / 3.6e6 * 0.3) * e.total_s, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tp": 4},
        {"dp": 3},
        {"layer_split": 2},
        {"usd_per_kwh": 0.3, "pue": 1.5},
        {"usd_per_kwh": 0.3, "layer_split": 4, "power_limit_w": 200},
        {"tariff": "us-industrial", "utilisation": 0.3, "energy_convention": "tdp"},
    ],
)
def test_input_and_output_shares_add_up_to_the_batch(options: dict[str, Any]) -> None:
    c = cost(**GIVEN, **options)
    shares_norms = c.usd_per_million_input_tokens * c.input_tokens + c.usd_per_million_output_tokens * c.output_tokens
    assert shares_norms == pytest.approx(1e6 * c.usd, rel=1e-12)
    assert c.usd_per_request * c.requests == pytest.approx(c.usd, rel=1e-12)
    assert c.prefill_usd > 0.0
    assert c.decode_usd > 0.0


@pytest.mark.parametrize("field", ["usd_per_gpu_hour", "usd_per_kwh", "pue"])
def test_an_estimate_is_linear_in_each_price(field: str) -> None:
    """The first and second step of three are as high as each other."""
    low, middle, high = (
        cost(**(GIVEN | {"usd_per_kwh": 0.2, "pue": 1.0} | {field: value})).usd for value in (1.0, 2.0, 3.0)
    )
    assert high - middle == pytest.approx(middle - low, rel=1e-6)
    assert middle > low


@pytest.mark.parametrize("kwh", [0.0, 0.3])
def test_replicas_cost_as_much_a_token_as_one(kwh: float) -> None:
    one, five = (cost(dp=n, usd_per_kwh=kwh, **GIVEN) for n in (1, 5))
    assert five.usd == pytest.approx(5.0 * one.usd, rel=1e-12)
    assert five.usd_per_hour == pytest.approx(5.0 * one.usd_per_hour, rel=1e-12)
    for name in ADDED_UP[1:]:
        assert getattr(five, name) == pytest.approx(getattr(one, name), rel=1e-12), name


def test_idle_stages_of_a_layer_split_are_paid_for() -> None:
    e = lpm.estimate("opt-6.7b", gpu="rtx-a6000", engine="pytorch-forward", layer_split=4, usd_per_gpu_hour=0.9)
    assert e.cost is not None
    assert e.cost.usd == pytest.approx(4 * 0.9 * e.total_s / 3600.0, rel=1e-12)


@pytest.mark.parametrize("layout", [{}, {"tp": 2}, {"layer_split": 4}])
def test_arrays_of_an_estimate_equal_scalars(layout: dict[str, int]) -> None:
    options = GIVEN | {"usd_per_kwh": 0.2, "pue": 1.3, "utilisation": 0.7} | layout
    batches, lens = np.array([1, 4, 64]), np.array([[16], [700]])
    many = cost(**(options | {"batch_size": batches, "input_len": lens}))
    for (i, j), _ in np.ndenumerate(np.empty((2, 3))):
        one = cost(**(options | {"batch_size": int(batches[j]), "input_len": int(lens[i, 0])}))
        for name in ADDED_UP:
            values = np.asarray(getattr(many, name))
            assert values.shape == (2, 3)
            assert values[i, j] == pytest.approx(getattr(one, name), rel=1e-12), name


def test_a_prompt_alone_costs_nothing_for_its_output() -> None:
    c = cost(**(GIVEN | {"output_len": 1}))
    assert c.usd_per_million_output_tokens == 0.0
    assert c.usd == c.prefill_usd


def test_an_encoder_costs_by_its_input_tokens() -> None:
    e = lpm.estimate("bert-base", batch_size=8, input_len=128, usd_per_gpu_hour=3.6)
    assert e.cost is not None
    assert e.cost.usd_per_million_input_tokens == pytest.approx(1e-3 * e.total_s / (8 * 128) * 1e6, rel=1e-12)
    assert e.cost.usd_per_million_output_tokens == 0.0


def test_a_power_limit_costs_rental_time() -> None:
    free, slow = (cost(power_limit_w=watts, **GIVEN) for watts in (None, 150))
    assert slow.usd > free.usd
    assert slow.usd_per_hour == free.usd_per_hour


# Whose price


def test_the_cheapest_of_three() -> None:
    lists = (offers("dear", a_card=3.0), offers("cheap", a_card=1.0, b_card=9.0), offers("middle", a_card=2.0))
    assert cheapest(lists, "a-card") == (1.0, "Cheap, 2026-01-31")
    assert cheapest(lists, "b-card") == (9.0, "Cheap, 2026-01-31")
    assert cheapest(lists, "c-card") is None
    assert cheapest((), "a-card") is None


def test_of_two_as_cheap_the_first_by_name_is_named() -> None:
    lists = (offers("zeta", card=1.0), offers("alpha", card=1.0))
    assert cheapest(lists, "card") == cheapest(lists[::-1], "card") == (1.0, "Alpha, 2026-01-31")


@pytest.mark.parametrize("gpu", OFFERED)
def test_without_a_list_the_lowest_listed_price_counts(gpu: str) -> None:
    lowest, name = min((spec.offers[gpu].usd_per_hour, spec.name) for spec in LISTS if gpu in spec.offers)
    spec = load(PriceSpec, name)
    price = cost("gpt2-small", gpu=gpu, precision="fp32").price
    assert price == Price(lowest, 0.0, 1.0, 1.0, f"{spec.title}, {spec.offers[gpu].date}")


@pytest.mark.parametrize("gpu", UNOFFERED[:3])
def test_a_device_that_no_list_has_costs_nothing_known(gpu: str) -> None:
    e = lpm.estimate("gpt2-small", gpu=gpu, precision="fp32", tariff="us-industrial")
    assert e.cost is None
    assert e.to_dict()["cost"] is None
    assert cost("gpt2-small", gpu=gpu, precision="fp32", usd_per_gpu_hour=0.4).price.usd_per_gpu_hour == 0.4


@pytest.mark.parametrize("name", names(PriceSpec))
def test_a_named_list_gives_its_own_price(name: str) -> None:
    spec = load(PriceSpec, name)
    gpu, offer = next(iter(spec.offers.items()))
    price = cost("gpt2-small", gpu=gpu, precision="fp32", price=name).price
    assert (price.usd_per_gpu_hour, price.origin) == (offer.usd_per_hour, f"{spec.title}, {offer.date}")


def test_a_named_list_without_the_device_is_refused_with_those_that_have_it() -> None:
    assert "a100-sxm-40gb" not in load(PriceSpec, "azure").offers
    with pytest.raises(lpm.InfeasibleError, match=r"^price azure has no offer of a100-sxm-40gb; .*: aws, lambda$"):
        lpm.estimate("test-13b", price="azure")


def test_an_unknown_tariff_is_refused_where_no_list_has_the_device() -> None:
    assert lpm.estimate("test-13b", gpu="rtx-a5000").cost is None
    with pytest.raises(SpecError, match=r"^unknown tariff 'nope'"):
        lpm.estimate("test-13b", gpu="rtx-a5000", tariff="nope")


def test_a_list_may_be_a_file_or_a_spec(tmp_path: Path) -> None:
    spec = offers("own", a100_sxm_40gb=0.7)
    path = tmp_path / "own.json"
    path.write_text(spec.model_dump_json(), encoding="utf-8")
    prices = [cost(price=price).price for price in (spec, str(path))]
    assert prices == [Price(0.7, 0.0, 1.0, 1.0, "Own, 2026-01-31")] * 2


def test_a_given_price_replaces_a_listed_one() -> None:
    price = cost(usd_per_gpu_hour=0.0).price
    assert (price.usd_per_gpu_hour, price.origin) == (0.0, "given")


@pytest.mark.parametrize(
    ("field", "word", "kind", "meant"),
    [("price", "lamda", "price", "lambda"), ("tariff", "us-industral", "tariff", "us-industrial")],
)
def test_an_unknown_name_is_answered_by_the_nearest(field: str, word: str, kind: str, meant: str) -> None:
    with pytest.raises(SpecError, match=rf"^unknown {kind} '{word}': did you mean {meant}"):
        cost(**{field: word})


def test_a_name_that_nothing_is_near_says_so() -> None:
    with pytest.raises(SpecError, match=r"^unknown price 'qqqq': no name is near it; `list prices` shows all \d+"):
        cost(price="qqqq")


# Electricity


@pytest.mark.parametrize("name", names(TariffSpec))
def test_a_tariff_gives_price_and_overhead(name: str) -> None:
    spec = load(TariffSpec, name)
    e = lpm.estimate("test-13b", tariff=name, usd_per_gpu_hour=0.0)
    assert e.cost is not None
    assert (e.cost.price.usd_per_kwh, e.cost.price.pue) == (spec.usd_per_kwh, spec.pue)
    assert e.cost.usd == pytest.approx(e.energy_j / 3.6e6 * spec.pue * spec.usd_per_kwh, rel=1e-12)


@pytest.mark.parametrize(
    ("given_too", "kwh", "pue"),
    [
        ({}, 0.5, 2.0),
        ({"usd_per_kwh": 0.1}, 0.1, 2.0),
        ({"pue": 1.1}, 0.5, 1.1),
        ({"usd_per_kwh": 0.0, "pue": 1.0}, 0.0, 1.0),
    ],
)
def test_given_numbers_replace_those_of_a_tariff(given_too: dict[str, Any], kwh: float, pue: float) -> None:
    price = cost(tariff=tariff(0.5, 2.0), **given_too).price
    assert (price.usd_per_kwh, price.pue) == (kwh, pue)


def test_without_a_tariff_electricity_is_in_the_price() -> None:
    plain, own = cost(**GIVEN), cost(usd_per_kwh=0.2, **GIVEN)
    assert (plain.price.usd_per_kwh, plain.price.pue) == (0.0, 1.0)
    assert (own.price.usd_per_kwh, own.price.pue) == (0.2, 1.0)
    assert cost(**GIVEN, usd_per_kwh=0.0, pue=2.0).usd == plain.usd < own.usd


# Answers


def test_an_answer_holds_numbers_price_and_origin() -> None:
    c = cost(tariff="eu-non-household", utilisation=0.5, **GIVEN)
    answer = json.loads(json.dumps(c.to_dict()))
    assert set(answer) == {"usd_per_hour", *ADDED_UP, "price"}
    assert all(answer[name] == getattr(c, name) for name in ADDED_UP)
    assert answer["price"] == {
        "usd_per_gpu_hour": 1.8, "usd_per_kwh": 0.198, "pue": 1.54, "utilisation": 0.5, "origin": "given",
    }  # fmt: skip
    assert answer["usd_per_hour"] == pytest.approx(3.6, rel=1e-12)


def test_arrays_are_lists_in_an_answer() -> None:
    answer = cost(**(GIVEN | {"batch_size": np.array([1, 2])})).to_dict()
    assert json.loads(json.dumps(answer)) == answer
    assert all(len(answer[name]) == 2 for name in ADDED_UP)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


def test_a_command_shows_the_price_and_whose_it_is(run: Run) -> None:
    listed = run("infer", "--model", "test-13b", "--price", "aws").out
    assert "AWS, on demand, 2026-11-09" in listed
    assert "a million input tokens" in listed
    assert "a million output tokens" in listed
    assert "(given)" in run("infer", "--model", "test-13b", "--usd_per_gpu_hour", "0.5").out
    unpriced = run("infer", "--model", "gpt2-small", "--gpu", UNOFFERED[0], "--precision", "fp32").out
    assert "mean power" in unpriced
    assert "a million" not in unpriced


def test_a_command_prices_an_encoder_by_its_input(run: Run) -> None:
    shown = run("infer", "--model", "bert-base", "--input_len", "128").out
    assert "a million input tokens" in shown
    assert "a million output tokens" not in shown


@pytest.mark.parametrize(("flag", "word"), [("--price", "lamda"), ("--tariff", "us-comercial")])
def test_a_command_refuses_an_unknown_name_in_one_line(run: Run, flag: str, word: str) -> None:
    done = run("infer", "--model", "test-13b", flag, word)
    assert (done.code, done.out) == (1, "")
    assert "did you mean" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("folder", "known"), [("prices", names(PriceSpec)), ("tariffs", names(TariffSpec))], ids=["prices", "tariffs"]
)
def test_a_command_lists_the_files(run: Run, folder: str, known: tuple[str, ...]) -> None:
    shown = run("list", folder).out
    assert all(name in shown for name in known)
    assert run("show", f"{folder}/{known[0]}").code == 0


# Bad input and files


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("usd_per_gpu_hour", (-0.1, float("nan"), "1", True)),
        ("usd_per_kwh", (-1, float("inf"), [0.1])),
        ("pue", (0.99, 0, "2")),
        ("utilisation", (0, 1.01, -0.5, None)),
        ("price", (True, [1], 2.5j)),
        ("tariff", (True, {})),
    ],
)
def test_a_wrong_field_is_named(field: str, values: tuple[object, ...]) -> None:
    for value in values:
        with pytest.raises(RequestError, match=rf"^{field}: "):
            lpm.estimate("test-13b", **{field: value})


@pytest.mark.parametrize(
    "make",
    [
        lambda: offers("empty"),
        lambda: offers("free", card=0.0),
        lambda: offers("negative", card=-1.0),
        lambda: Offer(usd_per_hour=1.0, date="last year"),
        lambda: tariff(0.0, 1.5),
        lambda: tariff(0.1, 0.9),
    ],
    ids=["no offer", "free", "negative", "date", "free electricity", "no overhead"],
)
def test_a_wrong_file_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


@pytest.mark.parametrize("name", names(PriceSpec))
def test_a_price_list_loads_and_offers_known_devices(name: str) -> None:
    spec = load(PriceSpec, name)
    assert spec.name == name
    assert set(spec.offers) <= set(names(GpuSpec))
    assert {gpu for source in spec.sources for gpu in source.fields} >= {f"offers.{gpu}" for gpu in spec.offers}
    assert all(0.01 < offer.usd_per_hour < 100.0 for offer in spec.offers.values())


@pytest.mark.parametrize("name", names(TariffSpec))
def test_a_tariff_loads(name: str) -> None:
    spec = load(TariffSpec, name)
    assert spec.name == name
    assert 0.02 < spec.usd_per_kwh < 1.0
    assert 1.0 <= spec.pue < 3.0
