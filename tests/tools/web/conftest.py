"""A browser, and a server with the shipped panoptic model, for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from prediction.predictor import Predictor
    from tests.tools.web.browser import Visit


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    import hubconf
    from prediction.predictor import Predictor

    return Predictor(hubconf.SHIPPED / "detr_tiny_shapes_panoptic.pth", "cpu")


@pytest.fixture(scope="package")  # Playwright runs an event loop: tests with their own run it in another thread
def browser() -> Iterator[Any]:
    from tests.tools.web.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def port(browser: Any, predictor: Predictor) -> Iterator[int]:
    from tests.tools.web.serving import serving
    from tools.web.looking import Detector

    with serving(Detector(predictor, 1_000_000), max_bytes=500_000) as port:
        yield port


@pytest.fixture
def open_page(browser: Any, port: int) -> Iterator[Callable[..., Visit]]:
    """Opens the page; at the end, it has asked nobody else, and nothing was complained about."""
    from tests.tools.web.browser import Visit

    visits: list[Visit] = []

    def open_page(fragment: str = "", port: int = port, **options: Any) -> Visit:
        visits.append(Visit(browser, port, **options))
        return visits[-1].open(fragment)

    yield open_page
    for one in visits:
        one.context.close()
        assert all(url.startswith((one.address, "blob:")) for url in one.requests)
        assert one.complaints == []


@pytest.fixture
def visit(open_page: Callable[..., Visit]) -> Callable[..., Visit]:
    """`open_page`, with the objects in view instead of the panoptic map."""

    def open_objects(fragment: str = "", **options: Any) -> Visit:
        seen = open_page(fragment, **options)
        seen.page.check("#as-objects")
        return seen

    return open_objects
