from ray.tune.utils import flatten_dict

from nls_tune.metrics import ReadoutScore, Scores
from nls_tune.training.report import TrialReport


def test_a_report_comes_back_from_tune_which_flattens_dicts():
    plain = ReadoutScore("plain", 3, Scores(0.5, 0.25, 0.125), None)
    for report in (
        TrialReport(device="cpu", node="a"),
        TrialReport(device="cpu", node="a", plain=plain, average=plain),
    ):
        assert TrialReport.from_result(flatten_dict(report.to_result())) == report
