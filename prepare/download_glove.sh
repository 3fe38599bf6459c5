#!/usr/bin/env bash
# Word vectors and vocabulary of the text-to-motion evaluators, in MDM's distribution.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_glove.sh [--out DIR] [--dry_run]
Fetches the GloVe vectors and the vocabulary of the evaluators into glove/." "$@"

install_archive "$(drive 1cmXKUT31pqd7_XpJAiWEo1K81TMYHA5n)" glove.zip "" glove \
    our_vab_data.npy our_vab_words.pkl our_vab_idx.pkl
