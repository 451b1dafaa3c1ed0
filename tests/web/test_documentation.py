"""The page of operations is more than a picture: what is tried there is done, without any network."""

from playwright.sync_api import Page, expect

from tests.api.server import weights


def test_a_conversion_is_asked_for_in_the_page_of_operations(tab: Page):
    tab.goto("/docs")
    operation = tab.locator(".opblock", has=tab.get_by_text("Ask for a conversion", exact=True))
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_label("Request content type").select_option("multipart/form-data")
    operation.locator("[data-property-name=architecture] input").fill("torchvision/resnet18")
    operation.locator("[data-property-name=file] input[type=file]").set_input_files(
        {"name": "a.pth", "mimeType": "application/octet-stream", "buffer": weights(b"tried out")}
    )
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("202")
