#!/usr/bin/env bash
# The CMU Graphics Lab motion capture database as ASF/AMC, free for research and products.
# What may be done with it, and how to acknowledge it: http://mocap.cs.cmu.edu
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/download_common.sh"

parse_options "usage: bash prepare/download_cmu.sh [--out DIR] [--dry_run]
Fetches all trials of the CMU motion capture database (an archive of about 1.1 GB, several times that
unpacked) into dataset/CMU/, for python -m prepare.humanml_cmu." "$@"

install_archive http://mocap.cs.cmu.edu/allasfamc.zip cmu_allasfamc.zip "" dataset/CMU \
    subjects/01/01.asf
