"""The report of `wsengine tune` as files: a page that stands alone, its pictures, the figures; how a browser shows it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser

import pytest

from wsengine.tune.found import Found, Paced
from wsengine.tune.reason import Reason
from wsengine.tune.setting import Point, Setting
from wsengine.tune.shares import Shares

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures: pip install 'wsengine[tune]'")

from wsengine.tune.changes import Change
from wsengine.tune.files import write
from wsengine.tune.plots import ACCENT, COLOURS, INK, PALE, pictures
from wsengine.tune.report import lines

REASON = Reason("GIL-bound", "processors wait for the GIL for 50% & more", "cheaper <handlers>")
FIRST = Reason("I/O-bound", "processors wait for something outside for 90%", "more processors")
OURS = {**COLOURS, "ink": INK, "pale": PALE, "recommended": ACCENT}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def found():
    def point(number, rate, **more):
        processor = Shares(0.2, 0.1 * number, 0.1, 0.6 - 0.1 * number, 0.1)
        return Point(Setting(concurrency=number, **more), rate=rate, latency_p50=0.01, latency_p99=0.05 / number,
                     shares={"processor": processor, "reader": Shares(0.3, idle=0.7)},
                     threads={"processor": number, "reader": 1})

    points = [point(1, 1000.0), point(2, 2000.0), point(4, 4000.0), point(4, 3900.0, max_demand=10),
              Point(Setting(concurrency=8), problem="it <hangs>")]
    return Found(points, best=Setting(concurrency=4), seconds=12.0)


@pytest.fixture
def folder(tmp_path, found):
    write(tmp_path, found, REASON, FIRST, about="shop:handle on <trades>", figures=json.dumps({"command": "tune"}))
    return tmp_path


class Page(HTMLParser):
    """The tags that are open at the end, the sources of pictures, and the rows of the table."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.rows, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.rows += [attributes.get("class")] if tag == "tr" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_whole(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.rows == [None, None, None, "best", None, None]


def test_what_it_says_is_text_and_not_markup(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for said in ("shop:handle on &lt;trades&gt;", "processors=Processors(concurrency=4)", "50% &amp; more",
                 "it &lt;hangs&gt;", "cheaper &lt;handlers&gt;", "With one processor it is I/O-bound"):
        assert said in text


def test_the_pictures_are_files_too_and_the_figures_stand_beside_them(folder):
    for name in ("throughput", "latency", "shares"):
        data = (folder / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", data[16:24]) == (880, 462)
    assert json.loads((folder / "report.json").read_text()) == {"command": "tune"}


def test_pictures_over_concurrency_show_what_differs_in_nothing_else(found):
    assert [one.concurrency for one in found.along_concurrency()] == [1, 2, 4]


def test_latencies_are_shown_as_they_were_measured(found):
    assert "flat out" in pictures(found)["latency"][1]
    assert "at 500 messages a second" in pictures(found, 500.0)["latency"][1]
    flat_out = pictures(found)["latency"][0]
    found.paced = Paced(2000.0, "half", [Point(Setting(concurrency=2), latency_p50=0.001, latency_p99=0.002),
                                         Point(Setting(concurrency=4), latency_p50=0.001, latency_p99=0.003)])
    picture, said = pictures(found)["latency"]
    assert "at 2,000 messages a second, which is half" in said
    assert picture != flat_out
    found.paced = Paced(2000.0, "half", problem="it fell behind")
    assert "flat out" in pictures(found)["latency"][1]
    assert "Latency at a pace that it can bear: not measured, it fell behind." in list(lines(found, REASON, FIRST))


def test_what_would_change_it_is_told(tmp_path, found):
    found.changes = [Change("handle_messages", "handle_messages in a loop", found.best, (1.2, 1.4)),
                     Change("free-threaded", "Python without the <GIL>", found.best, problem="none is at hand")]
    write(tmp_path, found, REASON, FIRST, about="", figures="{}")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "handle_messages in a loop: 1.30 x as many messages a second (1.20 … 1.40)" in text
    assert "Python without the &lt;GIL&gt;: not measured, none is at hand" in text


def test_it_is_written_over_an_older_one(folder, found):
    before = (folder / "throughput.png").read_bytes()
    found.points[0] = Point(Setting(), rate=5000.0)
    write(folder, found, REASON, FIRST, about="again", figures="{}")
    assert (folder / "throughput.png").read_bytes() != before
    assert "again" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_latency_that_nobody_knows_is_a_dash_and_no_dot(tmp_path, found):
    found.points = [dataclasses.replace(point, latency_p50=None, latency_p99=None) for point in found.points]
    write(tmp_path, found, REASON, FIRST, about="", figures="{}")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>–</td><td>–</td>" in text
    assert "0 µs" not in text


def colours_of(image):
    """How many pixels there are of each of our colours, give or take what a browser makes of them."""
    pixels = image.convert("RGB").getcolors(1 << 24)
    return {name: sum(count for count, pixel in pixels if all(
        abs(a - b) <= 2 for a, b in zip(pixel, bytes.fromhex(colour[1:]), strict=True))) for name, colour in OURS.items()}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: nothing to look at the page with")
def test_a_browser_shows_the_plots(folder):
    """Each picture is there, whole and at its own size, and shows what it is to show: lines, the mark of what is recommended
    with all of its disc, shares of each colour."""
    from PIL import Image, ImageChops

    shot = folder / "shot.png"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
               "--window-size=1200,2600", f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}")
    command = [CHROMIUM, *options, (folder / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=90, check=False)
    assert shot.exists(), done.stderr.decode(errors="replace")
    wanted = {"throughput": ("ink", "recommended"), "latency": ("ink", "pale", "recommended"), "shares": tuple(COLOURS)}
    with Image.open(io.BytesIO(shot.read_bytes())) as page:
        assert page.size == (1200, 2600)
        page = page.convert("RGB")
        top = 0
        for name, colours in wanted.items():
            with Image.open(folder / f"{name}.png") as picture:
                picture = picture.convert("RGB")
            found = next((box for box in places(page, picture, top) if max(
                high for _, high in ImageChops.difference(page.crop(box), picture).getextrema()) <= 2), None)
            assert found is not None, f"{name} is not on the page"
            top = found[3]
            counts = colours_of(page.crop(found))
            assert all(counts[colour] > 60 for colour in colours), (name, counts)
            if name == "throughput":
                assert counts["recommended"] > 250, "of the disc, some 130 dots of a square inch are missing"


def places(page, picture, top):
    """Where a picture may stand in a page below a line: where its middle row does."""
    width, height = picture.size
    row = picture.crop((0, height // 2, width, height // 2 + 1)).tobytes()
    for y in range(top, page.size[1] - height):
        line = page.crop((0, y + height // 2, page.size[0], y + height // 2 + 1)).tobytes()
        at = line.find(row)
        if at >= 0 and at % 3 == 0:
            yield (at // 3, y, at // 3 + width, y + height)
