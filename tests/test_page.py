"""`report html=...` from hand-made records, read as text and in a real browser."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, seen
from cells import called
from test_paper_tables import ALL, HALF, NONE, N, chunk

from lgap_bench.cell.identity import NUMERICS_VERSION
from lgap_bench.record import Record, records
from lgap_bench.report.browser.build import write_page
from lgap_bench.report.browser.cells import grid
from lgap_bench.report.browser.ladder import gradient_calls, ladders
from lgap_bench.report.browser.pictures import albums, data_uri
from lgap_bench.report.page import AtMost, Empty, Table
from lgap_bench.runtime.files import content_id

EVIL = "<script>document.title = 'broken'</script><img src=x onerror=alert(1)>"
LGAP = "lgap/table1/lgap"
browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


def made(
    outputs,
    name,
    right,
    steps,
    view="full",
    experiment=None,
    overrides=(),
    purifier="lgap",
    side=12,
    config=None,
    **facts,
):
    """A finished record of four images with captions and pictures; its class, its captions and its reason are hostile."""
    from lgap_bench.evaluation.summary import summarise
    from lgap_bench.task.single_label import SINGLE_LABEL

    identity = {
        "seed": 0, "attack": {"name": name, "steps": steps, "draws": 2, "restarts": 1}, "view": view, "purifier": purifier,
        "n": 64, "threat": {"eps": "8/255"}, "numerics_version": NUMERICS_VERSION,
    }  # fmt: skip
    record = Record(outputs / "records" / content_id(identity))
    record.begin(config or {"dataset": {"classes": ["zero", EVIL]}, "note": EVIL}, identity)
    rng = np.random.default_rng(steps)
    kept = chunk(right, [1.0 - each for each in np.mean(right, 0)])
    kept |= {f"picture_{key}": rng.random((N, side, side, 3)) for key in ("clean", "attacked", "purified_clean", "purified_attacked")}  # fmt: skip
    kept |= {"clean_caption": np.array(["a photo of a one"] * N), "attacked_caption": np.array([EVIL] * N)}
    kept |= {"clean_caption_label": np.ones(N, bool), "attacked_caption_label": np.zeros(N, bool)}
    held = {"id": record.folder.name, "n": N, "seed": 0, "norm": "linf", "eps": "8/255", "view": view, "stages": {},
            "classes": ["zero", EVIL], "purifier_name": purifier, "classifier_name": "digits/standard", "attack_name": name,
            "view_name": view, "dataset_name": "digits", "captioner_name": "digits/blip", "threat_name": "digits/linf",
            "verdict": "upper bound", "reasons": [{"check": "x", "text": EVIL, "verdict": "upper bound"}], **facts}  # fmt: skip
    record.finish([kept], {**held, **summarise([kept], SINGLE_LABEL)}, {"seconds": 1.0, "torch": "2.0"})
    if experiment:
        record.request(experiment, list(overrides))
    return record


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    made(folder, "pgd", ALL, 40, "blind", LGAP, [f"experiment={LGAP}", "dataset=digits", "outputs=/home/me"])
    made(folder, "bpda", HALF, 40, "bpda", "lgap/table3/lgap_bpda", ["experiment=lgap/table3/lgap_bpda"])
    made(folder, "full", NONE, 20, "full", "lgap/beyond/full", ["experiment=lgap/beyond/full"])
    made(folder, EVIL, HALF, 10, "full", purifier="grey")
    return folder


@pytest.fixture(scope="module")
def page(outputs):
    result = called("report", f"html={outputs / 'report.html'}", f"outputs={outputs}")
    assert result.returncode == 0, result.stderr
    assert str(outputs / "report.html") in result.stdout
    return outputs / "report.html"


class Tags(HTMLParser):
    """Ids, inner links, everything that is loaded, headings, scripts and header cells without a scope."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loaded, self.levels, self.scripts, self.loose, self.alts = [], [], [], [], 0, 0, []

    def handle_starttag(self, tag, attrs):
        held = dict(attrs)
        self.ids += [held["id"]] if "id" in held else []
        self.links += [held["href"]] if tag == "a" else []
        self.loaded += [held[key] for key in ("src", "srcset", "data") if held.get(key)]
        self.loaded += [held["href"]] if tag in ("link", "use", "image") and "href" in held else []
        self.levels += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.scripts += tag == "script"
        self.loose += tag == "th" and "scope" not in held
        self.alts += [held.get("alt")] if tag == "img" else []


@pytest.fixture(scope="module")
def tags(page):
    read = Tags()
    read.feed(page.read_text())
    return read


def test_a_script_in_names_captions_reasons_and_configs_stays_text(page, tags):
    text = page.read_text()
    assert tags.scripts == 1
    assert "<script>document" not in text
    assert "onerror=alert(1)>" not in text
    assert text.count("&lt;script&gt;document") > 20


def test_the_page_loads_nothing_from_anywhere(tags):
    assert tags.loaded
    assert all(address.startswith(("data:", "#")) for address in tags.loaded)


def test_every_link_leads_to_a_place_on_the_page_and_no_place_is_there_twice(tags, outputs):
    assert len(tags.ids) == len(set(tags.ids))
    assert {link for link in tags.links if link.startswith("#r-")} == {f"#r-{each.folder.name}" for each in records(outputs)}  # fmt: skip
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)


def test_headings_tables_and_pictures_can_be_read_aloud(tags):
    assert tags.levels[0] == 1
    assert tags.levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(tags.levels, tags.levels[1:], strict=False))
    assert tags.loose == 0
    assert [alt for alt in tags.alts if not alt] == [""]  # the empty one of the dialog, which is filled when it opens


def test_the_first_screen_says_what_is_left_of_a_claim_under_the_lowest_of_all_attackers(page):
    first = page.read_text().split('id="ladder"')[0]
    assert "LGAP keeps 71.68 % on CIFAR-10 under blind PGD-40" in first
    row = re.search(r"<tr role=row>(?:(?!</tr>).)*blind PGD-40 \(table 1\).*?</tr>", first, re.DOTALL)[0]
    assert [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)][:4] == [
        "no: lower than published (in miniature)", "71.68", "≤ 100.0", "≤ 0.0",
    ]  # fmt: skip


def test_the_command_of_a_record_is_the_call_that_made_it_without_where_it_lies(page):
    text = page.read_text()
    assert f'<pre tabindex="0">lgap-bench run experiment={LGAP} dataset=digits</pre>' in text
    assert "No experiment asked for this cell" in text


def test_one_table_shows_its_own_records_alone(outputs, tmp_path):
    target = tmp_path / "one.html"
    result = called("report", f"html={target}", "table=lgap/3", f"outputs={outputs}")
    assert result.returncode == 0, result.stderr
    assert target.read_text().count("<article") == 3
    assert "lgap/1" not in target.read_text()


@pytest.mark.parametrize(
    "words, expected",
    [
        (["html={here}"], "is a folder: name a file in it"),
        (["html={here}/none/report.html"], "there is no folder {here}/none"),
        (["html={here}/r.html", "outputs={here}"], "no finished record"),
        (["html={here}/r.html", "table=lgap/9"], "table=lgap/9 is not known"),
        (["html={here}/r.html", "table=lgap/2"], "table=lgap/2: no record of its experiments"),
        (["html={here}/r.html", "dataset=nothing"], "dataset=nothing is not known"),
        (["html={here}/r.html", "format=latex"], "html=... with"),
        (["html={here}/r.html", "--captions"], "html=... with"),
        (["html="], "html= is not a key of report"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(outputs, tmp_path, words, expected):
    words = [word.format(here=tmp_path) for word in words]
    words = words if any(word.startswith("outputs=") for word in words) else [f"outputs={outputs}", *words]
    result = called("report", *words)
    assert result.returncode != 0
    assert expected.format(here=tmp_path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_record_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished record"):
        write_page([], tmp_path / "r.html")


def test_an_own_result_writes_the_page_of_its_records(outputs, tmp_path):
    from lgap_bench.own.result import Result, Rung

    found = [each for each in records(outputs) if each.summary()["purifier_name"] == "lgap"]
    result = Result("mine", "lgap", tuple((Rung("one", ()), each) for each in found), ())
    text = result.report(tmp_path / "mine.html").read_text()
    assert text.count("<article") == 3
    assert "<h1>lgap + mine on 4 images, linf 8/255</h1>" in text


def test_gradient_calls_are_steps_times_draws_times_restarts_and_members_add_up():
    pgd = {"steps": 40, "draws": 4, "restarts": 2}
    assert gradient_calls(pgd) == 320
    assert gradient_calls({"n_iter": 100, "draws": 20}) == 2000
    assert gradient_calls({"members": {"a": pgd, "b": {"n_iter": 5}}, "outside": {"square": {"n_queries": 300}}}) == 325
    assert gradient_calls({"n_queries": 300}) is None
    assert gradient_calls("pgd") is None


def test_a_ladder_climbs_from_who_sees_least_and_ends_with_the_worst_per_image(outputs):
    first = ladders(records(outputs))[0]
    assert [(line["view"], line["gradient_calls"]) for line in first.lines] == [
        ("blind", 80), ("bpda", 80), ("full", 40), ("per sample", None),
    ]  # fmt: skip
    assert first.lowest["robust"] == 0.0


def test_pictures_stop_where_the_room_ends_and_count_what_is_left_out(outputs):
    found = [(record, "") for record in records(outputs)]
    full, lost = albums(found)
    assert (len(full), lost) == (4, 0)
    size = sum(len(each.data) for strip in full[0].strips for each in strip.pictures)
    some, lost = albums(found, room=int(1.3 * size))
    assert len(some) < 4
    assert len(some) + lost == 4
    assert sum(len(each.data) for album in some for strip in album.strips for each in strip.pictures) <= 1.3 * size


@pytest.mark.slow
def test_the_page_of_as_many_records_as_all_papers_have_stays_below_five_megabytes(tmp_path):
    config = {"dataset": {"classes": ["zero", "one"]}, **{f"key_{place}": "x" * 40 for place in range(100)}}
    for place in range(250):
        made(tmp_path, f"attack{place % 5}", HALF, 1 + place, purifier=f"purifier{place // 5}", side=28, config=config)
    written = write_page(records(tmp_path), tmp_path / "report.html")
    text = written.read_text()
    assert written.stat().st_size < 5_000_000
    assert text.count("<article") == 250
    assert "to keep the file small" in text
    assert "the page has no room for more" in text


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 1)])
def test_a_picture_on_the_page_is_the_image_in_eight_bits(shape):
    import base64
    import io

    from PIL import Image

    image = np.random.default_rng(0).random(shape)
    raw = base64.b64decode(data_uri(image).partition(",")[2])
    read = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    assert np.abs(read / 255 - np.broadcast_to(image, (5, 7, 3))).max() <= 0.5 / 255 + 1e-9


def test_sections_numbers_and_blanks_of_a_table_are_known_to_the_page():
    rows = [{"row": "a", "x": AtMost(72.0)}, {"row": "[Ours]"}, {"row": "b", "x": Empty.NOT_RUN}, {"row": "c", "x": "50.0 (42.1-57.9), of 3"}]  # fmt: skip
    held = grid(Table(("row", "x"), rows), ())
    assert [section.title for section in held.sections] == ["", "Ours"]
    assert [[line.cells[1].number for line in section.lines] for section in held.sections] == [[72.0], [None, 50.0]]
    assert held.numeric == [False, True]


@browser
def test_in_a_browser_nothing_is_logged_pictures_load_and_a_script_stays_text(page, tmp_path):
    script = """
      const images = [...document.querySelectorAll('main img')];
      return [document.title, images.length, images.filter((each) => !each.naturalWidth).length,
              document.querySelectorAll('figure svg').length, document.scripts.length];
    """
    (title, images, broken, figures, scripts), console = seen(page, script, tmp_path)
    assert console == []
    assert title == "What holds: lgap-bench"
    assert images == 4 * 4 * 4
    assert broken == 0
    assert figures >= 1
    assert scripts == 2  # the page's, and the one that looks


@browser
def test_in_a_browser_a_column_sorts_up_and_down_with_blanks_last(page, tmp_path):
    script = """
      const table = [...document.querySelectorAll('#ladder table.sortable')].find((each) => each.caption.textContent.startsWith('lgap'));
      const place = [...table.tHead.rows[0].cells].findIndex((each) => each.textContent === 'gradient calls');
      const head = table.tHead.rows[0].cells[place], button = head.querySelector('button');
      const order = () => [head.getAttribute('aria-sort'), ...[...table.tBodies[0].rows].map((each) => each.cells[place].textContent)];
      const before = order();
      button.focus();
      const focused = document.activeElement === button;
      button.click();
      const up = order();
      button.click();
      return [before, up, order(), focused];
    """
    (before, up, down, focused), console = seen(page, script, tmp_path)
    assert before == [None, "80", "80", "40", "-"]
    assert up == ["ascending", "40", "80", "80", "-"]
    assert down == ["descending", "80", "80", "40", "-"]
    assert focused
    assert console == []


@browser
def test_in_a_browser_a_picture_opens_large_with_its_words(page, tmp_path):
    script = """
      const button = document.querySelector('button.zoom');
      button.click();
      const large = document.getElementById('large');
      const open = [large.open, large.querySelector('img').src === button.querySelector('img').src, large.querySelector('p').textContent];
      large.querySelector('button').click();
      return [...open, large.open];
    """
    (opened, same, words, still), console = seen(page, script, tmp_path)
    assert opened
    assert same
    assert words.startswith("clean image 1")
    assert not still
    assert console == []


@browser
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_in_a_browser_no_width_scrolls_the_page_sideways(page, tmp_path, width):
    script = """
      document.querySelectorAll('details').forEach((each) => { each.open = true; });
      return [innerWidth, document.documentElement.scrollWidth, document.body.scrollWidth];
    """
    (inner, whole, body), _ = seen(page, script, tmp_path, width)
    assert inner == width
    assert max(whole, body) <= width


@browser
def test_in_a_browser_text_stands_out_from_its_ground_in_light_and_dark(page, tmp_path):
    script = """
      const parts = (color) => color.match(/[0-9.]+/g).slice(0, 3).map((each) => each / 255)
        .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
      const light = (color) => { const [r, g, b] = parts(color); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      const ratios = ['body', '.note', 'a[href]', '.right', '.wrong', 'summary'].map((name) => {
        const ink = light(getComputedStyle(document.querySelector(name)).color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
      });
      return [ground, Math.min(...ratios)];
    """
    for dark in (False, True):
        (ground, least), _ = seen(page, script, tmp_path, dark=dark)
        assert (ground < 0.1) == dark
        assert least >= 4.5


def test_the_page_needs_no_torch(page):
    import subprocess

    code = "import sys, lgap_bench.report.browser.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
