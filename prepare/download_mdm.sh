#!/usr/bin/env bash
# The published text-to-motion models of MDM, from MDM's authors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

TAKES_NAMES=true
parse_options "usage: bash prepare/download_mdm.sh [NAME...] [--out DIR] [--dry_run]
Fetches models into save/. Names: humanml_enc_512_50steps (fast, CLIP; the default),
humanml_trans_dec_512_bert (fast, DistilBERT), humanml_trans_enc_512 (1000 steps, of the paper),
humanml_trans_dec_512, humanml_trans_dec_emb_512, kit_trans_enc_512." "$@"
((${#NAMES[@]})) || NAMES=(humanml_enc_512_50steps)

for name in "${NAMES[@]}"; do
    case $name in
        humanml_enc_512_50steps) id=1cfadR1eZ116TIdXK7qDX1RugAerEiJXr ;;
        humanml_trans_dec_512_bert) id=1z5IW5Qa9u9UdkckKylkcSXCwIYgLPhIC ;;
        humanml_trans_enc_512) id=1PE0PK8e5a5j-7-Xhs5YET5U5pGh0c821 ;;
        humanml_trans_dec_512) id=1q3soLadvVh7kJuJPd2cegMNY2xVuVudj ;;
        humanml_trans_dec_emb_512) id=1GnsW0K3UjuOkNkAWmjrGIUmeDDZrmPE5 ;;
        kit_trans_enc_512) id=1SHCRcE0es31vkJMLGf9dyLe7YsWj7pNL ;;
        *) fail "no model $name is published; see --help" ;;
    esac
    install_archive "$(drive "$id")" "$name.zip" "" "save/$name" args.json
done
