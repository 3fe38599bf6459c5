#!/usr/bin/env bash
# The SMPL body model in MDM's distribution. SMPL has its own licence: https://smpl.is.tue.mpg.de
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_smpl_files.sh [--out DIR] [--dry_run]
Fetches the neutral SMPL body into body_models/smpl/; only meshes need it." "$@"

install_archive "$(drive 1INYlGA76ak_cKGzvpOV2Pe6RkYTlXTW2)" smpl.zip "" body_models/smpl \
    SMPL_NEUTRAL.pkl
