"""A model card of trained weights, made from their manifest: a README that people and Hugging Face's hub can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 16  # figures of a card; the manifest has all
KINDS = {  # kind -> what the weights do, what they don't
    "odour": (
        "Names the substance in windows of a gas-sensor recording, with a calibrated probability.",
        "They know the nose and the sessions of their training recordings. Another board is refused, another day is "
        "mostly named wrong, and a set of classes holds the truth less often than it was made for (58 % instead of 90 "
        "was seen): calibrate with references of today, and believe the scores of another session.",
    ),
    "mixture": (
        "Shares of twelve odorants from four gas sensors at 10 Hz: a look-up in known sessions, a mean else.",
        "Most training files are synthetic. On a day that is not in training, shares are hardly better than the mean.",
    ),
    "fusion": (
        "Shares of twelve scents from a recording, a picture and a text, any of them absent: a product of experts.",
        "Pictures and texts tell which scents there are, and not how much of each. What lies at the rim of what is "
        "known is trusted too much.",
    ),
    "gcode": (
        "The operation of a milling machine and its line of G-code, from a window of sensor rows.",
        "One machine, known programs. The position gives most away; without it, in another session, more than half of "
        "the tokens are wrong.",
    ),
    "plume": (
        "Masks of gas and tube, and a health class, from a pair of CO2 and CH4 frames.",
        "Trained on simulated frames of many cameras, barns and plumes; no real frame was ever seen. Frames of a "
        "simulator that was not in training are segmented worse.",
    ),
}


def card(manifest: Mapping[str, Any]) -> str:
    """The card as markdown with metadata: what it does, for which nose, made of what, how good, what it can't do."""
    kind = str(manifest.get("kind", ""))
    does, limits = KINDS.get(kind, (f"Weights of kind {kind!r}.", "Not described."))
    nose, made = manifest.get("nose") or {}, manifest.get("made_by") or {}
    facts = {
        "Network": manifest.get("model") if isinstance(manifest.get("model"), str) else "",
        "Nose": nose.get("name", "") if isinstance(nose, Mapping) else "",
        "Columns": ", ".join((manifest.get("protocol") or {}).get("columns", [])),
        "Classes": _short(manifest.get("classes") or manifest.get("odorants") or []),
        "Data": made.get("data") or (manifest["trained_on"] if isinstance(manifest.get("trained_on"), str) else ""),
        "Made by": f"`{made['command']}`" if made.get("command") else "",
        "Revision": made.get("revision", ""),
    }
    front = ["---", "license: mit", "library_name: smellkit", "tags:", "- electronic-nose", f"- smellkit-{kind}", "---"]
    lines = [
        *front,
        "",
        f"# smellkit {manifest.get('name', kind)} weights",
        "",
        does,
        "",
        *(f"- {key}: {is_}" for key, is_ in facts.items() if is_),
    ]
    scores = list(_numbers(manifest.get("scores") or {}))[:SHOWN]
    if scores:
        lines += ["", "| score | value |", "|---|---:|", *(f"| {name} | {value:.4g} |" for name, value in scores)]
    run = f"    smellkit predict DIR --weights {manifest.get('name', kind)} --out OUT"
    return (
        "\n".join([*lines, "", f"**Limits.** {limits}", "", run, "", f"smellkit {manifest.get('smellkit', '')}"]) + "\n"
    )


def _short(names: list) -> str:
    return ", ".join(map(str, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _numbers(values: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}{key}, ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name + str(key), value
