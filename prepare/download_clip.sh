#!/usr/bin/env bash
# OpenAI's CLIP ViT-B/32 and its vocabulary, for machines that cannot use the model hub.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_clip.sh [--out DIR] [--dry_run]
Fetches ViT-B-32.pt and its vocabulary into clip/; use them with --text_encoder_path clip." "$@"

sum=40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af
fetch "https://openaipublic.azureedge.net/clip/models/$sum/ViT-B-32.pt" clip/ViT-B-32.pt "sha256:$sum"
vocabulary=bpe_simple_vocab_16e6.txt.gz
fetch "https://raw.githubusercontent.com/openai/CLIP/main/clip/$vocabulary" "clip/$vocabulary"
