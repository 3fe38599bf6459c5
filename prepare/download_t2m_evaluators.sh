#!/usr/bin/env bash
# The evaluators of Guo et al. (2022) with their statistics, in MDM's distribution.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

TAKES_NAMES=true
parse_options "usage: bash prepare/download_t2m_evaluators.sh [humanml] [kit] [--out DIR] [--dry_run]
Fetches the evaluators of HumanML3D into t2m/ and of KIT-ML into kit/ (both without a name)." "$@"
((${#NAMES[@]})) || NAMES=(humanml kit)

for name in "${NAMES[@]}"; do
    case $name in
        humanml) install_archive "$(drive 1O_GUHgjDbl2tgbyfSwZOUYXDACnk25Kb)" t2m.zip "" t2m \
            text_mot_match/model/finest.tar ;;
        kit) install_archive "$(drive 12liZW5iyvoybXD8eOw4VanTgsMtynCuU)" kit.zip "" kit \
            text_mot_match/model/finest.tar ;;
        *) fail "no evaluators are published for $name; choose humanml or kit" ;;
    esac
done
