"""Commands that check, make and store clips: `audit`, `manifest`, `shard`, `bandstand`."""

from __future__ import annotations

from typing import Any

from deepavfusion.verbs.verb import Verb


def _audit_config() -> type:
    from deepavfusion.data.audit import AuditConfig

    return AuditConfig


def _audit(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.data.audit import audit

    with counting("clips") as progress:
        summary = audit(config, progress)
    report("audit", summary)
    if summary.reasons.get("unreadable") == summary.num_clips:
        raise ValueError(f"{config.source}: none of {summary.num_clips} clips could be read; see the column reason")
    return 0


def _manifest_config() -> type:
    from deepavfusion.data.sets.manifest import ManifestConfig

    return ManifestConfig


def _manifest(config: Any) -> int:
    from deepavfusion.counting import counting
    from deepavfusion.data.sets.manifest import build_manifest

    with counting("clips") as progress:
        summary = build_manifest(config, progress)
    print("\n".join(summary.lines()))
    return 0


def _shard_config() -> type:
    from deepavfusion.data.shard_writing import ShardConfig

    return ShardConfig


def _shard(config: Any) -> int:
    from deepavfusion.counting import counting, report
    from deepavfusion.data.shard_writing import write_shards
    from deepavfusion.data.shards import verify_shards

    with counting("clips") as progress:
        summary = write_shards(config, progress)
    report("shards", summary)
    if not config.verify:
        return 0
    if not summary.complete:
        raise ValueError("verify true: shards of other parts are lacking; verify when all are there")
    with counting("shards") as progress:
        problems = verify_shards(config.out, progress)
    print("\n".join(problems) or f"all shards of {config.out} are as they were written")
    return 1 if problems else 0


def _bandstand_config() -> type:
    from deepavfusion.bandstand.config import BandstandConfig

    return BandstandConfig


def _bandstand(config: Any) -> int:
    from deepavfusion.bandstand.generation import generate
    from deepavfusion.counting import counting, report

    with counting("clips") as progress:
        summary = generate(config, progress)
    report("bandstand", summary)
    return 0


DATA: dict[str, Verb] = {
    "audit": Verb(
        "check every clip of a data set and write its manifest", _audit_config, _audit, ("source",), sole_writer=True
    ),
    "manifest": Verb("convert official annotations to a manifest", _manifest_config, _manifest, ("dataset",)),
    "shard": Verb(
        "write a data set as shards for fast training", _shard_config, _shard, ("source", "out"), sole_writer=True
    ),
    "bandstand": Verb(
        "generate Bandstand, a synthetic data set", _bandstand_config, _bandstand, ("out",), sole_writer=True
    ),
}
