"""See scripts/screenshots. The pictures in docs/images are three of these: start, conversion and compare."""

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.delivery.browser import ARGUMENTS, browser_path
from tests.service.running import Service, free_port

LOOKS = (("screen", 1100, "light"), ("phone", 390, "dark"))
TALLEST = 2400
COLOURS = 128
"""Of a picture: pages have few, and a picture in the repository should be small."""


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recast-screenshots-") as place:
        service = Service(Path(place) / "data", free_port())
        service.start()
        try:
            pages = {**of_conversions(service.url), **STANDING}
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
                for name, path in pages.items():
                    take(browser, service.url, path, directory, name)
                take_the_form(browser, service.url, directory, Path(place))
                take_progress(browser, service.url, directory)
                browser.close()
        finally:
            service.stop()


STANDING = {
    "conversions": "/conversions",
    "checkpoints": "/checkpoints",
    "architectures": "/architectures?query=resnet",
    "architecture": "/architectures/torchvision/resnet18",
    "administration": "/administration",
    "sign-in": "/sign-in",
    "problems": "/problems",
    "problem": "/problems/key_mismatch",
    "nowhere": "/nowhere",
    "guide": "/guide/tasks",
    "concepts": "/guide/concepts",
    "found": "/guide?query=weight+ledger",
    "documentation": "/docs",
}


def of_conversions(url: str) -> dict[str, str]:
    """Pages of a conversion that passed, of one of its weights trained on, and of one that fails."""
    torch.manual_seed(0)
    first = resnet18().state_dict()
    trained = {
        name: tensor + 0.01 * torch.randn_like(tensor)
        if name.startswith(("layer4", "fc")) and tensor.ndim > 1
        else tensor
        for name, tensor in first.items()
    }
    with httpx.Client(base_url=url, timeout=600) as client:
        passed = converted(client, {"epoch": 90, "model": first}, options='{"measure": ["latency", "matrix"]}')
        second = converted(client, trained)
        failed = converted(client, resnet18(num_classes=37).state_dict())
        sha256 = passed["checkpoint"]["sha256"]
    return {
        "conversion": f"/conversions/{passed['id']}",
        "report": f"/v1/conversions/{passed['id']}/report",
        "repeat": f"/conversions/{second['id']}",
        "failure": f"/conversions/{failed['id']}",
        "compare": f"/compare?first={passed['id']}&second={second['id']}",
        "graph": f"/graph/?url=/graph/{passed['id']}.onnx&identifier=resnet18.onnx",
        "checkpoint": f"/checkpoints/{sha256}",
    }


def converted(client: httpx.Client, checkpoint: object, **fields: str) -> dict[str, Any]:
    content = io.BytesIO()
    torch.save(checkpoint, content)
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=300"},
        files={"file": ("resnet18.pth", content.getvalue())},
        data={"architecture": "torchvision/resnet18", "target": "onnx", **fields},
    ).json()
    conversion: dict[str, Any] = answer.get("conversion") or answer
    return conversion


def take_progress(browser: Browser, url: str, directory: Path) -> None:
    """The page of a conversion while it runs."""
    with httpx.Client(base_url=url, timeout=60) as client:
        content = io.BytesIO()
        torch.save(resnet18().state_dict(), content)
        asked = {"architecture": "torchvision/resnet18", "target": "torchscript", "force": "true"}
        conversion = client.post("/v1/conversions", files={"file": content.getvalue()}, data=asked).json()
    for look, width, scheme in LOOKS:
        page = browser.new_page(base_url=url, viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(conversion["links"]["self"].removeprefix("/v1"))
        keep(page.screenshot(full_page=True), directory / f"progress-{look}.png")
        page.close()


def take(browser: Browser, url: str, path: str, directory: Path, name: str) -> None:
    for look, width, scheme in LOOKS:
        page = browser.new_page(base_url=url, viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(path)
        page.wait_for_load_state("networkidle")
        keep(page.screenshot(full_page=name != "graph"), directory / f"{name}-{look}.png")
        page.close()


def take_the_form(browser: Browser, url: str, directory: Path, place: Path) -> None:
    """The start page with a file that was read, and what the service takes it for."""
    chosen = place / "resnet18-epoch90.pth"
    torch.save({"epoch": 90, "model": resnet18().state_dict()}, chosen)
    for look, width, scheme in LOOKS:
        page = browser.new_page(base_url=url, viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto("/")
        page.locator("#file").set_input_files(chosen)
        page.get_by_role("button", name="Use torchvision/resnet18").wait_for()
        keep(page.screenshot(full_page=True), directory / f"start-{look}.png")
        page.close()


def keep(picture: bytes, path: Path) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
    image.quantize(COLOURS).save(path, optimize=True)
    print(f"{path}  {os.path.getsize(path) // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
