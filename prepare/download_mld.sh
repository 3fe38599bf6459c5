#!/usr/bin/env bash
# The published latent diffusion models of HumanML3D: MLD (MIT licence) and those of MotionLCM, among
# them MLD* (for research that is not commercial), from their authors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

TAKES_NAMES=true
parse_options "usage: bash prepare/download_mld.sh [NAME...] [--out DIR] [--dry_run]
Fetches models into save/. Names: motionlcm (the default; mld_humanml/mld_humanml_v1.ckpt is MLD*,
mld_humanml/mld_humanml.ckpt MotionLCM v2's MLD, and motionlcm_humanml/ holds their consistency
students) and mld_humanml3d (of 2023)." "$@"
((${#NAMES[@]})) || NAMES=(motionlcm)

for name in "${NAMES[@]}"; do
    case $name in
        motionlcm)
            install_archive "$(drive 1U7homKobR2gaDLfL5flS3N0g7e0a_AQd)" motionlcm.zip "" \
                save/motionlcm mld_humanml/mld_humanml_v1.ckpt
            ;;
        mld_humanml3d)
            fetch "$(drive 1hplrnQwUK_cZFHirZIOuVP0RSyZEC1YM)" save/mld_humanml3d/mld_humanml3d.ckpt
            ;;
        *) fail "no model $name is published; see --help" ;;
    esac
done
