# Shared by prepare/download_*.sh; sourced, not run. Files go to $OUT: the folder of --out, else the
# project's, or the current one where the project is installed as a package.
# A download grows as FILE.part and is renamed when it is complete, so a stopped one is resumed and
# nothing half-written is ever in place. What is there already is kept.
# shellcheck shell=bash

OUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ -f $OUT/pyproject.toml ]] || OUT=$PWD
DRY_RUN=false
TAKES_NAMES=false # a script that takes words sets it before parse_options
NAMES=()

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# parse_options USAGE "$@": sets OUT, DRY_RUN and NAMES (the words that are no options).
parse_options() {
    local usage=$1
    shift
    while (($#)); do
        case $1 in
            -h | --help)
                say "$usage"
                say "  --out DIR   folder to write to instead of $OUT"
                say "  --dry_run   print what would go where, and change nothing"
                exit 0
                ;;
            --dry_run) DRY_RUN=true ;;
            --out)
                (($# > 1)) || fail "--out needs a folder"
                OUT=${2%/}
                shift
                ;;
            -*) fail "unknown option $1; see --help" ;;
            *)
                $TAKES_NAMES || fail "unexpected word $1; see --help"
                NAMES+=("$1")
                ;;
        esac
        shift
    done
    local tool
    for tool in curl python3; do
        command -v "$tool" >/dev/null || fail "$tool is needed; install it and run this again"
    done
}

# drive ID: the address at which Google Drive serves a public file.
drive() { say "https://drive.usercontent.google.com/download?id=$1&export=download&confirm=t"; }

# by_hand URL: the page that a person opens in a browser instead.
by_hand() {
    case $1 in
        *drive.usercontent.google.com*)
            local id=${1#*id=}
            say "https://drive.google.com/file/d/${id%%&*}/view"
            ;;
        *) say "$1" ;;
    esac
}

# fetch URL FILE [md5:SUM|sha256:SUM]: download to $OUT/FILE.
fetch() {
    local url=$1 file=$OUT/$2 sum=${3:-}
    if [[ -e $file ]]; then
        say "kept: $file"
    elif $DRY_RUN; then
        say "would download $url to $file"
    else
        mkdir -p "$(dirname "$file")"
        say "downloading $url"
        download "$url" "$file.part" "$file"
        check_content "$url" "$file.part" "$file" "$sum"
        mv "$file.part" "$file"
        say "wrote: $file"
    fi
}

# download URL PART FILE: resume PART, or begin again where the server cannot resume.
download() {
    local code=0 status
    status=$(transfer "$1" "$2") || code=$?
    if [[ $code == 33 || $status == 416 ]]; then
        rm -f "$2"
        code=0
        status=$(transfer "$1" "$2") || code=$?
    fi
    case $code in
        0) ;;
        5 | 6 | 7) fail "cannot reach $1; is this machine offline? Fetch $(by_hand "$1") elsewhere and put it at $3" ;;
        22) fail "the server refused $1 (HTTP $status); fetch $(by_hand "$1") by hand and put it at $3" ;;
        *) fail "the download of $1 stopped (curl code $code); run this again to resume it" ;;
    esac
}

# transfer URL PART: prints the HTTP status.
transfer() {
    curl --fail --location --connect-timeout 20 --progress-bar \
        --continue-at - --write-out '%{http_code}' --output "$2" "$1"
}

# check_content URL PART FILE SUM: refuse a web page in place of the file, and a wrong checksum.
check_content() {
    if head -c 512 "$2" | LC_ALL=C grep -aiqE '<!doctype html|<html'; then
        rm -f "$2"
        fail "$1 gave a web page, not the file (too many downloads today?); fetch $(by_hand "$1") by hand and put it at $3"
    fi
    [[ -n $4 ]] || return 0
    local found
    found=$("${4%%:*}sum" "$2")
    if [[ ${found%% *} != "${4#*:}" ]]; then
        rm -f "$2"
        fail "$1 has another checksum (${found%% *}) than the published file (${4#*:}); it was not kept"
    fi
}

# install_archive URL ARCHIVE SUM FOLDER MARKER...: download and unpack into $OUT/FOLDER, unless all
# MARKERs (files, relative to FOLDER) are there. SUM may be empty. An archive that was put at
# $OUT/downloads/ARCHIVE by hand is used, and stays.
install_archive() {
    local url=$1 archive=downloads/$2 sum=$3 folder=$4 own=true
    shift 4
    if has_all "$folder" "$@"; then
        say "kept: $OUT/$folder"
        return
    fi
    [[ ! -e $OUT/$archive ]] || own=false
    fetch "$url" "$archive" "$sum"
    if $DRY_RUN; then
        say "would unpack it into $OUT/$folder"
        return
    fi
    unpack "$OUT/$archive" "$OUT/$folder"
    has_all "$folder" "$@" || fail "$OUT/$archive does not hold $*; look at what is in $OUT/$folder"
    if $own; then
        rm -f "$OUT/$archive"
        rmdir "$OUT/downloads" 2>/dev/null || true
    fi
    say "wrote: $OUT/$folder"
}

# has_all FOLDER MARKER...
has_all() {
    local folder=$OUT/$1 marker
    shift
    for marker in "$@"; do
        [[ -e $folder/$marker ]] || return 1
    done
}

# unpack ARCHIVE FOLDER: its content, without the one top folder that it may have.
unpack() {
    mkdir -p "$(dirname "$2")"
    UNPACKED=$(mktemp -d "$(dirname "$2")/.unpack.XXXXXX") # beside the target: renames, no copies
    trap 'rm -r -- "$UNPACKED"' EXIT
    local content=$UNPACKED/content tops
    mkdir "$content"
    case $1 in
        *.zip) python3 -m zipfile -e "$1" "$content" 2>/dev/null ;;
        *) tar -xzf "$1" -C "$content" 2>/dev/null ;;
    esac || fail "$1 cannot be unpacked: it is damaged (delete it and run this again) or the disk is full"
    [[ ! -d $content/__MACOSX ]] || rm -r -- "$content/__MACOSX"
    tops=("$content"/*)
    if ((${#tops[@]} == 1)) && [[ -d ${tops[0]} ]]; then
        content=${tops[0]}
    fi
    move_missing "$content" "$2"
    rm -r -- "$UNPACKED"
    trap - EXIT
}

# move_missing SOURCE TARGET: move what TARGET lacks; a file that is there stays as it is.
move_missing() {
    local path
    if [[ ! -e $2 ]]; then
        mv "$1" "$2"
    elif [[ -d $1 && -d $2 ]]; then
        for path in "$1"/*; do
            move_missing "$path" "$2/${path##*/}"
        done
    fi
}
