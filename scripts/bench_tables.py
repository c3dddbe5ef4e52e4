"""Tables of docs/performance.md, each from the record that a benchmark wrote."""

from __future__ import annotations

PROFILED_OPERATORS = 12
"""Operators of a step's profile that the table shows."""


def bench_model(record: dict) -> str:
    """Costs of each form, ours and written out side by side."""
    rows = ["| fusion | step | GFLOP, ours | written out | saved MiB, ours | written out | time, ours / written out |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|")
    costs = {(c["fusion"], c["step"], c["form"]): c for c in record["costs"]}
    for (fusion, step, form), ours in costs.items():
        if form == "ours":
            plain = costs[fusion, step, "written out"]
            numbers = [
                f"{c[key]:.{digits}f}" for key, digits in (("gflop", 1), ("saved_mib", 0)) for c in (ours, plain)
            ]
            ratio = f"{ours['seconds'] / plain['seconds']:.2f}" if ours["seconds"] else "-"
            rows.append(f"| `{fusion}` | {step} | {' | '.join(numbers)} | {ratio} |")
    return "\n".join(rows) + "\n" + _machine(record)


def bench_decoder(record: dict) -> str:
    """The pre-training step by decoder, against the paper's."""
    rows = ["| `decoder_form` | `predicted_share` | GFLOP | saved MiB | time against the paper's |"]
    rows.append("|---|--:|--:|--:|--:|")
    base = record["costs"][0]["seconds"]
    for c in record["costs"]:
        ratio = f"{c['seconds'] / base:.2f}" if c["seconds"] else "-"
        numbers = f"{c['gflop']:.1f} | {c['saved_mib']:.0f} | {ratio}"
        rows.append(f"| `{c['decoder_form']}` | {c['predicted_share']:g} | {numbers} |")
    return "\n".join(rows) + "\n" + _machine(record)


def bench_curves(record: dict) -> str:
    """The figure; operations, then peak memory of every form and size; what was run."""
    points = {(p["image_side"], p["audio_seconds"], p["fusion"], p["form"]): p for p in record["points"]}
    sizes = list(dict.fromkeys(key[:2] for key in points))
    fusions = list(dict.fromkeys(key[2] for key in points))
    head = f"| image | sound | pairs | {' | '.join(f'`{fusion}`' for fusion in fusions)} |"
    figure = "bench_curves_cuda" if "CPU" not in record["device"] else "bench_curves"
    caption = "GFLOP and peak memory over the length of the sound, one column per image size"
    rows = [f"![{caption}](figures/{figure}.png)", "", _where_memory_ends(record), ""]
    for what, key, digits in (("GFLOP", "gflop", 0), ("peak GiB", "peak_gib", 1)):
        rows += [f"{what}, ours / written out:", "", head]
        rows.append("|--:|--:|--:" + "|--:" * len(fusions) + "|")
        for side, seconds in sizes:
            cells = []
            for fusion in fusions:
                pair = [points[side, seconds, fusion, form] for form in ("ours", "written out")]
                mark = key == "peak_gib"
                texts = [f"{p[key]:,.{digits}f}" + ("" if p["fits"] or not mark else " (out)") for p in pair]
                cells.append(" / ".join(texts))
            pairs = points[side, seconds, fusions[0], "ours"]["num_pairs"]
            rows.append(f"| {side} | {seconds:g} s | {pairs:,} | {' | '.join(cells)} |")
        rows.append("")
    measured = [p for p in record["points"] if p["seconds"] is not None or p["measured_peak_gib"] is not None]
    if not measured:
        return "\n".join(rows) + f"\nCounted only; torch {record['torch']}.\n"
    rows += ["Passes that were run:", "", "| fusion | image | sound | form | peak GiB, counted | measured | seconds |"]
    rows.append("|---|--:|--:|---|--:|--:|--:|")
    for p in measured:
        peak = "-" if p["measured_peak_gib"] is None else f"{p['measured_peak_gib']:.2f}"
        size = f"{p['image_side']} | {p['audio_seconds']:g} s"
        took = "-" if p["seconds"] is None else f"{p['seconds']:.1f}"
        numbers = f"{p['peak_gib']:.2f} | {peak} | {took}"
        rows.append(f"| `{p['fusion']}` | {size} | {p['form']} | {numbers} |")
    return "\n".join(rows) + "\n" + _machine(record)


def _where_memory_ends(record: dict) -> str:
    """Which passes do not fit, the smallest of each form first."""
    first: dict[tuple[str, str], dict] = {}
    for p in sorted(record["points"], key=lambda p: p["num_pairs"]):
        if not p["fits"]:
            first.setdefault((p["fusion"], p["form"]), p)
    room = f"{record['memory_gib']:.1f} GiB"
    if not first:
        return f"Every pass fits into {room}."
    names = (
        f"`{fusion}` {form}, first at {p['image_side']} pixels and {p['audio_seconds']:g} s "
        f"({p['num_pairs']:,} pairs, {p['peak_gib']:.1f} GiB)"
        for (fusion, form), p in first.items()
    )
    return f"These do not fit into {room}: {'; '.join(names)}. Every other form fits at all these sizes."


def bench_media(record: dict) -> str:
    """Ways of reading a training view."""
    rows = ["| read from | CPU ms, median | clips per core-second | against files, exact |", "|---|--:|--:|--:|"]
    base = record["speeds"][0]["clips_per_core_second"]
    for speed in record["speeds"]:
        rate = speed["clips_per_core_second"]
        rows.append(f"| {speed['way']} | {speed['milliseconds']:.2f} | {rate:.0f} | {rate / base:.1f} x |")
    return "\n".join(rows) + "\n"


def bench_profile(record: dict) -> str:
    """Operators of most time, beside another version where one was profiled, and where the host waits."""
    versions = [name for name in ("before", "now") if name in record]
    own = {v: {o["name"]: o for o in record[v]["operators"]} for v in versions}
    rows = ["| operator | " + " | ".join(f"calls, {v} | share of the time, {v}" for v in versions) + " |"]
    rows.append("|---" + "|--:|--:" * len(versions) + "|")
    for name in dict.fromkeys(n for v in versions for n in list(own[v])[:PROFILED_OPERATORS]):
        cells = []
        for v in versions:
            found = own[v].get(name, {"calls": 0, "self_ms": 0.0})
            cells += [str(found["calls"]), f"{100 * found['self_ms'] / record[v]['total_ms']:.1f} %"]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    for v in versions:
        told = ", ".join(f"`{name}` {count} times" for name, count in record[v]["waits"].items()) or "nowhere"
        seconds = f"{record[v]['cpu_seconds']:.2f} CPU seconds"
        rows += ["", f"A step, {v}: {seconds}. The host waits, or would on a GPU, in {told}."]
    return "\n".join(rows) + "\n" + _machine(record)


def bench_predict(record: dict) -> str:
    """Video per CPU second of every task, and where the time goes; beside another version where one was measured."""
    costs = {(c["model"], c["task"], c["film"], c["version"]): c for c in record["costs"]}
    stages = list(record["costs"][0]["stages"])
    compared = any(version == "against" for *_, version in costs)
    head = ["model", "task", "film", "video s per CPU s", *(["before", "faster"] if compared else []), "peak MiB"]
    head += [*stages, "rest"]
    rows = [f"| {' | '.join(head)} |", "|---|---|---" + "|--:" * (len(head) - 3) + "|"]
    for (model, task, film, version), own in costs.items():
        if version != "this":
            continue
        cells = [model, task, "yes" if film else "no", f"{own['video_seconds'] / own['cpu_seconds']:.2f}"]
        if compared:
            earlier = costs[model, task, film, "against"]
            cells.append(f"{earlier['video_seconds'] / earlier['cpu_seconds']:.2f}")
            cells.append(f"{earlier['cpu_seconds'] / own['cpu_seconds']:.2f} x")
        cells.append("-" if own["peak_mib"] is None else f"{own['peak_mib']:.0f}")
        parts = [own["stages"][stage] for stage in stages]
        parts.append(own["cpu_seconds"] - sum(parts))
        cells += [f"{100 * part / own['cpu_seconds']:.0f} %" for part in parts]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n" + _machine(record)


def bench_step(record: dict) -> str:
    """Speed of training steps, float32 and bfloat16 side by side."""
    # The first records tell neither fusion form nor batch of a row, which were the same for all, nor memory.
    same = {"fusion": "factorized", "batch_size": record["config"]["batch_size"], "peak_gib": None}
    own = [{**same, **s} for s in record["speeds"] if s.get("arrangement", "ours") == "ours"]
    speeds = {(s["size"], s["fusion"], s["mode"], s["precision"]): s for s in own}
    rows = ["| model | fusion | mode | clips per step | samples/s float32 | bfloat16 | bfloat16 / float32 "]
    rows[0] += "| peak GiB | share of matmul rate | waiting for data |"
    rows.append("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for size, fusion, mode, precision in speeds:
        if precision == "float32" and (size, fusion, mode, "bfloat16") in speeds:
            pair = [speeds[size, fusion, mode, p] for p in ("float32", "bfloat16")]
            cells = [" / ".join(dict.fromkeys(str(s["batch_size"]) for s in pair))]
            rates = [s["batch_size"] / s["seconds"] for s in pair]
            cells += [*(f"{rate:.2f}" for rate in rates), f"{rates[1] / rates[0]:.2f}"]
            cells.append(" / ".join("-" if s["peak_gib"] is None else f"{s['peak_gib']:.1f}" for s in pair))
            cells.append(" / ".join(f"{100 * s['matmul_share']:.0f} %" for s in pair))
            cells.append(" / ".join(f"{100 * s['data_wait_share']:.1f} %" for s in pair))
            rows.append(f"| {size} | `{fusion}` | {mode} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n" + _machine(record)


def reference_deviations(record: dict) -> str:
    """The largest deviation of any case in each arithmetic, beside what the tests allow."""
    rows = ["| arithmetic | outputs off by, at most | allowed | gradient norms off by, at most | allowed |"]
    rows.append("|---|--:|--:|--:|--:|")
    for arithmetic in dict.fromkeys(r["arithmetic"] for r in record["rows"]):
        own = [r for r in record["rows"] if r["arithmetic"] == arithmetic]
        cells = []
        for what in ("outputs", "gradients"):
            cells += [f"{max(r['seen'][what] for r in own):.1e}", f"{own[0]['allowed'][what]:.0e}"]
        rows.append(f"| {arithmetic} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n" + f"\ntorch {record['torch']}.\n"


def _machine(record: dict) -> str:
    device = record.get("device", "CPU, 2 threads")  # which the first records did not tell
    return f"\nMeasured on: {device}; torch {record['torch']}.\n"
