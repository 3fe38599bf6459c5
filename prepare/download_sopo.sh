#!/usr/bin/env bash
# The weights of the SoPo release, from its authors' model hub.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_sopo.sh [--out DIR] [--dry_run]
Fetches the weights that SoPo's authors published into save/sopo_humanml3d/." "$@"

hub=https://huggingface.co
model=ModelsWeights/SoPo
folder=save/sopo_humanml3d
if $DRY_RUN; then
    say "would list the files of $hub/$model and download each to $OUT/$folder"
    exit 0
fi
if has_all "$folder" .complete; then
    say "kept: $OUT/$folder"
    exit 0
fi
listing=$(mktemp)
trap 'rm -f "$listing"' EXIT
download "$hub/api/models/$model" "$listing" "$OUT/$folder"
names=$(python3 -c '
import json, sys
from pathlib import PurePosixPath
names = [entry["rfilename"] for entry in json.load(open(sys.argv[1]))["siblings"]]
if any(name.startswith("/") or ".." in PurePosixPath(name).parts for name in names):
    sys.exit(1)  # such a name would lead out of the folder
print("\n".join(name for name in names if not PurePosixPath(name).name.startswith(".")))
' "$listing" 2>/dev/null) || fail "$hub/$model gave no list of files; fetch them by hand into $OUT/$folder"
while IFS= read -r name; do
    fetch "$hub/$model/resolve/main/$name" "$folder/$name"
done <<<"$names"
touch "$OUT/$folder/.complete"
