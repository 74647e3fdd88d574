"""Public layouts of gas frames, written here by the simulator: read alike, split as published and by whole videos."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from smellkit import train
from smellkit.errors import DataError, OptionError
from smellkit.plume import GAS, GASES
from smellkit.simulate import plume as simulate
from smellkit.study.plume import public

CH4 = GASES.index("ch4")
PUBLISHED = ("train", "validation", "test", "train")  # what happens to one frame of a video after the other


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def videos():
    """Name -> frames and masks (4, 2, 48, 64) of seven vessels."""
    plans = simulate.plan(28, frames=4, missing="none", shares=(1, 0, 0), seed=3)
    films = [simulate.film(plan, number=number, size=(64, 48), seed=3)[1] for number, plan in enumerate(plans)]
    return {f"FLIR{600 + number:04d}": film for number, film in enumerate(films)}


def gasformer(folder, videos):
    rows = [
        {"video_id": name, "frame_index": frame, "flow_rate_class": 8, "official_split": PUBLISHED[frame]}
        | {"image": {"bytes": png(film.frames[frame, CH4]), "path": None}}
        | {"mask": {"bytes": png((film.masks[frame, CH4] == GAS).astype(np.uint8)), "path": None}}
        for name, film in videos.items()
        for frame in range(4)
    ]
    (folder / "data").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "data" / "train-00000-of-00001.parquet")


def controlled_diet(folder, videos):
    for name, film in videos.items():
        for frame in range(4):
            split = PUBLISHED[frame].replace("validation", "val")
            for kind in ("images", "masks"):
                (folder / "data" / split / kind).mkdir(parents=True, exist_ok=True)
            stem = f"{name}_frame_{frame:04d}.png"
            (folder / "data" / split / "images" / stem).write_bytes(png(film.frames[frame, CH4]))
            mask = 3 * (film.masks[frame, CH4] == GAS).astype(np.uint8)
            (folder / "data" / split / "masks" / stem).write_bytes(png(mask))


def gasground(folder, videos):
    (folder / "data").mkdir(parents=True)
    for number, (name, film) in enumerate(videos.items()):
        gas, split = number % 2, ("train", "val", "test")[number % 3]
        with tarfile.open(folder / "data" / f"{split}-{number:06d}.tar", "w") as archive:
            for frame in range(4):
                gone = (film.masks[frame, gas] == GAS).astype(np.uint8) * 255
                halves = [gone * (np.arange(64) < 32), gone * (np.arange(64) >= 32)]
                parts = {"png": png(film.frames[frame, gas]), "json": json.dumps({"gas": GASES[gas]}).encode()}
                parts |= {f"mask_{part}.png": png(half.astype(np.uint8)) for part, half in enumerate(halves)}
                for kind, data in parts.items():
                    info = tarfile.TarInfo(f"{name}_frame_{frame:04d}.{kind}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("write", [gasformer, controlled_diet, gasground])
def test_every_layout_gives_back_the_frames_and_the_gas_that_were_written(tmp_path, videos, write):
    write(tmp_path, videos)
    table, frames, masks = public.read(tmp_path, size=(48, 64))
    assert len(table) == len(frames) == len(masks) == 28 and set(table["split"]) == {"train", "valid", "test"}
    for row, one in enumerate(table.itertuples()):
        gas, film = GASES.index(one.gas), videos[one.video]
        assert (frames[row, gas].numpy() == film.frames[one.number, gas]).all()
        assert ((masks[row, gas].numpy() == GAS) == (film.masks[one.number, gas] == GAS)).all()
        assert not frames[row, 1 - gas].any() and not masks[row, 1 - gas].any()
    gases = {"ch4"} if write is not gasground else {"co2", "ch4"}
    assert set(table["gas"]) == gases


def test_the_official_split_crosses_videos_and_the_other_protocol_does_not(tmp_path, videos):
    gasformer(tmp_path, videos)
    table = public.read(tmp_path, size=(24, 32))[0]
    official, apart = public.deal(table, "official"), public.deal(table, "videos")
    assert [len(rows) for rows in official.values()] == [14, 7, 7]
    assert len({frozenset(table.loc[rows, "video"]) for rows in official.values()}) == 1  # all videos on all sides
    sides = [set(table.loc[rows, "video"]) for rows in apart.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 7 and all(sides)
    other = public.deal(table, "videos", seed=8)
    assert any(set(table.loc[other[split], "video"]) != side for split, side in zip(apart, sides, strict=True))
    with pytest.raises(OptionError, match="official, videos"):
        public.deal(table, "frames")


def test_masks_are_learned_from_public_frames_alone(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    torch.set_num_threads(1)
    gasformer(tmp_path, videos)
    settings = train.Settings(epochs=16, batch=7, learning_rate=1e-2)
    options = {"data": str(tmp_path), "protocol": "official", "model": "plumenet", "height": 36, "augment": False}
    run = train.fit(public.PublicTask(**options), settings, params=options)
    assert run.scores["test"]["plume_ch4"] > 0.15
    assert "plume_co2" not in run.scores["test"] and "balanced" not in run.scores["test"]


def test_a_folder_of_something_else_and_a_frame_without_its_mask_are_named(tmp_path, videos):
    with pytest.raises(DataError, match="No public frames"):
        public.read(tmp_path, size=(24, 32))
    controlled_diet(tmp_path, videos)
    (tmp_path / "data" / "test" / "masks" / "FLIR0602_frame_0002.png").unlink()
    with pytest.raises(DataError, match="FLIR0602_frame_0002.png"):
        public.read(tmp_path, size=(24, 32))


def test_a_broken_picture_and_an_unknown_split_are_named(tmp_path, videos):
    gasformer(tmp_path, videos)
    file = next(tmp_path.rglob("*.parquet"))
    table = pd.read_parquet(file)
    table.loc[3, "official_split"] = "spare"
    table.to_parquet(file)
    with pytest.raises(DataError, match="spare"):
        public.read(tmp_path, size=(24, 32))
    table.loc[3, "official_split"] = "test"
    table.at[3, "image"] = {"bytes": b"no picture", "path": None}
    table.to_parquet(file)
    with pytest.raises(DataError, match="parquet"):
        public.read(tmp_path, size=(24, 32))


def test_frames_of_a_public_video_are_seen_beside_each_other(tmp_path, videos):
    gasformer(tmp_path, videos)
    task = public.PublicTask(data=str(tmp_path), model="plumenet", height=36, videos=0.5)
    shown = task.load()["test"]
    batch = shown.__getitems__(range(len(shown)))
    assert batch["ch4_motion"].flatten(1).any(dim=1).all() and not batch["co2_motion"].any()
    alone = public.PublicTask(data=str(tmp_path), model="plumenet", height=36).load()["test"]
    assert "ch4_motion" not in alone.__getitems__([0])
