"""Fusion of smell, picture and text: masks that hide, splits that don't leak, and words that never name the scent."""

import numpy as np
import pytest
import torch

from smellkit.errors import DataError, OptionError
from smellkit.odour.recordings import find
from smellkit.odour.scents import (
    SCENTS,
    SENTENCES,
    Scent,
    descriptors,
    lexicon,
    names_and_descriptions,
    paraphrases,
    read_scents,
)
from smellkit.study.odour.fusion import SUBSETS, by_experts, fit_experts, outcomes
from smellkit.study.odour.fusion_task import (
    MODALITIES,
    STRATEGIES,
    SenseFusion,
    correct,
    fusion_loss,
    fusion_scores,
    hide,
    task,
)
from smellkit.study.odour.scenes import EvidenceBank, ranks, read_scenes

SIZES = (50, 30, 40)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))


def batch(n=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    contents = {name: torch.randn(n, size, generator=random) for name, size in zip(MODALITIES, SIZES, strict=True)}
    return contents | {"present": torch.ones(n, 3, dtype=torch.bool), "ratios": torch.eye(12)[torch.arange(n) % 12]}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hidden", range(3))
def test_the_content_of_a_masked_modality_cannot_change_the_output(strategy, hidden):
    torch.manual_seed(0)
    model, one = SenseFusion(SIZES, strategy=strategy).eval(), batch()
    one["present"][:, hidden] = False
    beta = model(one)["beta"]
    for content in (0.0, 1e6, float("nan"), float("inf")):
        other = one | {MODALITIES[hidden]: torch.full_like(one[MODALITIES[hidden]], content)}
        assert torch.equal(model(other)["beta"], beta)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_missing_modality_is_something_else_than_zeros(strategy):
    torch.manual_seed(0)
    model, zeros = SenseFusion(SIZES, strategy=strategy).eval(), batch()
    zeros["text"] = torch.zeros_like(zeros["text"])
    missing = zeros | {"present": torch.tensor([[True, True, False]]).repeat(6, 1)}
    assert not torch.allclose(model(zeros)["beta"], model(missing)["beta"], atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_part_of_a_fusion_learns_and_beta_adds_to_one(strategy):
    model = SenseFusion(SIZES, strategy=strategy, dropout=0.0)
    out = model(batch())
    assert torch.allclose(out["beta"].sum(1), torch.ones(6), atol=1e-5)
    fusion_loss(out, batch()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None and "stand_in" not in name]
    assert not unused


def test_nothing_at_all_still_gives_a_mixture():
    model, none = SenseFusion(SIZES).eval(), batch()
    none["present"][:] = False
    assert torch.isfinite(model(none)["beta"]).all()


def test_dropout_hides_a_fifth_and_never_everything():
    torch.manual_seed(0)
    present = torch.ones(20000, 3, dtype=torch.bool)
    kept = hide(present, 0.2)
    assert 0.18 < 1 - kept.float().mean() < 0.21
    assert kept.any(dim=1).all()
    only = torch.tensor([[False, True, False]]).repeat(100, 1)
    assert torch.equal(hide(only, 0.9), only)


def test_an_unknown_strategy_or_input_is_refused():
    with pytest.raises(OptionError, match="strategy"):
        SenseFusion(SIZES, strategy="voting")
    with pytest.raises(OptionError, match="touch"):
        task(inputs="touch")


def test_pictures_are_split_by_file_and_every_scent_is_in_every_fold():
    scent = np.repeat(np.arange(12), 7)
    fold = ranks(scent, seed=1)
    assert all(set(fold[scent == one]) == set(range(5)) for one in range(12))
    assert not np.array_equal(fold, ranks(scent, seed=2))


def test_no_description_names_a_scent():
    names = {part[:4] for name in (*SCENTS, "orange", "clove") for part in name.split("_")}
    for scent in read_scents(find()):
        for part in ("train", "valid", "test"):
            for text in paraphrases(scent, part=part, count=20, seed=1):
                words = text.lower().replace("-", " ").split()
                assert not [word for word in words if word[:4] in names], text


def test_the_sentences_of_the_test_are_not_those_of_the_training():
    scent = read_scents(find())[0]
    known = set(paraphrases(scent, part="train", count=500, seed=1))
    assert not known & set(paraphrases(scent, part="test", count=500, seed=1))
    assert not set(SENTENCES["train"]) & set(SENTENCES["test"])


def test_some_descriptors_are_shared_so_that_text_is_no_label():
    words = [word for scent in read_scents(find()) for word in descriptors(scent)]
    assert len(set(words)) < len(words)


def test_a_scent_described_by_its_name_alone_is_refused():
    with pytest.raises(DataError, match="peach"):
        descriptors(Scent(6, "peach", "peach, ripe-peach".replace("ripe-", "")))


def test_a_mixture_shows_every_component_alike():
    bank = EvidenceBank(torch.eye(12)[:, None], torch.eye(12)[:, None], torch.ones(12, dtype=torch.long))
    ratios = torch.zeros(1, 12)
    ratios[0, 2], ratios[0, 5] = 0.8, 0.2
    drawn, _ = bank.draw(ratios, torch.rand(1, 12))
    assert drawn[0, 2] == drawn[0, 5] == pytest.approx(0.5, abs=1e-3)  # a picture tells what is there, not how much


def test_each_of_several_strongest_scents_counts_as_right():
    ratios, beta = np.zeros((2, 12)), np.zeros((2, 12))
    ratios[0, :2], ratios[1, :2] = 0.5, [0.8, 0.2]
    beta[:, 1] = 1.0
    assert correct(beta, ratios).tolist() == [True, False]


@pytest.fixture(scope="module")
def scenes():
    return read_scenes("", scene="light", seed=1)


def test_all_seven_subsets_are_scored_and_all_three_are_not_behind_the_best_one(scenes):
    made = outcomes(by_experts(fit_experts(scenes, seed=1), scenes), scenes, seed=1)
    loud = {name: np.mean(one.measures["loudest"]) for name, one in made.items() if "loudest" in one.measures}
    assert {name.split(", ")[1] for name in loud} == {" + ".join(MODALITIES[i] for i in each) for each in SUBSETS}
    singles = max(loud[f"test, {name}"] for name in MODALITIES)
    assert loud["test, smell + picture + text"] >= singles
    assert np.mean(made["conflict, smell"].measures["follows the others"]) > 0.9


def test_no_recording_is_told_by_what_has_seen_it(scenes):
    train, valid = (set(scenes.smells[part].recording) for part in ("train", "valid"))
    assert not train & valid
    assert scenes.smells["valid-day"].known.mean() < scenes.smells["valid"].known.mean()


def test_names_and_descriptions_belong_to_their_channel_and_the_lexicon_knows_all_twelve():
    scents = read_scents(find())
    lines, channel = names_and_descriptions(scents)
    assert set(lexicon()) == set(SCENTS)
    assert channel[lines.index("mandarin orange")] == SCENTS.index("mandarin_orange")
    assert channel[lines.index("eugenol")] == SCENTS.index("cloves")


def test_the_scores_do_not_depend_on_the_order_of_the_windows():
    one = batch(12)
    out = SenseFusion(SIZES).eval()(one)
    turned = torch.arange(11, -1, -1)
    again = fusion_scores({name: rows[turned] for name, rows in out.items()}, {"ratios": one["ratios"][turned]})
    assert again == pytest.approx(fusion_scores(out, one))


def test_the_task_reads_the_sample_and_takes_a_step():
    made = task(width=16, layers=1, scene="light")
    splits = made.load()
    assert {"train", "valid"} <= set(splits)
    some = splits["train"].__getitems__(range(8))
    model = made.build()
    loss = made.loss(model(some), some)
    loss.backward()
    assert torch.isfinite(loss)
