"""Fusion of smell, picture and text: masks that hide, splits that don't leak, and words that never name the scent."""

import pytest
import torch

from smellkit.errors import DataError, OptionError
from smellkit.odour import scenes as fusion_data
from smellkit.odour.fusion import MODALITIES, STRATEGIES, Fusion, correct, fusion_loss, fusion_scores, hide, task
from smellkit.odour.recordings import find
from smellkit.odour.scenes import EvidenceBank, Scenes, descriptors, paraphrases, split_pictures
from smellkit.odour.scents import SCENTS, Scent, read_scents
from smellkit.study.odour.fusion import SUBSETS, by_class, conflict, gain_over_best_single, subsets

SIZES = (50, 30, 40)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))


def batch(n=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    contents = {name: torch.randn(n, size, generator=random) for name, size in zip(MODALITIES, SIZES, strict=True)}
    return contents | {"present": torch.ones(n, 3, dtype=torch.bool), "ratios": torch.eye(12)[torch.arange(n) % 12]}


def small_scenes():
    """Scenes in which every scent has its own direction in each modality."""
    random = torch.Generator().manual_seed(3)
    ratios = torch.eye(12).repeat(6, 1)
    keys = [torch.randn(12, 50, generator=random), 6 * torch.eye(12), 6 * torch.eye(12)]
    z = ratios @ keys[0]
    banks = [EvidenceBank(key.softmax(1)[:, None].repeat(1, 2, 1), torch.full((12,), 2)) for key in keys[1:]]
    parts = ("train", "valid", "test")
    return Scenes(
        dict.fromkeys(parts, (z, ratios, None)), dict.fromkeys(parts, banks[0]), dict.fromkeys(parts, banks[1])
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hidden", range(3))
def test_the_content_of_a_masked_modality_cannot_change_the_output(strategy, hidden):
    torch.manual_seed(0)
    model, one = Fusion(SIZES, strategy=strategy).eval(), batch()
    one["present"][:, hidden] = False
    beta = model(one)["beta"]
    for content in (0.0, 1e6, float("nan"), float("inf")):
        other = one | {MODALITIES[hidden]: torch.full_like(one[MODALITIES[hidden]], content)}
        assert torch.equal(model(other)["beta"], beta)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_missing_modality_is_something_else_than_zeros(strategy):
    torch.manual_seed(0)
    model, zeros = Fusion(SIZES, strategy=strategy).eval(), batch()
    zeros["text"] = torch.zeros_like(zeros["text"])
    missing = zeros | {"present": torch.tensor([[True, True, False]]).repeat(6, 1)}
    assert not torch.allclose(model(zeros)["beta"], model(missing)["beta"], atol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_part_of_a_fusion_learns_and_beta_adds_to_one(strategy):
    model = Fusion(SIZES, strategy=strategy, dropout=0.0)
    out = model(batch())
    assert torch.allclose(out["beta"].sum(1), torch.ones(6), atol=1e-5)
    fusion_loss(out, batch()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None and "stand_in" not in name]
    assert not unused


def test_nothing_at_all_still_gives_a_mixture():
    model, none = Fusion(SIZES).eval(), batch()
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


def test_an_unknown_strategy_or_modality_is_refused():
    with pytest.raises(ValueError, match="strategy"):
        Fusion(SIZES, strategy="voting")
    with pytest.raises(OptionError, match="touch"):
        task(without="touch").load()


def test_pictures_are_split_by_file_and_no_split_is_empty():
    split = split_pictures(find(), seed=1)
    files = {part: {file for scent in scents for file in scent} for part, scents in split.items()}
    assert all(len(scents) == 12 and all(scents) for scents in split.values())
    assert (
        not files["train"] & files["test"]
        and not files["train"] & files["valid"]
        and not files["valid"] & files["test"]
    )
    assert all(file.parent.name == SCENTS[i] for i, scent in enumerate(split["test"]) for file in scent)


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
    assert not set(fusion_data.SENTENCES["train"]) & set(fusion_data.SENTENCES["test"])


def test_some_descriptors_are_shared_so_that_text_is_no_label():
    words = [word for scent in read_scents(find()) for word in descriptors(scent)]
    assert len(set(words)) < len(words)


def test_a_scent_described_by_its_name_alone_is_refused():
    with pytest.raises(DataError, match="peach"):
        descriptors(Scent(6, "peach", "peach, ripe-peach".replace("ripe-", "")))


def test_a_mixture_shows_every_component_alike():
    bank = EvidenceBank(torch.eye(12)[:, None], torch.ones(12, dtype=torch.long))
    ratios = torch.zeros(1, 12)
    ratios[0, 2], ratios[0, 5] = 0.8, 0.2
    drawn = bank.draw(ratios, torch.rand(1, 12)).exp()
    assert drawn[0, 2] == drawn[0, 5] == pytest.approx(0.51, abs=1e-3)  # a picture tells what is there, not how much


def test_each_of_several_strongest_scents_counts_as_right():
    ratios, beta = torch.zeros(2, 12), torch.zeros(2, 12)
    ratios[0, :2], ratios[1, :2] = 0.5, torch.tensor([0.8, 0.2])
    beta[:, 1] = 1.0
    assert correct(beta, ratios).tolist() == [True, False]
    assert by_class(beta, ratios) == {"banana": 0.5, "mandarin_orange": 1.0}


def test_all_seven_subsets_are_scored_and_all_three_are_not_behind_the_best_one():
    from smellkit.study.odour.fusion import fit

    scenes = small_scenes()
    model = fit(scenes, name="fusion", epochs=30, seed=1)
    table = subsets(model, scenes, "test")
    assert len(table) == len(SUBSETS) == 7
    assert table["smell + picture + text"]["accuracy"] == 1.0
    assert min(gain_over_best_single(table).values()) >= 0
    disagreement = conflict(model, scenes, "test")
    assert disagreement["none"]["follows the others"] == 1.0
    assert disagreement["text"]["margin"] < disagreement["none"]["margin"]


def test_the_scores_do_not_depend_on_the_order_of_the_windows():
    one = batch(12)
    out = Fusion(SIZES).eval()(one)
    turned = torch.arange(11, -1, -1)
    again = fusion_scores({"beta": out["beta"][turned]}, {"ratios": one["ratios"][turned]})
    assert again == pytest.approx(fusion_scores(out, one))


def test_the_task_reads_the_sample_and_takes_a_step():
    made = task(width=16, layers=1)
    splits = made.load()
    assert {"train", "valid"} <= set(splits)
    some = splits["train"].__getitems__(range(8))
    model = made.build()
    loss = made.loss(model(some), some)
    loss.backward()
    assert torch.isfinite(loss)
