#!/usr/bin/env bash
# The published TMR models and the statistics of their motions, from TMR's authors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_tmr.sh [--out DIR] [--dry_run]
Fetches the TMR models into models/ and their statistics into stats/." "$@"

install_archive "$(drive 1n6kRb-d2gKsk8EXfFULFIpaUKYcnaYmm)" tmr_models.tgz \
    md5:7b6d8814f9c1ca972f62852ebb6c7a6f models \
    tmr_humanml3d_guoh3dfeats/config.json tmr_kitml_guoh3dfeats/config.json

repository=https://raw.githubusercontent.com/Mathux/TMR/7acb199150aa036565eb55e4bc1260aae8eea2b8
for dataset in humanml3d kitml; do
    for name in mean std; do
        file=stats/$dataset/guoh3dfeats/$name.pt
        fetch "$repository/$file" "$file"
    done
done
