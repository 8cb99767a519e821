"""Static figures: what they draw are the numbers of the analysis, and their files are whole and the same every time."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from analyses import make_analysis, make_comparison
from fake_runs import write_fake_run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.text import Text
from sweeps import swept_trials

from nls_tune.analysis.analysis import Analysis, analyze
from nls_tune.analysis.rate_sweep import rate_sweeps
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.errors import InputError
from nls_tune.report.figures import DrawnFigures, draw_figures, save_figures, write_figures
from nls_tune.report.figures.latex import latex_table, latex_text
from nls_tune.report.figures.style import label, level_label, limits, styled
from nls_tune.report.rate_scale import rate_position, rate_positions
from nls_tune.runs import load_run, load_runs
from nls_tune.spaces.settings import RATE_ARMS

LEVELS = ("symmetric:0.2", "symmetric:0.4")
NAMES = {"accuracy_against_rate", "best_rate_against_noise", "confirmation"}
NASTY = r"$\frac{a}{0}$ 50 % & _x^2 #1 ~ <b> \input{/etc/passwd} 雑音" + "\x1b[2J\n"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return make_analysis(LEVELS)


@pytest.fixture(scope="module")
def drawn(analysis) -> DrawnFigures:
    return draw_figures(analysis)


def lines(axis, name: str) -> list[np.ndarray]:
    """The points of the lines of a panel with a name in the legend."""
    return [line.get_xydata() for line in axis.get_lines() if line.get_label() == name]


def test_accuracy_against_rate_has_the_points_the_mean_the_band_and_both_lines(analysis, drawn):
    (run,) = analysis.runs
    for k, (curve, summary) in enumerate(zip(run.rate_curves, run.summaries, strict=True)):
        for row, smoothed, split in ((0, curve.test, "test_accuracy"), (1, curve.validation, "val_accuracy")):
            axis = drawn.figures["accuracy_against_rate"].axes[k + 2 * row]
            for arm in RATE_ARMS:
                expected = [[rate_position(p.smooth_rate), getattr(p, split)] for p in curve.points if p.arm == arm]
                assert lines(axis, arm)[0].tolist() == expected
            x = rate_positions(smoothed.rates)
            mean = lines(axis, "local mean, 95 % band")[0].tolist()
            assert mean == [*map(list, zip(x, smoothed.mean, strict=True))]
            (band,) = axis.findobj(PolyCollection)
            corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
            assert corners == {*zip(x, smoothed.low, strict=True), *zip(x, smoothed.high, strict=True)}
            ce = summary.arms["ce"]
            level = ce.test_accuracy_at_best if row == 0 else ce.val_accuracy
            assert lines(axis, "selected CE")[0][:, 1].tolist() == [level, level]
            assert set(lines(axis, "noise-cancelling rate")[0][:, 0]) == {rate_position(curve.noise_cancelling_rate)}
            low, high = axis.get_xlim()
            assert low < rate_position(-4) < rate_position(0.6) < high


def test_a_sweep_takes_the_place_of_the_trials(analysis):
    (run,) = analysis.runs
    (sweep,) = rate_sweeps(swept_trials())
    partly = replace(run, rate_sweeps=(sweep,))
    figure = draw_figures(Analysis((partly,), None)).figures["accuracy_against_rate"]
    assert lines(figure.axes[0], "selected CE")  # where not all levels have a sweep yet, none is left out
    swept = replace(partly, rate_curves=())
    figure = draw_figures(Analysis((swept,), None)).figures["accuracy_against_rate"]
    by_split = [[rate.test for rate in sweep.rates], [rate.validation for rate in sweep.rates]]
    for axis, means in zip(figure.axes, by_split, strict=True):
        marked = [line.get_xydata() for line in axis.get_lines() if line.get_marker() in ("D", "s", "o")]
        points = dict(np.concatenate(marked).tolist())
        assert points == {
            rate_position(rate.smooth_rate): pytest.approx(mean.mean)
            for rate, mean in zip(sweep.rates, means, strict=True)
        }
        low, high = axis.get_ylim()
        assert all(low < mean.low < mean.high < high for mean in means)
        (best,), (ce,) = lines(axis, "best by validation"), lines(axis, "CE (r = 0)")
        assert best[0][0] == rate_position(-1.0)
        assert ce[0][1] == pytest.approx(means[2].mean)
        assert lines(axis, "noise-cancelling rate")


def test_rates_to_use_stand_at_their_noise_beside_theory(analysis, drawn):
    found = analysis.runs[0].rate_against_noise
    (axis,) = drawn.figures["best_rate_against_noise"].axes
    theory = lines(axis, "noise-cancelling rate\n(symmetric noise)")[0]
    expected = zip(found.theory_noise_rates, rate_positions(found.theory_rates), strict=True)
    assert theory.tolist() == [*map(list, expected)]
    best = lines(axis, "negative")[0].tolist()
    assert best == [[level.noise_rate, rate_position(level.smooth_rate)] for level in found.levels]


def test_the_confirmation_has_means_and_intervals_and_marks_what_to_use(analysis, drawn):
    left, right = drawn.figures["confirmation"].axes
    levels = analysis.runs[0].confirmations
    means = [c.test_at_best for level in levels for c in level.configurations]
    markers = [line.get_xydata()[0, 0] for line in left.get_lines() if line.get_marker() in "Dso"]
    assert markers == [mean.mean for mean in means]
    ends = [path.vertices[:, 0].tolist() for bars in left.collections for path in bars.get_paths()]
    np.testing.assert_allclose(ends, [[mean.low, mean.high] for mean in means])
    differences = [c.difference for level in levels for c in level.comparisons if c is not None]
    ends = [path.vertices[:, 0].tolist() for bars in right.collections for path in bars.get_paths()]
    np.testing.assert_allclose(ends, [[d.low, d.high] for d in differences])
    labels = [tick.get_text() for tick in left.get_yticklabels()]
    assert [text.endswith("★") for text in labels] == [True, False, False] * 2


def test_several_runs_have_folders(tmp_path):
    drawn = draw_figures(make_comparison(("a/run", "../b/run", "a_run"), LEVELS))
    places = {"a_run", "b_run", "a_run-3"}
    assert set(drawn.figures) == {f"{place}/{name}" for place in places for name in NAMES}
    written = save_figures(replace(drawn, figures={}), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == {f"{place}/table.tex" for place in places}


@pytest.mark.slow
def test_files_are_whole_and_the_same_in_another_process(tmp_path):
    """Also where sets have another order and the user other defaults."""
    program = (
        "import sys; from pathlib import Path\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 30\n"
        "from analyses import make_analysis\n"
        "from nls_tune.report.figures import write_figures\n"
        "write_figures(make_analysis(('symmetric:0.2',)), Path(sys.argv[1]), ('svg', 'pdf'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root, folder, hashes = Path(__file__).parents[3], tmp_path / "here", []
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests' / 'helpers'}"}
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    with subprocess.Popen(command, cwd=root, env=environment) as other:  # both draw at the same time
        write_figures(make_analysis(("symmetric:0.2",)), folder, ("png", "svg", "pdf"))
        assert other.wait(timeout=100) == 0
    for place in (folder, tmp_path / "there"):
        hashes.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(place.iterdir())})
    assert hashes[1].items() <= hashes[0].items()
    assert len(hashes[1]) == 2 * len(NAMES) + 1
    assert set(hashes[0]) == {"table.tex", *(f"{name}.{kind}" for name in NAMES for kind in ("png", "svg", "pdf"))}
    for name in NAMES:
        png = (folder / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width = int.from_bytes(png[16:20], "big")
        assert width == (792 if name == "best_rate_against_noise" else 1632)
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        pdf = (folder / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/Type3" not in pdf  # publishers refuse these fonts
        assert b"CreationDate" not in pdf


def test_names_are_text_and_never_formulas(tmp_path):
    drawn = draw_figures(make_analysis((NASTY,), text=NASTY, name="x"))
    with styled():  # what is made late, like labels of ticks, is made with our settings as well
        save_figures(drawn, tmp_path, ("svg",))
        found = [text for figure in drawn.figures.values() for text in figure.findobj(Text)]
    assert any(r"$\frac" in text.get_text() for text in found)
    assert not any(text.get_parse_math() for text in found)
    assert "\x1b" not in "".join(text.get_text() for text in found)
    assert mpl.rcParams["text.parse_math"] is True  # ours were for the drawing alone


def test_the_latex_table(analysis):
    text = latex_table(analysis.runs[0])
    rows = [line.strip() for line in text.splitlines() if line.strip().endswith(r"\\")]
    assert len(rows) == 2 + len(LEVELS)
    verdict = analysis.runs[0].verdicts[0]
    use, difference = verdict.use.test, verdict.difference
    cells = rows[2].removesuffix(r" \\").split(" & ")
    assert (cells[0], cells[3], cells[7]) == ("symmetric:0.2", "CE, 4, $0.003$", "no proven difference")
    assert cells[4] == rf"${100 * use.mean:.2f} \pm {100 * use.standard_deviation / 3**0.5:.2f}$"
    assert cells[5] == "$-1.5$"
    assert cells[6] == rf"${100 * difference.mean:+.2f} \pm {100 * (difference.high - difference.mean):.2f}$"
    assert [row.count("&") for row in rows] == [5, *[7] * (1 + len(LEVELS))]  # pairs of cells of the first are one
    assert text.count("{") == text.count("}")
    assert latex_table(make_analysis(LEVELS, confirmed=False).runs[0]) is None
    # A small learning rate has a minus and no hyphen.
    changed = replace(verdict, use=replace(verdict.use, config={**verdict.use.config, "lr": 2.5e-5}))
    assert r"CE, 4, $2.5 \cdot 10^{-5}$ & " in latex_table(replace(analysis.runs[0], verdicts=(changed,)))


@given(st.text("a雜\\{}$&#%_~^<>|\"'-\x1b\n\u202e"))
def test_latex_text_has_no_special_character_of_its_own(text):
    escaped = latex_text(text)
    rest = re.sub(r"\\text[a-z]+\{\}|\\[{}$&#%_]", "", escaped)
    assert not set(rest) & set("\\{}$&#%_~^")
    assert escaped.isprintable()


@pytest.mark.parametrize("changes", [{"has_test": False}, {"confirmed": False}])
def test_what_is_missing_is_said(drawn, changes):
    assert (set(drawn.missing), set(drawn.figures), set(drawn.tables)) == (set(), NAMES, {"table"})
    less = draw_figures(make_analysis(LEVELS, **changes))
    assert set(less.missing) == {"confirmation"}
    assert set(less.figures) == NAMES - {"confirmation"}
    assert less.tables == {}


def test_a_run_of_nothing_has_reasons_and_no_files(tmp_path):
    analysis = analyze([load_run(write_fake_run(tmp_path / "run", trials=0))])
    reasons = draw_figures(analysis).missing
    assert set(reasons) == NAMES
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert write_figures(analysis, tmp_path / "figures") == ()


@pytest.mark.parametrize(("changes", "missing"), [({"all_diverged": True}, NAMES), ({"num_test": 0}, {"confirmation"})])
def test_runs_in_every_state_are_drawn(changes, missing, tmp_path):
    levels = ("pairflip:0.3", "symmetric:0.6", "symmetric:0.1")
    run = write_fake_run(tmp_path / "run", levels=levels, unfinished=1, trials=2, epochs=6, **changes)
    paths = write_figures(analyze([load_run(run)]), tmp_path / "figures")
    assert {path.stem for path in paths} == NAMES - missing


@pytest.mark.slow
def test_many_trials_stay_a_small_file(tmp_path):
    (run,) = make_analysis(LEVELS).runs
    points = tuple(replace(run.rate_curves[0].points[0], smooth_rate=-i / 1000) for i in range(3000))
    many = replace(run, rate_curves=(replace(run.rate_curves[0], points=points),))
    figure = draw_figures(Analysis((many,), None)).figures["accuracy_against_rate"]
    (path,) = save_figures(DrawnFigures({"many": figure}), tmp_path, ("svg",))
    assert path.stat().st_size < 250_000


def test_limits_of_accuracies_span_a_point_at_least_and_labels_are_short():
    assert limits([0.97]) == pytest.approx((0.9642, 0.9758))
    assert limits([0.5, 0.9]) == pytest.approx((0.468, 0.932))
    assert (level_label("symmetric:0.4"), level_label("human:worst")) == ("symmetric, 40 %", "human:worst")
    assert len(label("x" * 100)) == 40
    assert label("a\nb\x1b") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_the_command(tmp_path, capsys):
    run = write_fake_run(tmp_path / "run", levels=("symmetric:0.2",), trials=6, epochs=6, confirm_seeds=2)
    folder = tmp_path / "new" / "figures"
    arguments = ["report", str(run), "--figures", str(folder)]
    assert run_app(app, [*arguments, "--figure-format", "svg, svg"]) == 0
    out = capsys.readouterr().out
    found = {path.name for path in folder.iterdir()}
    assert {f"Wrote {folder / name}" for name in found} <= set(out.splitlines())
    assert found == {"table.tex", *(f"{name}.svg" for name in NAMES)}
    assert "No " not in out
    assert (run / "report.html").exists()
    assert run_app(app, [*arguments, "--figure-format", "jpg"]) == 2
    assert "unknown format of figures 'jpg'" in capsys.readouterr().err
    assert run_app(app, [*arguments, "--figure-format", ","]) == 2
    assert "must name a format" in capsys.readouterr().err
    with pytest.raises(InputError, match="--figures must be a folder that can be written"):
        write_figures(analyze(load_runs([run])), run / "report.html" / "figures")
