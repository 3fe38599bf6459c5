#!/usr/bin/env bash
# Captions, index, splits and statistics of HumanML3D, from its repository. Its motions come from
# AMASS and cannot be passed on: https://github.com/EricGuo5513/HumanML3D tells how to make them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_humanml_texts.sh [--out DIR] [--dry_run]
Fetches captions, splits, Mean.npy and Std.npy into dataset/HumanML3D/. This is enough to generate
with published models, and with index.csv for python -m prepare.humanml_cmu; training and evaluation
also need the motions, new_joint_vecs/." "$@"

top=https://raw.githubusercontent.com/EricGuo5513/HumanML3D/main
repository=$top/HumanML3D
folder=dataset/HumanML3D
install_archive "$repository/texts.zip" humanml_texts.zip "" "$folder/texts" 000000.txt
for name in Mean.npy Std.npy train.txt val.txt test.txt; do
    fetch "$repository/$name" "$folder/$name"
done
fetch "$top/index.csv" "$folder/index.csv"
