#!/bin/sh
# Pins with hashes, without the address of any index. Run from the repository's root with uv on the PATH.
set -eu
here=deploy/requirements
flags="--universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 --quiet"
uv pip compile pyproject.toml $here/build.in $flags -o $here/run.txt
uv pip compile pyproject.toml $here/build.in --extra dev $flags -c $here/run.txt -o $here/dev.txt
uv pip compile pyproject.toml --extra local-model $flags -c $here/run.txt -o $here/local-model.txt
