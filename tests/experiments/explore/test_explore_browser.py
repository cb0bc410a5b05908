"""The page of the lecture hall as a browser without a network has it: numbers, sliders, readers."""

import functools
import json
import math
import re

import numpy as np
import pytest
from browser import tab as open_tab
from explore_cases import COMPARE, S, at_finite_k, settings
from oracles import z_limit
from repository import ROOT

from experiments.compare.page import DASH, MINUS
from models.exact.linear_gaussian_finite import finite

PAGE = ROOT / "docs/explore.html"
SLIDERS = ("K", "M", "distance", "v", "D", "alpha")
LEFT, RIGHT, SPACE, TAB = 37, 39, 32, 9


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """The page that is in docs/, in one browser for all tests here."""
    with open_tab(tmp_path_factory.mktemp("profile")) as opened:
        opened.resize(1400, 1000)
        opened.open(PAGE)
        opened.settle()
        yield opened


# --- numbers ----------------------------------------------------------------------------------

SOURCE = (ROOT / "experiments/explore/exact.js").read_text()


@functools.cache
def given():
    return json.dumps(list(settings()))


def test_what_the_page_computes_is_what_models_exact_says(tab):
    worst = tab.evaluate(f"{COMPARE}(gaussian, {given()})")
    assert len(worst) == 13
    assert {name: error for name, error in worst.items() if not error < 1e-6} == {}


@pytest.mark.parametrize(
    ("right", "wrong", "names"),
    [
        (" + Math.log(K);", ";", {"bound"}),
        ("Math.min(0.2, 0.38 / steepest)", "Math.min(1, 4 / steepest)", {"bound", "theta"}),
        ("K > 1 ? K * (K - 1) * STEP", "K > 1 ? K * K * STEP", {"theta", "phi", "dreg"}),
        ("((t * t) / 6) * (one * of.gg4[j]", "((t * t) / 5) * (one * of.gg4[j]", {"dreg"}),
        ("2 * v - 1 - Math.log(2 * v)", "2 * v - 1 - Math.log(v)", {"elboGap"}),
        ("(ratio - 1) / (2 * K * t)", "ratio / (2 * K * t)", {"leading bound"}),
        ("[1, 0, logA2 - logK, -2 *", "[1, 0, logA2 - logK, -0 *", {"leading dreg"}),
    ],
    ids=["log K", "few nodes", "pairs", "factorial", "KL", "order 1/K", "cross terms"],
)
def test_the_same_check_finds_what_is_wrong(tab, right, wrong, names):
    assert SOURCE.count(right) == 1
    mutant = f"(() => {{ {SOURCE.replace(right, wrong)}; return gaussian; }})()"
    worst = tab.evaluate(f"{COMPARE}({mutant}, {given()})")
    assert {name for name, error in worst.items() if error > 1e-6} >= names


def text(tab, name):
    return tab.evaluate(f"document.getElementById('{name}').textContent")


def start(tab, run=0, **changes):
    """Presses the button of a run, then sets sliders to positions, as a script would."""
    sets = "".join(
        f"byId('{name}').value = {at}; byId('{name}').dispatchEvent(new Event('input'));"
        for name, at in changes.items()
    )
    tab.evaluate(
        "{ const byId = (id) => document.getElementById(id);"
        f"document.querySelector('[data-run=\"{run}\"]').click(); {sets} }}"
    )
    tab.settle()


def test_bars_are_draws_whose_estimates_have_the_exact_mean_and_variance(tab):
    start(tab, K=0, v=40, D=3, distance=30)
    draws = 60
    seen = tab.evaluate(
        f"""(async () => {{
          const seen = [];
          for (let i = 0; i < {draws}; i++) {{
            document.getElementById("draw").click();
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            seen.push(document.getElementById("weights-text").textContent);
          }}
          return seen;
        }})()"""
    )
    values = [
        float(re.search(r"estimate of the bound (\S+) nats", line)[1].replace(MINUS, "-"))
        for line in seen
    ]
    delta = np.full(3, 24 * (30 / 120) ** 2 * math.sqrt(S / 3))
    exact, log_p = finite(delta, 1), -1.5 * math.log(4 * math.pi) - 3 * 2 / 4
    z = (np.mean(values) - (log_p - exact.gap)) / (exact.deviation / math.sqrt(draws))
    assert abs(z) < z_limit(2)
    # Of log w, which has a longer tail than a normal variable: wide limits.
    ratio = np.var(values, ddof=1) / exact.deviation**2
    assert 0.3 < ratio < 3
    assert len(set(values)) == draws


def test_samples_keep_their_noise_and_each_has_a_bar(tab):
    bars = "document.querySelector('#weights .bar.bars').getAttribute('d').match(/V[^h]*h/g)"
    start(tab, K=3)
    few = tab.evaluate(f"{bars}.map((bar) => parseFloat(bar.slice(1)))")
    start(tab, K=4)
    many = tab.evaluate(f"{bars}.map((bar) => parseFloat(bar.slice(1)))")
    assert (len(few), len(many)) == (8, 16)
    order = np.argsort(few)
    assert np.all(np.diff(np.array(many[:8])[order]) >= 0)
    start(tab, K=4, M=2)
    assert tab.evaluate(f"{bars}.length") == 64


def test_tables_have_the_numbers_of_the_curves(tab):
    start(tab)
    cells = tab.evaluate(
        "[...document.querySelectorAll('#bounds-table tbody tr, #snr-table tbody tr')].map("
        "(row) => [...row.cells].map((cell) => cell.textContent))"
    )
    run = json.loads(text(tab, "runs"))[0]
    delta, offset = np.array(run["delta"]), np.array(run["offset"])
    for below, ratios in zip(cells[:8], cells[8:], strict=True):
        K = int(below[0])
        exact = finite(delta, K, run["variance"])
        snr = at_finite_k(delta, offset, K, run["variance"], 0.0, 0.0)
        shown = [below[2], below[3], ratios[1], ratios[3], ratios[5]]
        superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        shown = [s.translate(superscripts).replace(" · 10", "e") for s in shown]
        wanted = [exact.gap, exact.deviation, snr["theta"], snr["phi"], snr["dreg"]]
        np.testing.assert_allclose([float(s) for s in shown], wanted, rtol=0.006)


# --- hands ------------------------------------------------------------------------------------

SHOWN = """(() => {
  const curves = ["bounds", "snr"].flatMap((id) => [...document.querySelectorAll(`#${id} .line`)]);
  return curves.map((curve) => curve.getAttribute("d")).join() +
    [...document.querySelectorAll("svg .mark.now")].map((mark) => mark.getAttribute("d")).join();
})()"""


def focus(tab, name):
    """Goes to an element by the Tab key alone."""
    tab.evaluate("document.activeElement.blur()")
    for _ in range(40):
        tab.press("Tab", TAB)
        if tab.evaluate("document.activeElement.id") == name:
            return
    raise AssertionError(f"the Tab key never reaches {name}")


@pytest.mark.parametrize("name", SLIDERS)
def test_sliders_move_by_keys_and_by_the_mouse(tab, name):
    start(tab)
    focus(tab, name)
    position = f"Number(document.getElementById('{name}').value)"
    before, shown = (tab.evaluate(position), text(tab, f"{name}-value")), tab.evaluate(SHOWN)
    tab.press("ArrowRight", RIGHT)
    tab.settle()
    after = tab.evaluate(position), text(tab, f"{name}-value")
    assert after[0] == before[0] + 1
    assert after[1] != before[1]
    assert tab.evaluate(SHOWN) != shown
    tab.press("ArrowLeft", LEFT)
    tab.settle()
    assert tab.evaluate(position) == before[0]
    box = tab.evaluate(
        "(({ left, right, top, bottom }) => [left, right, (top + bottom) / 2])"
        f"(document.getElementById('{name}').getBoundingClientRect())"
    )
    middle = (box[0] + box[1]) / 2
    tab.drag((middle, box[2]), (box[1] - 1, box[2]))
    tab.settle()
    assert tab.evaluate(f"{position} === Number(document.getElementById('{name}').max)")
    assert text(tab, f"{name}-value") not in (before[1], after[1])


def test_dreg_goes_off_and_on_by_the_space_bar(tab):
    start(tab)
    seen = []
    for _ in range(2):
        focus(tab, "dreg")
        tab.press(" ", SPACE)
        tab.settle()
        seen.append(
            tab.evaluate(
                "[document.querySelectorAll('svg .dreg').length > 0,"
                "document.querySelector('.of-dreg').checkVisibility(),"
                "document.getElementById('now').textContent.includes('DReG')]"
            )
        )
    assert seen == [[False] * 3, [True] * 3]


def test_buttons_set_what_they_say(tab):
    start(tab)
    pressed = "[...document.querySelectorAll('[data-run]')].map((b) => b.ariaPressed)"
    points = "document.querySelectorAll('#snr .mark.interval').length"
    assert tab.evaluate(pressed) == ["true", "false"]
    assert tab.evaluate(points) >= 33
    start(tab, D=21)
    assert tab.evaluate(pressed) == ["false", "false"]
    assert tab.evaluate(points) == 0
    focus(tab, "equal")
    tab.press(" ", SPACE)
    tab.settle()
    cells = tab.evaluate("[...document.querySelectorAll('#now td')].map((c) => c.textContent)")
    assert cells[1] == "0"  # below log p(x)
    assert cells[4:] == ["0", DASH]  # no signal in phi; DReG has neither signal nor noise


# --- eyes and ears ----------------------------------------------------------------------------


def test_screen_readers_have_names_values_and_one_sentence_of_what_changed(tab):
    start(tab, K=6)
    tab.evaluate("new Promise((done) => setTimeout(done, 200))")
    nodes = tab("Accessibility.getFullAXTree")["nodes"]
    by_role = {}
    for node in nodes:
        role, name = node["role"]["value"], node.get("name", {}).get("value", "")
        by_role.setdefault(role, []).append((name, node.get("value", {}).get("value")))
    assert len(by_role["slider"]) == len(SLIDERS)
    assert all(name for name, _ in by_role["slider"])
    texts = tab.evaluate(
        f"{json.dumps(SLIDERS)}.map((id) => document.getElementById(id).ariaValueText)"
    )
    assert texts == [text(tab, f"{name}-value") for name in SLIDERS]
    assert {name for name, _ in by_role["image"]} >= {
        "The bound over K", "Signal-to-noise ratio of its gradient",
    }  # fmt: skip
    assert all(name for role in ("button", "checkbox", "image") for name, _ in by_role[role])
    assert tab.evaluate("document.getElementById('summary').ariaLive") == "polite"
    sentence = text(tab, "summary")
    assert re.search(
        r"IWAE with K = 64: \S+ nats below it .* θ \S+, φ \S+, φ by DReG \S+\.$", sentence
    )
    start(tab, K=7)
    tab.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert "K = 128" in text(tab, "summary")


CONTRAST = """(() => {
  const light = (color) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((x) => x / 255)
      .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  const ratio = (one, other) => {
    const [low, high] = [light(of(one)), light(of(other))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const grounds = ["--paper", "--tint"];
  return {
    text: grounds.flatMap((ground) => ["--ink", "--soft"].map((name) => ratio(name, ground))),
    curves: ["--theta", "--phi", "--dreg", "--limit", "--strong"].map((n) => ratio(n, "--paper")),
  };
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(400, 900), (1400, 1000)])
def test_page_is_readable_on_phones_and_projectors_in_both_schemes(tab, width, height, dark):
    start(tab)
    tab.resize(width, height, dark=dark)
    contrast = tab.evaluate(CONTRAST)
    assert min(contrast["text"]) > 4.5
    assert min(contrast["curves"]) > 3
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    sizes = tab.evaluate(
        "[...document.querySelectorAll('body *')].filter((e) => [...e.childNodes].some((n) =>"
        "n.nodeType === 3 && n.data.trim()) && e.checkVisibility() && !e.closest('script, footer'))"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= (15 if width == 1400 else 13)
    # All three pictures and all sliders are on one screen of a projector.
    if width == 1400:
        bottoms = tab.evaluate(
            "[...document.querySelectorAll('svg[role=img], input')].map("
            "(e) => e.getBoundingClientRect().bottom)"
        )
        assert max(bottoms) < height
    clipped = tab.evaluate(
        """[...document.querySelectorAll("svg[role=img]")].flatMap((svg) => {
          const { left, right, top, bottom } = svg.getBoundingClientRect();
          return [...svg.querySelectorAll("text")].map((text) => text.getBoundingClientRect())
            .filter((box) => box.left < left - 1 || box.right > right + 1 || box.top < top - 1 ||
              box.bottom > bottom + 1).length;
        })"""
    )
    assert clipped == [0, 0, 0]
    tab.resize(1400, 1000)


def test_nothing_fails_and_nothing_is_asked_of_a_network(tab):
    start(tab)
    asked = [
        event["params"]["request"]["url"]
        for event in tab.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert asked == [PAGE.as_uri()]
    problems = ("Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in tab.events if event.get("method") in problems] == []
    blocked = tab.evaluate(
        """new Promise((done) => {
          addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
          document.body.append(Object.assign(new Image(), { src: "https://example.org/a.png" }));
        })"""
    )
    assert blocked == "img-src"
