"""The window decoder and the two stages: shapes, gradients, a frozen encoder, and one answer whatever the way to it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from smellkit import checkpoint, cli, paths, runs
from smellkit.errors import DataError, OptionError, WeightsError
from smellkit.gcode import data, predict, recordings, tokens
from smellkit.gcode.hmm import ProgramHMM
from smellkit.gcode.recordings import CHANNELS, CONTINUOUS, POSITION_COLUMNS
from smellkit.gcode.tokens import EOS, SIZES, Grammar
from smellkit.gcode.window_decoder import PathKNN, SummaryMLP, summary_features
from smellkit.study.gcode import release, scores, task
from smellkit.study.gcode.scores import forced, head_scores
from smellkit.study.gcode.splits import DataConfig
from smellkit.study.gcode.task import DecoderTask, EncoderTask, WindowDecoderTask
from smellkit.study.gcode.two_stage import SensorDecoder
from smellkit.train import Settings, fit

SAMPLE = paths.sample() / "gcode"
QUICK = Settings(epochs=1, batch=32, learning_rate=2e-3)
SMALL = {"width": 32, "layers": 1}


@pytest.fixture(scope="module", autouse=True)
def own_runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RUNS", "WORK"):
            patch.setenv(f"SMELLKIT_{name}", str(tmp_path_factory.mktemp(name)))
        patch.setenv("TQDM_DISABLE", "1")
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def run(own_runs):
    options = {"protocol": "all", **SMALL}
    return fit(WindowDecoderTask(**options), QUICK, name="small", params=options)


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    return release.save(run, tmp_path_factory.mktemp("packed"))


@pytest.fixture
def batch():
    prepared = DataConfig().prepared
    return prepared.windows("train").__getitems__(range(6))


def test_every_part_of_the_window_decoder_gets_a_gradient(batch):
    own = WindowDecoderTask(**SMALL)
    model = own.build().train()
    outputs = model(batch)
    assert outputs["operation"].shape == (6, 9) and outputs["position"].shape == (6, 16, 3)
    assert outputs["token"].shape == (6, 8, len(model.grammar.vocabulary)) and outputs["structured"].shape == (6, 8, 82)
    own.loss(outputs, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_prediction_is_the_mean_of_its_two_views(batch):
    model = WindowDecoderTask(path_knn=False, **SMALL).build().eval()
    with torch.no_grad():
        outputs = model(batch)
    assert outputs["lines"].shape == (6, 2, len(model.grammar)) and outputs["operations"].shape == (6, 2, 9)
    assert torch.allclose(outputs["line"], outputs["lines"].mean(dim=1))
    assert torch.allclose(outputs["operation"], outputs["operations"].mean(dim=1))


def test_a_decoder_without_summary_features_has_one_view_and_can_be_packed(batch, tmp_path):
    options = {"protocol": "all", "summary": False, **SMALL}
    alone = fit(WindowDecoderTask(**options), QUICK, name="alone", params=options)
    model = predict.load(release.save(alone, tmp_path)).model.eval()
    with torch.no_grad():
        assert model(batch)["lines"].shape[1] == 1


def test_summary_features_are_in_the_units_of_the_training_windows(batch):
    x = batch["continuous"]
    summary = SummaryMLP(x.shape[2], operations=9, lines=4)
    summary.prepare(x)
    scaled = (summary_features(x) - summary.centre) / summary.scale
    spread = scaled.std(dim=0)
    assert scaled.mean(dim=0).abs().max() < 1e-3
    assert ((spread - 1).abs() < 1e-2)[spread > 1e-3].all() and (spread > 1e-3).any()


def test_the_published_two_stages_have_their_claimed_shape(batch):
    encoder = EncoderTask().build()
    outputs = encoder(batch)
    assert outputs["memory"].shape == (6, 64, 128) and outputs["operation"].shape == (6, 9)
    assert outputs["restored"].shape == batch["continuous"].shape


def test_the_two_stages_see_the_position_as_fourier_features_when_asked(batch):
    encoder = EncoderTask(fourier=True).build().eval()
    moved = batch["continuous"].clone()
    moved[..., POSITION_COLUMNS] += 1.0 / encoder.millimetres  # 1 mm
    with torch.no_grad():
        here, there = (encoder(batch | {"continuous": x})["memory"] for x in (batch["continuous"], moved))
    assert encoder.continuous[0].in_features == len(CONTINUOUS) + 48 and not torch.allclose(here, there, atol=1e-3)


def test_every_structured_head_is_scored_on_the_tokens_that_have_its_field():
    grammar = Grammar(["G1 X-0.1254", "Z0."])
    fields = grammar.fields[grammar.tokens]
    perfect = torch.nn.functional.one_hot(fields.clamp(min=0), 10)
    logits = torch.cat([perfect[..., place, :size] for place, size in enumerate(SIZES)], dim=-1).float()
    assert head_scores(logits, fields) == {"type": 1, "command": 1, "parameter": 1, "digits": 1}
    logits[..., sum(SIZES[:3])] += 2  # now every number is positive
    assert head_scores(logits, fields)["digits"] == 0.5


def test_frozen_means_frozen_and_the_memory_is_computed_once():
    first = fit(EncoderTask(), QUICK, name="encoder")
    before = checkpoint.fingerprint(task.trained_encoder("encoder"))
    digest = checkpoint.manifest(first.folder)["sha256"]
    own = DecoderTask(encoder="encoder")
    parts = own.load()
    kept = sorted((paths.work() / "gcode-memory").rglob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert set(parts["train"].tensors) == {"memory", "logits", "operation", "published"}
    second = fit(own, QUICK, name="decoder", params={"encoder": "encoder"})
    assert not any(name.startswith("encoder") for name in checkpoint.load(second.folder)[0])
    assert checkpoint.manifest(first.folder)["sha256"] == digest
    assert checkpoint.fingerprint(task.trained_encoder("encoder")) == before
    assert [path.stat().st_mtime_ns for path in kept] == stamps and len(kept) == 3


def test_an_unfrozen_encoder_moves():
    fit(EncoderTask(), QUICK, name="encoder-2")
    before = checkpoint.fingerprint(task.trained_encoder("encoder-2"))
    options = {"encoder": "encoder-2", "frozen": False}
    run = fit(DecoderTask(**options), QUICK, name="together", params=options)
    assert checkpoint.fingerprint(task.two_stages(run)[0]) != before


def test_a_window_is_answered_with_its_likeliest_line_whole(packed):
    predictor, machine = predict.load(packed), data.load().labelled()
    rows = machine.take(machine.windows["row"][:40])
    continuous, categorical = predictor.scaling(torch.as_tensor(rows))
    with torch.no_grad():
        best = predictor.model.encode(continuous, categorical)["line"].argmax(dim=1).tolist()
    lines = [one.line for one in predictor.predict(rows)]
    assert lines == [predictor.model.grammar.texts[number] for number in best] and len(set(lines)) > 1


def test_a_teacher_forced_token_is_that_of_the_lines_that_begin_with_the_true_ones():
    grammar = Grammar(["G0", "G1 X1.5", "G1 Y2.5", "G1 Y3.5"])
    line = torch.tensor([[0.4, 0.25, 0.15, 0.2]]).log()
    token = torch.zeros(1, 8, len(grammar.vocabulary))
    given = forced(grammar, line, token, grammar.tokens[[2]])
    assert grammar.vocabulary.decode(given[0].tolist()) == ["G1", "Y", "NUM_Y_3.5"]  # 0.6, 0.35 and 0.2, not G0
    token[0, 2, grammar.vocabulary.ids["NUM_Y_2.5"]] = 5
    token[0, 0, grammar.vocabulary.ids["X"]] = 5  # which begins no line
    given = forced(grammar, line, token, grammar.tokens[[2]])
    assert grammar.vocabulary.decode(given[0].tolist()) == ["G1", "Y", "NUM_Y_2.5"]


def test_the_two_stages_run_free_on_what_they_wrote(batch):
    encoder = EncoderTask().build().eval()
    decoder = SensorDecoder(memory=encoder.width, width=32, layers=1, dropout=0.0)
    with torch.no_grad():
        encoded = encoder(batch)
        given = encoded["memory"], encoded["operation"]
        tokens = decoder.free(*given)
        again = decoder({"published": tokens, "memory": given[0], "logits": given[1]})["token"].argmax(dim=2)
    ended = (tokens == EOS).cumsum(dim=1) - (tokens == EOS).long() > 0
    assert torch.equal(torch.where(ended, 0, again), tokens)


def test_a_token_is_as_likely_as_its_type_letter_sign_and_digits_together():
    grammar = Grammar(["G1 X-0.1254", "Z0."])
    logits = torch.randn(82)
    token = grammar.vocabulary.ids["NUM_X_-0.1254"]
    pieces = torch.split(logits, [4, 6, 10, 2, *[10] * 6])
    wanted = [3, None, 0, 1, 0, 0, 1, 2, 5, 4]
    sure = sum(p.log_softmax(0)[n] for p, n in zip(pieces, wanted, strict=True) if n is not None)
    assert grammar.head_log_probs(logits)[token] == pytest.approx(float(sure), abs=1e-4)


def test_the_nearest_path_counts_alone_where_it_is_near_and_with_others_where_all_are_far():
    path = torch.cumsum(torch.rand(64, 3), dim=0)
    away = torch.tensor([0.2, 0.0, 0.0])  # mm
    nearest = PathKNN(torch.stack([path, path + away, path + away]), torch.tensor([0, 1, 1]), torch.zeros(3).bool())
    flat = torch.full((1, 2), 0.5)
    assert nearest(flat, (path + 0.4 * away)[None])[0, 0] > 0.98  # 0.08 mm from one, 0.12 mm from two
    assert nearest(flat, (path - 100 * away)[None])[0, 1] > 0.4  # 20 mm from one, 20.2 mm from two


def test_the_nearest_path_counts_only_where_the_path_is_known():
    paths_known = torch.randn(20, 64, 3) * 20 + 60
    nearest = PathKNN(paths_known, torch.arange(20) % 4, torch.arange(20) >= 10)
    flat = torch.full((2, 4), 0.25)
    known = nearest(flat, paths_known[[3, 6]])
    assert known.argmax(dim=1).tolist() == [3, 2] and known.max() > 0.95
    assert torch.allclose(nearest(flat, paths_known[:2] * 0), flat)
    assert nearest(flat, paths_known[[12, 12]]).argmax(dim=1).tolist() == [0, 0]  # number 12, which begins between
    away = torch.tensor([100.0, 0, 0])
    known = PathKNN(torch.stack([paths_known[0], paths_known[0] + 1]), torch.arange(2), torch.tensor([False, True]))
    assert known(flat, paths_known[[0, 0]] + 1 + away).argmax(dim=1).tolist() == [0, 0]  # too far to believe the nearer


def test_scores_count_by_place_and_by_kind():
    x, y = (next(t for t in tokens.default().tokens if t.startswith(f"NUM_{axis}")) for axis in "XY")
    target = np.array([tokens.default().numbers(line) for line in (["X", x, "unheard"], ["X", x, "Y", y])])
    decoded = target.copy()
    decoded[1, 1] = 0
    assert scores.token_accuracy(decoded, target) == pytest.approx(1 - 1 / (target != 0).sum())
    assert scores.token_accuracy(decoded, target, kind="numbers") == pytest.approx(2 / 3)
    assert scores.token_hits(decoded, target, kind="words")[0, 1] == 2  # X and its number; Y9. is UNK


def test_predict_writes_one_row_a_window_and_tokens_are_those_of_the_line(packed, tmp_path):
    out = tmp_path / "predictions.csv"
    message = predict.gcode(SAMPLE, weights=packed, out=out)
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["file", "start", "operation", "p", "line", "tokens"]
    assert len(rows) == len(data.load()) and f"{len(rows)} windows" in message
    for row in rows[::20]:
        assert row["tokens"].split() == tokens.default().decode(tokens.default().encode(row["line"]))


def test_predict_needs_no_gcode_and_reads_what_it_can(packed, tmp_path):
    good = pd.read_parquet(SAMPLE / "face_001.parquet").drop(columns="gcode_string")
    good.to_csv(tmp_path / "face_001_aligned.csv", index=False)
    good.head(30).to_parquet(tmp_path / "short_001.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    message = predict.gcode(tmp_path, weights=packed, out=tmp_path / "p.csv", skip=True)
    assert "1 files skipped" in message and "1 recordings shorter" in message
    assert {row["file"] for row in csv.DictReader((tmp_path / "p.csv").open())} == {"face_001_aligned.csv"}


def test_hiding_the_position_changes_the_answer_but_nothing_else_may_be_asked(packed, tmp_path):
    predict.gcode(SAMPLE, weights=packed, out=tmp_path / "a.csv")
    predict.gcode(SAMPLE, weights=packed, out=tmp_path / "b.csv", channels="no-position")
    assert (tmp_path / "a.csv").read_text() != (tmp_path / "b.csv").read_text()
    with pytest.raises(OptionError, match="raw channels"):
        predict.gcode(SAMPLE, weights=packed, out=tmp_path / "c.csv", channels="centred")
    assert not (tmp_path / "c.csv").exists()


def test_a_recording_is_followed_through_the_program_that_it_runs():
    lines, operations = [0, 1, 2, 3, 1, 4, 5, 1, 6, 3, 1, 7], [0] * 6 + [1] * 6
    hmm = ProgramHMM(*map(torch.tensor, (lines, operations, ([True] + [False] * 5) * 2)))
    alone = torch.full((6, 8), 1 / 8)
    alone[0] = torch.nn.functional.one_hot(torch.tensor(5), 8) * 0.92 + 0.01  # only its beginning is known
    line, operation = hmm(alone, torch.full((6, 9), 1 / 9), seen=torch.zeros(6, dtype=torch.bool))
    assert line.argmax(dim=1).tolist() == lines[6:] and (operation.argmax(dim=1) == 1).all()
    assert torch.allclose(line.sum(dim=1), torch.ones(6)) and torch.allclose(operation.sum(dim=1), torch.ones(6))


def test_the_operation_tells_apart_only_recordings_that_run_the_same_program():
    lines, operations = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7], [0] * 4 + [1] * 4 + [2] * 4
    hmm = ProgramHMM(*map(torch.tensor, (lines, operations, ([True] + [False] * 3) * 3)))
    seen = torch.zeros(4, dtype=torch.bool)
    alone = torch.nn.functional.one_hot(torch.arange(4), 8) * 0.5 + 0.0625
    known = torch.full((4, 9), 0.01)
    known[:, 1], known[:, 2] = 0.04, 0.89  # levels of the third, lines of the others
    line, operation = hmm(alone, known, seen=seen)
    assert line.argmax(dim=1).tolist() == lines[:4] and (operation.argmax(dim=1) == 1).all()


def test_a_recording_may_begin_in_the_middle_of_a_program():
    hmm = ProgramHMM(torch.arange(6), torch.zeros(6), torch.arange(6) == 0)
    alone = torch.nn.functional.one_hot(torch.tensor([3, 3, 5]), 6) * 0.94 + 0.01
    line, _ = hmm(alone, torch.full((3, 9), 1 / 9), seen=torch.zeros(3, dtype=torch.bool))
    assert line.argmax(dim=1)[[0, 2]].tolist() == [3, 5]


def test_a_whole_run_is_known_by_its_length_and_half_a_run_is_not_taken_for_a_short_one():
    hmm = ProgramHMM(torch.arange(30), torch.arange(30) // 20, (torch.arange(30) % 20) == 0)  # of 20 and of 10 lines
    alone, unseen = torch.full((10, 30), 1 / 30), torch.zeros(10, dtype=torch.bool)
    flat = torch.full((10, 9), 1 / 9)
    assert hmm(alone, flat, seen=unseen, run=True)[0].argmax(dim=1).tolist() == [*range(20, 30)]
    known = torch.nn.functional.one_hot(torch.arange(10), 30) * 0.7 + 0.01
    assert hmm(known, flat, seen=unseen)[0].argmax(dim=1).tolist() == [*range(10)]


def test_a_window_whose_position_was_seen_keeps_its_own_line():
    lines = torch.tensor([0, 1, 2, 3, 4, 5] * 3 + [0, 1, 3, 3, 4, 5])  # what most recordings say, and what one says
    hmm = ProgramHMM(lines, torch.zeros(24), torch.arange(24) % 6 == 0)
    alone = torch.nn.functional.one_hot(torch.tensor([0, 1, 3, 3, 4, 5]), 6) * 0.85 + 0.01
    alone[2, 2] = 0.1
    for seen, line in ((True, 3), (False, 2)):
        own = torch.full((6,), seen)
        assert hmm(alone, torch.full((6, 9), 1 / 9), seen=own)[0].argmax(dim=1)[2] == line


def test_a_stream_says_what_the_file_says_and_does_not_grow(packed):
    predictor = predict.load(packed)
    table = recordings.read_one(SAMPLE / "pocket_002.parquet", labels=False)
    machine = data.cut(table.assign(group="pocket_002"))
    wanted = predictor.predict(machine.take(machine.windows["row"].to_numpy()))
    raw = pd.read_parquet(SAMPLE / "pocket_002.parquet").to_dict("records")
    stream = predict.Stream(predictor)
    before = sum(value.nbytes for value in vars(stream).values() if isinstance(value, np.ndarray))
    streamed = [one for row in raw if (one := stream.push(row))]
    assert [(one.operation, one.line) for one in streamed] == [(one.operation, one.line) for one in wanted]
    assert sum(value.nbytes for value in vars(stream).values() if isinstance(value, np.ndarray)) == before


def test_a_line_of_more_tokens_than_the_decoder_writes_is_answered_whole(packed):
    predictor, long = predict.load(packed), "G1 X1.5 Y2.5 Z3.5 R0.083 F10.5"
    predictor.model.grammar = tokens.Grammar([long, *predictor.model.grammar.texts[1:]])
    first = torch.nn.functional.one_hot(torch.zeros(1, dtype=torch.int64), len(predictor.model.grammar)).float()
    known = replace(predictor, hmm=lambda line, operation, **_: (first, operation))
    windows = data.load().take([0])
    assert known.predict(windows, context="recording")[0].line == long


def test_windows_of_doubles_are_answered_as_those_of_single_precision(packed):
    predictor, windows = predict.load(packed), data.load().take([0, 200])
    assert predictor.predict(windows.astype(float)) == predictor.predict(windows)


def test_half_a_position_is_filled_in_or_hidden_and_never_taken_for_another_place(packed):
    predictor, machine = predict.load(packed), data.load()
    windows = machine.take(machine.windows["row"])
    whole, hidden = ([one.line for one in predictor.predict(x)] for x in (windows, _blank(windows, columns=3)))
    assert [one.line for one in predictor.predict(_blank(windows, columns=1))] == hidden
    filled = [one.line for one in predictor.predict(_blank(windows, columns=3, rows=np.arange(64) % 4 > 0))]
    same = [np.mean([line == other for line, other in zip(lines, whole, strict=True)]) for lines in (filled, hidden)]
    assert same[0] > 0.9 > same[1]


def _blank(windows, *, columns, rows=slice(None)):
    windows = windows.copy()
    for column in POSITION_COLUMNS[:columns]:
        windows[:, rows, column] = np.nan
    return windows


def test_rows_without_sensors_or_without_a_position_are_told(packed, tmp_path, caplog):
    table = pd.read_parquet(SAMPLE / "face_001.parquet")
    sensors = table.columns.intersection([*CHANNELS[:155]]).drop(["mpox", "mpoy", "mpoz"])
    table.loc[90:, sensors], table.loc[:20, "mpox"] = np.nan, np.nan
    table.to_parquet(tmp_path / "face_001.parquet")
    predict.gcode(tmp_path, weights=packed, out=tmp_path / "p.csv")
    assert "no sensor: their answers say little" in caplog.text and "lack a position" in caplog.text


def test_a_stream_refuses_another_unit_and_rows_of_unknown_channels(packed):
    predictor = predict.load(packed)
    table = pd.read_parquet(SAMPLE / "pocket_002.parquet")
    pressure = [name for name in table if name.endswith("Pressure")]
    stream = predict.Stream(predictor)
    with pytest.raises(DataError, match="Row 64: .*hPa"):
        for row in table.assign(**table[pressure] * 10).to_dict("records"):
            stream.push(row)
    with pytest.raises(OptionError, match="frame_b2.AX"):
        stream.push({"frame_b2.AX": 1.0})


def test_a_followed_window_is_the_likeliest_line_whatever_it_would_be_by_itself(packed):
    predictor = predict.load(packed)
    machine = data.load()
    windows = machine.take(machine.windows["row"].to_numpy()[:6])
    fourth = torch.nn.functional.one_hot(torch.full((6,), 3), len(predictor.model.grammar)).float()
    known = replace(predictor, hmm=lambda line, operation, **_: (fourth, operation))
    wanted = predictor.model.grammar.texts[3]
    assert [one.line for one in known.predict(windows, context="recording")] == [wanted] * 6
    assert [one.line for one in known.predict(windows)] != [wanted] * 6


def test_weights_of_something_else_are_refused(packed, tmp_path):
    tensors, manifest = checkpoint.load(packed)
    checkpoint.save(tmp_path, tensors, manifest | {"lines": manifest["lines"][:-1]})
    with pytest.raises(WeightsError, match="line"):
        predict.load(tmp_path)
    for used in ([1], "x", None):
        checkpoint.save(tmp_path, tensors, manifest | {"used": used})
        with pytest.raises(WeightsError, match="other channels"):
            predict.load(tmp_path)
    checkpoint.save(tmp_path, {}, {"kind": "gcode"})
    with pytest.raises(WeightsError, match="no decoder"):
        predict.load(tmp_path)


@pytest.mark.slow
def test_onnx_says_what_torch_says(packed, tmp_path):
    pytest.importorskip("onnxscript")
    assert "agrees with torch on 30 windows" in predict.onnx(packed, out=tmp_path / "gcode.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["gcode.onnx"]


def test_bench_reports_every_baseline_and_takes_up_what_was_trained(tmp_path):
    words = ["bench", "gcode", "--folds", "0", "--epochs", "1", "--json", str(tmp_path / "g.json")]
    first = CliRunner().invoke(cli.cli, words)
    assert first.exit_code == 0 and "1-NN on position" in first.output, first.output
    name = next(paths.runs().glob("bench/*/window-decoder/scores.json"))
    stamp = name.stat().st_mtime_ns
    again = CliRunner().invoke(cli.cli, [*words[:-1], str(tmp_path / "h.json"), "--channels", "no-position"])
    assert again.exit_code == 0 and name.stat().st_mtime_ns == stamp


def test_hiding_the_position_in_the_input_leaves_nothing_of_it(batch):
    prepared = DataConfig(channels="no-position").prepared
    hidden = prepared.windows("test").__getitems__([0, 1])
    assert (hidden["continuous"][..., POSITION_COLUMNS] == 0).all() and (
        batch["continuous"][..., POSITION_COLUMNS] != 0
    ).any()


def test_a_run_that_standardises_recordings_cannot_be_packed(run, tmp_path):
    other = runs.start("centred", run.params | {"channels": "centred"})
    with pytest.raises(WeightsError, match="standardises"):
        release.save(other, tmp_path)


@pytest.mark.skipif(not (paths.weights() / "gcode" / "manifest.json").exists(), reason="no weights yet")
def test_the_shipped_decoder_is_small_and_reads_every_channel():
    folder = paths.weights() / "gcode"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    predictor = predict.load(folder)
    empty = np.full((1, 64, len(CHANNELS)), np.nan, np.float32)
    assert predictor.mask.all() and predictor.predict(empty)[0].line in predictor.model.grammar.texts


def test_paths_of_the_sample_are_found():
    assert recordings.find("") == Path(SAMPLE)
