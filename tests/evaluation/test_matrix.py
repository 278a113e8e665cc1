"""The matrix: a cell's numbers are those of scikit-learn, what is contaminated counts nowhere, tests are corrected."""

import json
from itertools import pairwise

import numpy as np
import pytest

from synthfer.config import load
from synthfer.evaluation.comparisons import compare, pairs_of_seeds
from synthfer.evaluation.contamination import NO_AUDITS, Audits
from synthfer.evaluation.inputs import VARIANTS, MatrixConfig
from synthfer.evaluation.matrix import matrix
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.metrics import METRICS, confusion, macro_f1
from synthfer.schema import ConfigError
from synthfer.statistics import cluster_bootstrap, mcnemar, paired_permutation
from tests.evaluation.matrix_inputs import a_test_set, candidate, facts, labels, pairs, probabilities, seen

FAST = {"replicates": 100, "permutations": 200}
METRIC_KEYS = ["accuracy", "macro_f1", "balanced_accuracy"]


def answered(candidates, tests, variants=("original",), sure=None):
    """Answers of every candidate on every test set; `sure` of some candidates by name."""
    return {
        (one.name, test.name, variant): probabilities(
            test.labels, (sure or {}).get(one.name, 2.0), seed=[i, j, k], classes=len(one.classes)
        )
        for i, one in enumerate(candidates)
        for j, test in enumerate(tests)
        for k, variant in enumerate(variants)
    }


def made(candidates, tests, answers=None, audits=None, **config):
    answers = answered(candidates, tests) if answers is None else answers
    found = NO_AUDITS if audits is None else Audits(pairs=audits)
    return matrix(candidates, tests, answers, MatrixConfig(**(FAST | config)), found)


def cell(result, recipe, test, variant="original"):
    (one,) = [c for c in result["cells"] if (c["recipe"], c["test"], c["variant"]) == (recipe, test, variant)]
    return one


def guard(run, name):
    (verdict,) = [verdict for verdict in run["guards"] if verdict["guard"] == name]
    return verdict


def test_the_shape_is_what_reports_read():
    candidates = [candidate("a-0"), candidate("a-1", seed=1), candidate("b-0")]
    tests = [a_test_set("rafdb"), a_test_set("expw", labels(200, 1))]
    result = made(candidates, tests, answered(candidates, tests, VARIANTS), baseline="a")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["format"] == "synthfer-matrix/1"
    assert (result["expressions"], result["metrics"]) == (list(EXPRESSIONS), METRIC_KEYS)
    words = [f"{key}={json.dumps(value)}" for key, value in result["config"].items()]
    assert load(MatrixConfig, words) == MatrixConfig(baseline="a", **FAST)
    assert (result["variants"], result["baseline"]) == (["original", "grey48"], "a")
    assert result["tests"][1] == {
        "name": "expw",
        "uri": "out/expw",
        "hash": "hash of expw",
        "splits": ["test"],
        "rows": 200,
        "support": np.bincount(labels(200, 1), minlength=7).tolist(),
        "collections": ["expw"],
        "ceiling": 0.76,
        "audited": False,
    }
    assert result["recipes"][0] == {
        "name": "a",
        "checkpoints": ["a-0", "a-1"],
        "seeds": [0, 1],
        "classes": {"a-0": list(EXPRESSIONS), "a-1": list(EXPRESSIONS)},
        "trained_on": ["expw:train"],
        "selection": "validation",
    }
    places = [(c["recipe"], c["test"], c["variant"]) for c in result["cells"]]
    assert places == [(r, t, v) for r in "ab" for t in ("rafdb", "expw") for v in VARIANTS]
    for one in result["cells"]:
        assert one["diagonal"] is (one["test"] == "expw")
        assert (one["contaminated"], one["reasons"], one["flagged_rows"]) == (False, [], 0)
        for run in one["runs"]:
            assert run["unmasked"] is run["without_flagged"] is None
            assert run["groups"] == {}
            assert [verdict["guard"] for verdict in run["guards"]] == ["G7", "G8", "G9", "G10", "G12"]
    assert [(row["recipe"], row["variant"]) for row in result["summary"]] == [(r, v) for v in VARIANTS for r in "ab"]


def test_the_numbers_of_a_cell_are_those_of_scikit_learn():
    reference = pytest.importorskip("sklearn.metrics")
    present = [0, 2, 3, 4, 5, 6]
    test = a_test_set(given=labels(400, classes=present))
    logits = np.random.default_rng(3).standard_normal((400, 8))
    logits[np.arange(400), test.labels] += 1
    order = [7, *(EXPRESSIONS.index(name) for name in ORDERS["rafdb"])]
    one = candidate(classes=("contempt", *ORDERS["rafdb"]))
    powers = np.exp(logits)
    whole = powers / powers.sum(1, keepdims=True)
    result = made([one], [test], {("a-0", "rafdb", "original"): whole[:, order].astype(np.float32)})
    (run,) = cell(result, "a", "rafdb")["runs"]

    probs = powers[:, present] / powers[:, present].sum(1, keepdims=True)
    truth, predicted = test.labels, np.array(present)[probs.argmax(1)]
    expected = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, predicted),
        "macro_f1": reference.f1_score(truth, predicted, average="macro"),
        "weighted_f1": reference.f1_score(truth, predicted, average="weighted"),
        "cohen_kappa": reference.cohen_kappa_score(truth, predicted),
    }
    assert {name: run["scores"][name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert run["scores"]["confusion"] == reference.confusion_matrix(truth, predicted, labels=range(7)).tolist()
    assert run["scores"]["f1"][1] is None

    one_hot = (truth[:, None] == present).astype(float)
    confidence, right = probs.max(1), predicted == truth
    told = run["probability"]
    assert told["top2"] == pytest.approx(reference.top_k_accuracy_score(truth, probs, k=2, labels=present))
    assert told["nll"] == pytest.approx(reference.log_loss(truth, probs, labels=present), abs=1e-6)
    assert told["brier"] == pytest.approx(((probs - one_hot) ** 2).sum(1).mean(), abs=1e-6)
    assert told["ece"] == pytest.approx(calibration_error(confidence, right), abs=1e-6)
    classwise = [calibration_error(probs[:, i], one_hot[:, i]) for i in range(6)]
    assert told["classwise_ece"] == pytest.approx(np.mean(classwise), abs=1e-6)
    assert sum(run["reliability"]["rows"]) == 400

    unmasked = run["unmasked"]
    assert unmasked["names"] == [*EXPRESSIONS, "contempt"]
    assert unmasked["accuracy"] == pytest.approx(reference.accuracy_score(truth, whole.argmax(1)))
    assert unmasked["accuracy"] < run["scores"]["accuracy"]
    assert unmasked["macro_f1"] == pytest.approx(
        reference.f1_score(truth, whole.argmax(1), average="macro", labels=present)
    )


def calibration_error(confidence, right):
    """Fifteen bins of equal width, one by one."""
    error = 0.0
    for low, high in pairwise(np.arange(16) / 15):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


def test_intervals_draw_whole_lineages():
    alone = a_test_set(given=np.repeat(labels(150), 2))
    twins = a_test_set(given=alone.labels, source_id=np.repeat([f"photo {i}" for i in range(150)], 2).tolist())
    probs = np.repeat(probabilities(labels(150), sure=1.0), 2, axis=0)
    told = {}
    for name, test in (("alone", alone), ("twins", twins)):
        result = made([candidate()], [test], {("a-0", "rafdb", "original"): probs}, replicates=1000)
        one = cell(result, "a", "rafdb")
        told[name] = one["runs"][0]["intervals"]["accuracy"]
        mean = one["mean"]["accuracy"]
        assert (mean["low"], mean["high"], mean["sd"], mean["n"]) == (told[name]["low"], told[name]["high"], None, 1)
        assert mean["mean"] == told[name]["value"] == one["runs"][0]["scores"]["accuracy"]
    width = {name: interval["high"] - interval["low"] for name, interval in told.items()}
    assert width["twins"] / width["alone"] == pytest.approx(np.sqrt(2), rel=0.12)
    direct = [
        cluster_bootstrap(twins.labels, probs.argmax(1), twins.lineages, METRICS["accuracy"], replicates=4000, seed=s)
        for s in range(2)
    ]
    assert told["twins"]["low"] == pytest.approx(np.mean([d.low for d in direct]), abs=0.015)
    assert told["twins"]["high"] == pytest.approx(np.mean([d.high for d in direct]), abs=0.015)


def test_seeds_give_a_mean_with_students_interval():
    scipy = pytest.importorskip("scipy.stats")
    candidates = [candidate(f"a-{seed}", seed=seed) for seed in range(3)]
    told = cell(made(candidates, [a_test_set()], level=0.9), "a", "rafdb")
    for name in METRIC_KEYS:
        values = [run["scores"][name] for run in told["runs"]]
        low, high = scipy.t.interval(0.9, 2, np.mean(values), scipy.sem(values))
        mean = told["mean"][name]
        assert mean == pytest.approx(
            {"mean": np.mean(values), "sd": np.std(values, ddof=1), "low": low, "high": high, "n": 3}
        )


def test_another_class_order_is_called_by_its_name():
    test, right, wrong = a_test_set(), candidate("right-0"), candidate("wrong-0")
    probs = probabilities(test.labels)
    swapped = probs[:, [0, 1, 2, 3, 5, 4, 6]]
    answers = {("right-0", "rafdb", "original"): probs, ("wrong-0", "rafdb", "original"): swapped}
    result = made([right, wrong], [test], answers)
    (banner,) = result["banners"]
    assert {key: banner[key] for key in ("guard", "status", "recipe", "test")} == {
        "guard": "G9",
        "status": "fail",
        "recipe": "wrong",
        "test": "rafdb",
    }
    assert banner["message"].startswith("wrong-0 (original): class-order mistake: ")
    assert banner["message"].endswith("neutral for sad, sad for neutral.")
    assert not cell(result, "wrong", "rafdb")["contaminated"]


def test_a_taste_for_an_absent_class_is_no_other_order():
    test = a_test_set(given=labels(classes=[0, 1, 2, 3, 5, 6]))
    probs = probabilities(test.labels).astype(np.float64)
    sad = test.labels == 5
    probs[sad, 4] += 2 * probs[sad, 5]  # most sad rows are called neutral, which the set has not
    probs /= probs.sum(1, keepdims=True)
    (run,) = cell(made([candidate()], [test], {("a-0", "rafdb", "original"): probs}), "a", "rafdb")["runs"]
    assert guard(run, "G9")["status"] == "pass"
    assert run["unmasked"]["recall"][5] < 0.1 < run["scores"]["recall"][5]


def contaminated_in_each_way():
    """A test set, and a candidate and audits for each way to be contaminated on it."""
    test, strangers = a_test_set(), facts("expw", labels(50), split="train")
    ids = test.facts["sample_id"].to_pylist()
    audits = pairs(*(("G5", "fail", "expw-0", key) for key in ids[:30]))
    return test, {
        "seen": (candidate(seen=seen(test.facts[:5])), None, 5),
        "declared": (candidate(trained_on=("rafdb:test",)), None, 0),
        "audited": (candidate(seen=seen(strangers)), audits, 30),
        "chosen": (candidate(selection="test", trained_on=("rafdb:train",)), None, 0),
    }


@pytest.mark.parametrize("way", ["seen", "declared", "audited", "chosen"])
def test_a_contaminated_cell_keeps_its_numbers_and_counts_nowhere(way):
    test, ways = contaminated_in_each_way()
    bad, audits, flagged = ways[way]
    clean, tests = candidate("b-0"), [test, a_test_set("ckplus")]
    result = made([bad, clean], tests, audits=audits, baseline="b")
    told, other = cell(result, "a", "rafdb"), cell(result, "a", "ckplus")
    assert told["contaminated"]
    assert told["flagged_rows"] == flagged
    assert len(told["reasons"]) == 1
    assert told["reasons"][0].startswith("a-0: ")
    assert told["mean"]["accuracy"]["mean"] > 0.5
    assert told["comparison"] is None
    assert not other["contaminated"]
    assert other["comparison"]["baseline"] == "b"
    banner = {(b["guard"], b["status"], b["test"]) for b in result["banners"]}
    assert banner == ({("G10", "fail", None)} if way == "chosen" else {("G7", "fail", "rafdb")})
    row, theirs = result["summary"]
    assert row["cells_left_out"] == 1
    assert row["off_diagonal"] == {name: other["mean"][name]["mean"] for name in METRIC_KEYS}
    assert row["diagonal"] == dict.fromkeys(METRIC_KEYS)
    # Declared or chosen, the cell is on the diagonal: across datasets all is clean.
    ranked = way in ("declared", "chosen")
    assert (row["rank"] is not None) is ranked
    assert (theirs["cells_left_out"], theirs["ranked_over"]) == (0, ["ckplus"] if ranked else ["rafdb", "ckplus"])
    # Against a contaminated baseline nothing is compared, either.
    turned = made([bad, clean], tests, audits=audits, baseline="a")
    assert [cell(turned, "b", name)["comparison"] is None for name in ("rafdb", "ckplus")] == [True, False]


def test_one_contaminated_seed_spoils_the_cell():
    test = a_test_set()
    result = made([candidate(), candidate("a-1", seed=1, seen=seen(test.facts[:1]))], [test])
    told = cell(result, "a", "rafdb")
    assert told["contaminated"]
    assert [guard(run, "G7")["status"] for run in told["runs"]] == ["pass", "fail"]
    assert [run["without_flagged"] is None for run in told["runs"]] == [True, False]
    assert told["reasons"][0].startswith("a-1: 1 of 300 test rows")


def test_copies_that_carry_a_score_are_told():
    test = a_test_set()
    probs = probabilities(test.labels, sure=0.5)
    probs[:100] = np.eye(7)[test.labels[:100]]  # what was seen is known by heart
    one = candidate(seen=seen(test.facts[:100]))
    result = made([one], [test], {("a-0", "rafdb", "original"): probs})
    (run,) = cell(result, "a", "rafdb")["runs"]
    rest = test.labels[100:], probs[100:].argmax(1)
    assert run["without_flagged"] == {
        "rows": 200,
        "accuracy": pytest.approx(np.mean(rest[0] == rest[1])),
        "macro_f1": pytest.approx(macro_f1(confusion(*rest))),
    }
    assert guard(run, "G12")["status"] == "fail"
    assert {banner["guard"] for banner in result["banners"]} == {"G7", "G12"}
    everything = made([candidate(seen=seen(test.facts))], [test])
    (run,) = cell(everything, "a", "rafdb")["runs"]
    assert run["without_flagged"] == {"rows": 0, "accuracy": None, "macro_f1": None}


def test_a_score_too_good_to_be_true_gets_a_banner():
    result = made([candidate()], [a_test_set()], sure_of_everything(), ceilings={"rafdb": 0.9})
    (banner,) = result["banners"]
    assert (banner["guard"], banner["status"], banner["test"]) == ("G8", "fail", "rafdb")
    assert "jobs/audit.py" in banner["message"]
    assert not cell(result, "a", "rafdb")["contaminated"]
    assert made([candidate()], [a_test_set()], sure_of_everything(), ceilings={})["banners"] == []


def sure_of_everything():
    return {("a-0", "rafdb", "original"): np.eye(7)[labels()]}


def test_banners_are_told_once_with_all_runs_that_they_are_of():
    candidates = [candidate(f"a-{seed}", seed=seed, selection="unknown") for seed in range(2)]
    tests = [a_test_set("rafdb"), a_test_set("ckplus")]
    (banner,) = made(candidates, tests, answered(candidates, tests, VARIANTS))["banners"]
    assert banner == {
        "guard": "G10",
        "status": "warn",
        "message": "a-0: It is not declared which rows the checkpoint was selected on: if on test rows, its scores are "
        "too high. The same holds for a-1.",
        "recipe": "a",
        "test": None,
    }


def test_means_are_over_clean_cells_and_ranks_over_shared_ones():
    tests = [a_test_set(name) for name in ("rafdb", "expw", "ckplus")]
    rafdb = ("rafdb:train",)
    candidates = [
        candidate("worse-0", trained_on=rafdb),
        candidate("best-0", trained_on=rafdb),
        candidate("leaky-0", trained_on=rafdb, seen=seen(tests[2].facts[:9])),
        candidate("wider-0", trained_on=("rafdb:train", "expw:train")),
        candidate("everywhere-0", trained_on=tuple(f"{test.name}:train" for test in tests)),
    ]
    answers = answered(candidates, tests, sure={"best-0": 3, "wider-0": 2, "worse-0": 1.5})
    answers["worse-0", "expw", "original"] = probabilities(tests[1].labels, sure=6.0)
    result = made(candidates, tests, answers)
    rows = {row["recipe"]: row for row in result["summary"]}
    for recipe, own, across, left_out, rank in (
        ("worse", ["rafdb"], ["expw", "ckplus"], 0, 3),  # best where "wider" cannot be compared
        ("best", ["rafdb"], ["expw", "ckplus"], 0, 1),
        ("leaky", ["rafdb"], ["expw"], 1, None),
        ("wider", ["rafdb", "expw"], ["ckplus"], 0, 2),
        ("everywhere", ["rafdb", "expw", "ckplus"], [], 0, None),
    ):
        row = rows[recipe]
        assert (row["cells_left_out"], row["rank"], row["off_diagonal_tests"]) == (left_out, rank, across)
        assert row["ranked_over"] == (["ckplus"] if rank else [])
        for key, names in (("diagonal", own), ("off_diagonal", across)):
            for metric in METRIC_KEYS:
                values = [cell(result, recipe, name)["mean"][metric]["mean"] for name in names]
                assert row[key][metric] == (pytest.approx(np.mean(values)) if values else None)
    assert rows["worse"]["off_diagonal"]["macro_f1"] > rows["wider"]["off_diagonal"]["macro_f1"]


def test_equal_recipes_have_one_rank_and_strangers_none():
    test, other = a_test_set("rafdb"), a_test_set("expw")
    names = ("a-0", "b-0", "c-0")
    candidates = [candidate(name, trained_on=("ckplus:train",)) for name in names]
    probs = dict(zip(names, [probabilities(test.labels, sure) for sure in (2, 2, 1)], strict=True))
    result = made(candidates, [test], {(name, "rafdb", "original"): probs[name] for name in names})
    assert [row["rank"] for row in result["summary"]] == [1, 1, 3]
    apart = [candidate("a-0", trained_on=("rafdb:train",)), candidate("b-0", trained_on=("expw:train",))]
    assert [row["rank"] for row in made(apart, [test, other])["summary"]] == [None, None]


def test_comparisons_are_those_of_the_tests_themselves_and_corrected_over_the_whole_matrix():
    candidates = [candidate(f"{recipe}-{seed}", seed=seed) for recipe in "abc" for seed in range(2)]
    tests = [a_test_set("rafdb"), a_test_set("ckplus", labels(250, 1))]
    sure = {"a-0": 1.0, "a-1": 1.1, "b-0": 1.7, "b-1": 1.8, "c-0": 1.1, "c-1": 1.0}
    answers = answered(candidates, tests, VARIANTS, sure)
    result = made(candidates, tests, answers, baseline="a", permutations=2000)
    compared = [one for one in result["cells"] if one["comparison"]]
    assert len(compared) == 8
    assert all(one["comparison"] is None for one in result["cells"] if one["recipe"] == "a")
    for one in compared:
        truth = next(test.labels for test in tests if test.name == one["test"])
        told, direct = one["comparison"], []
        assert told["pairs"] == [[f"{one['recipe']}-{seed}", f"a-{seed}"] for seed in range(2)]
        for names in told["pairs"]:
            first, second = (answers[name, one["test"], one["variant"]].argmax(1) for name in names)
            direct.append(
                (
                    mcnemar(first == truth, second == truth),
                    paired_permutation(truth, first, second, macro_f1, permutations=4000, seed=7),
                )
            )
        by_test = list(zip(*direct, strict=True))
        assert told["accuracy"]["p"] == max(c.p for c in by_test[0])
        assert told["accuracy"]["difference"] == pytest.approx(np.mean([c.difference for c in by_test[0]]))
        assert told["macro_f1"]["p"] == pytest.approx(max(c.p for c in by_test[1]), abs=0.05)
        assert told["macro_f1"]["difference"] == pytest.approx(np.mean([c.difference for c in by_test[1]]))
    for name in ("accuracy", "macro_f1"):
        told = [one["comparison"][name] for one in compared]
        assert [c["p_holm"] for c in told] == pytest.approx(step_down([c["p"] for c in told]))
    assert max(one["comparison"]["macro_f1"]["p_holm"] for one in compared if one["recipe"] == "b") < 0.05
    assert min(one["comparison"]["macro_f1"]["p_holm"] for one in compared if one["recipe"] == "c") > 0.05


def kin(rows=118, copies=8, seed=0):
    """A test set with `copies` alike rows of each person, and answers of two classifiers that are as good."""
    alone = labels(rows, seed)
    test = a_test_set(given=np.repeat(alone, copies), source_id=[f"person {i // copies}" for i in range(rows * copies)])
    probs = [np.repeat(probabilities(alone, sure=1.2, seed=[seed, i]), copies, axis=0) for i in range(2)]
    return test, {(name, "rafdb", "original"): probs[i] for i, name in enumerate(("a-0", "b-0"))}


def test_rows_of_one_person_are_swapped_together():
    test, answers = kin()
    told = cell(made([candidate("a-0"), candidate("b-0")], [test], answers, baseline="a"), "b", "rafdb")["comparison"]
    first, second = (answers[name, "rafdb", "original"].argmax(1) for name in ("b-0", "a-0"))
    for name in ("accuracy", "macro_f1"):
        together = paired_permutation(test.labels, first, second, METRICS[name], groups=test.lineages, seed=3)
        assert told[name]["test"] == "permutation of lineages"
        assert told[name]["difference"] == pytest.approx(together.difference)
        assert told[name]["p"] == pytest.approx(together.p, abs=0.1)  # of 200 draws


def test_kin_rows_tell_no_more_equal_classifiers_apart_than_the_level_allows():
    """Row by row McNemar's test calls about half of them different."""
    told, alone, trials = {"accuracy": 0, "macro_f1": 0}, 0, 120
    for seed in range(trials):
        test, answers = kin(seed=seed)
        first, second = (probs.argmax(1) for probs in answers.values())
        pair = [(candidate("a-0"), candidate("b-0"))]
        found = compare(pair, test, {"a-0": first, "b-0": second}, "original", MatrixConfig(**FAST))
        for name in told:
            told[name] += found[name]["p"] <= 0.05
        alone += mcnemar(first == test.labels, second == test.labels).p <= 0.05
    assert alone / trials > 0.3
    assert all(count / trials < 0.12 for count in told.values()), told


def step_down(p_values):
    """Holm's correction in words: the smallest p times m, the next times m - 1 ..., never falling, at most one."""
    corrected, worst = {}, 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, p_values[index] * (len(p_values) - place))
        corrected[index] = min(1.0, worst)
    return [corrected[index] for index in range(len(p_values))]


def test_equal_answers_differ_by_nothing():
    test, names = a_test_set(), ("a-0", "b-0")
    answers = {(name, "rafdb", "original"): probabilities(test.labels) for name in names}
    told = cell(made(list(map(candidate, names)), [test], answers, baseline="a"), "b", "rafdb")["comparison"]
    for name, used in (("accuracy", "mcnemar"), ("macro_f1", "permutation of rows")):
        assert told[name] == {"test": used, "difference": 0, "p": 1, "p_holm": 1}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([0, 1], [1, 0], [(0, 1), (1, 0)]),
        ([5, 0, 7], [0, 1, 2], [(1, 0), (0, 1), (2, 2)]),
        ([3], [1, 2, 3], [(0, 2)]),
        ([None, 1], [1, None], [(1, 0), (0, 1)]),
        ([None], [None], [(0, 0)]),
    ],
)
def test_equal_seeds_are_paired_first(ours, theirs, expected):
    first, second = (
        [candidate(f"{recipe}-{i}", seed=seed) for i, seed in enumerate(seeds)]
        for recipe, seeds in (("a", ours), ("b", theirs))
    )
    told = [(one.name, other.name) for one, other in pairs_of_seeds(first, second)]
    assert told == [(f"a-{one}", f"b-{other}") for one, other in expected]


def test_groups_are_judged_by_what_is_known_of_the_rows():
    given = labels(600)
    women = np.arange(600) % 2 == 0
    people = [{"gender": "female" if w else "male", "age": None if i < 300 else "old"} for i, w in enumerate(women)]
    test = a_test_set(given=given, attributes=people)
    probs = probabilities(given, sure=4.0)
    probs[~women] = probabilities(given[~women], sure=0.5)
    result = made([candidate()], [test], {("a-0", "rafdb", "original"): probs}, attributes=["gender", "age", "race"])
    (run,) = cell(result, "a", "rafdb")["runs"]
    assert sorted(run["groups"]) == ["age", "gender"]  # nobody knows a race here
    gender = {group["name"]: group for group in run["groups"]["gender"]["groups"]}
    right = probs.argmax(1) == given
    assert gender["female"]["accuracy"]["value"] == pytest.approx(right[women].mean())
    assert gender["male"]["accuracy"]["value"] == pytest.approx(right[~women].mean())
    assert run["groups"]["gender"]["gaps"]["accuracy_range"]["p"] < 0.05
    assert (run["groups"]["age"]["unknown"], len(run["groups"]["age"]["groups"])) == (300, 1)
    few = made([candidate()], [test], min_group_rows=301)["cells"][0]["runs"][0]["groups"]["gender"]
    assert (few["groups"], few["too_small"]) == ([], {"female": 300, "male": 300})


def test_the_same_input_gives_the_same_bytes_in_any_order():
    people = [{"gender": ["female", "male"][i % 2]} for i in range(300)]
    candidates, tests = [candidate("a-0"), candidate("b-0")], [a_test_set(attributes=people), a_test_set("ckplus")]
    answers = answered(candidates, tests, VARIANTS)
    first, second = (json.dumps(made(candidates, tests, answers, baseline="a")) for _ in range(2))
    assert first == second
    turned = made(candidates[::-1], tests[::-1], dict(reversed(answers.items())), baseline="a")

    def by_place(result):
        return {(one["recipe"], one["test"], one["variant"]): one for one in result["cells"]}

    assert by_place(turned) == by_place(json.loads(first))
    assert made(candidates, tests, answers, baseline="a", seed=1) != json.loads(first)


def test_what_does_not_fit_is_named():
    one, test = candidate(), a_test_set()
    answers = answered([one], [test])
    for candidates, tests, given, message in (
        ([one, one], [test], answers, "candidate a-0 occurs twice"),
        ([one, candidate("a-1")], [test], answers, "seed of recipe a: 0 occurs twice"),
        ([one], [test, test], answers, "test set rafdb occurs twice"),
        ([one, candidate("b-0")], [test], answers, r"predictions of 1 .*\(b-0, rafdb, original\), are missing"),
        ([one], [test], answers | {("b-0", "rafdb", "original"): None}, r"\(b-0, rafdb, original\), belong to no"),
        ([one], [test], answers | {("a-0", "rafdb", "grey"): None}, r"\(a-0, rafdb, grey\), belong to no"),
        ([one], [test], {}, "needs a candidate, a test set, and predictions"),
        ([], [test], {}, "needs a candidate"),
    ):
        with pytest.raises(ValueError, match=message):
            made(candidates, tests, given)
    with pytest.raises(ConfigError, match="baseline=aa: no such recipe; did you mean 'a'"):
        made([one], [test], baseline="aa")


def test_the_config_is_read_like_any_other():
    config = load(MatrixConfig, ["ceilings={fer2013: 0.75}", "baseline=real", "attributes=[age]"])
    assert (config.ceilings["fer2013"], config.baseline, config.attributes) == (0.75, "real", ["age"])
    with pytest.raises(ConfigError, match="level"):
        load(MatrixConfig, ["level=95"])
