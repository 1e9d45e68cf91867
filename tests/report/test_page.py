import os
import re
import shutil

import pytest

from fastsnn import cli, data
from fastsnn.sweep import LedgerError, weights
from fastsnn.sweep.ledger import FILE

from ..sweep import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished sweep, the folder of its report, and the cache of its weights."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.DATASETS, "few", tiny.load)
        patch.setenv("FASTSNN_CACHE", str(folder / "cache"))
        flags = ["--bn", "frozen", "batch", "--seed", "1", "2", "--quiet", "--out", str(folder / "run")]
        assert cli.main(["sweep", *tiny.FLAGS, *flags]) == 0
        assert cli.main(["report", str(folder / "run")]) == 0
        yield folder


def test_the_page_needs_nothing_else(run):
    page = (run / "run" / "report.html").read_text()
    said = "model sew_resnet18, data few, stem imagenet, width 4, T 4, K 8, coding phase, defence none, epochs 1,"
    assert f"All cells: {said}" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "no address but of embedded data"
    assert page.count("data:image/png;base64,") == 2 + 1
    for text in ("Max against average pooling at eps = 4/255", "Worst case over attacks", "Throughput", "Every cell"):
        assert text in page
    for text in ("train_batch_size", "processor", "means over the seeds", "spikingjelly"):
        assert text in page
    assert page.count("<tr><td>few</td>") == 2 * 2 + 2 * 2 * 3 * 2 + 48, "tables: poolings, worst cases, cells"


def test_figures_are_there_as_png_and_pdf(run):
    names = {path.name for path in (run / "run" / "figures").iterdir()}
    stems = {"accuracy-few-sew_resnet18-4-frozen", "accuracy-few-sew_resnet18-4-batch", "pictures"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}
    for name in names:
        start = (run / "run" / "figures" / name).read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n" or start.startswith(b"%PDF-")


def test_several_runs_are_sections_of_one_page_and_have_figures_of_their_own(run, tmp_path, capsys):
    folders = [tmp_path / "a" / "night", tmp_path / "b" / "night"]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy(run / "run" / FILE, folder)
    out = tmp_path / "out"
    runs = [*map(str, folders), str(folders[0])]  # one of them twice
    assert cli.main(["report", *runs, "--out", str(out), "--no-pictures"]) == 0
    page = (out / "report.html").read_text()
    assert page.count("<section>") == 2 and page.count("data:image/png") == 4
    names = {path.name for path in (out / "figures").iterdir()}
    assert len(names) == 8 and {name[:8] for name in names} == {"a-night-", "b-night-"}
    assert "\n4 figures as PNG and PDF are in " in capsys.readouterr().out


def test_a_refused_report_leaves_nothing(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for runs in (["runs/tpyo"], [str(run / "run"), "runs/tpyo", "--out", "runs/tpyo"]):
        assert cli.main(["report", *runs]) == 2
        assert "is not the folder of a sweep" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_weights_that_are_gone_are_said_and_cost_only_the_pictures(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "empty"))
    assert weights.directory().exists()
    assert cli.main(["report", str(run / "run"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "is not there any more, so no picture" in page and page.count("data:image/png") == 2


def test_damaged_weights_are_said_and_cost_only_the_pictures(run, tmp_path, monkeypatch):
    shutil.copytree(run / "cache", tmp_path / "cache")
    for file in (tmp_path / "cache" / "weights").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setenv("FASTSNN_CACHE", str(tmp_path / "cache"))
    assert cli.main(["report", str(run / "run"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "cannot be read" in page and page.count("data:image/png") == 2


def test_a_folder_without_a_ledger_is_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a sweep" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists() and issubclass(LedgerError, Exception)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium to show the page in: apt install chromium")
    with playwright.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        browser.close()


def test_a_browser_shows_the_figures_sorts_the_tables_and_reports_no_error(run, browser):
    errors = []
    page = browser.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else errors.append(request.url))
    page.goto((run / "run" / "report.html").as_uri())
    for image in page.locator("img").all():
        assert image.is_visible() and image.evaluate("image => image.naturalWidth") > 500
    cells = page.locator("table.sortable").nth(2)
    head = cells.locator("th", has_text="eps_255")
    column = [th.inner_text() for th in cells.locator("th").all()].index("eps_255") + 1
    shown = cells.locator(f"td:nth-child({column})")
    head.click()
    assert list(map(float, shown.all_inner_texts())) == sorted(map(float, shown.all_inner_texts()))
    head.click()
    numbers = list(map(float, shown.all_inner_texts()))
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 48 and numbers[0] == 16
    page.close()
    assert errors == []


@pytest.mark.parametrize("width", [1280, 420])
def test_at_any_width_nothing_is_cut_off(run, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((run / "run" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = "box => box.getBoundingClientRect().right <= box.closest('.card').getBoundingClientRect().right"
    for image in page.locator(".card img").all():
        assert image.evaluate(inside)
    if width == 1280:
        for table in page.locator("table.sortable").all():
            assert table.evaluate(inside), table.locator("th").all_inner_texts()
    page.close()
