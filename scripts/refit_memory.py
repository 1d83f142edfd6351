"""Fit context and allocator of engines to records of the memory that a device has in use.

Run from a checkout, with the extra `fit` installed: `python scripts/refit_memory.py PATH...`, with files or folders of
records. An engine whose file says `like` gives its rows to the file that holds the coefficients.
"""

from __future__ import annotations

import datetime
import json
import sys

import numpy as np

from llm_perf_model.specs.catalog import folder_of, load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.validation.compare import Errors, Score, score
from llm_perf_model.validation.fit import MEMORY_FIELDS, solve, with_values
from llm_perf_model.validation.mapping import MEMORY_METRICS
from llm_perf_model.validation.run import held_against

ENGINES = {"hf-eager": "hf-transformers", "optimum-onnxruntime": "optimum-onnxruntime"}
"""Engine of the rows -> the file that holds its coefficients."""


def fitted(engine: EngineSpec, rows: list[Score]) -> EngineSpec:
    """The engine with its two memory coefficients fitted to the rows."""

    def residuals(values: object) -> list[float]:
        trial = with_values(engine, MEMORY_FIELDS, values)  # type: ignore[arg-type]
        return [float(np.log(score(s.record, s.mapped, trial).estimated / s.measured)) for s in rows]

    return with_values(engine, MEMORY_FIELDS, solve(residuals, MEMORY_FIELDS, loss="soft_l1").values)


def main(paths: list[str]) -> None:
    scores = [s for s in held_against(paths).scores if s.record.metric in MEMORY_METRICS]
    for name, holder in ENGINES.items():
        rows = [s for s in scores if s.mapped.engine == name]
        engine = load(EngineSpec, name)
        result = fitted(engine, rows)
        inside = Errors.of(name, [score(s.record, s.mapped, result).error for s in rows])
        left_out = []
        for batch in {(s.record.batch, s.record.input_len) for s in rows}:
            others = [s for s in rows if (s.record.batch, s.record.input_len) != batch]
            partial = fitted(engine, others)
            left_out += [score(s.record, s.mapped, partial).error for s in rows if s not in others]
        outside = Errors.of(name, left_out)
        path = folder_of(EngineSpec) / f"{holder}.json"
        data = json.loads(path.read_bytes())
        fit = {
            "fields": list(MEMORY_FIELDS),
            "records": ["github:huggingface/optimum-benchmark examples (BGE, A100)"],
            "rows": len(rows),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "error": f"median {inside.median:.1%}, worst {inside.worst:.1%} on these rows of {name}; "
            f"median {outside.median:.1%} with batch and length left out",
        }
        for field in MEMORY_FIELDS:
            data[field] = float(f"{getattr(result, field):.4g}")
        for origin in ("fits", "sources", "assumed"):
            for entry in data.get(origin, []):
                entry["fields"] = [field for field in entry["fields"] if field not in MEMORY_FIELDS]
            data[origin] = [entry for entry in data.get(origin, []) if entry["fields"]]
        data["fits"].append(fit)
        path.write_text(json.dumps({key: value for key, value in data.items() if value != []}, indent=2) + "\n")
        print(holder, {field: data[field] for field in MEMORY_FIELDS}, fit["error"])


if __name__ == "__main__":
    main(sys.argv[1:])
