"""Write the tables and figures of the docs from the result files in docs/results.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; this script fills it from `docs/results/NAME.json`.
A figure `docs/figures/NAME.png` is drawn from the same and carries the digest of its file. A table whose file is not
there says so; a GPU's (`gpu_NAME.json`, of scripts/gpu_visit.py) also where the file is of a trial at tiny sizes.
`--check` changes nothing and fails if a table or figure is not of its file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_tables import (
    bench_curves,
    bench_decoder,
    bench_media,
    bench_model,
    bench_predict,
    bench_profile,
    bench_step,
    reference_deviations,
)
from gpu_tables import NOT_YET
from gpu_tables import TABLES as GPU_TABLES
from PIL import Image

from deepavfusion.atomic import replacing
from deepavfusion.drawing.cost_curves import cost_curves_figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def resume_matrix(record: dict) -> str:
    """Every way to stop a run, and whether the continued one is the same."""
    rows = ["| signal | processes | workers | stopped at | continued from | exit code | final weights | metrics rows |"]
    rows.append("|---|--:|--:|--:|--:|--:|---|---|")
    for r in record["rows"]:
        same = ["bit-equal" if r[key] else "differ" for key in ("bit_equal", "same_rows")]
        cells = [r[key] for key in ("processes", "workers", "stopped_at", "continued_from", "exit_code")]
        rows.append(f"| {r['signal']} | {' | '.join(map(str, cells))} | {' | '.join(same)} |")
    return "\n".join(rows) + "\n"


def elastic_matrix(record: dict) -> str:
    """Stopped on two processes, continued on others."""
    rows = [
        "| stopped: 2 processes of | continued on | loaded | final weights | losses differ by | weights differ by |"
    ]
    rows.append("|---|---|---|---|--:|--:|")
    for r in record["rows"]:
        equal = ["bit-equal" if r[key] else "differ" for key in ("loaded_bit_equal", "final_bit_equal")]
        apart = [f"{r[key]:.0e}" if r[key] else "0" for key in ("loss_difference", "weight_difference")]
        then = f"{r['then_processes']}" + (f" of `{r['then_strategy']}`" if r["then_processes"] > 1 else "")
        if r["then_processes"] > 1 or r["then_strategy"] == r["strategy"]:  # one process shares nothing out
            rows.append(f"| `{r['strategy']}` | {then} | {' | '.join(equal + apart)} |")
    return "\n".join(rows) + "\n"


def estimate(record: dict) -> str:
    """Estimated and measured memory."""
    rows = [
        "| model | clips per step | processes | precision | accumulations | estimated MiB | measured MiB | off by |"
    ]
    rows.append("|---|--:|---|---|---|--:|--:|--:|")
    for r in record["rows"]:
        many = f"{r['processes']} of `{r['strategy']}`" if r["processes"] > 1 else "1"
        passes = f"{r['accumulation']}" + (", checkpointing" if r["gradient_checkpointing"] else "")
        off = f"{100 * (r['estimated_mib'] / r['measured_mib'] - 1):+.1f} %"
        sizes = f"{r['estimated_mib']:,.0f} | {r['measured_mib']:,.0f}"
        rows.append(f"| {r['size']} | {r['batch_size']} | {many} | {r['precision']} | {passes} | {sizes} | {off} |")
    return "\n".join(rows) + "\n"


def scaling(record: dict) -> str:
    """What `estimate` says of larger models on more GPUs."""
    rows = ["| model | million weights | GPUs | weights GiB | optimiser | gathered | activations | rest | peak GiB "]
    rows[0] += "| sent per step, GiB | GPU hours |"
    rows.append("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    gib = 2**30
    for r in record["rows"]:
        many = f"{r['gpus']} `{r['strategy']}`" if r["gpus"] > 1 else "1"
        parts = [r["memory"][name] for name in ("weights", "optimizer", "gathered", "activations", "passing")]
        cells = [f"{value / gib:.2f}" for value in (*parts, r["peak"], r["traffic"])]
        hours = f"{24 * r['days'] * r['gpus']:.1f}"
        rows.append(f"| {r['size']} | {r['num_parameters'] / 1e6:.0f} | {many} | {' | '.join(cells)} | {hours} |")
    shares = dict.fromkeys(f"{r['mfu']:.0%} ({r['mfu_source']})" for r in record["rows"])
    rows += ["", f"GPU hours are at {' and '.join(shares)} of what an H100's data sheet says, 989 TFLOP/s."]
    return "\n".join(rows) + "\n"


def classification(record: dict) -> str:
    """Arms of the classification experiments, set by set: accuracy, and how far early fusion is from each."""
    head = "| set | labels | arm | probe | attentive probe | fine-tuned |"
    rows = [head, "|---|---|---|--:|--:|--:|"]
    cells = {(r["set"], r["labels"], r["arm"], r["recipe"]): r for r in record["rows"]}
    for name, labels, arm in dict.fromkeys(key[:3] for key in cells):
        own = [cells.get((name, labels, arm, recipe)) for recipe in ("probe", "attentive", "finetune")]
        shown = ["" if cell is None else _accuracy(cell) for cell in own]
        rows.append(f"| {name} | {labels} | {arm} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def classification_parts(record: dict) -> str:
    """Look and timbre of the solos apart."""
    rows = ["| labels | recipe | arm | class | look | timbre |", "|---|---|---|--:|--:|--:|"]
    for r in record["rows"]:
        if "look" in r:
            numbers = " | ".join(f"{r[part]:.3f}" for part in ("class", "look", "timbre"))
            rows.append(f"| {r['labels']} | {r['recipe']} | {r['arm']} | {numbers} |")
    return "\n".join(rows) + "\n"


def _accuracy(cell: dict) -> str:
    """Mean over seeds; in brackets the interval of `streams` minus this arm; how many seeds if not three."""
    text = f"{cell['class']:.3f}"
    if "streams_minus_arm" in cell:
        text += f" {_interval(cell['streams_minus_arm'])}"
    seeds = cell["num_seeds"]
    return text if seeds == 3 else f"{text} ({seeds} seed{'s' if seeds > 1 else ''})"


def _interval(difference: dict) -> str:
    return f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"


def classification_fusion(record: dict) -> str:
    """What the fusion tokens know alone, against every other arm."""
    others = ("untrained", "image", "audio", "separate", "averaged")
    rows = [f"| set | labels | recipe | early | minus {' | minus '.join(others)} |"]
    rows.append("|---|---|---|--:" + "|--:" * len(others) + "|")
    cells = {(r["set"], r["labels"], r["recipe"], r["arm"]): r for r in record["rows"]}
    for key in dict.fromkeys(key[:3] for key in cells):
        if (*key, "early") in cells:
            own = [cells.get((*key, arm), {}).get("early_minus_arm") for arm in others]
            shown = ["" if d is None else f"{d['value']:+.3f} {_interval(d)}" for d in own]
            rows.append(f"| {' | '.join(key)} | {cells[(*key, 'early')]['class']:.3f} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def localization_limits(record: dict) -> str:
    """Scores of an ideal listener, by what it knows."""
    names = ("source chosen", "source chosen, lookalikes", "false positives, foreign", "false positives, off_screen")
    rows = [f"| known | {' | '.join(names)} |", "|---|--:|--:|--:|--:|"]
    rows += [f"| {r['known']} | {' | '.join(f'{r[name]:.3f}' for name in names)} |" for r in record["rows"]]
    return "\n".join(rows) + "\n"


def bandstand_caps(runs: list) -> str:
    """Supervised unimodal classifiers against their caps."""
    rows = [
        "| world seed | test solos | modality | class accuracy (cap) | look | timbre |",
        "|--:|--:|---|--:|--:|--:|",
    ]
    for run in runs:
        for modality, name in (("image", "picture"), ("audio", "sound")):
            s = run[name]
            rows.append(
                f"| {run['seed']} | {run['test']} | {modality} | {s['class']:.3f} ({s['cap']:.3f}) "
                f"| {s['look']:.3f} | {s['timbre']:.3f} |"
            )
    return "\n".join(rows) + "\n"


def digit_identity(record: dict) -> str:
    """What is known of the digits themselves."""
    rows = ["| encoder | digit | test accuracy | training accuracy | tested |", "|---|---|--:|--:|--:|"]
    for r in record["rows"]:
        rows.append(f"| {r['arm']} | {r['digit']} | {r['test']:.3f} | {r['train']:.3f} | {r['num_test']} |")
    return "\n".join(rows) + "\n"


def bandstand_truth(record: dict) -> str:
    """Decoded clips against their annotations."""
    r = record
    rows = [
        "| decoded clips against their annotations | |",
        "|---|---|",
        f"| clips | {r['num_clips']} |",
        f"| boxes equal to the tight boxes of the masks | {r['boxes_exact']} of {r['num_boxes']} |",
        f"| stems and room add up to the encoded mixture, sample by sample | {r['mixtures_exact']} of "
        f"{r['num_mixtures']} |",
        f"| decoded sound against that mixture (AAC), SNR | median {r['snr_median_db']:.1f} dB, worst "
        f"{r['snr_worst_db']:.1f} dB |",
        f"| share of a stem's energy inside its sounding intervals, {r['num_stems']} stems | mean "
        f"{r['energy_inside_mean']:.3f}, least {r['energy_inside_least']:.3f} (the rest is echo) |",
    ]
    return "\n".join(rows) + "\n"


def stamps_speed(record: dict) -> str:
    """What clips of two casts cost."""
    rows = [
        "| cast | clips | reading the folder, once | drawing and playing a clip | encoding and writing it | together |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for cast, r in record.items():
        whole = r["drawing_seconds"] + r["writing_seconds"]
        rows.append(
            f"| {cast} | {r['clips']} | {r['reading_seconds']:.1f} s | {r['drawing_seconds']:.3f} s "
            f"| {r['writing_seconds']:.3f} s | {whole:.3f} s |"
        )
    return "\n".join(rows) + "\n"


def matching(record: dict) -> str:
    """Whether heads on frozen tokens learn to compare the senses, with and without one scale for all features."""
    rows = ["| head | standardised tokens | LayerNorm alone |", "|---|--:|--:|"]
    cells = {(r["head"], r["standardised"]): r["seeds"] for r in record["rows"]}
    for head in dict.fromkeys(name for name, _ in cells):
        shown = [", ".join(f"{value:.3f}" for value in cells.get((head, kind), ())) for kind in (True, False)]
        rows.append(f"| {head} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def paired_arms(record: dict) -> str:
    """Scores of every arm, set by set, with the interval of the reference minus the arm."""
    arms = list(dict.fromkeys(r["arm"] for r in record["rows"]))
    rows = [f"| set | score | samples | {' | '.join(arms)} |", "|---|---|--:" + "|--:" * len(arms) + "|"]
    cells = {(r["set"], r["score"], r["arm"]): r for r in record["rows"]}
    for name, score in dict.fromkeys(key[:2] for key in cells):
        own = [cells.get((name, score, arm)) for arm in arms]
        shown = ["" if cell is None else _paired(cell) for cell in own]
        num_samples = next(cell["num_samples"] for cell in own if cell is not None)
        rows.append(f"| {name} | {score} | {num_samples} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n"


def paired_arms_of(sets: tuple[str, ...], record: dict) -> str:
    """As `paired_arms`, of the sets whose names begin so; says if there are none yet."""
    rows = [row for row in record["rows"] if row["set"].startswith(sets)]
    return paired_arms({"rows": rows}) if rows else "Not measured yet.\n"


def _paired(cell: dict) -> str:
    """Mean over seeds; in brackets the interval of the reference minus this arm; how many seeds if not three."""
    text = f"{cell['value']:.3f}"
    if "reference_minus_arm" in cell:
        text += f" {_interval(cell['reference_minus_arm'])}"
    seeds = len(cell["seeds"])
    return text if seeds == 3 else f"{text} ({seeds} seed{'s' if seeds > 1 else ''})"


def objectives(record: dict) -> str:
    """Scores of the pilots, one row per objective and number of draws; the mean where there are several seeds."""
    names = {
        "image": "image",
        "audio": "audio",
        "fusion": "fusion",
        "all": "all",
        "image_alone": "image alone",
        "audio_alone": "audio alone",
        "worth_image": "worth_image",
        "worth_audio": "worth_audio",
    }
    rows = [f"| objective | draws | seeds | {' | '.join(names.values())} | core s |"]
    rows.append("|---|--:|--:|" + "--:|" * (len(names) + 1))
    for arm, draws in dict.fromkeys((r["arm"], r["draws"]) for r in record["rows"]):
        own = [r for r in record["rows"] if (r["arm"], r["draws"]) == (arm, draws)]
        cells = []
        for key in names:
            values = [r[key] for r in own if key in r]
            mean = sum(values) / len(values) if values else 0.0
            cells.append("" if not values else f"{mean:+.4f}" if key.startswith("worth") else f"{100 * mean:.1f}")
        seconds = sum(r["core_seconds"] for r in own) / len(own)
        rows.append(f"| {arm} | {draws:,} | {len(own)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(rows) + "\n"


def senses(record: dict) -> str:
    """Linear probes of the senses, one row per set, objective and what is read."""
    rows = [
        "| set | test samples | objective | read | seeds | accuracy | minus separate |",
        "|---|--:|---|---|--:|--:|--:|",
    ]
    for row in record["rows"]:
        gap = row.get("minus_separate")
        shown = f"{gap['value']:+.3f} {_interval(gap)}" if gap else ""
        cells = (row["set"], row["num"], row["objective"], row["arm"], len(row["seeds"]), f"{row['value']:.3f}", shown)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows) + "\n"


def senses_forms(record: dict) -> str:
    """Linear probes by form of fusion, one row per set and what is read."""
    forms = list(dict.fromkeys(row["form"] for row in record["rows"]))
    paired = [form for form in forms if any("form_minus_token" in r for r in record["rows"] if r["form"] == form)]
    heads = [f"`{form}`" for form in forms] + [f"`{form}` minus `token`" for form in paired]
    lines = [f"| set | test samples | read | {' | '.join(heads)} |", "|---|--:|---|" + "--:|" * len(heads)]
    asked = dict.fromkeys((row["set"], row["num"], row["read"]) for row in record["rows"])
    for name, num, what in asked:
        own = {r["form"]: r for r in record["rows"] if (r["set"], r["read"]) == (name, what)}
        cells = []
        for form in forms:
            row = own[form]
            gaps = {"reference_minus_arm": row["first_minus_form"]} if "first_minus_form" in row else {}
            cells.append(_paired({"value": row["value"], "seeds": row["seeds"], **gaps}))
        for form in paired:
            gap = own[form]["form_minus_token"]
            seeds = "" if gap["seeds"] == 3 else f" ({gap['seeds']} seed{'s' if gap['seeds'] > 1 else ''})"
            cells.append(f"{gap['value']:+.3f} {_interval(gap)}{seeds}")
        lines.append(f"| {name} | {num} | {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def vector_stores(record: dict) -> str:
    """Stores of vectors side by side."""
    rows = [
        "| store | build, s | files, MiB | memory building | memory searching | query, ms | recall@10 | another sense "
        "| more, s | killed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for r in record["rows"]:
        memory = (r[key] for key in ("file_mib", "build_peak_mib", "query_peak_mib"))
        sizes = " | ".join("" if value is None else f"{value:,.0f}" for value in memory)
        scores = f"{r['queries_ms']:.1f} | {r['queries_recall']:.3f} | {r['moved_recall']:.3f}"
        killed = f"whole {r['whole']} of {r['kills']}" if "kills" in r else ""
        rows.append(
            f"| {r['store']} | {r['build_cpu_seconds']:.1f} | {sizes} | {scores} | {r['more_cpu_seconds']:.2f} "
            f"| {killed} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return "\n".join([*rows, "", f"Versions: {versions}."]) + "\n"


TABLES: dict[str, Callable] = {
    "bandstand_caps": bandstand_caps,
    "bandstand_truth": bandstand_truth,
    "bench_curves": bench_curves,
    "bench_curves_cuda": bench_curves,
    "bench_decoder": bench_decoder,
    "bench_decoder_cuda": bench_decoder,
    "bench_media": bench_media,
    "bench_model": bench_model,
    "bench_model_cuda": bench_model,
    "bench_predict": bench_predict,
    "bench_profile": bench_profile,
    "bench_step": bench_step,
    "bench_step_cuda": bench_step,
    "classification": classification,
    "classification_fusion": classification_fusion,
    "classification_parts": classification_parts,
    "decoder": paired_arms,
    "digit_identity": digit_identity,
    "elastic_matrix": elastic_matrix,
    "estimate": estimate,
    "localization": paired_arms,
    "localization_limits": localization_limits,
    "matching": matching,
    "motion": paired_arms,
    "objectives": objectives,
    "patch_embedding": paired_arms,
    "senses": senses,
    "senses_forms": senses_forms,
    "retrieval": paired_arms,
    "reference_deviations": reference_deviations,
    "resume_matrix": resume_matrix,
    "scaling": scaling,
    "shipped": paired_arms,
    "shipped_separate": paired_arms,
    "segmentation": paired_arms,
    "separation": paired_arms,
    "stamps_localization": partial(paired_arms_of, ("localization", "listening")),
    "stamps_segmentation": partial(paired_arms_of, ("segmentation",)),
    "stamps_separation": partial(paired_arms_of, ("two_effects",)),
    "stamps_solos": partial(paired_arms_of, ("effects", "farm", "names")),
    "stamps_speed": stamps_speed,
    "stamps_truth": bandstand_truth,
    "vector_stores": vector_stores,
    **GPU_TABLES,
}

FILES = {
    "classification_parts": "classification",
    "classification_fusion": "classification",
    **{f"stamps_{task}": "stamps" for task in ("localization", "segmentation", "separation", "solos")},
}
"""The result file of a table, where it is not named as the table."""

FIGURES: dict[str, Callable] = {"bench_curves": cost_curves_figure, "bench_curves_cuda": cost_curves_figure}
"""Figures by the name of their result file; of those that are there."""


def stale_figures(check: bool) -> list[str]:
    """Names of figures that are not of their result files; they are drawn anew unless only asked after."""
    stale = []
    for name, draw in FIGURES.items():
        file, picture = DOCS / "results" / f"{name}.json", DOCS / "figures" / f"{name}.png"
        if not file.exists():
            continue
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if picture.exists():
            with Image.open(picture) as drawn:
                if drawn.info.get("Source") == digest:
                    continue
        stale.append(picture.name)
        if not check:
            with replacing(picture) as temporary:
                draw(json.loads(file.read_text(encoding="utf-8"))).savefig(temporary, metadata={"Source": digest})
    return stale


def table(name: str) -> str:
    """What stands in the docs under a name: the table of its file, or that there is none yet."""
    file = DOCS / "results" / f"{FILES.get(name, name)}.json"
    if name in GPU_TABLES and (not file.exists() or json.loads(file.read_text(encoding="utf-8")).get("quick")):
        return NOT_YET
    if not file.exists():
        return f"`docs/results/{file.name}` is not there yet: the command above writes it.\n"
    return TABLES[name](json.loads(file.read_text(encoding="utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a table is out of date")
    check = parser.parse_args().check
    stale = stale_figures(check)
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")

        def fill(match: re.Match[str]) -> str:
            return match[1] + table(match[2]) + match[3]

        filled = BLOCK.sub(fill, text)
        if filled != text:
            stale.append(path.name)
            if not check:
                path.write_text(filled, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}: run python scripts/make_docs.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
