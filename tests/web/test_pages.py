"""The pages in a real browser, on the real api; conversions end as the test says."""

import re

import httpx
import psycopg
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, event

from app.domain.conversion import State
from app.domain.errors import Problem
from app.domain.report import Verdict
from tests.api.server import Backstage, submit, weights
from tests.delivery.reports import failed_report
from tests.web.artifacts import onnx_file


def converted(client: httpx.Client, backstage: Backstage) -> str:
    """Id of a conversion that passed."""
    conversion = submit(client).json()["id"]
    backstage.finish(conversion)
    return str(conversion)


def test_a_file_is_dropped_followed_and_downloaded(tab: Page, backstage: Backstage):
    tab.goto("/")
    tab.get_by_label("Architecture", exact=True).fill("torchvision/resnet18")
    tab.get_by_label("Architecture", exact=True).blur()
    expect(tab.locator("#summary")).to_have_text("torchvision/resnet18, an image classifier")
    tab.get_by_text("Options of the architecture").click()
    tab.get_by_label("num classes").fill("37")
    tab.locator("#file").set_input_files({"name": "mine.pth", "mimeType": "x/y", "buffer": weights(b"page")})
    expect(tab.locator("#chosen")).to_contain_text("mine.pth")
    tab.get_by_role("button", name="Convert").click()
    expect(tab.locator("#state")).to_have_text("Queued")
    conversion = tab.url.rsplit("/", 1)[1]
    asked = httpx.get(f"{tab.url.replace('/conversions/', '/v1/conversions/')}").json()
    assert asked["architecture_options"] == {"num_classes": 37}
    backstage.finish(conversion)
    expect(tab.locator(".banner.pass_with_notes strong")).to_have_text("Verified, with notes")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download torchvision-resnet18.onnx").click()
    assert download.value.suggested_filename == "torchvision-resnet18.onnx"
    expect(tab.get_by_text("onnxruntime.InferenceSession").first).to_be_visible()


def test_progress_shows_while_it_runs_and_it_can_be_canceled(tab: Page, client: httpx.Client, backstage: Backstage):
    conversion = submit(client).json()["id"]
    tab.goto(f"/conversions/{conversion}")
    backstage.start(conversion)
    expect(tab.locator("#state")).to_have_text("Running")
    expect(tab.locator("[data-stage=export]")).to_have_class("now")
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.locator("#told")).to_have_text("Asked to cancel.")


def test_a_failure_says_why_and_what_to_do(tab: Page, client: httpx.Client, backstage: Backstage):
    conversion = submit(client).json()["id"]
    problem = Problem(
        code="key_mismatch", title="The keys do not fit", status=422, detail="fc.weight is missing.",
        hint="Take another option.", extra={"missing_keys": ["fc.weight"]},
    )  # fmt: skip
    backstage.finish(conversion, state=State.failed, verdict=None, problem=problem, artifact=None)
    tab.goto(f"/conversions/{conversion}")
    expect(tab.locator(".banner.fail")).to_contain_text("What to do: Take another option.")
    expect(tab.locator("li", has_text="fc.weight")).to_be_visible()
    expect(tab.get_by_role("button", name="Try again")).to_be_visible()


def test_an_artifact_that_failed_verification_is_marked(tab: Page, client: httpx.Client, backstage: Backstage):
    conversion = submit(client).json()["id"]
    problem = Problem(code="parity_failed", title="It differs", status=422, detail="It computes something else.")
    backstage.finish(
        conversion, state=State.failed, verdict=Verdict.fail, problem=problem, finished_report=failed_report()
    )
    tab.goto(f"/conversions/{conversion}")
    expect(tab.get_by_role("link", name="Download although it is not verified")).to_have_attribute(
        "href", f"/v1/conversions/{conversion}/artifact?unverified=true"
    )


def test_what_the_service_refuses_is_shown_beside_the_form(tab: Page):
    tab.goto("/")
    tab.get_by_role("button", name="Convert").click()
    expect(tab.locator("#told")).to_have_text("Choose a checkpoint first.")
    tab.locator("#file").set_input_files({"name": "a.pth", "mimeType": "x/y", "buffer": weights()})
    tab.get_by_label("Architecture", exact=True).fill("torchvision/resnet19")
    tab.evaluate("document.getElementById('architecture').dispatchEvent(new Event('input'))")
    # The lookup of an unknown name is a 404, which the console tells; the form is what this test is about.
    answer = tab.request.get("/v1/architectures/torchvision/resnet19")
    assert answer.status == 404


@pytest.mark.parametrize(
    "path", ["/", "/conversions", "/checkpoints", "/architectures", "/architectures/torchvision/resnet18", "/problems",
             "/problems/key_mismatch", "/administration", "/sign-in"]
)  # fmt: skip
@pytest.mark.parametrize("width", [360, 1100])
def test_every_page_fits_and_has_one_heading(tab: Page, path: str, width: int):
    tab.clock.set_fixed_time("2028-01-01T00:00:00Z")
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.goto(path).status == 200
    assert tab.locator("h1").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_browser_gets_pages_for_errors_and_a_script_gets_json(client: httpx.Client):
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for path, status in [("/nowhere", 404), ("/v1/conversions/cnv_" + "0" * 32, 404), ("/v1/problems/nothing", 404)]:
        page = client.get(path, headers=html)
        assert page.status_code == status
        assert page.headers["content-type"].startswith("text/html")
        assert "Back to the start" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert client.get(path).headers["content-type"] == "application/problem+json"
    assert "text/html" in client.get("/v1/problems/key_mismatch", headers=html).headers["content-type"]
    assert client.get("/v1/problems/key_mismatch").json()["code"] == "key_mismatch"


def test_names_from_strangers_are_text(client: httpx.Client, backstage: Backstage, tab: Page):
    hostile = '<img src=x onerror="console.error(1)">'
    files = {"file": (hostile, weights(b"hostile name"))}
    answer = client.post(
        "/v1/conversions", data={"architecture": "torchvision/resnet18", "target": "onnx"}, files=files
    )
    tab.goto(f"/conversions/{answer.json()['id']}")
    assert tab.locator("main img").count() == 0
    tab.goto("/conversions")
    assert tab.locator("main img").count() == 0


def test_the_list_filters_by_state_and_goes_on(tab: Page, client: httpx.Client, backstage: Backstage):
    conversion = converted(client, backstage)
    tab.goto("/conversions?state=succeeded")
    expect(tab.locator(f"a[href='/conversions/{conversion}']")).to_be_visible()
    tab.goto("/conversions?state=timed_out")
    expect(tab.get_by_text("None is like that.")).to_be_visible()
    named = submit(client, labels={"team": "<vision>"}, name="nightly").json()["id"]
    tab.goto("/conversions")
    tab.get_by_label("Label").fill("team:<vision>")
    tab.get_by_role("button", name="Filter").click()
    expect(tab.locator("tbody tr")).to_have_count(1)
    expect(tab.locator(f"a[href='/conversions/{named}']")).to_have_text("nightly")


@pytest.fixture(scope="module")
def ten_thousand(backstage: Backstage) -> None:
    """As many finished conversions in the list, beside what other tests leave."""
    with psycopg.connect(backstage.database_url) as connection:
        connection.execute(
            """insert into conversions (id, state, checkpoint_sha256, architecture, target, options, verdict, problem)
               select 'cnv_' || md5(n::text), 'succeeded', 'ab', 'torchvision/resnet18', 'onnx',
                      jsonb_build_object('filler', repeat('x', 500)), 'pass', null
               from generate_series(1, 10000) n"""
        )


def test_the_list_takes_one_query_however_long_it_is(client: httpx.Client, ten_thousand: None):
    asked: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        page = client.get("/conversions", headers={"Accept": "text/html"})
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert page.text.count('name="id"') == 50
    assert len(asked) == 1, asked


def test_several_conversions_are_canceled_and_deleted_at_once(tab: Page, client: httpx.Client):
    ids = [submit(client, labels={"batch": "bulk"}).json()["id"] for _ in range(3)]
    tab.goto("/conversions?label=batch:bulk")
    tab.on("dialog", lambda dialog: dialog.accept())
    for act, told in (("Cancel", "3 done"), ("Delete", "3 done")):
        tab.get_by_label("Choose all on this page").check()
        expect(tab.locator("#count")).to_have_text("3 chosen")
        tab.get_by_role("button", name=act, exact=True).click()
        expect(tab.locator("#told")).to_have_text(told)
    assert [client.get(f"/v1/conversions/{id}").status_code for id in ids] == [404, 404, 404]


def test_two_conversions_are_compared_from_the_list(tab: Page, client: httpx.Client, backstage: Backstage):
    for opset, weight in ((18, 0.5), (20, 0.75)):
        conversion = submit(client, options={"opset": opset}, labels={"pair": "yes"}).json()["id"]
        backstage.finish(conversion, artifact=onnx_file(weight))
    tab.goto("/conversions?label=pair:yes")
    tab.get_by_label("Choose all on this page").check()
    tab.get_by_role("button", name="Compare two").click()
    expect(tab.get_by_text("1 of 2 tensors of the artifacts differ.")).to_be_visible()
    expect(tab.locator("tr", has_text="opset")).to_contain_text("18")
    expect(tab.locator(".row", has_text="fc")).to_contain_text("0.5 1 of 1")
    expect(tab.get_by_text("The same in both: norm")).to_be_visible()


def test_a_webhook_is_made_tried_and_deleted_by_who_administers(tab: Page):
    tab.on("dialog", lambda dialog: dialog.accept())
    tab.goto("/administration")
    tab.get_by_label("Address of a new webhook").fill("https://dashboard.example.com/recast")
    tab.get_by_label("timed out").check()
    tab.get_by_role("button", name="Make a webhook").click()
    expect(tab.locator("#secret")).to_contain_text("whsec_")
    tab.reload()
    row = tab.locator("#webhooks tbody tr")
    expect(row).to_contain_text("timed_out")
    row.get_by_role("button", name="Try it").click()
    expect(row).to_contain_text("pending")
    row.get_by_role("button", name="Delete").click()
    expect(row).to_have_text("None.")


def test_an_uploaded_file_is_converted_again_with_what_was_asked_before(
    tab: Page, client: httpx.Client, backstage: Backstage
):
    asked = submit(
        client, options={"opset": 20, "measure": ["latency"]}, architecture_options={"num_classes": 37}
    ).json()
    backstage.finish(asked["id"])
    tab.goto(f"/conversions/{asked['id']}")
    tab.get_by_role("link", name="Convert these weights otherwise").click()
    expect(tab.locator("#chosen")).to_contain_text("uploaded already")
    expect(tab.get_by_label("num classes")).to_have_value("37")
    expect(tab.locator("#target-opset")).to_have_value("20")
    expect(tab.get_by_label("latency")).to_be_checked()
    tab.locator("#target-opset").fill("19")
    tab.get_by_role("button", name="Convert").click()
    expect(tab.locator("#state")).to_have_text("Queued")
    again = client.get(f"/v1/conversions/{tab.url.rsplit('/', 1)[1]}").json()
    assert again["checkpoint"] == asked["checkpoint"]
    assert (again["options"]["opset"], again["options"]["measure"]) == (19, ["latency"])
    assert again["architecture_options"] == {"num_classes": 37}


def test_the_form_can_be_used_by_keyboard_alone(tab: Page):
    tab.goto("/")
    tab.keyboard.press("Tab")
    expect(tab.get_by_text("Skip to the content")).to_be_focused()
    reached = set()
    for _ in range(20):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"file", "architecture", "Convert"} <= reached


def test_a_conversion_is_asked_for_and_canceled_by_keyboard_alone(tab: Page):
    def reach(name: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()") == name:
                return
        pytest.fail(f"{name} is not reached by the keyboard")

    tab.goto("/")
    reach("file")
    tab.locator("#file").set_input_files({"name": "k.pth", "mimeType": "x/y", "buffer": weights(b"keyboard")})
    reach("architecture")
    tab.keyboard.type("torchvision/resnet18")
    reach("Convert")
    tab.keyboard.press("Enter")
    expect(tab.locator("#state")).to_have_text("Queued")
    reach("cancel")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Try again")).to_be_visible()


def test_the_guide_is_read_in_the_service(tab: Page):
    assert tab.goto("/guide").status == 200
    tab.get_by_role("link", name="HTTP contract").click()
    expect(tab.locator("h1")).to_be_visible()
    assert tab.locator("main script").count() == 0
    tab.get_by_label("Search the guide").fill("weight ledger")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("link", name="The weight ledger").last).to_be_visible()
    expect(tab.locator("article b").first).to_have_text(re.compile("weight|ledger", re.IGNORECASE))
    tab.goto("/guide/http-api")
    for link in tab.locator("article a[href^='/guide/']").all()[:20]:
        assert tab.request.get(link.get_attribute("href")).status == 200
