"""Write schemas/v1/*.json, the language-neutral contract, from the models; `--check` only compares and exits 1 when stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from schemas.audit import Call, Judgement
from schemas.dead_letter import DeadLetter
from schemas.decision import Decision
from schemas.manifest import Manifest
from schemas.outcome import Outcome
from schemas.receipt import Receipt
from schemas.wire import Wire

FOLDER = Path(__file__).parent / "v1"
MODELS: dict[str, type[Wire]] = {
    "decision": Decision,
    "dead-letter": DeadLetter,
    "receipt": Receipt,
    "judgement": Judgement,
    "call": Call,
    "manifest": Manifest,
    "outcome": Outcome,
}


def render(name: str) -> str:
    """The JSON Schema (draft 2020-12) of one record, as text with a final line feed."""
    schema = MODELS[name].model_json_schema(by_alias=True, mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:headrace:schema:{name}:v1"}
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` say which differ. Returns the exit status."""
    stale = []
    FOLDER.mkdir(exist_ok=True)
    for name in MODELS:
        path = FOLDER / f"{name}.json"
        text = render(name)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make schemas`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
