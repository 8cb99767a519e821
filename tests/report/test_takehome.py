"""What is taken home, as files that others read: tables, model card, and the page of suspicious labels."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from any_run import searched
from PIL import Image
from rich.console import Console
from saved_models import facts_of
from trial_rows import trials_frame

from nls_tune.analysis.statistics import share_interval
from nls_tune.analysis.verdicts import findings
from nls_tune.datasets import load_dataset
from nls_tune.errors import InputError
from nls_tune.noise.label_issues import LabelIssues
from nls_tune.report.console.suspects import print_suspects
from nls_tune.report.html.suspects import MOST_SHOWN, suspects_page
from nls_tune.report.model_card import model_card
from nls_tune.report.predictions import prediction_table
from nls_tune.report.suspects import Suspects, suspect_table
from nls_tune.report.table_files import write_table_file
from nls_tune.spaces.settings import TrainingSettings

EVIL = "<img src=x onerror=alert(1)>"
ISSUES = LabelIssues(np.array([4, 1]), np.array([0, 1]), np.array([1, 0]), np.array([0.125, 0.25]))


@pytest.fixture(scope="module")
def verdict():
    (found,) = findings(trials_frame(searched({"ce": 0.6, "negative": 0.7}))).verdicts
    return found


def test_suspects_are_one_row_each():
    table = suspect_table(ISSUES, ["cat", "dog"], origins={"file": np.array([f"{i}.png" for i in range(5)])})
    assert table.to_pylist() == [
        {"rank": 1, "index": 4, "file": "4.png", "label": 0, "suggested_label": 1, "label_name": "cat",
         "suggested_name": "dog", "score": 0.125},
        {"rank": 2, "index": 1, "file": "1.png", "label": 1, "suggested_label": 0, "label_name": "dog",
         "suggested_name": "cat", "score": 0.25},
    ]  # fmt: skip
    assert suspect_table(ISSUES).column_names == ["rank", "index", "label", "suggested_label", "score"]


def test_suspects_name_the_loss_that_judged(capsys):
    settings = TrainingSettings(model="mlp", loss="gce", gce_q=0.5)
    dataset = load_dataset("twonorm", "symmetric:0.2", train_size=50)
    print_suspects(Suspects(ISSUES, 50, 3, settings, recommended=True), dataset, Console(width=120))
    assert "judged by 3 of mlp with the recommended configuration, gce, gce_q 0.5\n" in capsys.readouterr().out


def test_predictions_are_one_row_each():
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    assert prediction_table(probabilities).to_pylist() == [
        {"index": 0, "predicted": 1, "probability_0": 0.25, "probability_1": 0.75},
        {"index": 1, "predicted": 0, "probability_0": 0.5, "probability_1": 0.5},
    ]
    named = prediction_table(probabilities, ["b.png", "a.png"], ["cat", "dog"])
    assert named.column_names == ["file", "predicted", "predicted_name", "probability_0", "probability_1"]
    assert named["file"].to_pylist() == ["b.png", "a.png"]


def test_files_hold_what_the_table_does_and_float32_to_the_last_bit(tmp_path):
    values = np.random.default_rng(0).random(50, np.float32)
    table = pa.table({"name": [EVIL] * 50, "value": values})
    for name in ("a.csv", "b.parquet"):
        write_table_file(tmp_path / name, table)
    for found in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "b.parquet")):
        assert np.array_equal(found["value"].astype(np.float32), values)
        assert set(found["name"]) == {EVIL}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.txt", r"must end in \.csv or \.parquet"), ("no/a.csv", "folder that exists"), ("f.csv", "is a folder")],
)
def test_a_file_that_cannot_be_written_is_said(tmp_path, name, message):
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(InputError, match=message):
        write_table_file(tmp_path / name, pa.table({"a": [1]}))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_shows_each_image_as_it_is_and_takes_nothing_as_html(channels):
    images = np.random.default_rng(0).integers(256, size=(5, channels, 6, 7), dtype=np.uint8)
    page = suspects_page(EVIL, ISSUES, images, [EVIL, "b"]).decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "<script" not in page
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in shown]
    assert len(decoded) == 2
    for found, row in zip(decoded, ISSUES.indices, strict=True):
        assert np.array_equal(np.atleast_3d(found).transpose(2, 0, 1), images[row])


def test_the_page_says_how_many_are_left_out():
    many = MOST_SHOWN + 1
    zeros = np.zeros(many, np.int64)
    issues = LabelIssues(zeros, zeros, zeros + 1, np.zeros(many))
    page = suspects_page("digits", issues, np.zeros((1, 1, 2, 2), np.uint8)).decode()
    assert page.count("<li>") == MOST_SHOWN
    assert f"{many} labels are probably wrong; the {MOST_SHOWN} most suspicious are shown." in page
    assert "class 1" in page


def test_the_card_says_how_good_it_is_and_what_is_not_proven(verdict):
    card = model_card(facts_of(test_accuracy=0.9, num_test=100, noise_rate=0.2), verdict)
    assert "90.00 % on 100 clean test labels, 95 % interval [82.56, 94.48]" in card
    assert "may be no better" not in card  # it is cross-entropy itself
    assert "It is trained with cross-entropy: nothing was proven to beat that here." in card
    assert "100 noisy ones (training and validation), 20.0 % wrong" in card
    rate = {**facts_of().settings, "smooth_rate": -1.0}
    assert "It may be no better than plain cross-entropy" in model_card(facts_of(settings=rate), verdict)
    gce = {**facts_of().settings, "loss": "gce", "gce_q": 0.5}
    other = model_card(facts_of(settings=gce), verdict)
    assert "It may be no better than plain cross-entropy" in other
    assert "| loss | gce, gce\\_q 0.5 |" in other
    assert "smooth_rate" not in other
    better = model_card(facts_of(settings=rate, finding="better"), verdict)
    assert "this configuration was better than the strongest cross-entropy" in better


def test_without_a_test_set_the_card_claims_nothing(verdict):
    card = model_card(facts_of(trained_on="training"), verdict)
    assert "its accuracy is not known" in card
    assert "100 (training split only), an unknown share of them wrong" in card


def test_the_card_takes_nothing_as_markdown(verdict):
    card = model_card(facts_of(dataset=EVIL, class_names=(EVIL, "a_b", "[x](y)"), verdict=EVIL), verdict)
    assert "<img" not in card
    assert "[x](y)" not in card


def test_the_interval_of_a_share_is_wilsons():
    assert share_interval(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert share_interval(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert share_interval(0.0, 10)[0] == 0
