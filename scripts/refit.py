"""Fit the free coefficients of every engine file to its records and write them back.

Run from a checkout, with the extra `fit` installed: `python scripts/refit.py [ENGINE_OR_PATH...]`. Paths are files or
folders of records that are not part of the project, for the engines that name them.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

from llm_perf_model.specs.catalog import folder_of, load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.validation.compare import Errors, score
from llm_perf_model.validation.crossing import fitted_rows
from llm_perf_model.validation.engine_fit import refit
from llm_perf_model.validation.fit import free_fields
from llm_perf_model.validation.run import held_against


def main(chosen: list[str]) -> None:
    paths = [word for word in chosen if Path(word).exists()]
    validation = held_against(paths or None)
    for name in [word for word in chosen if word not in paths] or names(EngineSpec):
        engine = load(EngineSpec, name)
        rows = fitted_rows(validation, engine)
        if not engine.fits or not rows:
            continue  # nothing is free, or the records are not part of the project
        fitted = refit(engine, rows)
        path = folder_of(EngineSpec) / f"{name}.json"
        data = json.loads(path.read_bytes())
        for field in free_fields(engine):
            data[field] = float(f"{getattr(fitted, field):.4g}")
        rounded = engine.model_copy(update={field: data[field] for field in free_fields(engine)})
        errors = Errors.of(name, [score(s.record, s.mapped, rounded).error for s in rows])
        for fit in data["fits"]:
            fit["rows"], fit["date"] = len(rows), datetime.datetime.now(datetime.UTC).date().isoformat()
            fit["error"] = f"median {errors.median:.1%}, mean {errors.mean:.1%}, worst {errors.worst:.1%} on these rows"
        path.write_text(json.dumps(data, indent=2) + "\n")
        print(name, {field: data[field] for field in free_fields(engine)}, data["fits"][0]["error"])


if __name__ == "__main__":
    main(sys.argv[1:])
