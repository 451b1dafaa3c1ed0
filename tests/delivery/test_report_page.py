"""The report as a page, in a real browser."""

from typing import get_args

import pytest

from app.delivery.report_page import render
from app.domain.checkpoint import TensorInfo
from app.domain.report import (
    BudgetReport,
    ConversionReport,
    Derivation,
    Finding,
    LedgerClass,
    OutputBudget,
    Quantization,
    QuantizedLayer,
    Reason,
    Verdict,
)
from tests.delivery.browser import opened, running_browser
from tests.delivery.reports import failed_report, report, verification


@pytest.fixture(scope="module")
def browser():
    with running_browser() as started:
        yield started


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\u202egnp.\x00\nkey' + "k" * 10_000


def hostile_report() -> ConversionReport:
    """A report whose every free text is an attack."""
    base = report()
    tensor = TensorInfo(name=HOSTILE, shape=(1,), dtype="float32", bytes=4)
    ledger = base.verification.ledger
    entry = ledger.entries[0].model_copy(update={"tensor": HOSTILE, "initializers": (HOSTILE,), "detail": HOSTILE})
    return report(
        architecture=HOSTILE,
        checkpoint_filename=HOSTILE,
        parameters=base.parameters.model_copy(update={"tensors": (tensor,)}),
        load=base.load.model_copy(update={"missing_keys": (HOSTILE,), "nesting": (HOSTILE,)}),
        checkpoint=base.checkpoint.model_copy(update={"notes": (HOSTILE,)}),
        options={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        export=base.export.model_copy(update={"warnings": (HOSTILE,), "input_names": (HOSTILE,)}),
        verification=verification(
            findings=(Finding(reason=Reason.not_strict, severity="note", detail=HOSTILE),),
            ledger=ledger.model_copy(update={"entries": (entry,), "problems": (HOSTILE,)}),
        ),
    )


def test_the_page_needs_nothing_from_anywhere(browser):
    with opened(browser, render(report())) as (page, happened):
        assert happened == []
        assert page.title() == "Verified, with notes: torchvision/resnet18 to onnx · Recast"
        assert page.locator(".banner.pass_with_notes strong").inner_text() == "Verified, with notes"
        assert page.get_by_text("All 26 uploaded tensors are accounted for").is_visible()


def test_hostile_names_are_text_and_nothing_else(browser):
    with opened(browser, render(hostile_report())) as (page, happened):
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true }")
        assert happened == []
        assert page.locator("script, img, iframe, object, link").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert "<script>alert(1)</script>" in page.locator("h1").inner_text()
        assert "\u202e" not in page.locator("h1").inner_text()


@pytest.mark.parametrize("width", [360, 800, 1400])
@pytest.mark.parametrize("make", [report, failed_report])
def test_the_page_fits_every_width(browser, width, make):
    with opened(browser, render(make()), width=width) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_bars_beyond_the_gate_are_seen_to_be(browser):
    with opened(browser, render(failed_report())) as (page, _):
        failing = page.locator(".row", has_text="normal-0").locator("svg")
        bar, gate = failing.locator("rect.bad").bounding_box(), failing.locator("line.gateline").bounding_box()
        assert bar["x"] + bar["width"] > gate["x"]
        assert page.get_by_text("First module that departs from eager: layer3.1").is_visible()
        assert page.get_by_text("culprit").is_visible()
    with opened(browser, render(report())) as (page, _):
        passing = page.locator(".row", has_text="normal-0").locator("svg")
        bar, gate = passing.locator("rect.good").bounding_box(), passing.locator("line.gateline").bounding_box()
        assert bar["x"] + bar["width"] < gate["x"]


def contrast(page, selector: str) -> float:
    """Contrast ratio of a text against its background (WCAG 2.2, 1.4.3)."""
    return page.locator(selector).first.evaluate(
        """element => {
            const light = text => {
                const parts = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            const pair = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
            return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }"""
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("make", [report, failed_report])
def test_words_can_be_read_in_light_and_dark(browser, dark, make):
    with opened(browser, render(make()), dark=dark) as (page, _):
        for selector in ("h1", ".banner strong", ".soft", ".chip", "details summary", "td", ".key"):
            assert contrast(page, selector) >= 4.5, selector


def test_every_verdict_and_reason_has_words():
    for verdict in Verdict:
        for reason in Reason:
            finding = Finding(reason=reason, severity="note", detail="why")
            page = render(report(verification=verification(verdict=verdict, findings=(finding,))))
            assert reason.value in page


def test_a_report_with_nothing_but_the_verdict_is_a_page():
    bare = verification(
        findings=(), probes=(), dims=(), sensitivity=None, detection=None, matrix=None, ledger=None, latency=None
    )
    assert "No output was compared" in render(report(verification=bare, timings={}, environment={}))


def test_long_tables_are_cut_and_counted():
    base = report()
    tensors = tuple(TensorInfo(name=f"t{n}", shape=(1,), dtype="float32", bytes=4) for n in range(5000))
    page = render(report(parameters=base.parameters.model_copy(update={"tensors": tensors})))
    assert "4000 more in the JSON report" in page
    assert len(page) < 1_000_000


def test_the_part_of_an_output_that_the_figures_are_of_is_named():
    assert "400 of axis 1" in render(report())


def test_the_same_report_gives_the_same_page():
    assert render(report()) == render(report())


@pytest.mark.parametrize("kind", get_args(LedgerClass))
def test_every_class_of_the_ledger_has_its_colour(kind: str) -> None:
    books = report().verification.ledger
    entries = tuple(entry.model_copy(update={"ledger_class": kind}) for entry in books.entries)
    drawn = books.model_copy(update={"entries": entries, "bytes_by_class": {kind: 100}})
    assert kind.replace("_", " ") in render(report(verification=verification(ledger=drawn)))


def test_an_approximation_tells_its_budget_its_layers_and_what_it_was_derived_from() -> None:
    exact = report()
    layers = (QuantizedLayer(layer="fc.weight", operator="Gemm", precision="fp32", snr_db=9.5),)
    budget = BudgetReport(
        snr_db=20, top1=0.99, default=True, outputs=(OutputBudget(output="logits", snr_db=31.4, top1=1, passed=True),)
    )
    page = render(
        report(
            export=exact.export.model_copy(update={"quantization": Quantization(activations="dynamic", layers=layers)}),
            verification=verification(verdict=Verdict.within_budget, findings=(), mode="budget", budget=budget),
            derived_from=Derivation(bytes=9, sha256="0" * 64, export=exact.export, verification=exact.verification),
        )
    )
    for told in (
        "Within its budget",
        "SNR 31.4 dB (the default budget: 20)",
        "9.5 dB",
        "Derived from",
        "0 of 1 layers",
    ):
        assert told in page, told
