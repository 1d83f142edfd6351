"""Writes a model file of the catalogue from a Hugging Face config and the count that its publisher states.

`python scripts/write_model.py config.json --name my-7b --repository owner/My-7B --parameters 7.62e9` refuses where the
weights of the config do not sum to the count within 1 %, or to `--active` within 2 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llm_perf_model.errors import SpecError  # noqa: E402
from llm_perf_model.importers.file import data_of  # noqa: E402
from llm_perf_model.importers.huggingface.loading import import_hf  # noqa: E402
from llm_perf_model.specs.model import ModelSpec  # noqa: E402

HUB = "https://huggingface.co"
TOLERANCES = {"parameters": 0.01, "active_parameters": 0.02}


def model_data(
    config: str | Path | dict[str, Any],
    name: str,
    repository: str,
    published: dict[str, float],
    aliases: tuple[str, ...],
) -> dict[str, Any]:
    """The content of the file: fields of the config, published counts, and where both were read.

    Raises:
        SpecError: a published count is not that of the config's weights.
    """
    model = import_hf(config, name)
    data = data_of(model)
    for field, count in published.items():
        counted = getattr(model, field)
        if counted is None or abs(counted / count - 1.0) > TOLERANCES[field]:
            raise SpecError(
                f"{repository}: {field} is {count:.4g} but the config's weights sum to {counted or 0.0:.4g}"
            )
    read = [
        field for field in data if field in ModelSpec.model_fields and field not in {"name", "assumed", *TOLERANCES}
    ]
    told = {"name": name, "title": repository.rsplit("/", maxsplit=1)[-1], "aliases": [repository, *aliases]}
    shape = {field: data[field] for field in read if field not in {"title", "aliases"}}
    sources = [
        {
            "fields": list(shape),
            "title": f"{repository} config.json",
            "url": f"{HUB}/{repository}/blob/main/config.json",
        },
        {"fields": list(published), "title": f"{repository} model page", "url": f"{HUB}/{repository}"},
    ]
    return told | shape | published | {"sources": sources}


def main() -> None:
    """Write the file, or say in a line what does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a config.json, a folder that holds one, or hf:owner/name")
    parser.add_argument("--name", required=True, help="name in the catalogue")
    parser.add_argument("--repository", required=True, help="owner/name at the hub")
    parser.add_argument("--parameters", required=True, type=float, help="published count")
    parser.add_argument("--active", type=float, help="published count of those that a token passes")
    parser.add_argument("--alias", action="append", default=[], help="another name of a checkpoint of the same shape")
    given = parser.parse_args()
    published = {"parameters": given.parameters}
    if given.active is not None:
        published["active_parameters"] = given.active
    try:
        data = model_data(given.config, given.name, given.repository, published, tuple(given.alias))
    except SpecError as error:
        sys.exit(f"error: {error}")
    path = ROOT / "model_configs" / f"{given.name}.json"
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
