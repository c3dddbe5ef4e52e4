"""Tables of the measurements of `gpu_visit.py`, from the file of each stage; for the docs and for the terminal."""

from __future__ import annotations

from collections.abc import Callable

NOT_YET = "Not measured yet: `python scripts/gpu_visit.py --out docs/results` on a machine with a GPU measures it.\n"


def gpu_right(record: dict) -> str:
    """The worst of every kind of check in every arithmetic."""
    rows = ["| check | arithmetic | held | outputs off by, at most | allowed | gradients | allowed |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|")
    kinds = dict.fromkeys((r["check"], r["arithmetic"], r["case"] == "log-mel") for r in record["rows"])
    for kind in kinds:
        own = [r for r in record["rows"] if (r["check"], r["arithmetic"], r["case"] == "log-mel") == kind]
        seen = [r for r in own if "problem" not in r]
        cells = [f"{sum(r['held'] for r in seen)} of {len(own)}"]
        for place, what in enumerate(("outputs", "gradients")):
            values = [r[what] for r in seen if r[what] is not None]
            cells += [f"{max(values):.1e}", f"{seen[0]['allowed'][place]:.0e}"] if values else ["-", "-"]
        name = "log-mel" if kind[2] else kind[0]
        rows.append(f"| {name} | {kind[1]} | {' | '.join(cells)} |")
    for r in record["rows"]:
        if "bit_equal" in r:
            same = "the same bit by bit" if r["bit_equal"] else f"off by {r['outputs']:.0e}"
            likes = r["whole_runs_differ_by"]
            rows += [
                "",
                f"Stopped at step {r['stopped_at']}, continued from {r['continued_from']}: the weights are {same}.",
            ]
            rows[-1] += f" Two runs never stopped differ by {likes:.0e}." if likes else ""
    failed = [r for r in record["rows"] if not r.get("held", True)]
    rows += ["", *(f"Not held: {r['check']}, {r['case']}, {r['arithmetic']}." for r in failed)] if failed else []
    return _whole(rows, record)


def gpu_fast(record: dict) -> str:
    """Training steps of every model, fusion form and mode."""
    rows = ["| model | fusion | mode | clips per step | samples/s | ms per step | peak GiB | share of matmul rate |"]
    rows.append("|---|---|---|--:|--:|--:|--:|--:|")
    for r in record["rows"]:
        if "problem" not in r:
            cells = f"{r['step_samples_per_second']:,.0f} | {1e3 * r['seconds']:.0f} | {_gib(r['peak_gib'])}"
            share = f"{r['matmul_share']:.0%} of {r['matmul_tflops']:,.0f} TFLOP/s"
            rows.append(f"| {_kind(r)} | {r['batch_size']} | {cells} | {share} |")
    return _whole(rows, record)


def gpu_published(record: dict) -> str:
    """Ours against written out."""
    rows = [
        "| step | model | fusion | mode | clips | samples/s | written out | times faster | peak GiB | written out |"
    ]
    rows[0] += " out of memory at |"
    rows.append("|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for r in record["rows"]:
        if "problem" not in r:
            speeds = " | ".join(f"{value:,.0f}" for value in r["samples_per_second"])
            peaks = " | ".join(map(_gib, r["peak_gib"]))
            tried = ", ".join(map(str, r["out_of_memory_at"])) or "-"
            numbers = f"{r['batch_size']} | {speeds} | {r['times_faster']:.2f} | {peaks} | {tried}"
            rows.append(f"| {r['step']} | {_kind(r)} | {numbers} |")
    return _whole(rows, record)


def gpu_fed(record: dict) -> str:
    """Reading by the number of processes; a step that reads."""
    rows = ["| processes that read shards | clips/s |", "|--:|--:|"]
    own = [r for r in record["rows"] if "problem" not in r]
    rows += [f"| {r['num_workers']} | {r['clips_per_second']:,.0f} |" for r in own if r["what"] == "read"]
    for r in own:
        if r["what"] == "step":
            rows += [
                "",
                f"A step of {r['size']} ({r['batch_size']} clips, {1e3 * r['seconds']:.0f} ms) takes "
                f"{r['step_samples_per_second']:,.0f} clips/s. Reading them it waits {r['data_wait_share']:.1%} of the "
                f"time, at the longest {1e3 * r['longest_wait_seconds']:.1f} ms.",
            ]
    return _whole(rows, record)


def gpu_estimate(record: dict) -> str:
    """Estimated and measured memory."""
    rows = ["| model | clips per step | precision | passes | estimated MiB | measured MiB | off by |"]
    rows.append("|---|--:|---|---|--:|--:|--:|")
    for r in record["rows"]:
        if "problem" not in r:
            passes = f"{r['accumulation']}" + (", recomputed" if r["gradient_checkpointing"] else "")
            sizes = f"{r['estimated_mib']:,.0f} | {r['measured_mib']:,.0f}"
            off = f"{100 * (r['estimated_mib'] / r['measured_mib'] - 1):+.1f} %" if r["measured_mib"] else "-"
            rows.append(f"| {r['size']} | {r['batch_size']} | {r['precision']} | {passes} | {sizes} | {off} |")
    return _whole(rows, record)


def gpu_bandstand(record: dict) -> str:
    """The long run."""
    rows = ["| what | |", "|---|---|"]
    for r in record["rows"]:
        if "problem" in r:
            continue
        if r["what"] == "world":
            rows.append(f"| clips of {r['cast']} generated | {r['clips']:,} in {r['seconds']:.0f} s |")
        if r["what"] == "run":
            rows.append(f"| pre-trained | {r['steps']:,} steps of {r['batch_size']}, {r['epochs']:.1f} epochs |")
            rows.append(f"| ended | {r['ending']} |")
            rows.append(f"| samples/s | {r['samples_per_second']:,.0f} |")
            rows.append(f"| waiting for data | {r['data_wait_share']:.1%} |")
            rows.append(f"| loss, first and last row | {r['loss'][0]:.3f}, {r['loss'][1]:.3f} |")
    return _whole(rows, record)


def _kind(row: dict) -> str:
    return f"{row['size']} | `{row['fusion']}` | {row['mode']}"


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _whole(rows: list[str], record: dict) -> str:
    """The table, what is missing from it and why, and where it was measured."""
    names = ("check", "what", "step", "case", "size", "fusion", "mode", "arithmetic", "precision", "num_workers")
    missing: dict[str, list[str]] = {}
    for r in record["rows"]:
        if "problem" in r:
            missing.setdefault(r["problem"], []).append(" ".join(str(r[name]) for name in names if name in r))
    lines = [f"Not measured ({problem}): {'; '.join(kinds)}." for problem, kinds in missing.items()]
    if record.get("problem"):
        lines.append(f"The stage {record['problem']}: what it did until then is above.")
    where = f"{record.get('device', 'unknown device')}, {record.get('cores', '?')} cores; torch {record.get('torch')}"
    return "\n".join([*rows, "", *(f"{line}\n" for line in lines), f"Measured on: {where}.", ""])


TABLES: dict[str, Callable[[dict], str]] = {
    f.__name__: f for f in (gpu_right, gpu_fast, gpu_published, gpu_fed, gpu_estimate, gpu_bandstand)
}
