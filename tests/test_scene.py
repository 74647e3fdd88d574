"""Scene encoders: the light one, a tiny Qwen-VL written to disk, and the cache between them and the disk."""

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.odour.scene_encoder import (
    TEXTS,
    TOKENS,
    CompactScene,
    LightScene,
    SceneEncoder,
    in_batches,
    installed,
    load_scene_encoder,
    verified,
)

WORDS = [
    "[UNK]",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "sweet",
    "green",
    "warm",
    "sharp",
]
FAMILIES = ("qwen3_vl", "qwen2_5_vl")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


def picture(seed=0, size=(120, 90)):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def seen(encoder, *pictures):
    """Embeddings of pictures that are kept as files first."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(len(pictures))]
        for file, one in zip(files, pictures, strict=True):
            one.save(file)
        return encoder.vision(files)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folders of tiny random Qwen-VL models, with tokenizer and picture processor, as one finds them on a hub."""
    pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen3_vl import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    text |= {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": rope,
    }
    text |= {"bos_token_id": 0, "eos_token_id": 0}
    ids = {"image_token_id": 1, "vision_start_token_id": 2, "vision_end_token_id": 3, "video_token_id": 4}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    new = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    old = {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
    kinds = {
        "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration, vision | new),
        "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision | old),
    }
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folders = {}
    for family, (config, model, tower) in kinds.items():
        folder = tmp_path_factory.mktemp(family)
        model(config(text_config=text, vision_config=tower, **ids)).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
        size = {"patch_size": tower["patch_size"], "min_pixels": 64 * 64, "max_pixels": 256 * 256}
        Qwen2VLImageProcessorPil(merge_size=2, temporal_patch_size=2, **size).save_pretrained(folder)
        folders[family] = folder
    return folders


def test_the_light_encoder_gives_one_row_for_each_input():
    vision, text = seen(LightScene(), picture(), picture(1)), LightScene().text(["warm", "sweet and green"])
    assert vision.shape == (2, 177) and np.isfinite(vision).all()
    assert text.shape == (2, 256) and np.isfinite(text).all()


def test_alike_pictures_and_texts_lie_closer_than_unlike_ones():
    red, orange, blue = (Image.new("RGB", (80, 80), colour) for colour in ("#d02020", "#e05020", "#2020d0"))
    vision = seen(LightScene(), red, orange, blue)
    assert np.linalg.norm(vision[0] - vision[1]) < np.linalg.norm(vision[0] - vision[2])
    text = LightScene().text(["it smells sweet and creamy", "a sweet creamy smell", "pungent, metallic"])
    assert text[0] @ text[1] > text[0] @ text[2]


def test_a_second_encoding_comes_from_the_cache(work):
    class Counting(LightScene):
        count = 0

        def embed_pictures(self, pictures):
            self.count += len(pictures)
            return super().embed_pictures(pictures)

    encoder = Counting()
    first = seen(encoder, picture(1), picture(2), picture(1))
    assert encoder.count == 2  # equal content is computed once
    assert np.array_equal(seen(Counting(), picture(1), picture(2), picture(1)), first)
    assert len(list(work.rglob("*"))) > 2


def test_a_work_folder_that_can_not_be_written_costs_time_and_no_answer(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "file" / "work"))
    assert np.isfinite(LightScene().text(["sweet and ripe"])).all()


def test_a_text_that_is_no_unicode_is_refused():
    with pytest.raises(DataError, match="not Unicode"):
        LightScene().text(["caf\udce9"])  # what Python makes of an argument in Latin-1


@pytest.mark.parametrize("damage", [b"", b"half", b"\0" * 740])
def test_a_damaged_cache_entry_is_computed_again(work, damage):
    encoder = LightScene()
    good = seen(encoder, picture(3))
    (entry,) = [path for path in work.rglob("*") if path.is_file()]
    entry.write_bytes(damage)
    assert np.array_equal(seen(encoder, picture(3)), good)
    assert len(entry.read_bytes()) == 32 + 4 * encoder.vision_size


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path):
    picture(4).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    vision = LightScene().vision([tmp_path / "a.png", tmp_path / "b.png"])
    assert np.array_equal(vision[0], vision[1])


def test_a_truncated_picture_is_refused_by_name_when_it_is_read(tmp_path):
    picture(5).save(tmp_path / "pear.png")
    (tmp_path / "pear.png").write_bytes((tmp_path / "pear.png").read_bytes()[:-3000])
    with pytest.raises(DataError, match="pear.png"):
        LightScene().vision([tmp_path / "pear.png"])


def test_an_empty_description_is_refused():
    with pytest.raises(DataError, match="description"):
        LightScene().text(["  "])


def test_out_of_memory_halves_the_batch_once_and_says_so():
    sizes = []

    def compute(rows):
        sizes.append(len(rows))
        if len(rows) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return np.array(rows, np.float32)[:, None]

    with pytest.warns(RuntimeWarning, match="Out of memory with 8 at once: going on with 4") as said:
        rows = dict(in_batches(compute, list(range(20)), batch=8))
    assert len(said) == 1
    assert sizes == [8, 4, 4, 4, 4, 4]
    assert [float(value[0]) for value in rows.values()] == list(range(20))


def test_out_of_memory_twice_fails_clearly():
    def compute(rows):
        raise MemoryError

    with warnings.catch_warnings(), pytest.raises(SmellkitError, match="Out of memory with 4 samples"):
        warnings.simplefilter("ignore")
        list(in_batches(compute, list(range(8)), batch=8))


def test_another_error_is_not_taken_for_memory():
    def compute(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_batches(compute, [1], batch=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_qwen_vl_folder_sees_32_pictures_in_less_than_ten_seconds(tiny, family):
    encoder = load_scene_encoder(str(tiny[family]))
    pictures = [picture(i, (100 + 9 * i, 300 - 5 * i)) for i in range(32)]
    began = time.monotonic()
    vision, text = seen(encoder, *pictures), encoder.text(["sweet green"] * 32)
    assert time.monotonic() - began < 10
    assert vision.shape == text.shape == (32, 32)
    assert np.isfinite(vision).all() and np.isfinite(text).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedding_does_not_depend_on_its_batch(tiny, family):
    encoder = load_scene_encoder(str(tiny[family]))
    pictures = [picture(i, (150 + 20 * i, 200)) for i in range(3)]
    assert np.allclose(encoder.embed_pictures(pictures)[1], encoder.embed_pictures(pictures[1:2])[0], atol=1e-5)
    texts = ["sweet", "warm sharp green"]
    assert np.allclose(encoder.embed_texts(texts)[0], encoder.embed_texts(texts[:1])[0], atol=1e-5)


def test_the_cache_of_one_model_is_not_the_cache_of_another(tiny):
    new, old = (load_scene_encoder(str(tiny[family])) for family in FAMILIES)
    assert new.identity != old.identity
    assert not np.allclose(new.text(["sweet"]), old.text(["sweet"]))


def test_a_model_that_lacks_tensors_is_refused(tiny, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny["qwen3_vl"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if "visual.blocks.0" in name))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 tensor"):
        load_scene_encoder(str(folder))


def test_other_folders_and_names_are_refused_with_a_hint(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="bert"):
        load_scene_encoder(str(tmp_path))
    with pytest.raises(OptionError, match="no folder"):
        load_scene_encoder(str(tmp_path / "nowhere"))
    with pytest.raises(OptionError, match="pinned revision"):
        load_scene_encoder("Qwen/Qwen3-VL-2B-Instruct")


@pytest.mark.skipif(not installed(), reason="pip install 'smellkit[senses]'")
def test_a_text_means_what_transformers_says_that_it_means():
    transformers = pytest.importorskip("transformers")
    folder = verified(*TEXTS).parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True).eval()
    lines = ["Green.", "a clove, sulphurous and pungent", "crème brûlée 🍮", "so long that its end is left out " * 60]
    batch = tokenizer(lines, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    with torch.inference_mode():
        states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
    mean = ((states * mask).sum(1) / mask.sum(1)).numpy()
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(CompactScene().embed_texts(lines), expected, atol=1e-5)


def test_the_interface_needs_both_senses():
    with pytest.raises(TypeError):
        SceneEncoder()


def test_a_vision_language_model_of_ones_own_is_fitted_into_the_pipeline(tiny):
    from smellkit.odour.pipeline import Pipeline
    from smellkit.odour.scents import list_pictures

    answer = Pipeline.fit(scene=str(tiny["qwen3_vl"]))(picture=list_pictures()["file"].iloc[0])
    assert list(answer.evidence) == ["picture"] and abs(sum(answer.shares) - 1) < 1e-6
